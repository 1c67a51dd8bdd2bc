"""Writes rng.json: what PyTorch's CPU generator gives. Run with a Python that has torch: python tests/data/make_rng.py

The file holds cases. A case starts from a seed and makes some calls, named after the methods of
engine.random.Generator:
    {"seed": 1, "calls": [["rand", {"n": 3, "dtype": "float32"}, "<values>"], ...], "words": "<crc32 of the state>"}
Values are null where there are none, else the hexadecimal bytes of the numbers in memory order, little-endian (bfloat16
as its 16 bits), or "sha256:..." of those bytes where there are many. Whole numbers in "randperm" and "multinomial" are
int64. "words" is the checksum of the state after the calls, but for the cached normal. An entry "state" has a state of
torch.get_rng_state(), and what torch drew after it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import torch

SIZES = (0, 1, 2, 15, 16, 17, 31, 32)
LONG = (100, 1000, 70_005)
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
ROUNDED = ("float64", "complex128")  # may differ in the last bit with the C library: kept in full, never hashed
INTS = ("uint8", "int8", "int16", "int32", "int64")


def dtype_of(name: str) -> torch.dtype:
    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def fresh(n: int, dtype: str = "float32") -> torch.Tensor:
    return torch.empty(n, dtype=dtype_of(dtype))


def tensor(values: Any, dtype: str) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype_of(dtype))


class Torch:
    """The calls, made by torch. The names and parameters are those of engine.random.Generator."""

    @staticmethod
    def manual_seed(seed: int) -> None:
        torch.manual_seed(seed)

    @staticmethod
    def rand(n: int, dtype: str = "float32") -> torch.Tensor:
        return torch.rand(n, dtype=dtype_of(dtype))

    @staticmethod
    def uniform(n: int, dtype: str, low: float, high: float) -> torch.Tensor:
        return fresh(n, dtype).uniform_(low, high)

    @staticmethod
    def randint(n: int, low: int, high: int, dtype: str = "int64") -> torch.Tensor:
        return torch.randint(low, high, (n,), dtype=dtype_of(dtype))

    @staticmethod
    def random(n: int, dtype: str, low: int | None = None) -> torch.Tensor:
        return fresh(n, dtype).random_() if low is None else fresh(n, dtype).random_(low, None)

    @staticmethod
    def randperm(n: int) -> torch.Tensor:
        return torch.randperm(n)

    @staticmethod
    def normal(
        n: int, dtype: str = "float32", mean: float = 0.0, std: float = 1.0, contiguous: bool = True
    ) -> torch.Tensor:
        if contiguous:
            return fresh(n, dtype).normal_(mean, std)
        return fresh(2 * n, dtype)[::2].normal_(mean, std).contiguous()

    @staticmethod
    def normal_tensors(mean: Any, std: Any, dtype: str) -> torch.Tensor:
        real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
        return torch.normal(
            tensor(mean, dtype) if isinstance(mean, list) else mean, tensor(std, real) if isinstance(std, list) else std
        )

    @staticmethod
    def log_normal(n: int, dtype: str, mean: float, std: float) -> torch.Tensor:
        return fresh(n, dtype).log_normal_(mean, std)

    @staticmethod
    def exponential(n: int, dtype: str, lambd: float = 1.0) -> torch.Tensor:
        return fresh(n, dtype).exponential_(lambd)

    @staticmethod
    def gumbel(n: int, dtype: str) -> torch.Tensor:
        return -fresh(n, dtype).exponential_().log()

    @staticmethod
    def cauchy(n: int, dtype: str, median: float, sigma: float) -> torch.Tensor:
        return fresh(n, dtype).cauchy_(median, sigma)

    @staticmethod
    def rrelu_noise(values: list[float], lower: float, upper: float, dtype: str) -> torch.Tensor:
        x = tensor(values, dtype)
        noise = torch.empty_like(x)
        torch.ops.aten.rrelu_with_noise(x, noise, lower, upper, True)
        return noise

    @staticmethod
    def bernoulli_p(n: int, p: float) -> torch.Tensor:
        return fresh(n).bernoulli_(p) != 0

    @staticmethod
    def bernoulli_tensor(p: list[float], dtype: str) -> torch.Tensor:
        return torch.bernoulli(tensor(p, dtype)) != 0

    @staticmethod
    def dropout_mask(n: int, p: float) -> torch.Tensor:
        return torch.nn.functional.dropout(torch.ones(n), p) != 0

    @staticmethod
    def geometric(n: int, dtype: str, p: float) -> torch.Tensor:
        return fresh(n, dtype).geometric_(p)

    @staticmethod
    def poisson(rates: list[float], dtype: str) -> torch.Tensor:
        return torch.poisson(tensor(rates, dtype))

    @staticmethod
    def binomial(counts: list[float], probs: list[float], dtype: str) -> torch.Tensor:
        return torch.binomial(tensor(counts, dtype), tensor(probs, dtype))

    @staticmethod
    def multinomial(probs: Any, num_samples: int, replacement: bool, dtype: str) -> torch.Tensor:
        return torch.multinomial(tensor(probs, dtype), num_samples, replacement)


def encoded(values: torch.Tensor) -> str:
    data = values.contiguous().view(torch.uint8) if values.numel() else torch.empty(0, dtype=torch.uint8)
    raw = data.numpy().tobytes()
    return raw.hex() if values.numel() <= 33 else "sha256:" + hashlib.sha256(raw).hexdigest()


def case(seed: int, *calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    torch.manual_seed(seed)
    made = []
    for name, args in calls:
        values = getattr(Torch, name)(**args)
        made.append([name, args, None if values is None else encoded(values)])
    state = torch.get_rng_state().numpy().tobytes()
    return {"seed": seed, "calls": made, "words": f"{zlib.crc32(state[8:-40]):08x}"}


def cases() -> list[dict[str, Any]]:
    out = []

    def add(name: str, seed: int = 1, **args: Any) -> None:
        out.append(case(seed, (name, args)))

    for n in (*SIZES, *LONG):
        for dtype in (*FLOATS, *COMPLEX):
            add("rand", n=n, dtype=dtype)
            if n not in LONG or dtype not in ROUNDED:
                add("normal", n=n, dtype=dtype)
        add("randperm", n=n)
    for dtype in (*FLOATS, *COMPLEX):
        for low, high in ((-1.0, 1.0), (-0.3, 0.7), (2.0, 2.0), (100.0, 1000.0)):
            add("uniform", 3, n=17, dtype=dtype, low=low, high=high)
        for mean, std in ((1.1, 0.01), (-3.0, 2.5), (5.0, 0.0)):
            for contiguous in (True, False):
                add("normal", 3, n=19, dtype=dtype, mean=mean, std=std, contiguous=contiguous)
        if dtype not in ROUNDED:
            add("normal", n=100, dtype=dtype, mean=-1.0, std=3.3)
    add("uniform", n=5000, dtype="bfloat16", low=-0.1, high=0.1)  # long enough for rounding to reach the open end
    for dtype in (*FLOATS, *INTS, "bool"):
        add("random", 5, n=9, dtype=dtype)
        add("randint", 5, n=9, dtype=dtype, low=0, high=2)
        if dtype != "bool":
            add("randint", 5, n=9, dtype=dtype, low=3, high=100)
            add("random", 5, n=9, dtype=dtype, low=5)
    for low, high in ((-5, 5), (0, 2**28 - 1), (0, 2**28), (-(2**31), 2**31), (0, 2**40), (-(2**63), 2**63 - 1)):
        add("randint", 7, n=9, low=low, high=high)
        add("randint", 7, n=9, low=low, high=high, dtype="float64")
    add("random", 7, n=9, dtype="int64", low=-(2**63))
    for dtype, low, high in (("float32", 2**24 + 1, 2**24 + 9), ("bfloat16", 257, 301), ("float16", 2049, 2061)):
        add("randint", 7, n=9, low=low, high=high, dtype=dtype)
    for dtype in FLOATS:
        for n in (5, 18):
            for lambd in (1.0, 3.3):
                add("exponential", 9, n=n, dtype=dtype, lambd=lambd)
            for median, sigma in ((0.0, 1.0), (-3.0, 0.1)):
                add("cauchy", 9, n=n, dtype=dtype, median=median, sigma=sigma)
            for mean, std in ((1.0, 2.0), (-1.0, 0.3)):
                add("log_normal", 9, n=n, dtype=dtype, mean=mean, std=std)
            add("gumbel", 9, n=n, dtype=dtype)
        chances = [k / 16 for k in range(17)]
        add("bernoulli_tensor", 11, p=chances, dtype=dtype)
        if dtype != "float16":
            add("rrelu_noise", 11, values=[k / 4 for k in range(-9, 9)], lower=0.1, upper=0.3, dtype=dtype)
        add("poisson", 11, rates=[0.0, 0.25, 1.0, 4.5, 9.0, 10.0, 11.5, 30.0, 200.0, 1000.0] * 3, dtype=dtype)
        weights = [k % 7 / 8 + 0.125 for k in range(20)]
        for num_samples in (1, 3):
            for replacement in (False, True):
                for probs in (weights, [weights[:5], weights[5:10], weights[9:14]]):
                    add("multinomial", 13, probs=probs, num_samples=num_samples, replacement=replacement, dtype=dtype)
        some = [k / 8 for k in range(18)]
        for mean, std in ((some, some), (0.5, some), (some, 1.75)):
            add("normal_tensors", 15, mean=mean, std=std, dtype=dtype)
    add("normal_tensors", 15, mean=some, std=some, dtype="complex64")
    for dtype in (*FLOATS, *INTS):
        for p in (0.1, 0.5, 0.9):
            add("geometric", 17, n=9, dtype=dtype, p=p)
    for p in (0.0, 0.1, 0.5, 1.0):
        add("bernoulli_p", 19, n=33, p=p)
        add("bernoulli_p", 19, n=1000, p=p)
    for p in (0.1, 0.5, 0.9):
        add("dropout_mask", 19, n=33, p=p)
        add("dropout_mask", 19, n=1000, p=p)
    trials = [0.0, 1.0, 5.0, 20.0, 40.0, 100.0, 1000.0, 100000.0, -1.0]
    for dtype in ("float32", "float64"):
        for p in (0.0, 0.0625, 0.25, 0.5, 0.625, 0.984375, 1.0):
            add("binomial", 21, counts=trials * 3, probs=[p] * 27, dtype=dtype)
    out += sequences()
    for seed in (-1, -(2**63), 2**64 - 1, 2**32, 2**32 + 1):
        add("rand", seed, n=3)
    return out


def sequences() -> list[dict[str, Any]]:
    """The cached normal: it outlives everything but a draw by pairs and a seed."""
    normal, rand = ("normal", {"n": 3}), ("rand", {"n": 3})
    return [
        case(1234, ("normal", {"n": 6}), ("rand", {"n": 6})),
        case(1, normal, rand, normal, normal, rand),
        case(2, normal, ("normal", {"n": 100}), normal),
        case(3, normal, ("randperm", {"n": 10}), ("normal", {"n": 0}), ("normal", {"n": 1, "dtype": "float64"}), rand),
        case(4, normal, ("manual_seed", {"seed": 4}), normal),
        case(5, normal, ("log_normal", {"n": 2, "dtype": "float32", "mean": 0.0, "std": 1.0}), normal),
        case(6, normal, ("normal", {"n": 2, "mean": 5.0, "std": 0.5}), ("normal", {"n": 1, "dtype": "complex64"})),
        case(7, *[("normal", {"n": n}) for n in (1, 1, 15, 16, 17, 2, 1)]),
        case(8, ("poisson", {"rates": [3.0, 30.0], "dtype": "float32"}), normal, rand),
    ]


def state() -> dict[str, Any]:
    torch.manual_seed(99)
    torch.rand(1000)
    torch.randn(1, dtype=torch.float64)
    before = torch.get_rng_state().numpy().tobytes()
    drawn = [encoded(torch.randn(2, dtype=torch.float64)), encoded(torch.rand(700))]
    return {"bytes": base64.b64encode(zlib.compress(before, 9)).decode(), "drawn": drawn}


def main() -> None:
    warnings.filterwarnings("ignore", message=".*out of bounds.*")  # of integers that a float lacks
    data = {"torch": torch.__version__, "state": state(), "cases": cases()}
    lines = [json.dumps({k: v for k, v in data.items() if k != "cases"})[:-1] + ', "cases": [']
    lines += [json.dumps(c, separators=(",", ":")) + "," for c in data["cases"]]
    lines[-1] = lines[-1][:-1] + "\n]}\n"
    Path(__file__).with_name("rng.json").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

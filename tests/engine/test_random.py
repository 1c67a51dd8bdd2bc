"""The generator gives torch's numbers (tests/data/rng.json, written by make_rng.py with torch), and keeps its state."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from engine.dtypes import bf16_to_f32, f32_to_bf16
from engine.errors import Invalid
from engine.random import Generator, normals
from engine.random.arithmetic import CHUNK, fma64

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "rng.json").read_text(encoding="utf-8"))
CASES = GOLDEN["cases"]
ARRAYS = {"mean", "std", "values", "p", "rates", "counts", "probs"}
# The torch functions of RNG's table, each of which must be in the golden file.
METHODS = {
    *("rand", "uniform", "randint", "random", "randperm", "normal", "normal_tensors", "log_normal", "exponential"),
    *("gumbel", "cauchy", "rrelu_noise", "bernoulli_p", "bernoulli_tensor", "dropout_mask", "geometric", "poisson"),
    *("binomial", "multinomial", "manual_seed"),
}


def call(rng: Generator, name: str, args: dict[str, Any]) -> np.ndarray[Any, Any] | None:
    dtype = args.get("dtype", "float32")
    given = {}
    for key, value in args.items():
        if key in ARRAYS and isinstance(value, list):
            kind = dtype if not (key == "std" and dtype == "complex64") else "float32"
            value = np.array(value, "float32" if kind == "bfloat16" else kind)
        given[key] = value
    made: np.ndarray[Any, Any] | None = getattr(rng, name)(**given)
    if dtype == "bfloat16" and made is not None and made.dtype == np.float32:
        bits = f32_to_bf16(made)
        assert np.array_equal(bits.astype(np.uint32) << 16, made.view(np.uint32)), "not rounded to bfloat16"
        return bits
    return made


def check(name: str, args: dict[str, Any], ours: np.ndarray[Any, Any], expected: str) -> None:
    if expected.startswith("sha256:"):
        assert hashlib.sha256(ours.tobytes()).hexdigest() == expected[7:]
        return
    theirs = np.frombuffer(bytes.fromhex(expected), ours.dtype)
    if name == "gumbel":  # torch's float32 logarithm is another than NumPy's
        eps = float(np.finfo(ours.dtype).eps) if ours.dtype != np.uint16 else 2.0**-8
        if ours.dtype == np.uint16:
            ours, theirs = bf16_to_f32(ours), bf16_to_f32(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=4 * eps)
    elif ours.dtype in (np.float64, np.complex128) and name not in ("rand", "uniform", "randint", "random", "poisson"):
        # Through the C library's functions: a last bit may differ from one library, or processor, to another.
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-15)
    else:
        assert ours.tobytes().hex() == expected


def shown(case: dict[str, Any]) -> str:
    name, args, _ = case["calls"][0]
    return f"{case['seed']}-{name}-" + "-".join(str(v) for v in args.values() if not isinstance(v, list))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_torch_numbers(method: str) -> None:
    """Every case that begins with, or contains, this call: its values, its dtype, and the words left after it."""
    chosen = [c for c in CASES if any(name == method for name, _, _ in c["calls"])]
    assert chosen
    for case in chosen:
        rng = Generator(case["seed"])
        for name, args, expected in case["calls"]:
            made = call(rng, name, args)
            if expected is None:
                assert made is None
                continue
            assert made is not None
            try:
                check(name, args, made.reshape(-1), expected)
            except AssertionError as error:
                raise AssertionError(f"{shown(case)}: {name} {args}: {error}") from None
        assert f"{zlib.crc32(rng.get_state()[8:-40]):08x}" == case["words"], shown(case)


def test_every_method_is_covered() -> None:
    drawing = {name for name in vars(Generator) if not name.startswith("_")}
    state = {"initial_seed", "seed", "snapshot", "restore", "get_state", "set_state"}
    devices = {"draws", "get_device_state", "set_device_state", "host_normal"}  # tests/engine/test_philox.py
    assert drawing - state - devices == METHODS


def test_the_books_numbers() -> None:
    """The first thing that a reader tries: manual_seed(1234)."""
    rng = Generator(1234)
    normal = [round(float(x), 4) for x in rng.normal(6)]
    assert normal == [0.0461, 0.4024, -1.0115, 0.2167, -0.6123, 0.5036]
    assert [round(float(x), 4) for x in rng.rand(6)] == [0.7749, 0.8208, 0.2793, 0.6817, 0.2837, 0.6567]


# ---------------------------------------------------------------- state


def test_torch_state_is_taken_up_and_given_back() -> None:
    state = zlib.decompress(base64.b64decode(GOLDEN["state"]["bytes"]))
    rng = Generator(0)
    rng.set_state(state)
    assert rng.get_state() == state
    assert rng.initial_seed == 99
    first, second = GOLDEN["state"]["drawn"]
    check("normal", {}, rng.normal(2, "float64"), first)
    check("rand", {}, rng.rand(700), second)


@pytest.mark.parametrize("drawn", [0, 1, 623, 624, 625, 1248, 5000])
@pytest.mark.parametrize("normals_drawn", [0, 1, 2])
def test_state_is_complete(drawn: int, normals_drawn: int) -> None:
    rng = Generator(7)
    rng.rand(drawn)
    rng.normal(normals_drawn)
    state, kept = rng.get_state(), rng.snapshot()
    ahead = rng.normal(3).tolist(), rng.rand(700).tolist()
    assert rng.get_state() != state
    rng.manual_seed(8)
    rng.restore(kept)
    assert rng.get_state() == state
    assert (rng.normal(3).tolist(), rng.rand(700).tolist()) == ahead
    other = Generator(1)
    other.set_state(msgpack.unpackb(msgpack.packb(state)))
    assert other.initial_seed == 7
    assert (other.normal(3).tolist(), other.rand(700).tolist()) == ahead


def test_a_snapshot_is_not_changed_by_drawing() -> None:
    rng = Generator(3)
    kept = rng.snapshot()
    first = rng.rand(2000).tolist()
    for _ in range(2):
        rng.restore(kept)
        assert rng.rand(2000).tolist() == first


def test_bad_states_are_refused_and_change_nothing() -> None:
    rng = Generator(5)
    state = rng.get_state()
    words = state[24:]
    bad = [b"", state[:-1], state + b"\0", bytes(5056), state[:8] + bytes([0, 0, 0, 0]) + state[12:]]
    bad += [state[:24] + b"\xff" * 8 + words[8:], state[:16] + (700).to_bytes(8, "little") + words]
    for wrong in bad:
        with pytest.raises(Invalid, match=r"CPUGeneratorImplState of size 5056|Invalid mt19937 state"):
            rng.set_state(wrong)
    assert rng.get_state() == state


def test_seeds() -> None:
    rng = Generator(-1)
    assert rng.initial_seed == 2**64 - 1
    assert rng.rand(3).tolist() == Generator(2**64 - 1).rand(3).tolist() == Generator(2**32 - 1).rand(3).tolist()
    for seed in (2**64, -(2**63) - 1):
        with pytest.raises(Invalid, match="Overflow when unpacking long long"):
            rng.manual_seed(seed)
    assert rng.initial_seed == 2**64 - 1
    drawn = {rng.seed() for _ in range(8)}
    assert len(drawn) == 8
    assert all(0 <= seed < 2**53 for seed in drawn)
    assert rng.initial_seed in drawn
    assert len({Generator().initial_seed for _ in range(8)}) == 8


# ---------------------------------------------------------------- against plain definitions


def test_words_are_mt19937() -> None:
    """The published first outputs for the seed 5489 (Matsumoto and Nishimura, mt19937ar)."""
    assert Generator(5489).random(5, "int64", 0, 2**28 - 1).tolist() == [
        w % (2**28 - 1) for w in (3499211612, 581869302, 3890346734, 3586334585, 545404204)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 257, 3000])
def test_randperm_is_the_swapping_loop(n: int) -> None:
    for seed in range(20 if n < 1000 else 2):
        rng = Generator(seed)
        kept = rng.snapshot()
        perm = rng.randperm(n)
        rng.restore(kept)
        plain = list(range(n))
        for i in range(n - 1):
            j = i + int(rng.random(1, "int64", 0, n - i)[0])
            plain[i], plain[j] = plain[j], plain[i]
        assert perm.tolist() == plain
        assert sorted(plain) == list(range(n))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_long_fills_do_not_depend_on_their_chunks(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 2 * CHUNK + 1024 + 5
    long = Generator(2).normal(n, dtype, 0.5, 1.7), Generator(2).rand(n, dtype), Generator(2).uniform(n, dtype, 0.1, 3)
    monkeypatch.setattr("engine.random.arithmetic.CHUNK", 64)
    monkeypatch.setattr(normals, "PAIRS", 40)
    short = Generator(2).normal(n, dtype, 0.5, 1.7), Generator(2).rand(n, dtype), Generator(2).uniform(n, dtype, 0.1, 3)
    for a, b in zip(long, short, strict=True):
        assert a.tobytes() == b.tobytes()


def test_fma_rounds_once() -> None:
    rng = np.random.Generator(np.random.PCG64(4))
    tried = 0
    for scale, shift in ((0.7, -0.1), (3.3, 1e-17), (1e-9, 1.0), (-1.1, 1.1), (2.0, 0.3), (1 / 3, -1 / 3), (5.5, 0.0)):
        x = np.concatenate([rng.random(200), 1 - rng.random(50) * 1e-9, [0.0, 1.0, shift / -scale]])
        made = fma64(x, scale, shift)
        exact = [Fraction(v) * Fraction(scale) + Fraction(shift) for v in x.tolist()]
        assert made.tolist() == [float(e) for e in exact]
        tried += int((made != x * scale + shift).sum())
    assert tried > 50  # else the plain way would have done


def test_normals_have_their_moments() -> None:
    x = Generator(0).normal(200_000, "float32", 2.0, 3.0).astype(np.float64)
    assert abs(x.mean() - 2.0) < 0.03
    assert abs(x.std() - 3.0) < 0.03
    counts = Generator(0).binomial(np.full(20_000, 60.0), np.full(20_000, 0.3), "float64")
    assert abs(counts.mean() - 18.0) < 0.15
    rates = Generator(0).poisson(np.full(20_000, 25.0), "float64")
    assert abs(rates.var() - 25.0) < 1.2


def test_multinomial_gives_ties_in_order() -> None:
    assert Generator(0).multinomial(np.array([0.0, 0.0, 1.0, 0.0], "f4"), 4).tolist() == [2, 0, 1, 3]


def test_empty_draws_nothing() -> None:
    rng = Generator(6)
    state = rng.get_state()
    nothing = np.empty(0, "f4")
    for made in (
        *(rng.rand(0), rng.uniform(0, "float64", -1, 1), rng.normal(0), rng.normal(0, "complex64"), rng.randperm(0)),
        *(rng.randint(0, 0, 5), rng.random(0), rng.exponential(0), rng.cauchy(0), rng.log_normal(0), rng.gumbel(0)),
        *(rng.geometric(0), rng.bernoulli_p(0, 0.5), rng.bernoulli_tensor(nothing), rng.dropout_mask(0, 0.5)),
        *(rng.poisson(nothing), rng.binomial(nothing, nothing), rng.normal_tensors(nothing, nothing)),
        *(rng.rrelu_noise(nothing, 0.1, 0.2), rng.multinomial(np.empty((0, 3), "f4"), 2)),
    ):
        assert made.size == 0
    assert rng.get_state() == state


# ---------------------------------------------------------------- what torch refuses

INF, NAN = float("inf"), float("nan")
REFUSED: list[tuple[Callable[[Generator], Any], str, str]] = [
    (
        lambda g: g.uniform(1, "float32", 2, 1),
        "from",
        r"expects to return a \[from, to\) range, .* from=2 > to=1",
    ),
    (
        lambda g: g.uniform(1, "float32", -3e38, 3e38),
        "to",
        r"<Float>::max\(\), but found to=3e\+38 and from=-3e\+38",
    ),
    (lambda g: g.uniform(1, "float16", 0, 1e6), "to", "to is out of bounds for c10::Half"),
    (lambda g: g.uniform(1, "complex64", NAN, 1), "from", "from is out of bounds for float"),
    (lambda g: g.normal(1, "float32", 0, -1), "std", r"normal expects std >= 0.0, but found std -1$"),
    (lambda g: g.normal(1, "float32", 0, NAN), "std", "normal expects std >= 0.0, but found std nan"),
    (lambda g: g.normal_tensors(np.zeros(2, "f4"), -1.5), "std", "normal expects std >= 0.0, but found std -1.5"),
    (lambda g: g.normal_tensors(0.0, np.array([1, -1], "f4")), "std", "normal expects all elements of std >= 0.0"),
    (lambda g: g.log_normal(1, "float32", 0, 0), "std", "log_normal_ expects std > 0.0, but found std=0"),
    (lambda g: g.exponential(1, "float32", 0), "lambd", "exponential_ expects lambda > 0.0, but found lambda=0"),
    (lambda g: g.cauchy(1, "float32", 0, -2), "sigma", "cauchy_ expects sigma > 0.0, but found sigma=-2"),
    (lambda g: g.geometric(1, "float32", 1), "p", r"geometric_ expects p to be in \(0, 1\), but got p=1"),
    (lambda g: g.bernoulli_p(1, 1.1), "p", r"bernoulli_ expects p to be in \[0, 1\], but got p=1.1"),
    (lambda g: g.bernoulli_tensor(np.array([NAN], "f4")), "input", "Expected p_in >= 0 && p_in <= 1 to be true"),
    (lambda g: g.randint(1, 5, 5), "from", "'from' to be less than 'to', but got from=5 >= to=5"),
    (lambda g: g.randint(1, 0, 300, "uint8"), "to", "to - 1 is out of bounds for unsigned char"),
    (lambda g: g.randint(1, -1, 3, "bool"), "from", "from is out of bounds for bool"),
    (lambda g: g.randint(1, 0, 70_000, "float16"), "to", "to - 1 is out of bounds for c10::Half"),
    (
        lambda g: g.random(1, "float32", 2**25 + 1),
        "from",
        "but got from=33554436 > to_inc=16777216",
    ),
    (lambda g: g.random(1, "int32", -(2**63)), "from", "handles only int64, double, float and bfloat16"),
    (lambda g: g.poisson(np.array([-1.0])), "input", "expected rate to be non-negative"),
    (lambda g: g.poisson(np.array([NAN])), "input", "expected rate to be non-negative"),
    (lambda g: g.poisson(np.array([INF])), "input", r"expected rate to be less than 2\^63"),
    (
        lambda g: g.binomial(np.array([NAN]), np.array([0.5])),
        "count",
        "expects count to be a number, but found nan",
    ),
    (
        lambda g: g.binomial(np.array([1.0]), np.array([NAN])),
        "prob",
        "expects prob to be a number, but found nan",
    ),
    (lambda g: g.multinomial(np.ones((1, 1, 1)), 1), "input", "prob_dist must be 1 or 2 dim"),
    (lambda g: g.multinomial(np.ones(2), 0), "num_samples", "cannot sample n_sample <= 0 samples"),
    (
        lambda g: g.multinomial(np.ones(2), 3),
        "num_samples",
        r"> prob_dist.size\(-1\) samples without replacement",
    ),
    (lambda g: g.multinomial(np.ones(2**24 + 1, "?"), 1), "input", r"number of categories cannot exceed 2\^24"),
    (lambda g: g.multinomial(np.array([1, -1.0]), 1), "input", "either `inf`, `nan` or element < 0"),
    (lambda g: g.multinomial(np.array([1, -1.0]), 2, True), "input", "encountering probability entry < 0"),
    (lambda g: g.multinomial(np.array([1, INF]), 2, True), "input", "probability entry = infinity or NaN"),
    (lambda g: g.multinomial(np.zeros(2), 2, True), "input", "sum of probabilities <= 0"),
]


@pytest.mark.parametrize("made, param, words", REFUSED)
def test_refusals_draw_nothing(made: Callable[[Generator], Any], param: str, words: str) -> None:
    rng = Generator(0)
    state = rng.get_state()
    with pytest.raises(Invalid, match=words) as refused:
        made(rng)
    assert refused.value.param == param
    assert refused.value.op
    assert rng.get_state() == state


def test_infinite_parameters_are_taken_as_torch_takes_them() -> None:
    """No warning, no error: infinite means and rates go through."""
    rng = Generator(0)
    assert rng.exponential(3, "float32", INF).tolist() == [0, 0, 0]
    assert rng.normal(3, "float32", INF, 1.3).tolist() == [INF] * 3
    assert rng.normal(16, "float32", 0.0, 1e38).dtype == np.float32
    assert rng.log_normal(3, "float64", 1000.0, 1.0).tolist() == [INF] * 3
    assert np.isinf(rng.log_normal(3, "float16", 100.0, 1.0)).all()

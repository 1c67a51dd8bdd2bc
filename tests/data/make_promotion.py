"""Writes promotion.json: the dtypes of PyTorch's results. Run with a Python that has torch.

{"dtypes": [...], "promote_types": {"a b": dtype}, "can_cast": {"a": [dtypes]}, "result_type": {"a b": dtype},
 "ops": {name: {"operand operand": dtype}}}. An operand is a dtype (a tensor of shape [2] of ones), a dtype with ":0" (a
0-d tensor), or a number: "True", "1", "1.0", "1j". What PyTorch refuses is "refused". There are no rows for what
would need complex32, which is no dtype here, nor with numbers for functions that take none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

NAMES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
    "complex128",
)  # fmt: skip
NUMBERS: dict[str, Any] = {"True": True, "1": 1, "1.0": 1.0, "1j": 1j}
UNARY = [
    "abs",
    "neg",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "sin",
    "tanh",
    "sigmoid",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
    "square",
    "reciprocal",
    "bitwise_not",
    "logical_not",
    "isnan",
    "isfinite",
    "angle",
    "erf",
    "sgn",
    "positive",
    "conj_physical",
    "sum",
    "prod",
    "mean",
    "argmax",
    "argmin",
    "all",
    "any",
    "amax",
    "amin",
    "std",
    "var",
    "median",
    "count_nonzero",
    "relu",
    "clone",
    "nonzero",
    "sort",
    "isinf",
    "exp2",
    "expm1",
    "log1p",
    "frac",
    "digamma",
    "deg2rad",
    "sinc",
    "real",
    "signbit",
    "nansum",
    "norm",
    "special.expit",
    "nn.functional.relu",
    "nn.functional.gelu",
    "nn.functional.silu",
    "nn.functional.softplus",
    "nn.functional.logsigmoid",
    "isposinf",
    "isreal",
    "lgamma",
    "logit",
    "nan_to_num",
    "special.bessel_j0",
    "special.entr",
    "special.i0e",
    "special.ndtr",
]
BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "floor_divide",
    "remainder",
    "fmod",
    "pow",
    "maximum",
    "minimum",
    "eq",
    "lt",
    "logical_or",
    "bitwise_and",
    "bitwise_xor",
    "atan2",
    "hypot",
    "true_divide",
    "fmax",
    "logaddexp",
    "copysign",
    "gcd",
    "xlogy",
    "float_power",
    "heaviside",
    "igamma",
    "nextafter",
    "special.legendre_polynomial_p",
    "special.xlog1py",
    "special.zeta",
]
FEW = ["add", "div", "pow", "eq"]  # these with every pair of ranks


def name_of(d: torch.dtype) -> str:
    return str(d).removeprefix("torch.")


def operand(word: str) -> Any:
    name, _, rank = word.partition(":")
    if name in NUMBERS:
        return NUMBERS[name]
    return torch.ones((), dtype=getattr(torch, name)) if rank else torch.ones(2, dtype=getattr(torch, name))


def outcome(f: Callable[..., Any], words: tuple[str, ...]) -> str | None:
    args = [operand(w) for w in words]
    if len(args) == 2 and torch.result_type(*args) is torch.complex32:
        return None
    try:
        made = f(*args)
    except TypeError:
        return None
    except (RuntimeError, NotImplementedError, IndexError, ValueError):
        return "refused"
    made = made[0] if isinstance(made, tuple | list) else made
    found = name_of(made.dtype)
    return found if found in NAMES else "refused"  # complex32 is no dtype here


def function(name: str) -> Callable[..., Any]:
    found: Any = torch
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def main() -> None:
    dtypes = {n: getattr(torch, n) for n in NAMES}
    ops: dict[str, dict[str, Any]] = {}
    for name in UNARY:
        if hasattr(torch, name.split(".")[0]):
            table = {n: outcome(function(name), (n,)) for n in NAMES}
            if not {*table.values()} <= {"refused", None}:
                ops[name] = table
    for name in BINARY:
        f = function(name)
        rows = {" ".join(p): outcome(f, p) for p in product(NAMES, NAMES)}
        ranked = [n + r for n in NAMES for r in ("", ":0")] + list(NUMBERS)
        if name in FEW:
            rows |= {" ".join(p): outcome(f, p) for p in product(ranked, ranked) if not {*p} <= {*NUMBERS}}
        else:
            rows |= {f"{n} {s}": outcome(f, (n, s)) for n in NAMES for s in NUMBERS}
        ops[name] = {words: found for words, found in rows.items() if found is not None}
    body = {
        "torch": torch.__version__.partition("+")[0],
        "dtypes": NAMES,
        "promote_types": {f"{a} {b}": name_of(torch.promote_types(dtypes[a], dtypes[b])) for a in NAMES for b in NAMES},
        "can_cast": {a: [b for b in NAMES if torch.can_cast(dtypes[a], dtypes[b])] for a in NAMES},
        "result_type": {
            f"{a} {b}": name_of(torch.result_type(operand(a), operand(b)))
            for a, b in product([n + r for n in NAMES for r in ("", ":0")], [*(n + ":0" for n in NAMES), *NUMBERS])
        },
        "ops": ops,
    }
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in body.items() if k != "ops"]
    rows_ = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in ops.items()]
    text = "{\n" + ",\n".join([*lines, '"ops": {\n' + ",\n".join(rows_) + "}"]) + "\n}\n"
    Path(__file__).with_name("promotion.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()

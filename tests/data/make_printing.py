"""Writes printing.json: what PyTorch prints. Run with a Python that has torch: python tests/data/make_printing.py

Each case has a tensor, how it was printed, and the text:
    {"dtype", "shape", "data", "layout"?, "options"?, "default_dtype"?, "requires_grad"?, "grad_fn"?, "text", "format"?}
"data" is the hexadecimal bytes of the values in row-major order, little-endian (bfloat16 as its 16 bits), or
[count, modulo, scale] for (k % modulo) * scale, computed in float64 and cast. "layout" says what was done to the tensor
of that shape before it was printed: "T" transposed its first and last dimension, "2" took every second row. "options"
are the arguments of set_printoptions, starting from the defaults. "format" is "{}".format(x) of a 0-d tensor, and
"describe" the three lines of a book's describe(x) for some.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

INF, NAN = math.inf, math.nan
INTS = ("uint8", "int8", "int16", "int32", "int64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
DTYPES = ("bool", *INTS, *FLOATS, *COMPLEX)

# One idea a line: whole, not whole, wide, small, great, not finite, zeros, signs, the borders of each rule.
REAL: tuple[list[float], ...] = (
    [1.0, 2.0, 3.0],
    [1.0, -20.0, 300.0],
    [0.5, 1.25, -3.0],
    [1.0, 1000.0],
    [1.0, 1001.0],
    [0.1, 100.0],
    [0.1, 100.2],
    [1e-4, 0.01],
    [9.9e-5, 0.01],
    [99999.0, 99999.5],
    [1e8, 1e8],
    [100000001.0],
    [123456.789],
    [1e20],
    [0.0],
    [-0.0, 0.0],
    [NAN],
    [INF, -INF],
    [1.0, NAN, -INF],
    [0.5, NAN, INF],
    [0.0, 1e-3, 5.0],
    [1e-6, 1.0, NAN],
    [-1.5, INF, 0.0, -0.0],
    [0.99996, -0.00004],
    [3.14159265358979, -2.71828],
    [1.0] * 30,
    [0.1 * k for k in range(30)],
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {"precision": 0},
    {"precision": 2},
    {"precision": 10},
    {"sci_mode": True},
    {"sci_mode": False},
    {"linewidth": 20},
    {"linewidth": 120},
    {"linewidth": 1},
    {"threshold": 4},
    {"threshold": 0, "edgeitems": 1},
    {"threshold": 3, "edgeitems": 0},
    {"edgeitems": 0},
    {"profile": "short"},
    {"profile": "full"},
    {"profile": "short", "precision": 5, "sci_mode": True},
)


# Operations that keep the values, with names of several lengths.
NODES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mul": lambda x: x * 1,
    "clone": lambda x: x.clone(),
    "expand": lambda x: x.expand(x.shape),
    "masked_fill": lambda x: x.masked_fill(torch.zeros_like(x, dtype=torch.bool), 9),
}


def host(x: torch.Tensor) -> bytes:
    return x.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b""


def case(x: torch.Tensor, data: Any = None, layout: str = "", mode: str = "", default: str = "", **options: Any) -> Any:
    """`mode` is "" or "leaf", or one of NODES."""
    dtype = str(x.dtype)[6:]
    made: dict[str, Any] = {"dtype": dtype, "shape": list(x.shape), "data": host(x).hex() if data is None else data}
    if mode:
        x = x.clone().requires_grad_()
        made["requires_grad"] = True
    if mode not in ("", "leaf"):
        x = NODES[mode](x)
        made["grad_fn"] = type(x.grad_fn).__name__
    if layout:
        made["layout"] = layout
        with torch.no_grad():
            turned = x.transpose(0, -1) if layout == "T" else x[::2]
        x = turned
        assert not mode
    torch.set_default_dtype(getattr(torch, default or "float32"))
    torch.set_printoptions(profile="default")
    if options:
        torch.set_printoptions(**options)
        made["options"] = options
    if default:
        made["default_dtype"] = default
    made["text"] = repr(x)
    if x.ndim == 0:
        made["format"] = f"{x}"
    if x.numel() < 2 and not options:
        made["describe"] = f"Type: {x.type()}\nShape/size: {x.shape}\nValues: \n{x}"
    torch.set_default_dtype(torch.float32)
    torch.set_printoptions(profile="default")
    return made


def ramp(dtype: str, shape: tuple[int, ...], modulo: int, scale: float) -> tuple[torch.Tensor, list[float]]:
    count = math.prod(shape)
    values = (torch.arange(count) % modulo).double() * scale
    return values.to(getattr(torch, dtype)).reshape(shape), [count, modulo, scale]


def cases() -> list[Any]:
    out = []
    for values in REAL:
        for dtype in FLOATS:
            out.append(case(torch.tensor(values, dtype=getattr(torch, dtype))))
        if len(values) < 5:
            out.append(case(torch.tensor(values[0])))
            out.append(case(torch.tensor(values[-1], dtype=torch.float64)))
            pair = torch.tensor([complex(a, b) for a, b in zip(values, values[::-1], strict=True)])
            out += [case(pair), case(pair.to(torch.complex128)), case(pair[0])]
            out.append(case(torch.tensor([values, values]), sci_mode=True))
    for dtype in INTS:
        info = torch.iinfo(getattr(torch, dtype))
        for ints in ([1, 2, 3], [info.min, 0, info.max], [7], list(range(40))):
            out.append(case(torch.tensor(ints, dtype=getattr(torch, dtype))))
        out.append(case(torch.tensor(info.max, dtype=getattr(torch, dtype))))
    for bools in ([True], [True, False], [False] * 20):
        out.append(case(torch.tensor(bools)))
    out.append(case(torch.tensor(True)))
    for dtype in DTYPES:
        for shape in ((0,), (0, 3), (2, 0), (1, 0, 2)):
            out.append(case(torch.empty(shape, dtype=getattr(torch, dtype))))
        for default in ("float64", "float16", "bfloat16"):
            out.append(case(torch.ones(2, dtype=getattr(torch, dtype)), default=default))
            out.append(case(torch.empty(0, dtype=getattr(torch, dtype)), default=default))
    out += layouts() + gradients() + mixtures()
    return out


def layouts() -> list[Any]:
    """Dimensions, lines, summaries, options."""
    out = []
    for shape in ((2, 3), (3, 1), (1, 1, 1), (2, 2, 2), (2, 1, 2, 3), (2, 1, 1, 2, 2), (30,), (3, 25), (2, 2, 20)):
        for dtype, scale in (("float32", 0.5), ("int64", 3.0), ("bool", 1.0), ("complex64", 0.25)):
            x, data = ramp(dtype, shape, 7, scale)
            out.append(case(x, data))
            if dtype == "float32":
                out += [case(x, data, layout="T"), case(x, data, layout="2")]
    longer = ((1000,), (1001,), (5, 300), (300, 5), (20, 20, 20), (7, 6, 5, 8), (1, 1, 2000), (2, 3, 500), (1001, 1))
    for shape in longer:
        for dtype, scale in (("float32", 0.125), ("int64", 1.0), ("float16", 0.0078125), ("complex128", 1.0)):
            if shape == (1000,) and dtype != "int64":
                continue  # shown whole
            x, data = ramp(dtype, shape, 997, scale)
            out.append(case(x, data))
    # What is not shown does not count: a wide number in the middle, where it is cut out.
    x, data = ramp("float32", (2001,), 2001, 1000.5)
    out += [case(x, data), case(x, data, edgeitems=1), case(x, data, layout="2")]
    for options in OPTIONS:
        for shape, dtype, scale in (((2, 9), "float32", 0.375), ((3, 3, 3), "int64", 5.0), ((5,), "complex64", 1.5)):
            x, data = ramp(dtype, shape, 11, scale)
            out.append(case(x, data, **options))
        out.append(case(torch.tensor(1.0 / 3.0), **options))
    return out


def gradients() -> list[Any]:
    """Suffixes, and where they open a new line: at each width around the border."""
    out = []
    for mode in ("leaf", "mul", "clone", "masked_fill"):
        for dtype in ("float32", "float64", "bfloat16", "complex64"):
            for values in (0.5, [], [1.0], [[1.0, 2.5], [3.0, 4.0]]):
                out.append(case(torch.tensor(values, dtype=getattr(torch, dtype)), mode=mode))
    for count in range(1, 15):
        x, data = ramp("float32", (count,), 5, 0.5)
        for mode in ("leaf", "expand", "masked_fill"):
            out.append(case(x, data, mode=mode))
        out.append(case(x.double(), data, mode="leaf"))
    for width in range(30, 64, 3):
        out.append(case(torch.ones(2, 2, dtype=torch.float64), mode="mul", linewidth=width))
    return out


def mixtures() -> list[Any]:
    """Anything with anything, the same at every run."""
    dice = random.Random(20)
    out = []
    for _ in range(150):
        dtype = dice.choice(DTYPES)
        shape = [dice.choice([1, 2, 3, 5]) for _ in range(dice.randrange(4))]
        count = math.prod(shape)
        scale = 10 ** dice.uniform(-6, 9)
        values = [dice.gauss(0, 1) * scale for _ in range(count)]
        if dice.random() < 0.4:
            values = [float(round(v)) for v in values]
        if dtype in (*FLOATS, *COMPLEX) and dice.random() < 0.3:
            values[dice.randrange(count)] = dice.choice([NAN, INF, -INF, 0.0, -0.0])
        x = torch.tensor(values, dtype=torch.float64).reshape(shape)
        if dtype in COMPLEX:
            x = torch.complex(x, x.flip(0) if shape else -x)
        x = x.clamp(-100, 100) if dtype == "int8" else x.clamp(0, 200) if dtype == "uint8" else x
        x = x.clamp(-30000, 30000) if dtype in ("int16", "float16") else x
        x = x.to(getattr(torch, dtype))
        keys = dice.sample(["precision", "threshold", "edgeitems", "linewidth", "sci_mode"], dice.randrange(4))
        among: dict[str, list[Any]] = {
            "precision": [1, 3, 6],
            "threshold": [2, 10, 100],
            "edgeitems": [1, 2],
            "linewidth": [30, 60, 100],
            "sci_mode": [True, False],
        }
        options = {key: dice.choice(among[key]) for key in keys}
        mode = dice.choice(["", "leaf", "clone"]) if dtype in (*FLOATS, *COMPLEX) else ""
        out.append(case(x, mode=mode, default=dice.choice(["", "", "float64"]), **options))
    return out


def main() -> None:
    lines = [json.dumps(c, separators=(",", ":")) for c in cases()]
    text = f'{{"torch": "{torch.__version__}", "cases": [\n' + ",\n".join(lines) + "\n]}\n"
    Path(__file__).with_name("printing.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

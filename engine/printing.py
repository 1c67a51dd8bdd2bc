"""PyTorch's text for tensors: what print(x) and "{}".format(x) write.

All numbers of a tensor are written alike and right-aligned to the widest, so the first step looks at all that will be
shown: whole floats lose their decimals, a wide range makes them scientific. A large tensor shows the first and the
last few of each dimension, and only those are looked at. Some habits are torch's own and kept for its sake: zeros, NaN
and infinities do not count for the width, and without edge items every tensor tells its size.

Values arrive as host arrays of any strides with a dtype name; those of bfloat16 as uint16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from engine.dtypes import TENSOR_TYPES, bf16_to_f32
from engine.errors import Invalid

Array: TypeAlias = np.ndarray[Any, Any]
Write: TypeAlias = Callable[[Any], str]

PREFIX = "tensor("


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """torch.set_printoptions: digits after the point, how many elements are still shown whole, how many at each edge
    of a longer dimension, the width of a line, and whether floats are scientific (None: where their range asks)."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None

    def updated(
        self,
        precision: int | None = None,
        threshold: float | None = None,
        edgeitems: int | None = None,
        linewidth: int | None = None,
        profile: str | None = None,
        sci_mode: bool | None = None,
    ) -> PrintOptions:
        """The options after torch.set_printoptions(...): the profile's, then what is given besides it.

        `sci_mode` is always set, back to None where it is not given. Raises Invalid for a profile that there is not.
        """
        start = self
        if profile is not None:
            if profile not in PROFILES:
                names = ", ".join(PROFILES)
                raise Invalid(f"unknown profile {profile!r}: the profiles are {names}", param="profile")
            start = PROFILES[profile]
        given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(start, sci_mode=sci_mode, **changes)


DEFAULT = PrintOptions()
PROFILES = {
    "default": DEFAULT,
    "short": PrintOptions(precision=2, edgeitems=2),
    "full": PrintOptions(threshold=math.inf),
}


# ---------------------------------------------------------------- whole tensors


def tensor_text(
    array: Array,
    dtype: str,
    *,
    requires_grad: bool = False,
    grad_fn: str | None = None,
    device: str = "cpu",
    options: PrintOptions = DEFAULT,
    default_dtype: str = "float32",
) -> str:
    """What print(x) writes, without a newline at the end: `tensor([1., 2.], grad_fn=<MulBackward0>)`.

    `grad_fn` is the node's name; `default_dtype` decides which dtypes go without saying.
    """
    suffixes = [] if device == "cpu" else [f"device='{device}'"]
    if array.size:
        if not options.edgeitems:
            suffixes.append(f"size={array.shape}")
        if dtype not in ("int64", "bool", default_dtype, _complex_default(default_dtype)):
            suffixes.append(f"dtype=torch.{dtype}")
        body = _values(_widened(array, dtype), options, len(PREFIX))
    else:
        if array.ndim != 1:
            suffixes.append(f"size={array.shape}")
        if dtype != default_dtype:  # nothing is there to tell it from
            suffixes.append(f"dtype=torch.{dtype}")
        body = "[]"
    if grad_fn is not None:
        suffixes.append(f"grad_fn=<{grad_fn}>")
    elif requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(PREFIX + body, suffixes, options.linewidth)


def format_value(array: Array, dtype: str) -> str:
    """What "{}".format(x) writes of a 0-d tensor: its number, as Python does (`21.0`, `True`, `(1+2j)`)."""
    return format(_widened(array, dtype).item())


def describe_text(
    array: Array,
    dtype: str,
    *,
    requires_grad: bool = False,
    grad_fn: str | None = None,
    device: str = "cpu",
    options: PrintOptions = DEFAULT,
    default_dtype: str = "float32",
) -> str:
    """Type, shape and values, as books print them with a function called describe; without a newline at the end."""
    package = "torch." if device == "cpu" else f"torch.{device.partition(':')[0]}."
    if array.ndim:
        values = tensor_text(
            array,
            dtype,
            requires_grad=requires_grad,
            grad_fn=grad_fn,
            device=device,
            options=options,
            default_dtype=default_dtype,
        )
    else:
        values = format_value(array, dtype)
    return f"Type: {package}{TENSOR_TYPES[dtype]}\nShape/size: torch.Size({list(array.shape)})\nValues: \n{values}"


def _complex_default(default_dtype: str) -> str:
    return "complex128" if default_dtype == "float64" else "complex64"


def _widened(array: Array, dtype: str) -> Array:
    return bf16_to_f32(array) if dtype == "bfloat16" else array


def _with_suffixes(text: str, suffixes: Iterable[str], linewidth: int) -> str:
    """The text, its suffixes and the closing bracket; a suffix that would pass the line's end opens a new one."""
    used = len(text) - text.rfind("\n") + 1  # two more than the last line has, as torch counts
    for suffix in suffixes:
        if used + len(suffix) + 2 > linewidth:
            text += ",\n" + " " * len(PREFIX) + suffix
            used = len(PREFIX) + len(suffix)
        else:
            text += ", " + suffix
            used += len(suffix) + 2
    return text + ")"


# ---------------------------------------------------------------- values


def _values(array: Array, options: PrintOptions, indent: int) -> str:
    """The values of an array that is not empty, in brackets."""
    edge = options.edgeitems
    cut = [array.size > options.threshold and length > 2 * edge for length in array.shape]
    if any(cut):
        ends = [
            np.r_[:edge, n - edge : n] if is_cut else np.arange(n) for n, is_cut in zip(array.shape, cut, strict=True)
        ]
        array = array[np.ix_(*ends)]
    write: Write
    if array.dtype.kind == "c":
        real, imag = _column(array.real, options), _column(array.imag, options)

        def write_complex(value: complex) -> str:
            tail = imag.write(value.imag).lstrip() + "j"
            return real.write(value.real) + (tail if tail[0] == "-" else "+" + tail)

        write, width = write_complex, real.width + imag.width + 1
    else:
        column = _column(array, options)
        write, width = column.write, column.width
    return _nested(array.tolist(), cut, indent, _Layout(write, width + 2, options))


@dataclass(frozen=True, slots=True)
class _Layout:
    write: Write
    cell: int  # the width of an element with the comma and the space behind it
    options: PrintOptions


def _nested(data: Any, cut: list[bool], indent: int, layout: _Layout) -> str:
    """The brackets around `data`, lists nested len(cut) deep; where cut, dots stand in the middle."""
    if not cut:
        return layout.write(data)
    edge = layout.options.edgeitems
    newline = "\n" * max(1, len(cut) - 1) + " " * (indent + 1)
    if len(cut) > 1:
        parts = [_nested(part, cut[1:], indent + 1, layout) for part in data]
        if cut[0]:
            parts.insert(edge, "...")
        return "[" + ("," + newline).join(parts) + "]"
    cells = [layout.write(value) for value in data]
    if cut[0]:
        cells.insert(edge, " ..." if edge else "...")
    per_line = max(1, (layout.options.linewidth - indent) // layout.cell)
    lines = [", ".join(cells[start : start + per_line]) for start in range(0, len(cells), per_line)]
    return "[" + ("," + newline).join(lines) + "]"


# ---------------------------------------------------------------- numbers


@dataclass(frozen=True, slots=True)
class _Column:
    """How each number of a tensor is written, and how wide they are."""

    write: Write
    width: int


def _column(array: Array, options: PrintOptions) -> _Column:
    if array.dtype.kind != "f":
        width = max((len(str(value)) for value in array.ravel().tolist()), default=1)
        return _Column(lambda value: f"{value!s:>{width}}", width)
    digits = options.precision
    shown = array[np.isfinite(array) & (array != 0)].astype(np.float64)
    whole, scientific, width = True, False, 1
    if shown.size:
        sizes = np.abs(shown)
        least, most = float(sizes.min()), float(sizes.max())
        whole = bool((shown == np.ceil(shown)).all())
        if options.sci_mode is None:
            scientific = most / least > 1000.0 or most > 1e8 or (not whole and least < 1e-4)
        else:
            scientific = options.sci_mode
        unpadded = _writer(whole, scientific, digits, 0)
        width = max(len(unpadded(value)) for value in shown.tolist())
    return _Column(_writer(whole, scientific, digits, width), width)  # of zeros, NaN and infinities: `0.`, `nan`


def _writer(whole: bool, scientific: bool, digits: int, width: int) -> Write:
    if scientific:
        return lambda value: f"{value:{width}.{digits}e}"
    if whole:
        return lambda value: f"{f'{value:.0f}.' if math.isfinite(value) else f'{value:.0f}':>{width}}"
    return lambda value: f"{value:{width}.{digits}f}"

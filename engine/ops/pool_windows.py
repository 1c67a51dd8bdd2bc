"""How the windows of pools lie on an input, and what PyTorch refuses of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, int64
from engine.errors import Hint, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.shapes import Shape, text, wrap_dim


class Pool(NamedTuple):
    """How windows lie on an input, without samples and channels."""

    input: Shape
    output: Shape
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    node: str
    divisors: tuple[tuple[int, ...], ...] | int = 1  # for means: of each place along each dimension, or one for all

    @property
    def high(self) -> Shape:
        """What the windows need beyond the end."""
        return tuple(
            [
                max((m - 1) * s + d * (w - 1) + 1 - n - p, 0)
                for m, s, d, w, n, p in zip(
                    self.output, self.stride, self.dilation, self.kernel, self.input, self.padding, strict=True
                )
            ]
        )

    @property
    def apart(self) -> bool:
        """Whether no two windows share an element."""
        return all(s > d * (w - 1) for s, d, w in zip(self.stride, self.dilation, self.kernel, strict=True))


# ---------------------------------------------------------------- what PyTorch refuses

_COUNTS = {1: "one int", 2: "two ints", 3: "three ints"}


def _numbers(value: Any, dims: int, name: str, op_name: str) -> Shape:
    if type(value) is int:
        return (value,) * dims
    if len(value) == 1:
        return tuple(value) * dims
    if len(value) != dims and op_name == "max_pool1d":
        raise Invalid(
            f"max_pool1d() {name} must be an int, list of ints or tuple of ints of size 1 but got size {len(value)}",
            param=name,
        )
    if len(value) != dims and op_name == "avg_pool1d":
        raise Invalid(f"avg_pool1d() argument '{name}' should contain one int (got {len(value)})", param=name)
    if len(value) != dims and op_name == "avg_pool3d":
        omitted = "be omitted, a single int, or" if name == "stride" else "be a single int, or"
        raise Invalid(f"avg_pool3d: {name} must {omitted} a tuple of three ints", param=name)
    if len(value) != dims:
        either = "either be omitted, a single int, or" if name == "stride" else "either be a single int, or"
        if name == "dilation":
            either = "be either a single int, or"
        raise Invalid(f"{op_name}: {name} must {either} a tuple of {_COUNTS[dims]}", param=name)
    return tuple(value)


def _named(letters: Sequence[str], values: Sequence[int], prefix: str) -> str:
    return " ".join(f"{prefix}{letter}: {n}" for letter, n in zip(letters, values, strict=True))


def _output(n: int, w: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    out = (n + 2 * p - d * (w - 1) - 1 + (s - 1 if ceil_mode else 0)) // s + 1
    if ceil_mode and (out - 1) * s >= n + p:
        out -= 1
    return out


def _too_much(kernel: Shape, padding: Shape) -> Invalid:
    """PyTorch's words for more padding than half of a window, which it names without its dilation."""
    if len(kernel) == 3:
        (t, h, w), (pt, ph, pw) = kernel, padding
        shown = f"kT: {t} kW: {w} kH: {h} padT: {pt} padW: {pw} padH: {ph}"
    else:
        (h, w), (ph, pw) = (kernel, padding) if len(kernel) == 2 else ((1, *kernel), (0, *padding))
        shown = f"padW = {pw}, padH = {ph}, kW = {w}, kH = {h}"
    return Invalid(f"pad should be smaller than or equal to half of kernel size, but got {shown}", param="padding")


def _check(
    input: Spec, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil_mode: bool, where: str
) -> Shape:
    """The output's sizes. Raises what PyTorch refuses in two and three dimensions; `where` names its function."""
    dims = len(kernel)
    shape = input.shape
    for w, s, p, d in zip(kernel, stride, padding, dilation, strict=True):
        if s == 0:
            raise Invalid("stride should not be zero", param="stride")
        if p < 0:
            raise Invalid(f"pad must be non-negative, but got pad: {p}", param="padding")
        if p > int((d * (w - 1) + 1) / 2):  # rounded towards 0, as C does
            words = "pad should be at most half of effective kernel size, but got pad"
            raise Invalid(f"{words}={p}, kernel_size={w} and dilation={d}", param="padding")
    letters = "THW"[-dims:] if dims > 1 else "HW"
    for values, what, prefix, name in (
        (kernel, "kernel size", "k", "kernel_size"),
        (stride, "stride", "d", "stride"),
        (dilation, "dilation", "dilation", "dilation"),
    ):
        if any(n <= 0 for n in values):
            shown = _named(letters, values if dims > 1 else (1, *values), prefix)
            raise Invalid(f"{what} should be greater than zero, but got {shown}", param=name)
    if 0 in shape[1 if len(shape) == dims + 2 else 0 :]:
        rank, batched = max(dims, 2) + 1, max(dims, 2) + 2
        if dims == 3:
            raise ShapeMismatch(  # whichever it is, PyTorch says 0
                f"{where}(): Expected input's non-batch dimensions to have positive length, but input has a shape of "
                f"{text(shape)} and non-batch dimension 0 has length zero!",
                param="input",
            )
        wide = (*shape[:-1], 1, shape[-1]) if dims == 1 else shape  # one dimension is two to PyTorch
        raise ShapeMismatch(
            f"Expected {rank}D or {batched}D (batch mode) tensor with optional 0 dim batch size for input, but "
            f"got:{text(wide)}",
            param="input",
        )
    if any(p > w // 2 for w, p in zip(kernel, padding, strict=True)):
        raise _too_much(kernel, padding)
    sizes = shape[-dims:]
    rows = zip(sizes, kernel, stride, padding, dilation, strict=True)
    out = tuple([_output(n, w, s, p, d, ceil_mode) for n, w, s, p, d in rows])
    if any(n < 1 for n in out):
        planes = (1,) if dims == 1 else ()
        given = "x".join(map(str, (*shape[-dims - 1 : -dims], *planes, *sizes)))
        made = "x".join(map(str, (*shape[-dims - 1 : -dims], *planes, *out)))
        raise ShapeMismatch(
            f"Given input size: ({given}). Calculated output size: ({made}). Output size is too small",
            hint=Hint("pool-size", input=list(sizes), kernel=list(kernel)),
            param="kernel_size",
        )
    return out


def max_geometry(
    input: Spec,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    dims: int,
    indices: bool = False,
) -> Pool:
    """How the windows of a maximum pool lie on an input. Raises what PyTorch raises."""
    name = f"max_pool{dims}d"
    kernel = _numbers(kernel_size, dims, "kernel_size", name)
    steps = kernel if stride is None or stride == [] or stride == () else _numbers(stride, dims, "stride", name)
    pads, dilations = _numbers(padding, dims, "padding", name), _numbers(dilation, dims, "dilation", name)
    shape = input.shape
    if dims == 1:
        out = _check_line(input, kernel[0], steps[0], pads[0], dilations[0], ceil_mode, indices)
        node = "SqueezeBackward1"
    else:
        if len(shape) not in (dims + 1, dims + 2):
            raise ShapeMismatch(
                f"non-empty {dims + 1}D or {dims + 2}D (batch mode) tensor expected for input", param="input"
            )
        out = _check(input, kernel, steps, pads, dilations, ceil_mode, "max_pool3d_with_indices_out_cpu_template")
        node = f"MaxPool{dims}DWithIndicesBackward0"
        if input.dtype.category in (BOOL, COMPLEX):
            raise not_implemented(f"{name}" if dims == 2 else "max_pool3d_cpu", input.dtype)
    return Pool(shape[-dims:], out, kernel, steps, pads, dilations, node)


def _check_line(
    input: Spec, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool, indices: bool
) -> Shape:
    shape = input.shape
    if len(shape) not in (2, 3) or 0 in shape[len(shape) - 2 :]:
        raise ShapeMismatch(
            "max_pool1d: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for input, but "
            f"got:{text(shape)}",
            param="input",
        )
    if indices:  # PyTorch runs another function then, of two dimensions
        out = _check(input, (kernel,), (stride,), (padding,), (dilation,), ceil_mode, "max_pool1d")[0]
    else:
        out = _plain_line(shape[-1], kernel, stride, padding, dilation, ceil_mode)
    category = input.dtype.category
    if category != FLOAT and not (indices and category == INT):  # with indices PyTorch runs another kernel
        raise not_implemented("max_pool2d" if indices else "max_pool1d_impl", input.dtype)
    return (out,)


def _plain_line(n: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    for value, name in ((kernel, "kernel_size"), (stride, "stride")):
        if value <= 0:
            raise Invalid(f"max_pool1d() {name} must be greater than zero, but got {value}", param=name)
    if padding < 0:
        raise Invalid(f"max_pool1d() padding must be non-negative, but got {padding}", param="padding")
    if padding > kernel // 2:
        words = f"max_pool1d() padding should be at most half of kernel size, but got padding={padding}"
        raise Invalid(f"{words} and kernel_size={kernel}", param="padding")
    if dilation <= 0:
        raise Invalid(f"max_pool1d() dilation must be greater than zero, but got {dilation}", param="dilation")
    out = _output(n, kernel, stride, padding, dilation, ceil_mode)
    if out <= 0:
        raise ShapeMismatch(f"max_pool1d() Invalid computed output size: {out}", param="kernel_size")
    return out


def rank_words(shape: Shape, name: str) -> ShapeMismatch:
    """The error of an input that has neither a batch nor is a sample alone."""
    return ShapeMismatch(
        f"Expected 2 to 3 dimensions, but got {len(shape)}-dimensional tensor for argument #1 'self' (while checking "
        f"arguments for {name})",
        param="input",
    )


def avg_geometry(
    input: Spec,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: Any,
    dims: int,
) -> Pool:
    """How the windows of an average pool lie on an input. Raises what PyTorch raises."""
    name = f"avg_pool{dims}d"
    shape = input.shape
    if dims == 1 and len(shape) not in (2, 3):
        raise rank_words(shape, name)
    kernel = _numbers(kernel_size, dims, "kernel_size", name)
    steps = kernel if stride is None or stride == [] or stride == () else _numbers(stride, dims, "stride", name)
    pads = _numbers(padding, dims, "padding", name)
    if divisor == 0 and divisor is not None:
        raise Invalid("divisor must be not zero", param="divisor_override")
    if dims == 2 and len(shape) != 4:
        wrap_dim(-3, len(shape))
        if len(shape) != 3:
            raise ShapeMismatch(
                "Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but "
                f"got:{text(shape)}",
                param="input",
            )
    if len(shape) not in (dims + 1, dims + 2):
        raise ShapeMismatch(
            f"non-empty {dims + 1}D or {dims + 2}D (batch mode) tensor expected for input", param="input"
        )
    if (
        dims == 3
        and min(steps) > 0
        and any(n < w for n, w in zip(shape[-3:], kernel, strict=True))
        and 0 not in shape[-4:]
    ):
        raise ShapeMismatch(
            f"input image ({_named('THW', shape[-3:], '')}) smaller than kernel size ({_named('THW', kernel, 'k')})",
            hint=Hint("pool-size", input=list(shape[-3:]), kernel=list(kernel)),
            param="kernel_size",
        )
    out = _check(input, kernel, steps, pads, (1,) * dims, ceil_mode, name)
    d = input.dtype
    if d.category in (BOOL, COMPLEX) or (d.category == INT and d is not int64) or (dims == 3 and d.reduced):
        raise not_implemented("avg_pool2d" if dims < 3 else "avg_pool3d_out_frame", d)
    counts: Any = divisor
    if divisor is None:
        counts = []
        for n, m, w, s, p in zip(shape[-dims:], out, kernel, steps, pads, strict=True):
            row = []
            for i in range(m):
                start = i * s - p
                end = min(start + w, n + p)
                row.append(end - start if count_include_pad else min(end, n) - max(start, 0))
            counts.append(tuple(row))
        counts = tuple(counts)
    node = "SqueezeBackward1" if dims == 1 else f"AvgPool{dims}DBackward0"
    return Pool(shape[-dims:], out, kernel, steps, pads, (1,) * dims, node, counts)


def spec_of(F: Any, x: Any) -> Spec:
    """The shape and dtype of what a composite is given."""
    return Spec(tuple(F.shape(x)), F.dtype(x))

"""Pooling: the largest element or the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from engine.carriers import K
from engine.declare import Array, Ints, composite, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, int8, int32, int64
from engine.errors import Hint, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.windows import pad
from engine.samples import I, S, T
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


def _lead(x: Any, pool: Pool) -> Shape:
    return tuple(x.shape[: len(x.shape) - len(pool.kernel)])


def _seen(axis: int, ndim: int, at: int, pool: Pool) -> tuple[slice, ...]:
    """What the windows' place `at` along one spatial dimension sees."""
    dims = len(pool.kernel)
    d, s, m = pool.dilation[axis], pool.stride[axis], pool.output[axis]
    index = [slice(None)] * ndim
    index[ndim - dims + axis] = slice(at * d, at * d + s * (m - 1) + 1, s)
    return tuple(index)


def _places(pool: Pool) -> list[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """Each place in a window, in C order, and what all windows see there."""
    found: list[tuple[int, ...]] = [()]
    for n in pool.kernel:
        found = [(*p, i) for p in found for i in range(n)]
    return [
        (
            p,
            (
                ...,
                *(
                    slice(i * d, i * d + s * (m - 1) + 1, s)
                    for i, d, s, m in zip(p, pool.dilation, pool.stride, pool.output, strict=True)
                ),
            ),
        )
        for p in found
    ]


# ---------------------------------------------------------------- maxima


def _lowest(k: K, d: Any) -> Any:
    return float("-inf") if d.kind == "f" else int(k.xp.iinfo(d).min)


def _pooled(k: K, input: Spec, pool: Pool) -> Spec:
    return Spec((*_lead(input, pool), *pool.output), input.dtype)


@op(family="nn", meta=_pooled, node=lambda input, pool: pool.node, save={"input": ("input", "result")})
def _max_pool(k: K, input: Array, pool: Any) -> Array:
    """The largest element of each window, one dimension after the other; NaN wins."""
    xp = k.xp
    if not prod(_lead(input, pool)):
        return xp.empty(k.spec.shape, input.dtype)
    made = pad(k, input, pool.padding, pool.high, _lowest(k, input.dtype))
    for axis, n in enumerate(pool.kernel):
        parts = [made[_seen(axis, made.ndim, i, pool)] for i in range(n)]
        made = parts[0].copy() if n == 1 else xp.maximum(parts[0], parts[1])
        for part in parts[2:]:
            xp.maximum(made, part, out=made)
    return made


@_max_pool.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    places = F._max_places(saved.input, saved.result, saved.pool)
    return F._max_put(g, places, saved.pool)


def _places_meta(k: K, input: Spec, result: Spec, pool: Pool) -> Spec:
    return Spec(result.shape, int8 if prod(pool.kernel) < 128 else int32)


@op(family="nn", meta=_places_meta, vjp=None)
def _max_places(k: K, input: Array, result: Array, pool: Any) -> Array:
    """Where in its window each maximum is, in C order: the first one, but the last NaN, as in PyTorch."""
    xp = k.xp
    d = k.spec.dtype.np
    made = xp.zeros(result.shape, d)
    if not result.size:
        return made
    low = _lowest(k, input.dtype)
    x = pad(k, input, pool.padding, pool.high, low)
    seen = _places(pool)
    count = len(seen)
    for i, (_, at) in enumerate(seen):  # the largest of (count - i) over all that equal the maximum
        xp.maximum(made, (x[at] == result).astype(d) * (count - i), out=made)
    made = xp.subtract(count, made, out=made)
    made -= (made == count).astype(d) * count  # a NaN equals nothing
    if any(pool.padding):  # the first place may have seen padding: where all is as low, it is the first true one
        xp.copyto(made, k.from_host(_first_true(made.dtype, pool)), where=result == low)
    if input.dtype.kind == "f":
        nan = result != result
        if nan.any():
            for i, (_, at) in enumerate(seen):
                part = x[at]
                xp.copyto(made, i, where=part != part)
    return made


def _first_true(d: Any, pool: Pool) -> Any:
    """For each window the first place that is not padding, as a host array over the output's sizes."""
    import numpy as np

    made = np.zeros(pool.output, d)
    step = prod(pool.kernel)
    for axis, n in enumerate(pool.kernel):
        step //= n
        start = np.arange(pool.output[axis]) * pool.stride[axis]
        first = -(-np.maximum(pool.padding[axis] - start, 0) // pool.dilation[axis])
        made += (first * step).astype(d).reshape([-1 if a == axis else 1 for a in range(len(pool.kernel))])
    return made


def _masked(k: K, x: Array, hit: Array) -> Array:
    """`x` where `hit`, else zero, whatever x is: its bits, since a product would make NaN of infinity."""
    bits = k.xp.int64 if x.itemsize == 8 else k.xp.int32
    return (x.view(bits) & -hit.astype(bits)).view(x.dtype)


def _unpooled(k: K, grad: Spec, places: Spec, pool: Pool) -> Spec:
    return Spec((*_lead(grad, pool), *pool.input), grad.dtype)


@op(family="nn", meta=_unpooled, save={"grad": ("places",)})
def _max_put(k: K, grad: Array, places: Array, pool: Any) -> Array:
    """Each window's value at its place in the input, added up; zero elsewhere."""
    xp = k.xp
    sizes = [n + a + b for n, a, b in zip(pool.input, pool.padding, pool.high, strict=True)]
    made = xp.zeros((*_lead(grad, pool), *sizes), grad.dtype)
    if not grad.size:
        return made[(..., *(slice(0, n) for n in pool.input))]
    apart = pool.apart
    for i, (_, at) in enumerate(_places(pool)):
        target, part = made[at], _masked(k, grad, places == i)
        if apart:
            target[...] = part
        else:
            xp.add(target, part, out=target)
    if not any(pool.padding) and not any(pool.high):
        return made
    return made[(..., *(slice(p, p + n) for p, n in zip(pool.padding, pool.input, strict=True)))]


@_max_put.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.grad and F._max_pick(g, saved.places, saved.pool), None


def _pick_meta(k: K, input: Spec, places: Spec, pool: Pool) -> Spec:
    return Spec(places.shape, input.dtype)


@op(family="nn", meta=_pick_meta, save={"input": ("places",)})
def _max_pick(k: K, input: Array, places: Array, pool: Any) -> Array:
    """Each window's element at a given place."""
    made = k.xp.zeros(places.shape, input.dtype)
    if places.size:
        x = pad(k, input, pool.padding, pool.high)
        for i, (_, at) in enumerate(_places(pool)):
            made += _masked(k, k.xp.ascontiguousarray(x[at]), places == i)
    return made


@_max_pick.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F._max_put(g, saved.places, saved.pool), None


def _both_meta(k: K, input: Spec, pool: Pool) -> tuple[Spec, Spec]:
    made = _pooled(k, input, pool)
    return made, Spec(made.shape, int64)


@op(
    family="nn",
    meta=_both_meta,
    node=lambda input, pool: pool.node,
    save={"input": ("input", "result")},
    outputs=("result", "indices"),
    nondiff=("indices",),
)
def _max_pool_both(k: K, input: Array, pool: Any) -> Any:
    """The largest element of each window, and where it is in the flattened sample."""
    values, spec = k.spec
    k.spec = values
    made = _max_pool.op.kernel(k, input, pool)  # type: ignore[misc]
    k.spec = _places_meta(k, Spec(input.shape, values.dtype), spec, pool)
    place = _max_places.op.kernel(k, input, made, pool).astype(int64.np)  # type: ignore[misc]
    index = k.xp.zeros(place.shape, int64.np)
    inner, step = prod(pool.kernel), prod(pool.input)
    for axis, n in enumerate(pool.kernel):
        inner //= n
        step //= max(pool.input[axis], 1)
        start = k.xp.arange(pool.output[axis]) * pool.stride[axis] - pool.padding[axis]
        start = start.reshape([-1 if a == axis else 1 for a in range(len(pool.kernel))])
        index += (start + place // inner % n * pool.dilation[axis]) * step
    return made, index


@_max_pool_both.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    places = F._max_places(saved.input, saved.result, saved.pool)
    return F._max_put(g[0], places, saved.pool)


# ---------------------------------------------------------------- means


def _avg_node(input: Spec, pool: Pool) -> str:
    return pool.node


def _divide(k: K, x: Array, pool: Pool) -> Array:
    """Each window's sum by its divisor; integers as C divides them."""
    by: Any = pool.divisors
    if type(by) is tuple:
        if all(len(set(row)) <= 1 for row in by):
            by = prod(row[0] if row else 1 for row in by)
        else:
            product = k.xp.ones((), x.dtype)
            for axis, row in enumerate(by):
                shape = [-1 if a == axis else 1 for a in range(len(by))]
                product = product * k.xp.asarray(list(row), dtype=x.dtype).reshape(shape)
            by = product
    if x.dtype.kind in "iu":
        return k.xp.trunc(x / by).astype(x.dtype)
    return k.xp.true_divide(x, by, out=x if x.ndim else None)


@op(family="nn", meta=_pooled, node=_avg_node)
def _avg_pool(k: K, input: Array, pool: Any) -> Array:
    """The sum of each window by its divisor, one dimension after the other."""
    xp = k.xp
    if not prod(_lead(input, pool)):
        return xp.empty(k.spec.shape, input.dtype)
    made = pad(k, input, pool.padding, pool.high)
    for axis, n in enumerate(pool.kernel):
        if n == pool.input[axis] and pool.output[axis] == 1 and not pool.padding[axis] and not pool.high[axis]:
            made = made.sum(axis=made.ndim - len(pool.kernel) + axis, keepdims=True, dtype=made.dtype)
            continue
        parts = [made[_seen(axis, made.ndim, i, pool)] for i in range(n)]
        made = parts[0].copy() if n == 1 else xp.add(parts[0], parts[1])
        for part in parts[2:]:
            xp.add(made, part, out=made)
    return _divide(k, made, pool)


def _spread_meta(k: K, grad: Spec, pool: Pool) -> Spec:
    return Spec((*_lead(grad, pool), *pool.input), grad.dtype)


@op(family="nn", meta=_spread_meta, node=_avg_node)
def _avg_spread(k: K, grad: Array, pool: Any) -> Array:
    """Each window's value by its divisor, added to all that the window saw: the gradient of a mean."""
    xp = k.xp
    if not grad.size:
        return xp.zeros(k.spec.shape, grad.dtype)
    made = _divide(k, grad.copy(), pool)
    for axis in range(len(pool.kernel) - 1, -1, -1):
        at = made.ndim - len(pool.kernel) + axis
        shape = list(made.shape)
        shape[at] = pool.input[axis] + pool.padding[axis] + pool.high[axis]
        wide = xp.zeros(shape, made.dtype)
        apart = pool.stride[axis] > pool.dilation[axis] * (pool.kernel[axis] - 1)
        for i in range(pool.kernel[axis]):
            target = wide[_seen(axis, wide.ndim, i, pool)]
            if apart:
                target[...] = made
            else:
                xp.add(target, made, out=target)
        made = wide
    if not any(pool.padding) and not any(pool.high):
        return made
    return made[(..., *(slice(p, p + n) for p, n in zip(pool.padding, pool.input, strict=True)))]


@_avg_pool.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._avg_spread(g, saved.pool)


@_avg_spread.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._avg_pool(g, saved.pool)


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


def _max_geometry(
    input: Spec,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    dims: int,
    indices: bool = False,
) -> Pool:
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


def _rank_words(shape: Shape, name: str) -> ShapeMismatch:
    return ShapeMismatch(
        f"Expected 2 to 3 dimensions, but got {len(shape)}-dimensional tensor for argument #1 'self' (while checking "
        f"arguments for {name})",
        param="input",
    )


def _avg_geometry(
    input: Spec,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: Any,
    dims: int,
) -> Pool:
    name = f"avg_pool{dims}d"
    shape = input.shape
    if dims == 1 and len(shape) not in (2, 3):
        raise _rank_words(shape, name)
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


def _spec(F: Any, x: Any) -> Spec:
    return Spec(tuple(F.shape(x)), F.dtype(x))


# ---------------------------------------------------------------- the operations


def _declare(dims: int) -> None:
    size = ((6,), (4, 4), (4, 4, 4))[dims - 1]
    spatial = f"{dims} dimension{'s' * (dims > 1)}"

    def max_pool(
        F: Any,
        input: Array,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Array:
        pool = _max_geometry(_spec(F, input), kernel_size, stride, padding, dilation, ceil_mode, dims, return_indices)
        return F._max_pool_both(input, pool) if return_indices else F._max_pool(input, pool)

    def with_indices(
        F: Any,
        input: Array,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Array:
        return F._max_pool_both(
            input, _max_geometry(_spec(F, input), kernel_size, stride, padding, dilation, ceil_mode, dims, True)
        )

    max_pool.__doc__ = (
        f"The largest element of each window over the last {spatial}; the first of equals, and NaN wins.\n\n"
        "With `return_indices` also where each one is in the flattened sample. `ceil_mode` keeps windows that begin "
        "inside "
        "but end beyond."
    )
    with_indices.__doc__ = f"The largest element of each window over the last {spatial}, and its index in the sample."
    samples = [
        S(T(1, 2, *size, distinct=True), 2),
        S(T(2, *size, distinct=True), 3, 2, 1),
        S(T(1, 1, *size, distinct=True), 2, 1, dilation=2),
        S(T(1, 2, *size, distinct=True), 3, stride=2, ceil_mode=True),
        S(T(0, 2, *size), 2),
    ]
    if dims > 1:
        samples.append(S(I(1, 1, *size), 2))
    composite(
        family="nn",
        name=f"nn.functional.max_pool{dims}d",
        alias=(f"max_pool{dims}d",),
        moves=True,
        returns="Tensor or list of Tensors",
        samples=[*samples, S(T(1, 2, *size, distinct=True), 2, return_indices=True)],
    )(max_pool)
    composite(
        family="nn",
        name=f"nn.functional.max_pool{dims}d_with_indices",
        moves=True,
        returns="list of Tensors",
        samples=samples[:1],
    )(with_indices)

    if dims == 1:

        def avg_pool(
            F: Any,
            input: Array,
            kernel_size: Ints,
            stride: Ints | None = None,
            padding: Ints = 0,
            ceil_mode: bool = False,
            count_include_pad: bool = True,
        ) -> Array:
            made = _avg_geometry(
                _spec(F, input), kernel_size, stride, padding, ceil_mode, count_include_pad, None, dims
            )
            return F._avg_pool(input, made)
    else:

        def avg_pool(  # type: ignore[misc]
            F: Any,
            input: Array,
            kernel_size: Ints,
            stride: Ints | None = None,
            padding: Ints = 0,
            ceil_mode: bool = False,
            count_include_pad: bool = True,
            divisor_override: int | None = None,
        ) -> Array:
            made = _avg_geometry(
                _spec(F, input), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dims
            )
            return F._avg_pool(input, made)

    avg_pool.__doc__ = (
        f"The mean of each window over the last {spatial}.\n\nPadding counts as zeros, or with `count_include_pad` "
        "false "
        "not at all" + ("." if dims == 1 else "; `divisor_override` divides the sums by another number.")
    )
    avg_samples = [
        S(T(1, 2, *size), 2),
        S(T(2, *size), 3, 2, 1),
        S(T(1, 2, *size), 3, 2, 1, count_include_pad=False),
        S(T(1, 2, *size), 3, stride=2, ceil_mode=True),
        S(T(0, 2, *size), 2),
        S(I(1, 1, *size, high=20), 2),
    ]
    if dims > 1:
        avg_samples.append(S(T(1, 1, *size), 2, divisor_override=3))
    composite(
        family="nn",
        name=f"nn.functional.avg_pool{dims}d",
        alias=(f"avg_pool{dims}d",) if dims == 1 else (),
        moves=True,
        samples=avg_samples,
    )(avg_pool)


for _dims in (1, 2, 3):
    _declare(_dims)

"""Pooling's kin: maxima put back where they came from, windows of random sizes, means of powers."""

from __future__ import annotations

from math import inf, isfinite, prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Ints, composite, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, int64, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch, WrongType
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.scatter import cast_index, check_range, put_along
from engine.samples import I, S, T
from engine.shapes import Shape, text, wrap_dim

_COUNTS = {2: "Ints", 3: "three Ints"}


def _each(value: Any, dims: int) -> Shape:
    return (value,) * dims if type(value) in (int, float) else tuple(value)


# ---------------------------------------------------------------- max_unpool


def _unpool_meta(k: K, input: Spec, indices: Spec, output: Shape) -> Spec:
    return Spec((*input.shape[: input.ndim - len(output)], *output), input.dtype)


@op(
    family="nn",
    meta=_unpool_meta,
    moves=True,
    save={"input": ("indices",)},
    node=lambda input, indices, output: f"MaxUnpool{max(len(output), 2)}DBackward0",
)
def _max_unpool(k: K, input: Array, indices: Array, output: Any) -> Array:
    """Zeros, and each element of the input at its index within the flattened sample."""
    lead = k.spec.shape[: input.ndim - len(output)]
    made = k.xp.zeros((*lead, prod(output)), input.dtype)
    if input.size:
        put_along(k, made, len(lead), indices.reshape(*lead, -1), input.reshape(*lead, -1))
    return made.reshape(k.spec.shape)


@_max_unpool.guard
def _(k: K, input: Any, indices: Any, output: Any) -> None:
    sizes = output if len(output) > 1 else (*output, 1)
    shown = "x".join(map(str, sizes))
    check_range(
        indices,
        0,
        prod(output),
        lambda bad: f"Found an invalid max index: {bad} (output volumes are of size {shown})",
        "indices",
    )


@_max_unpool.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    at = saved.indices
    shape, dims = tuple(at.shape), len(saved.output)
    lead = shape[: len(shape) - dims]
    picked = F.gather(
        F.reshape(g, (*lead, prod(saved.output))), len(lead), F.reshape(at, (*lead, prod(shape[len(lead) :])))
    )
    return F.reshape(picked, shape), None


def _unpooled_sizes(shape: Shape, kernel: Shape, stride: Shape, padding: Shape, given: Any) -> Shape:
    """The output's sizes: those that were asked for, or the smallest that max pooling would have had."""
    dims = len(kernel)
    if len(shape) < dims:
        raise ShapeMismatch("tuple index out of range", param="input")
    sizes = shape[len(shape) - dims :]
    plain = [(n - 1) * s + w - 2 * p for n, s, w, p in zip(sizes, stride, kernel, padding, strict=True)]
    if given is None:
        made = tuple(plain)
    else:
        if type(given) is int:
            raise WrongType("output_size must be a tuple of ints, not int", param="output_size")
        wanted = tuple(given)
        if len(wanted) == dims + 2:
            wanted = wanted[2:]
        if len(wanted) != dims:
            raise ShapeMismatch(
                f"output_size should be a sequence containing {dims} or {dims + 2} elements, but it has a length of "
                f"'{len(wanted)}'",
                param="output_size",
            )
        for d, (n, s, got) in enumerate(zip(plain, stride, wanted, strict=True)):
            if not n - s < got < n + s:
                shown = f"({wanted[0]},)" if dims == 1 else f"({', '.join(map(str, wanted))})"
                raise Invalid(
                    f'invalid output_size "{shown}" (dim {d} must be between {n - s} and {n + s})', param="output_size"
                )
        made = wanted
    for d, n in enumerate(made):
        if n < 0:
            raise Invalid(
                "max_unpooling: output_size must contain non-negative spatial dimensions, but got "
                f"output_size[{d}]={n}",
                param="output_size",
            )
    return made


def _check_unpool(F: Any, input: Any, indices: Any, stride: Shape, dims: int) -> None:
    shape, places = tuple(F.shape(input)), tuple(F.shape(indices))
    d = F.dtype(indices)
    if d is not int64:
        said = f" but got: {scalar_type(d)}" if dims < 3 else ""
        raise cast_index(f"elements in indices should be type int64{said}", Spec(places, d), "indices")
    tail = (1,) if dims == 1 else ()
    if dims < 3 and len(shape) + len(tail) not in (3, 4):
        raise ShapeMismatch(
            "Input to max_unpooling2d should be a 3d or 4d Tensor, but got a tensor with "
            f"{len(shape) + len(tail)} dimensions.",
            param="input",
        )
    if dims == 3 and len(shape) not in (4, 5):
        raise ShapeMismatch(
            "Input to max_unpooling3d should be a 4d or 5d Tensor, but got a tensor with dim " + str(len(shape)),
            param="input",
        )
    if dims == 3 and min(stride) <= 0:
        raise Invalid(f"strides should be greater than zero, but got stride: {text(stride)}", param="stride")
    if shape != places:
        raise ShapeMismatch(
            f"Expected shape of indices to be same as that of the input tensor ({text((*shape, *tail))}) but got "
            f"indices tensor with shape: {text((*places, *tail))}",
            param="indices",
        )
    batched = len(shape) == dims + 2
    for at in range(1 if batched or dims < 3 else 0, len(shape)):
        if shape[at] == 0:
            raise ShapeMismatch(
                f"max_unpooling{max(dims, 2)}d_forward_out_cpu(): Expected input to have non-zero size for non-batch "
                f"dimensions, but got {text((*shape, *tail))} with dimension {at} being empty.",
                param="input",
            )
    if F.dtype(input).category != FLOAT and 0 not in shape:
        raise not_implemented(f"max_unpool{max(dims, 2)}d", F.dtype(input))


def _declare_unpool(dims: int) -> None:
    size = ((2,), (2, 2), (1, 2, 2))[dims - 1]
    count = prod(size)
    index = I(1, 2, *size, values=[[[0, 3, 9, 6][:count], [2, 1, 4, 7][:count]]])
    shaped = I(1, 2, *size, low=0, high=1)
    index.values = _nested(index.values, size)

    def unpool(
        F: Any,
        input: Array,
        indices: Array,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        output_size: Ints | None = None,
    ) -> Array:
        kernel = _each(kernel_size, dims)
        steps = kernel if stride is None else _each(stride, dims)
        pads = _each(padding, dims)
        if min(len(kernel), len(steps), len(pads)) < dims or len(kernel) > dims:
            raise Invalid("tuple index out of range", param="kernel_size")
        steps, pads = steps[:dims], pads[:dims]  # PyTorch looks at no more of them
        output = _unpooled_sizes(tuple(F.shape(input)), kernel, steps, pads, output_size)
        _check_unpool(F, input, indices, steps, dims)
        return F._max_unpool(input, indices, output)

    unpool.__doc__ = (
        f"The inverse of max_pool{dims}d as far as there is one: each element of `input` at the place that `indices` "
        "names, zeros elsewhere.\n\n"
        "Without `output_size` the sizes are the smallest that pooling could have come from: (n - 1) * stride + "
        "kernel_size - 2 * padding."
    )
    composite(
        family="nn",
        name=f"nn.functional.max_unpool{dims}d",
        moves=True,
        node="SqueezeBackward1" if dims == 1 else None,
        samples=[
            S(T(1, 2, *size), index, 2 if dims < 3 else [2, 2, 2]),
            S(T(1, 2, *size), index, 2, 2, 0, [n * 2 + 1 for n in size]),
            S(T(0, 2, *size), I(0, 2, *size), 2),
            S(T(1, 2, *size), shaped, 2, gradcheck=False),
        ],
    )(unpool)


def _nested(rows: Any, size: Shape) -> Any:
    """Rows of numbers, each in the shape `size`."""

    def shaped(flat: list[int], sizes: Shape) -> Any:
        if len(sizes) == 1:
            return flat
        step = len(flat) // sizes[0]
        return [shaped(flat[i * step : (i + 1) * step], sizes[1:]) for i in range(sizes[0])]

    return [[shaped(row, size) for row in sample] for sample in rows]


for _dims in (1, 2, 3):
    _declare_unpool(_dims)


# ---------------------------------------------------------------- windows of random sizes


def _fractional_meta(k: K, input: Spec, samples: Spec, kernel: Shape, output: Shape) -> Spec:
    return Spec((*input.shape[: input.ndim - len(output)], *output), int64)


@op(family="nn", meta=_fractional_meta, vjp=None)
def _fractional_places(k: K, input: Array, samples: Array, kernel: Any, output: Any) -> Array:
    """Where each window's largest element is in the flattened sample; the windows begin where `samples` say.

    Graham 2014: along a dimension window i begins at int((i + u) a) - int(u a) with a = (size - kernel) /
    (windows - 1), the last one at size - kernel.
    """
    xp = k.xp
    dims = len(output)
    sizes = input.shape[input.ndim - dims :]
    planes = prod(input.shape[: input.ndim - dims])
    if not prod(k.spec.shape):
        return xp.zeros(k.spec.shape, int64.np)
    drawn = samples.reshape(-1, dims)[:planes]
    order = (1, 0) if dims == 2 else (0, 1, 2)  # of two numbers PyTorch takes the first one for the width
    place: Any = xp.zeros((planes, *([1] * 2 * dims)), int64.np)
    for axis, (n, w, m) in enumerate(zip(sizes, kernel, output, strict=True)):
        start = xp.full((planes, m), n - w, int64.np)
        if m > 1:
            u = drawn[:, order[axis], None]
            a = xp.asarray((n - w), dtype=u.dtype) / xp.asarray(m - 1, dtype=u.dtype)
            i = xp.arange(m - 1, dtype=u.dtype)
            start[:, :-1] = ((i + u) * a).astype(int64.np) - (u * a).astype(int64.np)
        line = start[:, :, None] + xp.arange(w, dtype=int64.np)
        shape = [planes, *([1] * 2 * dims)]
        shape[1 + axis], shape[1 + dims + axis] = m, w
        place = place * n + line.reshape(shape)
    place = place.reshape(planes, prod(output), prod(kernel))
    rows = xp.arange(planes)[:, None, None]
    seen = input.reshape(planes, -1)[rows, place]
    found = seen.argmax(axis=-1)
    nan = seen != seen
    if nan.any():  # NaN wins, and the last one of several
        last = seen.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        found = xp.where(nan.any(axis=-1), last, found)
    return xp.take_along_axis(place, found[..., None], axis=-1).reshape(k.spec.shape)


def _fractional_sizes(F: Any, input: Any, kernel_size: Any, output_size: Any, output_ratio: Any, dims: int) -> Any:
    """(kernel, output sizes); refuses what PyTorch refuses before it draws."""
    name = f"fractional_max_pool{dims}d"
    shape = tuple(F.shape(input))
    if not shape:
        raise ShapeMismatch("Dimension specified as 0 but tensor has no dimensions", param="input")
    if output_size is None:
        if output_ratio is None:
            raise Invalid(f"{name} requires specifying either an output_size or an output_ratio", param="output_size")
        ratios = _each(output_ratio, dims)
        if len(ratios) != dims:
            raise Invalid(
                f"{name} requires output_ratio to either be a single Int or tuple of Ints.", param="output_ratio"
            )
        wrap_dim(-dims, len(shape))
        if any(type(r) is complex for r in ratios):
            words = "int() argument must be a string, a bytes-like object or a real number, not 'complex'"
            raise WrongType(words, param="output_ratio")
        if not all(isfinite(r) for r in ratios):
            kind = "NaN" if any(r != r for r in ratios) else "infinity"
            raise Invalid(f"cannot convert float {kind} to integer", param="output_ratio")
        output_size = [int(shape[i - dims] * r) for i, r in enumerate(ratios)]
    return _each(kernel_size, dims), _each(output_size, dims)


def _check_fractional(F: Any, input: Any, samples: Any, kernel: Shape, output: Shape) -> None:
    dims = len(output) if len(output) in (2, 3) else len(kernel)
    shape = tuple(F.shape(input))
    where = f"fractional_max_pool{dims}d" + ("_out" if dims == 3 else "")
    if min(kernel, default=1) <= 0:  # PyTorch reads from beside the input then
        raise Invalid(f"{where}: kernel_size should be greater than zero, but got {text(kernel)}", param="kernel_size")
    if F.dtype(samples) is not F.dtype(input):
        raise DtypeMismatch("Expect _random_samples to have the same dtype as input", param="_random_samples")
    if len(shape) not in (dims + 1, dims + 2):
        raise ShapeMismatch(
            f"{where}(): Expected {dims + 1}D or {dims + 2}D tensor, but got: {text(shape)}", param="input"
        )
    batched = len(shape) == dims + 2
    for at in range(1 if batched else 0, len(shape)):
        if shape[at] == 0:
            raise ShapeMismatch(
                f"{where}(): Expected input to have non-zero size for non-batch dimensions, but got{text(shape)} with "
                f"dimension {at} being empty.",
                param="input",
            )
    drawn = tuple(F.shape(samples))
    if len(drawn) != 3:
        raise ShapeMismatch(f"Expect _random_samples to have 3 dimensions, got {len(drawn)}", param="_random_samples")
    if drawn[0] < (shape[0] if batched else 1):
        raise ShapeMismatch("Expect _random_samples.size(0) no less then input batch size.", param="_random_samples")
    if drawn[1] != shape[len(shape) - dims - 1]:
        raise ShapeMismatch("Expect _random_samples.size(1) equals to input channel size.", param="_random_samples")
    if drawn[2] != dims:
        raise ShapeMismatch(
            f"Expect _random_samples.size(2) equals to {dims}; got {drawn[2]}.", param="_random_samples"
        )
    if min(kernel) <= 0:
        raise Invalid(f"fractional_max_pool{dims}d: kernel_size must be greater than 0", param="kernel_size")
    if min(output) < 0:
        made = text((*shape[: len(shape) - dims], *output))
        first = min(output, key=lambda n: n >= 0)
        raise Invalid(f"Trying to create tensor with negative dimension {first}: {made}", param="output_size")
    names = ("time", "height", "width")[-dims:]
    for name, n, w, m in zip(names, shape[-dims:], kernel, output, strict=True):
        if m + w - 1 > n - (dims == 3):  # in three dimensions PyTorch wants room for one more
            raise ShapeMismatch(
                f"{where}(): pool {name} {w} too large relative to input {name} {n}", param="kernel_size"
            )


def _fractional(
    F: Any,
    input: Any,
    kernel_size: Any,
    output_size: Any,
    output_ratio: Any,
    samples: Any,
    dims: int,
) -> Any:
    kernel, output = _fractional_sizes(F, input, kernel_size, output_size, output_ratio, dims)
    shape = tuple(F.shape(input))
    d = F.dtype(input)
    if samples is None:
        wrap_dim(-dims - 1, len(shape))
        lead = shape[0] if len(shape) == dims + 2 else 1
        if d.category < FLOAT:
            raise not_implemented("check_uniform_bounds", d)
        samples = F.rand_like(F.new_empty(input, [lead, shape[len(shape) - dims - 1], dims]))
    for values, name in ((kernel, "kernel_size"), (output, "output_size")):
        if len(values) != dims:
            raise Invalid(
                f"fractional_max_pool{dims}d: {name} must either be a single Int or tuple of {_COUNTS[dims]}",
                param=name,
            )
    _check_fractional(F, input, samples, kernel, output)
    if d.category in (BOOL, COMPLEX) or d.category != FLOAT:
        raise not_implemented(f"fractional_max_pool{dims}d_out_frame", d)
    places = F._fractional_places(input, samples, kernel, output)
    lead = shape[: len(shape) - dims]
    flat = F.reshape(input, (*lead, prod(shape[len(lead) :])))
    values = F.gather(flat, len(lead), F.reshape(places, (*lead, prod(output))))
    return F.reshape(values, (*lead, *output)), places


def _declare_fractional(dims: int) -> None:
    size = (5,) * dims
    samples = [
        S(T(1, 2, *size, distinct=True), 2, [2] * dims, _random_samples=T(1, 2, dims, low=0.0, high=1.0, grad=False)),
        S(T(2, *size, distinct=True), 2, 3, _random_samples=T(1, 2, dims, low=0.0, high=1.0, grad=False)),
        S(T(0, 2, *size), 2, 3, _random_samples=T(1, 2, dims, low=0.0, high=1.0, grad=False)),
    ]

    def pool(
        F: Any,
        input: Array,
        kernel_size: Ints,
        output_size: Ints | None = None,
        output_ratio: float | list[float] | None = None,
        return_indices: bool = False,
        _random_samples: Array | None = None,
    ) -> Array:
        values, places = _fractional(F, input, kernel_size, output_size, output_ratio, _random_samples, dims)
        return [values, places] if return_indices else values

    def with_indices(
        F: Any,
        input: Array,
        kernel_size: Ints,
        output_size: Ints | None = None,
        output_ratio: float | list[float] | None = None,
        return_indices: bool = False,
        _random_samples: Array | None = None,
    ) -> Array:
        values, places = _fractional(F, input, kernel_size, output_size, output_ratio, _random_samples, dims)
        return [values, places]

    said = (
        f"The largest element of each of `output_size` windows, over the last {dims} dimensions, that begin at random "
        "places (Graham 2014)"
    )
    pool.__doc__ = (
        f"{said}.\n\n`output_ratio` gives the sizes as parts of the input's. `_random_samples`, (N, C, {dims}), "
        "decides where windows begin; without it numbers are drawn."
    )
    with_indices.__doc__ = f"{said}, and its index in the flattened sample."
    composite(
        family="nn",
        name=f"nn.functional.fractional_max_pool{dims}d",
        moves=True,
        random=True,
        node=f"FractionalMaxPool{dims}DBackward0",
        returns="Tensor or list of Tensors",
        samples=samples,
    )(pool)
    composite(
        family="nn",
        name=f"nn.functional.fractional_max_pool{dims}d_with_indices",
        moves=True,
        random=True,
        returns="list of Tensors",
        samples=samples[:1],
    )(with_indices)


_declare_fractional(2)
_declare_fractional(3)


# ---------------------------------------------------------------- means of powers


def _declare_power(dims: int) -> None:
    size = ((6,), (4, 4), (3, 3, 3))[dims - 1]

    def lp_pool(
        F: Any,
        input: Array,
        norm_type: float,
        kernel_size: Ints,
        stride: Ints | None = None,
        ceil_mode: bool = False,
    ) -> Array:
        largest, mean = getattr(F, f"max_pool{dims}d"), getattr(F, f"avg_pool{dims}d")
        if norm_type == inf:
            return largest(F.abs(input), kernel_size, stride, 0, 1, ceil_mode)
        if norm_type == -inf:
            return F.neg(largest(F.neg(F.abs(input)), kernel_size, stride, 0, 1, ceil_mode))
        means = mean(F.pow(input, norm_type), kernel_size, stride, 0, ceil_mode)
        kept = F.mul(F.sign(means), F.relu(F.abs(means)))
        if not norm_type:
            raise Invalid("float division by zero", param="norm_type")
        return F.pow(F.mul(kept, prod(_each(kernel_size, dims))), 1.0 / norm_type)

    lp_pool.__doc__ = (
        f"(sum of x^p)^(1/p) of each window over the last {dims} dimension{'s' * (dims > 1)}; p is `norm_type`.\n\n"
        "p = 1 sums; infinity takes the largest absolute value."
    )
    composite(
        family="nn",
        name=f"nn.functional.lp_pool{dims}d",
        samples=[
            S(T(1, 2, *size, low=0.2), 2, 2),
            S(T(2, *size, low=0.2), 3.0, 2, 1) if dims == 1 else S(T(1, 2, *size, low=0.2), 3.0, [2] * dims, 1),
            S(T(1, 1, *size, low=0.2), 1.5, 2, ceil_mode=True),
            S(T(1, 1, *size, distinct=True), inf, 2),
            S(T(0, 2, *size), 2, 2),
        ],
    )(lp_pool)


for _dims in (1, 2, 3):
    _declare_power(_dims)

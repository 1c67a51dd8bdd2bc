"""Pooling: the largest element or the mean of each window."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Ints, composite, op
from engine.dtypes import int8, int32, int64
from engine.op import Spec
from engine.ops.pool_windows import Pool, avg_geometry, max_geometry, spec_of
from engine.ops.windows import pad
from engine.samples import I, S, T
from engine.shapes import Shape


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


@op(family="nn", meta=_pooled, node=lambda input, pool: pool.node, save={"input": ("input", "result")}, ties=True)
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
    ties=True,
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
        down = k.xp.floor_divide(x, by)
        return down + ((down * by != x) & ((x < 0) != (by < 0))).astype(x.dtype)  # towards zero, to the last digit
    return k.xp.true_divide(x, by, out=x if x.ndim else None)


@op(family="nn", meta=_pooled, node=_avg_node, ties=lambda input, pool: pool.node != "MeanBackward1")
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
        pool = max_geometry(spec_of(F, input), kernel_size, stride, padding, dilation, ceil_mode, dims, return_indices)
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
            input, max_geometry(spec_of(F, input), kernel_size, stride, padding, dilation, ceil_mode, dims, True)
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
            made = avg_geometry(
                spec_of(F, input), kernel_size, stride, padding, ceil_mode, count_include_pad, None, dims
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
            made = avg_geometry(
                spec_of(F, input), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dims
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

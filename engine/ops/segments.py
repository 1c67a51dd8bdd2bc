"""Reductions of consecutive stretches of a dimension: their lengths, or where they begin, are tensors."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Scalar, composite, op
from engine.dtypes import FLOAT, int32, int64
from engine.errors import IndexOutOfRange, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.samples import I, S, T
from engine.shapes import wrap_dim

_REDUCTIONS = {
    "sum": "sum",
    "mean": "sum",
    "prod": "prod",
    "max": "amax",
    "amax": "amax",
    "min": "amin",
    "amin": "amin",
}
_START = {"sum": 0.0, "prod": 1.0, "amax": -float("inf"), "amin": float("inf")}


def _places_meta(k: K, bounds: Spec, size: Any, offsets: Any, unsafe: Any) -> Spec:
    return Spec((*bounds.shape[:-1], size), int64)


_TABLE = 1 << 22  # comparisons of each place with each end that are made at once; of more, places are looked up


@op(family="reductions", meta=_places_meta, vjp=None)
def _segment_places(k: K, bounds: Array, size: Any, offsets: Any, unsafe: Any) -> Array:
    """The number of the segment of each of `size` elements; what no segment has gets the number after the last."""
    xp = k.xp
    ends = bounds.astype(int64.np)
    ends = ends[..., 1:] if offsets else xp.cumsum(ends, axis=-1)
    at = xp.arange(size, dtype=int64.np)
    if ends.size * size <= _TABLE:
        made = (ends[..., None, :] <= at[:, None]).sum(axis=-1, dtype=int64.np)
    else:  # the ends of a row never fall
        made = xp.empty((*ends.shape[:-1], size), int64.np)
        for row, found in zip(ends.reshape(-1, ends.shape[-1]), made.reshape(-1, size), strict=True):
            found[...] = xp.searchsorted(row, at, side="right")
    if offsets:
        made = xp.where(at < bounds[..., :1], ends.shape[-1], made)
    return made


@_segment_places.guard
def _(k: K, bounds: Any, size: Any, offsets: Any, unsafe: Any) -> None:
    steps = bounds[..., 1:] - bounds[..., :-1] if offsets else bounds
    if steps.size and int(steps.min()) < 0:
        words = "Expected segment_length >= 0 to be true, but got false."
        raise Invalid(words if offsets or unsafe else "lengths contains negative value!", param="lengths")
    if not offsets and not unsafe and bool((bounds.sum(axis=-1) != size).any()):
        raise ShapeMismatch(
            "segment_reduce(): Expected all rows of lengths along axis to sum to data.size(lengths.dim()-1) when "
            "!unsafe.",
            param="lengths",
        )
    last = bounds[..., -1:] if offsets else bounds.sum(axis=-1)
    first = bounds[..., :1] if offsets else last
    if bounds.size and (int(last.max()) > size or int(first.min()) < 0):
        raise IndexOutOfRange(
            f"segment_reduce(): a segment ends after the last of {size} elements", param="offsets" if offsets else None
        )


def _check(F: Any, data: Any, reduce: str, lengths: Any, indices: Any, offsets: Any, axis: int) -> int:
    """The axis, counted from the front, after PyTorch's checks in their order."""
    if reduce not in _REDUCTIONS:
        raise Invalid(f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}", param="reduce")
    axis = wrap_dim(axis, len(F.shape(data)))
    if indices is not None:
        raise Invalid("segment_reduce(): indices based reduction is not supported yet.", param="indices")
    bounds = offsets if offsets is not None else lengths
    if bounds is None:
        raise Invalid("segment_reduce(): Either lengths or offsets must be defined.", param="lengths")
    name = "offsets" if offsets is not None else "lengths"
    rows, shape = F.shape(bounds), F.shape(data)
    if len(shape) < len(rows):
        raise ShapeMismatch(f"Expected data.dim() >= {name}_value.dim() to be true, but got false.", param=name)
    if axis != len(rows) - 1:
        raise Invalid(
            f"segment_reduce(): Expected axis to be the last dimension of {name} but got {axis}.", param="axis"
        )
    if rows[:-1] != shape[:axis]:
        raise ShapeMismatch(
            f"segment_reduce(): {name} of shape {list(rows)} do not fit data of shape {list(shape)}: all sizes "
            "before the axis are the same",
            param=name,
        )
    if F.dtype(bounds) not in (int32, int64):
        raise not_implemented(f"_segment_reduce_{name}_cpu_kernel1", F.dtype(bounds))
    if F.dtype(data).category != FLOAT:
        raise not_implemented("_segment_reduce_cpu", F.dtype(data))
    return axis


@composite(
    family="reductions",
    node="SegmentReduceBackward0",
    samples=[
        S(T(6), "sum", I(3, values=[2, 0, 4])),
        S(T(6), "mean", I(2, values=[2, 4]), initial=1.0),
        S(T(6, distinct=True), "max", I(2, values=[2, 4])),
        S(T(5, 2, distinct=True), "min", offsets=I(3, values=[0, 2, 5]), initial=0.5),
        S(T(2, 4), "prod", I(2, 2, values=[[1, 3], [2, 2]]), axis=1),
    ],
)
def segment_reduce(
    F: Any,
    data: Array,
    reduce: str,
    lengths: Array | None = None,
    indices: Array | None = None,
    offsets: Array | None = None,
    axis: Dim = 0,
    unsafe: bool = False,
    initial: Scalar | None = None,
) -> Array:
    """Sums, means, products, maxima or minima of consecutive segments of `data` along `axis`.

    Shape: that of `data`, with the number of segments along `axis`. An empty segment gives `initial`; without it 0, 1,
    NaN for a mean, or an infinity. Where PyTorch would read beyond the data, the call is refused.
    """
    axis = _check(F, data, reduce, lengths, indices, offsets, axis)
    bounds = lengths if offsets is None else offsets
    shape, many = F.shape(data), F.shape(bounds)[-1] - (offsets is not None)
    places = F._segment_places(bounds, shape[axis], offsets is not None, unsafe)
    rest = (1,) * (len(shape) - axis - 1)
    index = F.expand(F.reshape(places, (*shape[: axis + 1], *rest)), shape)
    how = _REDUCTIONS[reduce]
    start = _START[how] if initial is None or how in ("amax", "amin") else initial
    whole = (*shape[:axis], many + 1, *shape[axis + 1 :])
    base = F.full(whole, start, dtype=F.dtype(data).name)
    made = F.clone(F.narrow(F.scatter_reduce(base, axis, index, data, how), axis, 0, many))
    if reduce == "mean":
        count = F.scatter_add(F.zeros_like(base), axis, index, F.ones_like(data))
        count = F.narrow(count, axis, 0, many)
        if initial is not None:  # an empty segment has the initial value itself
            count = F.where(F.eq(count, 0), 1.0, count)
        made = made / count
    elif initial is not None and how == "amax":
        made = F.where(F.lt(made, initial), F.full_like(made, initial), made)
    elif initial is not None and how == "amin":
        made = F.where(F.gt(made, initial), F.full_like(made, initial), made)
    return made

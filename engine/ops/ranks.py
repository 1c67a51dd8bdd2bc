"""Order statistics, median, quantile and mode, and searching in what is sorted."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

from engine.carriers import K
from engine.declare import Array, Dim, Scalar, composite, op
from engine.dtypes import BOOL, COMPLEX, float32, float64, int32, int64, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch, WrongType
from engine.op import Spec
from engine.ops.common import joint, not_implemented
from engine.ops.extremes import picked_gradient, refuse_empty, shared_gradient
from engine.ops.scans import running
from engine.ops.scatter import cast_index, check_range
from engine.ops.sorting import lines_of, order_of, pick
from engine.samples import B, I, S, T
from engine.shapes import reduced, text, wrap_dim

_DISTINCT = T(2, 3, distinct=True)
_NAN = T(4, values=[1.0, float("nan"), 0.5, 2.0], grad=False)

# ---------------------------------------------------------------- median


def _whole_meta(k: K, input: Spec) -> Spec:
    if input.dtype.category in (BOOL, COMPLEX):
        raise not_implemented("median_cpu", input.dtype)
    return Spec((), input.dtype)


def _along_meta(name: str, kernel: str, refused: tuple[int, ...]) -> Any:
    def meta(k: K, input: Spec, dim: int = -1, keepdim: bool = False) -> Any:
        d = wrap_dim(dim, input.ndim)
        refuse_empty(name, input, d) if input.ndim else None
        if input.dtype.category in refused and (input.ndim or name != "mode"):
            raise not_implemented(kernel, input.dtype)
        shape = reduced(input.shape, (d,), keepdim) if input.ndim else ()
        return Spec(shape, input.dtype), Spec(shape, int64)

    return meta


def _middle(k: K, lines: Array, skip_nan: bool) -> Array:
    """The rank of the lower median of each line; a NaN in the line takes it, unless NaN is skipped."""
    n = lines.shape[-1]
    nan = (lines != lines).sum(axis=-1, keepdims=True)
    if skip_nan:
        return k.xp.maximum(n - nan - 1, 0) // 2
    return k.xp.where(nan > 0, n - nan, (n - 1) // 2)


def _declare_median(name: str, skip_nan: bool, what: str) -> None:
    def whole(k: K, input: Array) -> Array:
        if input.size == 0:
            nothing = float("nan") if input.dtype.kind == "f" else k.xp.iinfo(input.dtype).min
            return k.xp.full((), nothing, input.dtype)
        lines = input.reshape(-1)
        middle = _middle(k, lines, skip_nan)
        if k.backend.kind == "cpu":  # NaN is the largest there too
            at = int(middle[0])
            return k.xp.partition(lines, at)[at : at + 1].reshape(())
        return lines[order_of(k, lines, False)[middle]].reshape(())

    def along(k: K, input: Array, dim: Dim = -1, keepdim: bool = False) -> Array:
        return pick(k, input, _middle(k, lines_of(k, input, dim), skip_nan), dim)

    title = name.capitalize()
    whole.__doc__ = f"The {what} of all elements: the lower of the two in the middle."
    along.__doc__ = f"The {what} along `dim`, the lower of the two in the middle, and its index."
    made = op(
        family="reductions",
        name=f"_{name}_all",
        joins=name,
        node=f"{title}Backward0",
        meta=_whole_meta,
        save={"input": ("input", "result")},
        samples=[S(T(2, 3, distinct=True)), S(T()), S(I(5)), S(_NAN)],
    )(whole)
    made.vjp(lambda F, saved, g, need: shared_gradient(F, saved.input, saved.result, g, None, False, True))
    made = op(
        family="reductions",
        name=f"_{name}_dim",
        joins=name,
        node=f"{title}Backward1",
        meta=_along_meta("median", "median_out", (BOOL, COMPLEX)),
        outputs=("values", "indices"),
        fields=True,
        nondiff=("indices",),
        save={"input": ("indices",)},
        samples=[S(_DISTINCT, 1), S(_DISTINCT, 0, True), S(T(), 0), S(I(5), 0), S(_NAN, 0)],
    )(along)
    made.vjp(lambda F, saved, g, need: picked_gradient(F, saved, g[0]))


_declare_median("median", False, "median")
_declare_median("nanmedian", True, "median without NaN")


# ---------------------------------------------------------------- mode


@op(
    family="reductions",
    meta=_along_meta("mode", "mode_cpu", (COMPLEX,)),
    outputs=("values", "indices"),
    fields=True,
    nondiff=("indices",),
    save={"input": ("indices",)},
    samples=[S(I(2, 5), 1), S(_DISTINCT), S(_DISTINCT, 0, True), S(T(), 0), S(B(4))],
)
def mode(k: K, input: Array, dim: Dim = -1, keepdim: bool = False) -> Array:
    """The most frequent element along `dim`, the smallest of several, and the index of its last occurrence."""
    xp = k.xp
    lines = lines_of(k, input, dim)
    order = order_of(k, lines, False)
    ordered = xp.take_along_axis(lines, order, -1)
    at = xp.arange(lines.shape[-1], dtype=int64.np)
    new = xp.ones(lines.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    start = running(k, "maximum", xp.where(new, at, xp.zeros((), int64.np)), lines.ndim - 1)
    best = xp.expand_dims((at - start).argmax(axis=-1), -1)
    index = xp.take_along_axis(order, best, -1).reshape(k.spec[0].shape)
    return xp.take_along_axis(ordered, best, -1).reshape(k.spec[0].shape), index


@mode.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return picked_gradient(F, saved, g[0])


# ---------------------------------------------------------------- quantile

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _ranks_meta(k: K, ordered: Spec, q: Spec, interpolation: str, skip_nan: Any) -> Any:
    shape = (*ordered.shape[:-1], q.numel)
    scale = Spec((*ordered.shape[:-1], 1), ordered.dtype)
    return Spec(shape, int64), Spec(shape, int64), Spec(shape, ordered.dtype), scale


@op(
    family="reductions",
    meta=_ranks_meta,
    outputs=("below", "above", "weight", "scale"),
    nondiff=("below", "above", "scale"),
    save={"q": ("scale",)},
)
def _quantile_ranks(k: K, ordered: Array, q: Array, interpolation: str, skip_nan: Any) -> Array:
    """The two ranks between which each quantile of a sorted line lies, the weight of the upper one, d weight / dq."""
    xp = k.xp
    n = ordered.shape[-1]
    nan = (ordered != ordered).sum(axis=-1, keepdims=True)
    q = q.reshape(-1).astype(ordered.dtype)
    if skip_nan:
        scale = xp.maximum(n - nan - 1, 0).astype(ordered.dtype)
        rank = q * scale
    else:
        scale = xp.where(nan > 0, xp.zeros((), ordered.dtype), xp.asarray(n - 1, dtype=ordered.dtype))
        rank = xp.where(nan > 0, xp.asarray(n - 1, dtype=ordered.dtype), q * (n - 1))
    if interpolation == "lower":
        rank = xp.floor(rank)
    elif interpolation == "higher":
        rank = xp.ceil(rank)
    elif interpolation == "nearest":
        rank = xp.rint(rank)
    below, above = xp.floor(rank), xp.ceil(rank)
    weight = rank - below
    if interpolation != "linear":
        scale = xp.zeros_like(scale)
    if interpolation == "midpoint":
        weight = xp.full(rank.shape, 0.5, rank.dtype)
    return below.astype(int64.np), above.astype(int64.np), weight, scale


@_quantile_ranks.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if not need.q or g[2] is None:
        return None, None
    made = g[2] * saved.scale
    lead = list(range(len(F.shape(made)) - 1))
    return None, F.reshape(F.sum(made, lead) if lead else made, saved.q.shape)


@_quantile_ranks.guard
def _(k: K, ordered: Any, q: Any, interpolation: str, skip_nan: Any) -> None:
    if q.size and not bool(((q >= 0) & (q <= 1)).all()):
        raise Invalid("quantile() q values must be in the range [0, 1]", param="q")


def _quantile(F: Any, input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip_nan: bool) -> Any:
    shape, dtype = F.shape(input), F.dtype(input)
    if type(q) is complex:
        raise WrongType("quantile(): argument 'q' must be Tensor or float, not complex", param="q")
    if type(q) in (int, float, bool) and not 0 <= q <= 1:
        raise Invalid(f"quantile() q must be in the range [0, 1] but got {q:g}", param="q")
    if interpolation not in _INTERPOLATIONS:
        raise Invalid(
            "quantile() interpolation must be one of linear, lower, higher, midpoint or nearest, but got "
            f"{interpolation}",
            param="interpolation",
        )
    if 0 in shape:
        raise Invalid("quantile() input tensor must be non-empty", code="empty-reduction", param="input")
    if type(q) not in (int, float, bool) and len(F.shape(q)) > 1:
        raise ShapeMismatch("quantile() q must be a scalar or 1D tensor", param="q")
    if dtype is not float32 and dtype is not float64:
        raise DtypeMismatch("quantile() input tensor must be either float or double dtype", param="input")
    if type(q) in (int, float, bool):
        q = F.constant(q, input)
    elif F.dtype(q) is not dtype:
        raise DtypeMismatch("quantile() q tensor must be same dtype as the input tensor", param="q")
    if dim is None:
        lines, out = F.reshape(input, (prod(shape),)), (1,) * len(shape) if keepdim else ()
    else:
        d = wrap_dim(dim, len(shape))
        lines = F.movedim(input, d, -1) if shape else F.reshape(input, (1,))
        out = reduced(shape, (d,), keepdim) if shape else ()
    if interpolation == "midpoint":  # halfway whatever q is
        q = F.detach(q)
    ordered = F.sort(lines, -1)[0]
    below, above, weight, _ = F._quantile_ranks(ordered, q, interpolation, skip_nan)
    made = F.gather(ordered, -1, below)
    if interpolation in ("linear", "midpoint"):
        made = F.lerp(made, F.gather(ordered, -1, above), weight)
    # The quantiles lie along the last dimension; the reduced one is gone, or has size 1.
    return F.reshape(F.movedim(made, -1, 0), (*F.shape(q), *out))


_QUANTILE = [
    S(T(2, 3, distinct=True), 0.4),
    S(T(2, 3, distinct=True), T(2, low=0.1, high=0.9, grad=False), 1),
    S(T(2, 3, distinct=True), 0.3, 0, True, interpolation="nearest"),
    S(T(), 0.5),
]


@composite(family="reductions", node="SqueezeBackward4", samples=_QUANTILE)
def quantile(
    F: Any,
    input: Array,
    q: Array | Scalar,
    dim: Dim | None = None,
    keepdim: bool = False,
    interpolation: Literal["linear", "lower", "higher", "midpoint", "nearest"] = "linear",
) -> Array:
    """The quantiles `q`, numbers from 0 to 1, of all elements or along `dim`; for a vector `q` they come first."""
    return _quantile(F, input, q, dim, keepdim, interpolation, False)


@composite(family="reductions", node="SqueezeBackward4", samples=_QUANTILE)
def nanquantile(
    F: Any,
    input: Array,
    q: Array | Scalar,
    dim: Dim | None = None,
    keepdim: bool = False,
    interpolation: Literal["linear", "lower", "higher", "midpoint", "nearest"] = "linear",
) -> Array:
    """The quantiles `q` of what is not NaN, of all elements or along `dim`."""
    return _quantile(F, input, q, dim, keepdim, interpolation, True)


# ---------------------------------------------------------------- searching


def _search_meta(
    k: K,
    sorted_sequence: Spec,
    input: Any,
    out_int32: bool = False,
    right: bool = False,
    side: Any = None,
    sorter: Spec | None = None,
) -> Spec:
    name = "torch.searchsorted(): "
    number = type(input) is not Spec
    shape = () if number else input.shape
    bounds = sorted_sequence.shape
    if side not in (None, "left", "right"):
        raise Invalid(f"{name}side can only be 'left' or 'right' but got {side}", param="side")
    if side == "left" and right:
        raise Invalid(
            f"{name}side and right can't be set to opposites, got side of left while right was True", param="side"
        )
    if not bounds:
        raise ShapeMismatch(
            f"{name}boundaries tensor should have positive dimension, but got 0 dimension", param="sorted_sequence"
        )
    if len(bounds) > 1 and not shape:
        raise ShapeMismatch(
            f"{name}input value can be a scalar only when boundaries tensor dimension is 1, but we got boundaries "
            f"tensor dim({len(bounds)}) and input value's dim(0) numel(1)",
            param="input",
        )
    if len(bounds) > 1 and bounds[:-1] != shape[:-1]:
        raise ShapeMismatch(
            f"{name}boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor and input "
            f"value tensor must match, but we got boundaries tensor {text(bounds)} and input value tensor "
            f"{text(shape)}",
            param="input",
        )
    if sorter is not None:
        if sorter.shape != bounds:
            raise ShapeMismatch(
                f"{name}boundary and sorter must have the same size, but got boundary tensor {text(bounds)}and got "
                f"sorter tensor {text(sorter.shape)}",
                param="sorter",
            )
        if sorter.dtype is not int64:
            words = f"{name}sorter must be a tensor of long dtype but got dtype {scalar_type(sorter.dtype)}"
            raise cast_index(words, sorter, "sorter")
    made = Spec(shape, int32 if out_int32 else int64)
    d = joint(k, "arithmetic", sorted_sequence, input)[0]
    if made.numel and d.category in (BOOL, COMPLEX):
        raise not_implemented("searchsorted_out_cpu", d)
    return made


def _search(k: K, bounds: Array, values: Array, right: bool) -> Array:
    """The first place where the bound is not less than the value (with `right`, is greater): a binary search.

    NaN is greater than every bound, as in PyTorch.
    """
    xp = k.xp
    low = xp.zeros(values.shape, int64.np)
    n = bounds.shape[-1]
    if not n or not values.size:
        return low
    high = xp.full(values.shape, n, int64.np)
    for _ in range(n.bit_length()):
        middle = (low + high) // 2
        at = xp.minimum(middle, n - 1)
        here = bounds[at] if bounds.ndim == 1 else xp.take_along_axis(bounds, at, -1)
        found = here > values if right else here >= values
        open_ = low < high
        low = xp.where(open_ & ~found, middle + 1, low)
        high = xp.where(open_ & found, middle, high)
    return low


@op(
    family="sorting",
    meta=_search_meta,
    vjp=None,
    samples=[
        S(T(4, values=[-1.0, 0.0, 0.5, 1.0]), T(2, 3)),
        S(T(3, values=[0.0, 1.0, 2.0]), 1.0, right=True),
        S(T(2, 3, values=[[-1.0, 0.0, 1.0], [0.0, 0.5, 0.6]]), T(2, 2), side="right"),
        S(I(3, values=[0, 1, 3]), I(4), out_int32=True),
        S(T(3), T(2), sorter=I(3, values=[0, 1, 2])),
        S(T(0), T(2)),
    ],
)
def searchsorted(
    k: K,
    sorted_sequence: Array,
    input: Array | Scalar,
    out_int32: bool = False,
    right: bool = False,
    side: Literal["left", "right"] | None = None,
    sorter: Array | None = None,
) -> Array:
    """Where each value would have to be inserted to keep the innermost dimension sorted: before its equals, or after.

    `sorter` has the indices that sort a sequence which is not sorted itself.
    """
    xp = k.xp
    values = input if hasattr(input, "dtype") else xp.asarray(input)
    bounds = sorted_sequence if sorter is None else xp.take_along_axis(sorted_sequence, sorter, -1)
    return _search(k, bounds, values, right or side == "right")


@searchsorted.guard
def _(
    k: K,
    sorted_sequence: Any,
    input: Any,
    out_int32: bool = False,
    right: bool = False,
    side: Any = None,
    sorter: Any = None,
) -> None:
    if sorter is not None:
        words = "torch.searchsorted(): sorter index out of range"
        check_range(sorter, 0, sorted_sequence.shape[-1], words, "sorter")


def _bucket_meta(k: K, input: Any, boundaries: Spec, out_int32: bool = False, right: bool = False) -> Spec:
    if boundaries.ndim != 1:
        raise ShapeMismatch(
            f"boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})", param="boundaries"
        )
    return _search_meta(k, boundaries, input, out_int32)


@op(
    family="sorting",
    meta=_bucket_meta,
    vjp=None,
    samples=[
        S(T(2, 3), T(4, values=[-1.0, 0.0, 0.5, 1.0])),
        S(1.0, T(3, values=[0.0, 1.0, 2.0]), right=True),
        S(I(4), I(3, values=[0, 1, 3]), out_int32=True),
    ],
)
def bucketize(k: K, input: Array | Scalar, boundaries: Array, out_int32: bool = False, right: bool = False) -> Array:
    """The bucket that each value falls into: boundaries[i-1] < value <= boundaries[i], or with `right` <= and <."""
    return _search(k, boundaries, input if hasattr(input, "dtype") else k.xp.asarray(input), right)

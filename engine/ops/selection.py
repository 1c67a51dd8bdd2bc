"""Whole slices by index, and elements by flat index or mask."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

from engine.carriers import K
from engine.declare import Array, Dim, Scalar, op
from engine.dtypes import BOOL, COMPLEX, bool_, cast_scalar, int32, int64, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, IndexOutOfRange, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import fitting, not_implemented
from engine.ops.filling import check_filling
from engine.ops.scatter import (
    add_rows,
    cast_index,
    check_along,
    check_range,
    combine,
    dtype_of,
    editable,
    edited,
    floats,
    from_rows,
    need_long,
    places,
    relaid,
    rows_of,
)
from engine.ops.scatter_reduce import reduce_at, reduce_gradient
from engine.samples import B, C, I, S, T
from engine.shapes import broadcast_two, text, wrap_dim

_TWO = I(2, values=[2, 0])


def _without(shape: tuple[int, ...], d: int) -> tuple[int, ...]:
    return shape[:d] + shape[d + 1 :]


# ---------------------------------------------------------------- slices by index


def _select_meta(k: K, input: Spec, dim: int, index: Spec) -> Spec:
    d = wrap_dim(dim, input.ndim)
    if index.ndim > 1:
        raise IndexOutOfRange("index_select(): Index is supposed to be a vector", code="index-shape", param="index")
    if index.dtype is not int64 and index.dtype is not int32:
        raise cast_index("index_select(): Expected dtype int32 or int64 for index", index)
    if input.ndim == 0:
        if index.numel != 1:
            raise ShapeMismatch(
                f"index_select(): Index to scalar can have only 1 value, got {index.numel} value(s)", param="index"
            )
        return input
    return Spec((*input.shape[:d], index.numel, *input.shape[d + 1 :]), input.dtype)


@op(
    family="indexing",
    meta=_select_meta,
    moves=True,
    save={"input": ("index",)},
    samples=[
        S(T(3, 2), 0, _TWO),
        S(T(2, 3), 1, I(4, high=3)),
        S(T(2, 3), -1, I(0)),
        S(T(), 0, I(1, high=1)),
        S(C(3), 0, _TWO),
        S(T(3, 2), 0, I(high=3)),
        S(I(3), 0, I(2, dtype="int32", high=3)),
    ],
)
def index_select(k: K, input: Array, dim: Dim, index: Array) -> Array:
    """The slices of `input` along `dim` that a vector of indices names, in its order; int32 or int64."""
    if input.ndim == 0:
        return input.copy()
    return k.xp.take(input, index.reshape(-1), axis=wrap_dim(dim, input.ndim))


@index_select.guard
def _(k: K, input: Any, dim: int, index: Any) -> None:
    d = wrap_dim(dim, input.ndim)
    n = input.shape[d] if input.ndim else 1
    if not n and index.size and input.ndim > 1:
        raise IndexOutOfRange("index_select(): self indexing axis dim should be positive", param="index")
    if d == 1:  # PyTorch has a kernel of its own for this one
        check_range(index, 0, n, lambda bad: f"INDICES element is out of DATA bounds, id={bad} axis_dim={n}")
    check_range(index, 0, n, "index out of range in self")


@index_select.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._place_slices(g, saved.index, saved.dim, saved.input.shape)


def _slices_meta(k: K, src: Spec, index: Spec, dim: Any, shape: Any) -> Spec:
    return Spec(shape, src.dtype)


@op(family="indexing", meta=_slices_meta, node="IndexAddBackward0", save={"src": ("index",)})
def _place_slices(k: K, src: Array, index: Array, dim: Any, shape: Any) -> Array:
    """Zeros of `shape`, with slices added at `index` along `dim`: the gradient of index_select."""
    src = floats(k, src)
    d = wrap_dim(dim, len(shape))
    width = prod(_without(shape, d)) if shape else 1
    made = k.xp.zeros((shape[d] if shape else 1, width), src.dtype)
    if src.size:
        add_rows(k, made, index.reshape(-1), rows_of(k, src, d))
    return from_rows(k, made, shape, d)


@_place_slices.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.index_select(g, saved.dim, saved.index)


def _source_checks(name: str, input: Spec, dim: int, index: Spec, source: Spec) -> int:
    """What index_add and index_reduce ask of their arguments; the wrapped dim."""
    if index.ndim > 1:
        raise IndexOutOfRange(
            f"{name}(): Index is supposed to be a vector, but got dim: {index.ndim} with type: "
            f"{scalar_type(index.dtype)} and size: {text(index.shape)}",
            code="index-shape",
            param="index",
        )
    if index.dtype is not int64 and index.dtype is not int32:
        got = f" but got: {scalar_type(index.dtype)}" if name in ("index_add_", "index_reduce_") else ""
        raise cast_index(f"{name}(): Expected dtype int32/int64 for index{got}", index)
    if input.dtype is not source.dtype:
        raise DtypeMismatch(
            f"{name}(): self ({scalar_type(input.dtype)}) and source ({scalar_type(source.dtype)}) must have the same "
            "scalar type",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param("source"), "dtype": input.dtype.name}),
                a=input.dtype.name,
                b=source.dtype.name,
                param="source",
            ),
            param="source",
        )
    d = wrap_dim(dim, input.ndim)
    size = source.shape[wrap_dim(dim, source.ndim)] if source.ndim else 1
    if index.numel != size:
        raise ShapeMismatch(
            f"{name}(): Number of indices ({index.numel}) should be equal to source.size(dim): ({size}), for dim: {d}",
            param="index",
        )
    if _without(input.shape, d) != _without(source.shape, d) or input.ndim != source.ndim:
        raise ShapeMismatch(
            "source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = "
            f"{text(input.shape)} source.shape = {text(source.shape)}",
            param="source",
        )
    return d


def _index_add_meta(k: K, input: Spec, dim: int, index: Spec, source: Spec, alpha: Any = 1) -> Spec:
    _source_checks("index_add_", input, dim, index, source)
    fitting(alpha, input.dtype, "alpha")
    return input


@op(
    family="indexing",
    meta=_index_add_meta,
    updates=True,
    inplace=True,
    save={"source": ("index",)},
    samples=[
        S(T(3, 2), 0, _TWO, T(2, 2)),
        S(T(2, 3), 1, I(2, high=3), T(2, 2), alpha=2),
        S(T(), 0, I(1, high=1), T()),
        S(T(3, 2), 0, I(4, high=3), T(4, 2)),
        S(T(3), 0, I(0), T(0)),
        S(I(3), 0, _TWO, I(2)),
        S(C(3, 2), 0, _TWO, C(2, 2), alpha=0.5),
    ],
)
def index_add(
    k: K, input: Array, dim: Dim, index: Array, source: Array, alpha: Scalar = 1, *, out: Any = None
) -> Array:
    """A copy with alpha * source added to the slices along `dim` that `index` names, duplicates adding up."""
    if not source.size:
        return edited(editable(k, input, out), out)
    d = wrap_dim(dim, input.ndim)
    if alpha != 1:
        source = source * cast_scalar(alpha, dtype_of(source))
    in_rows = input.ndim == 0 or d == 0
    made = editable(k, input, out) if in_rows else rows_of(k, input, d).copy()
    add_rows(k, made.reshape(input.shape[d] if input.ndim else 1, -1), index.reshape(-1), rows_of(k, source, d))
    return edited(made if in_rows else k.xp.ascontiguousarray(from_rows(k, made, input.shape, d)), out)


def _slice_guard(input: Any, dim: int, index: Any) -> None:
    if input.ndim <= 1:
        check_range(index, 0, input.shape[0] if input.ndim else 1, "index out of range in self")
    check_along(input, dim, index)


@index_add.guard
def _(k: K, input: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> None:
    _slice_guard(input, dim, index)


@index_add.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    theirs = None
    if need.source:
        theirs = F.index_select(g, saved.dim, saved.index)
        theirs = theirs if saved.alpha == 1 else theirs * saved.alpha.conjugate()
    return need.input and g, None, theirs


def _copy_meta(k: K, input: Spec, dim: int, index: Spec, source: Spec) -> Spec:
    d = wrap_dim(dim, input.ndim)
    name = "index_copy_()"
    if index.ndim > 1:
        raise IndexOutOfRange(
            f"{name}: Index should have dimension 1 or 0 (got {index.ndim})", code="index-shape", param="index"
        )
    n = index.numel
    if source.ndim == 0 and n != 1:
        raise IndexOutOfRange(
            f"{name}: When source is scalar, index should have one element (got {n})", code="index-shape", param="index"
        )
    if source.ndim != input.ndim and source.ndim and input.ndim:
        raise IndexOutOfRange(
            f"{name}: When source and destination are not scalars, their dimensionality must match. Source "
            f"dimensionality ({source.ndim}), destination dimensionality ({input.ndim})",
            code="index-shape",
            param="source",
        )
    if index.dtype is not int64:
        raise cast_index(f"{name}: Expected a long tensor for index, but got {scalar_type(index.dtype)}", index)
    if input.dtype is not source.dtype:
        raise DtypeMismatch(
            f"{name}: self and source expected to have the same dtype, but got (self) {scalar_type(input.dtype)} and "
            f"(source) {scalar_type(source.dtype)}",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param("source"), "dtype": input.dtype.name}),
                a=input.dtype.name,
                b=source.dtype.name,
                param="source",
            ),
            param="source",
        )
    mine = _without(input.shape, d) if input.ndim else ()
    theirs = _without(source.shape, d) if source.ndim else ()
    if mine != theirs:
        raise ShapeMismatch(
            f"{name}: Source/destination tensor must have same slice shapes. Destination slice shape: "
            f"{' '.join(map(str, mine))} at dimension {d} and source slice shape: {' '.join(map(str, theirs))} at "
            "dimension 0.",
            param="source",
        )
    if source.ndim and n != source.shape[d]:
        raise IndexOutOfRange(
            f"{name}: Number of indices ({n}) should be equal to source.size(dim) ({source.shape[d]})",
            code="index-shape",
            param="index",
        )
    return input


@op(
    family="indexing",
    meta=_copy_meta,
    moves=True,
    updates=True,
    inplace=True,
    save={"input": ("index",), "source": ("index",)},
    samples=[
        S(T(3, 2), 0, _TWO, T(2, 2)),
        S(T(2, 3), 1, I(1, high=3), T(2, 1)),
        S(T(), 0, I(1, high=1), T()),
        S(T(3), 0, I(1, high=3), T()),
        S(T(3), 0, I(0), T(0)),
        S(I(3), 0, _TWO, I(2)),
        S(C(3, 2), 0, _TWO, C(2, 2)),
    ],
)
def index_copy(k: K, input: Array, dim: Dim, index: Array, source: Array, *, out: Any = None) -> Array:
    """A copy in which the slices along `dim` that `index` names are those of `source`; int64 indices."""
    made = editable(k, input, out)
    if input.ndim == 0:
        made[...] = source.reshape(-1)[-1] if source.ndim else source
    elif source.size:
        lines = made if dim in (0, -made.ndim) else k.xp.moveaxis(made, dim, 0)
        theirs = k.xp.moveaxis(source, dim, 0) if source.ndim else source.reshape(1)
        lines[index.reshape(-1)] = theirs
    return edited(made, out)


@index_copy.guard
def _(k: K, input: Any, dim: int, index: Any, source: Any) -> None:
    check_along(input, dim, index, name="index_copy_(): ")


@index_copy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    index = saved.index
    theirs = None
    if need.source:
        theirs = g
        if saved.input.ndim:
            theirs = F.index_select(g, saved.dim, index)
        theirs = F.expand(theirs, saved.source.shape) if saved.source.ndim else F.reshape(theirs, ())
    return need.input and F.index_fill(g, saved.dim, index, 0), None, theirs


def _fill_meta(k: K, input: Spec, dim: int, index: Spec, value: Any) -> Spec:
    wrap_dim(dim, input.ndim)
    if type(value) is Spec and value.ndim:
        raise ShapeMismatch(
            f"index_fill_ only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s).",
            param="value",
        )
    if index.dtype is not int64:
        raise cast_index("index_fill_(): Expected dtype int64 for index.", index)
    if index.ndim > 1:
        raise ShapeMismatch("Index has to be a vector/scalar", param="index")
    category = value.dtype.category if type(value) is Spec else COMPLEX if type(value) is complex else BOOL
    if category == COMPLEX and input.dtype.category < COMPLEX:
        raise DtypeMismatch(
            "index_fill_(): Converting complex Scalar to non-complex type is not supported", param="value"
        )
    if type(value) is not Spec:
        fitting(value, input.dtype)
    return input


def _fill_node(input: Spec, dim: int, index: Spec, value: Any) -> str:
    return f"IndexFillBackward{int(type(value) is Spec)}"


@op(
    family="indexing",
    node=_fill_node,
    meta=_fill_meta,
    updates=True,
    inplace=True,
    save={"input": ("index",), "value": ("index",)},
    samples=[
        S(T(3, 2), 0, _TWO, 1.5),
        S(T(2, 3), 1, I(1, low=-3, high=3), T()),
        S(T(), 0, I(1, high=1), 2),
        S(T(3), 0, I(0), 1.0),
        S(I(3), 0, _TWO, 7),
        S(C(3), 0, _TWO, 1.0),
    ],
)
def index_fill(k: K, input: Array, dim: Dim, index: Array, value: Array | Scalar, *, out: Any = None) -> Array:
    """A copy in which the slices along `dim` that `index` names hold one value; negative indices count from the end."""
    made = editable(k, input, out)
    if hasattr(value, "dtype"):
        value = value.astype(made.dtype)
    elif made.dtype.name != "uint16":  # the raw bits of a gradient, which only a zero is written into
        value = cast_scalar(value, dtype_of(made))
    if made.ndim == 0:
        if index.size:
            made[...] = value
    elif index.size:
        lines = made if dim in (0, -made.ndim) else k.xp.moveaxis(made, dim, 0)
        lines[index.reshape(-1)] = value
    return relaid(k, made, input, out)


@index_fill.guard
def _(k: K, input: Any, dim: int, index: Any, value: Any) -> None:
    check_along(input, dim, index, low=-1)
    check_filling(k, input, value)


@index_fill.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    dim, index = saved.dim, saved.index
    theirs = None
    if need.value:
        theirs = F.sum(g * F.index_fill(F.zeros_like(g), dim, index, 1))
    return need.input and F.index_fill(g, dim, index, 0), None, theirs


_INDEX_REDUCTIONS = ("prod", "mean", "amax", "amin")


def _index_reduce_meta(
    k: K, input: Spec, dim: int, index: Spec, source: Spec, reduce: str, include_self: bool = True
) -> Spec:
    if reduce not in _INDEX_REDUCTIONS:
        raise Invalid(
            f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}.", param="reduce"
        )
    _source_checks("index_reduce_", input, dim, index, source)
    if input.dtype.category in (BOOL, COMPLEX) and not include_self:
        raise not_implemented("index_reduce_func_exclude_input_init", input.dtype)
    if input.dtype.category in (BOOL, COMPLEX) and input.ndim < 2:
        raise not_implemented("index_func_", input.dtype)
    if input.dtype.category == BOOL and reduce == "mean":
        raise not_implemented("div_floor_cpu", input.dtype)
    if input.dtype.category == COMPLEX and reduce in ("amax", "amin"):
        raise not_implemented("maximum_cpu" if reduce == "amax" else "minimum_cpu", input.dtype)
    return input


_REDUCE_SAVE = ("input", "index", "source", "result")


@op(
    family="indexing",
    meta=_index_reduce_meta,
    updates=True,
    inplace=True,
    save={"input": _REDUCE_SAVE, "source": _REDUCE_SAVE},
    samples=[S(T(3, 2), 0, _TWO, T(2, 2), r) for r in ("prod", "mean")]
    + [S(T(3, 2, distinct=True), 0, _TWO, T(2, 2, distinct=True, low=2.5, high=4.0), r) for r in ("amax", "amin")]
    + [S(T(2, 3), 1, I(4, high=3), T(2, 4), "mean", include_self=False), S(I(3), 0, _TWO, I(2), "prod")],
)
def index_reduce(
    k: K,
    input: Array,
    dim: Dim,
    index: Array,
    source: Array,
    reduce: Literal["prod", "mean", "amax", "amin"],
    include_self: bool = True,
    *,
    out: Any = None,
) -> Array:
    """A copy with `source` reduced into the slices along `dim` that `index` names."""
    made = editable(k, input, out)
    if source.size:
        d = wrap_dim(dim, input.ndim)
        lines = index.reshape((-1,) + (1,) * (source.ndim - 1 - d)) if source.ndim else index.reshape(())
        at = places(k, made.shape, d, k.xp.broadcast_to(lines, source.shape)).reshape(-1)
        reduce_at(k, made, at, source.reshape(-1), reduce, include_self)
    return edited(made, out)


@index_reduce.guard
def _(k: K, input: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool = True) -> None:
    check_range(index, 0, input.shape[wrap_dim(dim, input.ndim)] if input.ndim else 1, "index out of range in self")


class _Slices:
    """What index_reduce reads and writes with: whole slices."""

    def __init__(self, F: Any, saved: Any) -> None:
        self.F, self.at = F, (saved.dim, saved.index)
        self.reduce, self.include_self = saved.reduce, saved.include_self

    def read(self, x: Any) -> Any:
        return self.F.index_select(x, *self.at)

    def add(self, x: Any, src: Any) -> Any:
        return self.F.index_add(x, *self.at, src)

    def clear(self, x: Any) -> Any:
        return self.F.index_fill(x, *self.at, 0)

    def run(self, x: Any, src: Any) -> Any:
        return self.F.index_reduce(x, *self.at, src, self.reduce, self.include_self)


@index_reduce.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    mine, theirs = reduce_gradient(F, _Slices(F, saved), saved.input, saved.source, saved.result, g)
    return need.input and mine, None, need.source and theirs


# ---------------------------------------------------------------- elements by flat index or mask


def _flat_guard(input: Any, index: Any) -> None:
    n = input.size
    check_range(index, -n, n, lambda bad: f"out of range: tried to access index {bad} on a tensor of {n} elements.")


def _take_meta(k: K, input: Spec, index: Spec) -> Spec:
    need_long("take", index)
    if input.numel == 0 and index.numel:
        raise IndexOutOfRange("take(): tried to take from an empty tensor", param="index")
    return Spec(index.shape, input.dtype)


@op(
    family="indexing",
    meta=_take_meta,
    moves=True,
    save={"input": ("index",)},
    samples=[S(T(2, 3), I(2, 2, low=-6, high=6)), S(T(), I(high=1)), S(T(2), I(0)), S(C(3), _TWO), S(I(3), _TWO)],
)
def take(k: K, input: Array, index: Array) -> Array:
    """Elements of the flattened input, in the shape of `index`; negative indices count from the end."""
    return k.xp.take(input.reshape(-1), index)


@take.guard
def _(k: K, input: Any, index: Any) -> None:
    _flat_guard(input, index)


@take.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._place_flat(g, saved.index, saved.input.shape)


def _flat_meta(k: K, src: Spec, index: Spec, shape: Any) -> Spec:
    return Spec(shape, src.dtype)


@op(family="indexing", meta=_flat_meta, node="PutBackward0", save={"src": ("index",)})
def _place_flat(k: K, src: Array, index: Array, shape: Any) -> Array:
    """Zeros of `shape`, with `src` added at flat indices: the gradient of take."""
    src = floats(k, src)
    made = k.xp.zeros(shape, src.dtype)
    combine(k, "add", made.reshape(-1), index.reshape(-1), src.reshape(-1))
    return made


@_place_flat.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.take(g, saved.index)


def _put_meta(k: K, input: Spec, index: Spec, source: Spec, accumulate: bool = False) -> Spec:
    need_long("put_", index)
    if input.dtype is not source.dtype:
        raise DtypeMismatch(
            f"put_(): self and source expected to have the same dtype, but got self.dtype = {scalar_type(input.dtype)} "
            f"and source.dtype = {scalar_type(source.dtype)}",
            param="source",
        )
    if source.numel != index.numel:
        raise IndexOutOfRange(
            "put_(): Expected source and index to have the same number of elements, but got source.numel() = "
            f"{source.numel}, index.numel() = {index.numel}",
            code="index-shape",
            param="source",
        )
    if input.numel == 0 and index.numel:
        raise IndexOutOfRange("put_(): Tried to put elements into an empty tensor", param="index")
    return input


@op(
    family="indexing",
    meta=_put_meta,
    updates=True,
    inplace=True,
    save={"input": ("index",), "source": ("index",)},
    samples=[
        S(T(2, 3), I(2, values=[4, -6]), T(2)),
        S(T(2, 3), I(2, 2, high=6), T(4), accumulate=True),
        S(T(), I(high=1), T()),
        S(T(2), I(0), T(0)),
        S(I(3), _TWO, I(2)),
    ],
)
def put(k: K, input: Array, index: Array, source: Array, accumulate: bool = False, *, out: Any = None) -> Array:
    """A copy with `source` written, or with `accumulate` added, at indices of the flattened input."""
    made = editable(k, input, out)
    flat, at = made.reshape(-1), index.reshape(-1)
    if accumulate:
        combine(k, "add", flat, at, source.reshape(-1))
    else:
        flat[at] = source.reshape(-1)
    return relaid(k, made, input, out)


@put.guard
def _(k: K, input: Any, index: Any, source: Any, accumulate: bool = False) -> None:
    _flat_guard(input, index)


@put.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    index = saved.index
    theirs = None
    if need.source:
        theirs = F.reshape(F.take(g, index), saved.source.shape)
    if not need.input or saved.accumulate:
        return need.input and g, None, theirs
    return F.put(g, index, F.zeros_like(F.take(g, index))), None, theirs


def _mask_meta(k: K, input: Spec, mask: Spec) -> Spec:
    if mask.dtype is not bool_:
        raise DtypeMismatch(
            "masked_select: expected BoolTensor for mask",
            hint=Hint("bool-mask", Call("to", {"input": Param("mask"), "dtype": "bool"})),
            param="mask",
        )
    return Spec((prod(broadcast_two(mask.shape, input.shape)),), input.dtype)


@op(
    family="indexing",
    meta=_mask_meta,
    moves=True,
    dynamic=True,
    save={"input": ("mask",)},
    samples=[
        S(T(2, 3), B(2, 3)),
        S(T(2, 3), B(3)),
        S(T(3), B(2, 1)),
        S(T(), B()),
        S(T(0, 3), B(3)),
        S(C(3), B(3)),
        S(I(3), B(3)),
    ],
)
def masked_select(k: K, input: Array, mask: Array) -> Array:
    """The elements where `mask` is True, as a vector; the two broadcast. Its length depends on the mask."""
    shape = broadcast_two(mask.shape, input.shape)
    xp = k.xp
    return xp.broadcast_to(input, shape).reshape(-1)[xp.broadcast_to(mask, shape).reshape(-1)]


@masked_select.guard
def _(k: K, input: Any, mask: Any) -> None:
    shape = broadcast_two(mask.shape, input.shape)
    cells = prod(shape)
    chosen = int(k.xp.count_nonzero(mask)) * (cells // mask.size if mask.size else 0)
    spread = 0 if input.shape == shape and input.flags.c_contiguous else cells * input.itemsize
    k.ctx.admit(chosen * input.itemsize + spread + (cells if mask.shape != shape else 0))


@masked_select.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._place_masked(g, saved.mask, broadcast_two(F.shape(saved.mask), saved.input.shape))


def _masked_meta(k: K, src: Spec, mask: Spec, shape: Any) -> Spec:
    return Spec(shape, src.dtype)


@op(family="indexing", meta=_masked_meta, node="MaskedScatterBackward0", save={"src": ("mask",)})
def _place_masked(k: K, src: Array, mask: Array, shape: Any) -> Array:
    """Zeros of `shape`, with `src` where the mask is True: the gradient of masked_select."""
    src = floats(k, src)
    made = k.xp.zeros(prod(shape), src.dtype)
    made[k.xp.broadcast_to(mask, shape).reshape(-1)] = src
    return made.reshape(shape)


@_place_masked.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.masked_select(g, saved.mask)

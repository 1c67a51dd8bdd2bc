"""Choosing and filling: `where`, masks, constants and copies written into tensors."""

from __future__ import annotations

from typing import Any

from engine.carriers import NUMBERS, K
from engine.context import Context
from engine.declare import Array, Scalar, composite, op, special
from engine.dtypes import BOOL, C_NAMES, INT, from_numpy, scalar_type, uint8
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch
from engine.metas import broadcast
from engine.op import REGISTRY, Spec
from engine.ops.common import fitting, publish_inplace, select
from engine.samples import B, C, I, S, T

# ---------------------------------------------------------------- where


def _where_meta(k: K, condition: Any, input: Any, other: Any) -> Spec:
    if condition.dtype.category != BOOL and condition.dtype is not uint8:
        raise DtypeMismatch(
            "where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{scalar_type(condition.dtype)}",
            hint=Hint("bool-mask"),
            param="condition",
        )
    if k.dtype.category == INT:
        for x, name in ((input, "input"), (other, "other")):
            if type(x) in NUMBERS:
                fitting(x, k.dtype, name)
    return broadcast(k, condition, input, other)


@op(
    family="filling",
    meta=_where_meta,
    promote="arithmetic",
    over=("input", "other"),
    by_cell=True,
    node="WhereBackward0",
    save={"input": ("condition",), "other": ("condition",)},
)
def _where(k: K, condition: Array, input: Array | Scalar, other: Array | Scalar) -> Array:
    """input where condition, else other."""
    if condition.dtype.kind != "b":
        condition = condition != 0
    return select(k, condition, input, other, masked=True)


@_where.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    mask = saved.condition
    return None, need.input and F.where(mask, g, 0), need.other and F.where(mask, 0, g)


@composite(
    family="filling",
    moves=True,
    samples=[
        S(B(2, 3), T(2, 3), T(3)),
        S(B(2, 3), T(3), 0.5),
        S(B(3), 1.5, T(2, 3)),
        S(B(), T(), T()),
        S(B(0, 2), T(2), T(1, 2)),
        S(B(2), C(2), T(2)),
        S(B(3), I(3), 2),
    ],
)
def where(F: Any, condition: Array, input: Array | Scalar | None = None, other: Array | Scalar | None = None) -> Array:
    """The elements of `input` where `condition` is true, else those of `other`, with broadcasting.

    With a condition alone: the indices where it is true, one tensor for each dimension.
    """
    if input is None and other is None:
        return F.nonzero(condition, as_tuple=True)
    if input is None or other is None:
        raise Invalid(
            "where() received an invalid combination of arguments: input and other go together",
            code="missing-parameter",
            param="input" if input is None else "other",
        )
    return F._where(condition, input, other)


# ---------------------------------------------------------------- masks


def _check_masked_fill(k: K, input: Any, mask: Any, value: Any) -> None:
    if mask.dtype.category != BOOL:
        have = C_NAMES[mask.dtype.name].replace("int64_t", "long int")
        raise DtypeMismatch(
            f"masked_fill_ only supports boolean masks, but got mask with dtype {have}",
            hint=Hint("bool-mask"),
            param="mask",
        )
    d = input.dtype
    if type(value) is Spec:
        if value.shape:
            raise ShapeMismatch(
                "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.ndim} dimension(s).",
                param="value",
            )
    else:
        fitting(value, d)
    k.dtype = d


def _masked_fill_meta(k: K, input: Any, mask: Any, value: Any) -> Spec:
    _check_masked_fill(k, input, mask, value)
    return broadcast(k, mask, input)


def _masked_fill_in_place(k: K, input: Any, mask: Any, value: Any) -> Spec:
    _check_masked_fill(k, input, mask, value)
    return broadcast(k, input, mask)  # in the order in which PyTorch tells of them here


def _masked_fill_node(input: Any, mask: Any, value: Any) -> str:
    return "MaskedFillBackward1" if type(value) is Spec else "MaskedFillBackward0"


@op(
    family="filling",
    meta=_masked_fill_meta,
    inplace=True,
    updates=True,
    node=_masked_fill_node,
    save={"input": ("mask",), "value": ("mask",)},
    samples=[
        S(T(2, 3), B(2, 3), 0.5),
        S(T(2, 3), B(3), T()),
        S(T(), B(), 1.5),
        S(T(0, 2), B(2), 1.0),
        S(C(2), B(2), 2.0),
        S(I(3), B(3), 7),
    ],
)
def masked_fill(k: K, input: Array, mask: Array, value: Array | Scalar, *, out: Any = None) -> Array:
    """`input` with `value`, a number or a 0-d tensor, wherever `mask` is true; it keeps its dtype."""
    d = from_numpy(input.dtype)
    if type(value) in NUMBERS:
        value = fitting(value, k.spec.dtype.compute)
    elif value.dtype != input.dtype:
        value = value if input.dtype.kind == "c" or value.dtype.kind != "c" else value.real
        value = k.backend.cast(value, from_numpy(value.dtype), d)  # type: ignore[arg-type]
    if out is not None:
        k.xp.copyto(out, value, where=mask)
        return out
    return select(k, mask, value, k.xp.ascontiguousarray(input) if input.ndim else input)  # PyTorch: row-major


REGISTRY["masked_fill_"].meta = _masked_fill_in_place


def check_filling(k: K, input: Any, value: Any) -> None:
    """Refuses the number in a tensor `value` where it does not fit the input's integers, or is complex."""
    if type(value) in NUMBERS or value.dtype == input.dtype:
        return
    if input.dtype.kind in "iu" or (value.dtype.kind == "c" and input.dtype.kind == "f"):
        fitting(k.backend.to_host(value).item(), from_numpy(input.dtype))  # type: ignore[arg-type]


@masked_fill.guard
def _(k: K, input: Any, mask: Any, value: Any) -> None:
    check_filling(k, input, value)


@masked_fill.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    mask = saved.mask
    of_value = F.sum(F.where(mask, g, 0)) if need.value else None
    return need.input and F.where(mask, 0, g), None, of_value


# ---------------------------------------------------------------- constants


def _fill_meta(k: K, input: Any, value: Any) -> Spec:
    if type(value) is Spec:
        if value.shape:
            raise ShapeMismatch(
                f"fill_ only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions.",
                param="value",
            )
    else:
        fitting(value, input.dtype)
    return input  # type: ignore[no-any-return]


def _fill_node(input: Any, value: Any) -> str:
    return "FillBackward1" if type(value) is Spec else "FillBackward0"


@op(
    family="filling",
    meta=_fill_meta,
    inplace=True,
    updates=True,
    node=_fill_node,
    samples=[S(T(2, 3), 5), S(T(2, 3), T()), S(T(), 1.5), S(T(0, 2), 1), S(C(2), 2.0), S(I(3), 7)],
)
def fill(k: K, input: Array, value: Array | Scalar, *, out: Any = None) -> Array:
    """`value`, a number or a 0-d tensor, at every place; the dtype and layout are those of `input`."""
    d = from_numpy(input.dtype)
    if type(value) in NUMBERS:
        value = fitting(value, k.spec.dtype.compute)
    elif value.dtype != input.dtype:
        value = value if input.dtype.kind == "c" or value.dtype.kind != "c" else value.real
        value = k.backend.cast(value, from_numpy(value.dtype), d)  # type: ignore[arg-type]
    made = k.xp.empty_like(input) if out is None else out
    made[...] = value
    return made


@fill.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F.zeros_like(g), need.value and F.sum(g)


@op(
    family="filling",
    meta=lambda k, input: input,
    inplace=True,
    updates=True,
    moves=True,
    node="ZeroBackward0",
    samples=[S(T(2, 3)), S(T()), S(T(0, 2)), S(I(3)), S(B(2))],
)
def _zero(k: K, input: Array, *, out: Any = None) -> Array:
    """Fills a tensor with zeros."""
    if out is None:
        return k.xp.zeros_like(input)
    out[...] = 0
    return out


@_zero.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.zeros_like(g)


publish_inplace(_zero, "zero_")


# ---------------------------------------------------------------- copies


def _copy_meta(k: K, input: Any, src: Any) -> Spec:
    k.dtype = input.dtype
    return broadcast(k, input, src)


@op(family="filling", meta=_copy_meta, inplace=True, updates=True, node="CopyBackwards")
def _copy(k: K, input: Array, src: Array, *, out: Any = None) -> Array:
    """The elements of `src`, converted to the dtype of `input`, in the layout of `input`."""
    if src.dtype != input.dtype:
        src = k.backend.cast(src, from_numpy(src.dtype), from_numpy(input.dtype))  # type: ignore[arg-type]
    if out is None:
        shape = k.spec.shape
        out = k.xp.empty_like(input) if shape == input.shape else k.xp.empty(shape, dtype=input.dtype)
    out[...] = src
    return out


@_copy.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F.zeros_like(g), need.src and g


def _copy_in_place_meta(k: K, input: Any, src: Any, non_blocking: bool = False) -> Spec:
    return input  # type: ignore[no-any-return]


@special(
    family="filling",
    name="copy_",
    samples=[S(T(2, 3), T(2, 3)), S(T(2, 3), T(3)), S(T(), T()), S(T(2), I(2)), S(I(2), T(2)), S(C(2), T(2))],
)
def copy_(ctx: Context, input: Array, src: Array, non_blocking: bool = False) -> Array:
    """Copies the elements of `src` into `input`, from another device too, broadcast and converted to its dtype.

    `non_blocking` changes nothing here.
    """
    if src.backend is not input.backend:
        src = REGISTRY["_to_device"].run((src, input.backend.name))
    return REGISTRY["_copy_"].run((input, src))


REGISTRY["copy_"].meta = _copy_in_place_meta

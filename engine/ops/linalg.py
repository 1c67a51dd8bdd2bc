"""Matrix products and linear algebra."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, op
from engine.dtypes import C_NAMES
from engine.errors import Call, DtypeMismatch, Hint, Param, ShapeMismatch
from engine.op import Spec
from engine.samples import C, S, T
from engine.shapes import product_mismatch


def same_dtype(a: Spec, b: Spec, op: str, param: str) -> None:
    """Refuses matrix products of mixed dtypes, in PyTorch's words, and says which operand to cast."""
    if a.dtype is b.dtype:
        return
    low, high = ("input", b) if a.dtype.category < b.dtype.category or (
        a.dtype.category == b.dtype.category and a.dtype.itemsize < b.dtype.itemsize) else (param, a)
    raise DtypeMismatch(
        f"expected m1 and m2 to have the same dtype, but got: {C_NAMES[a.dtype.name]} != {C_NAMES[b.dtype.name]}",
        hint=Hint("cast-one", Call("to", {"input": Param(low), "dtype": high.dtype.name}),
                  a=a.dtype.name, b=b.dtype.name, param=low),
        op=op, param=param,
    )


def _mm_meta(k: K, input: Any, mat2: Any) -> Spec:
    if input.ndim != 2:
        raise ShapeMismatch("self must be a matrix", param="input")
    if mat2.ndim != 2:
        raise ShapeMismatch("mat2 must be a matrix", param="mat2")
    if input.shape[1] != mat2.shape[0]:
        raise product_mismatch(input.shape, mat2.shape)
    same_dtype(input, mat2, "mm", "mat2")
    return Spec((input.shape[0], mat2.shape[1]), input.dtype)


@op(family="linalg", meta=_mm_meta, save={"input": ("mat2",), "mat2": ("input",)},
    samples=[S(T(2, 3), T(3, 4)), S(T(0, 3), T(3, 2)), S(T(2, 0), T(0, 2)), S(C(2, 2), C(2, 3))])
def mm(k: K, input: Array, mat2: Array) -> Array:
    """The matrix product of two matrices, (n x m) by (m x p); both of one dtype."""
    return input @ mat2


@mm.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (need.input and F.mm(g, F.conj(F.transpose(saved.mat2, 0, 1))),
            need.mat2 and F.mm(F.conj(F.transpose(saved.input, 0, 1)), g))

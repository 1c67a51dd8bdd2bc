"""Comparisons, logic and bits: results that are bool, or integers taken bit by bit."""

from __future__ import annotations

from typing import Any

from engine.carriers import NUMBERS, K
from engine.context import Context
from engine.declare import Array, Scalar, op, special
from engine.dtypes import BOOL, COMPLEX, FLOAT, bool_, int64, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param
from engine.metas import broadcast, same
from engine.op import REGISTRY, Spec
from engine.ops.common import joint, lacking, not_implemented, number
from engine.samples import B, C, I, S, T

# ---------------------------------------------------------------- order and equality


def _ordered(kernel: str) -> Any:
    def meta(k: K, input: Any, other: Any) -> Spec:
        k.dtype = bool_
        made = broadcast(k, input, other)
        if (
            input.dtype.category == COMPLEX
            or type(other) is complex
            or (type(other) is Spec and other.dtype.category == COMPLEX)
        ):
            raise not_implemented(kernel, joint(k, "arithmetic", input, other)[0])
        return made

    return meta


_COMPARED = [S(T(3, 2), T(2)), S(I(4), I(4)), S(T(), T()), S(T(0, 2), 1.0)]


def _comparison(name: str, ufunc: str, symbol: str, long_name: str) -> None:
    def kernel(k: K, input: Array, other: Array | Scalar, *, out: Any = None) -> Array:
        return getattr(k.xp, ufunc)(input, other, out=out)

    kernel.__doc__ = f"input {symbol} other, element by element: a bool tensor."
    equality = name in ("eq", "ne")
    declared = op(
        name=name,
        family="comparison",
        meta=broadcast if equality else _ordered(f"{name}_cpu"),
        promote="compare",
        inplace=True,
        alias=(long_name,) if long_name else (),
        samples=[*_COMPARED, S(C(2, 2), C(2))] if equality else _COMPARED,
    )(kernel)

    @declared.vjp
    def _(F: Any, saved: Any, g: Any, need: Any) -> Any:  # of the in-place form alone: bools have no gradient
        zero = F.zeros_like(g)
        return need.input and zero, need.other and zero


# torch.equal is another operation: whether two tensors are the same
for _row in (
    ("eq", "equal", "==", ""),
    ("ne", "not_equal", "!=", "not_equal"),
    ("gt", "greater", ">", "greater"),
    ("ge", "greater_equal", ">=", "greater_equal"),
    ("lt", "less", "<", "less"),
    ("le", "less_equal", "<=", "less_equal"),
):
    _comparison(*_row)


def _no_negative(value: float, name: str) -> None:
    if not value >= 0:  # NaN too
        raise Invalid(f"{name} must be greater than or equal to zero, but got {number(value)}", param=name)


def _isclose_meta(
    k: K, input: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Spec:
    if input.dtype is not other.dtype:
        raise DtypeMismatch(
            f"{scalar_type(input.dtype)} did not match {scalar_type(other.dtype)}",
            hint=Hint("cast-one", Call("to", {"input": Param("other"), "dtype": input.dtype.name}), param="other"),
            param="other",
        )
    _no_negative(rtol, "rtol")
    _no_negative(atol, "atol")
    k.dtype = bool_
    return broadcast(k, input, other)


@op(
    family="comparison",
    meta=_isclose_meta,
    by_cell=True,
    vjp=None,
    samples=[
        S(T(2, 3), T(3)),
        S(T(), T(), rtol=0.5),
        S(T(0, 2), T(2)),
        S(I(4), I(4), atol=1.0),
        S(C(2), C(2), equal_nan=True),
    ],
)
def isclose(k: K, input: Array, other: Array, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """Whether |input - other| <= atol + rtol * |other|, or both are equal; NaNs are equal only if `equal_nan`."""
    return _close(k, input, other, rtol, atol, equal_nan)


def _close(k: K, a: Any, b: Any, rtol: float, atol: float, equal_nan: bool) -> Any:
    xp = k.xp
    near = a == b
    if equal_nan and a.dtype.kind in "fc":
        near = near | ((a != a) & (b != b))
    if rtol == 0 and atol == 0:
        return near
    if a.dtype.kind in "biu":  # as PyTorch: in the default dtype
        a, b = a.astype(k.default_dtype.np), b.astype(k.default_dtype.np)
    allowed = atol + xp.abs(b * rtol)
    error = xp.abs(a - b)
    return near | (xp.isfinite(error) & (error <= allowed))


@special(family="comparison", returns="value", samples=[S(T(2, 3), T(3)), S(T(), T(), rtol=0.5), S(C(2), C(2))])
def allclose(
    ctx: Context, input: Array, other: Array, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether `isclose` holds for all elements: true or false."""
    close = REGISTRY["isclose"].run((input, other, rtol, atol, equal_nan))
    return bool(close.array.all())


@special(
    family="comparison", returns="value", samples=[S(T(2, 3), T(2, 3)), S(T(2), T(3)), S(I(3), I(3)), S(C(2), C(2))]
)
def equal(ctx: Context, input: Array, other: Array) -> bool:
    """Whether two tensors have the same shape and elements: true or false."""
    if input.shape != other.shape:
        return False
    return bool(REGISTRY["eq"].run((input, other)).array.all())


# ---------------------------------------------------------------- logic


_LOGIC = [S(B(3, 2), B(2)), S(T(3), I(3)), S(B(), B()), S(B(0, 2), B(1, 2)), S(C(2), C(2))]


def _logical(name: str, ufunc: str, doc: str) -> None:
    def kernel(k: K, input: Array, other: Array, *, out: Any = None) -> Array:
        if input.dtype.kind == "c":  # CuPy's logic knows no complex numbers
            input, other = input != 0, other != 0
        return getattr(k.xp, ufunc)(input, other, out=out)

    kernel.__doc__ = doc
    op(name=name, family="comparison", meta=broadcast, promote="logical", vjp=None, inplace=True, samples=_LOGIC)(
        kernel
    )


_logical("logical_and", "logical_and", "Whether both elements are true, that is not 0.")
_logical("logical_or", "logical_or", "Whether at least one of two elements is true, that is not 0.")
_logical("logical_xor", "logical_xor", "Whether exactly one of two elements is true, that is not 0.")


@op(
    family="comparison",
    meta=same,
    promote="logical",
    vjp=None,
    inplace=True,
    samples=[S(B(3, 2)), S(T(3)), S(I()), S(C(0, 2))],
)
def logical_not(k: K, input: Array, *, out: Any = None) -> Array:
    """Whether each element is 0 (or false)."""
    return k.xp.equal(input, 0, out=out) if input.dtype.kind != "b" else k.xp.logical_not(input, out=out)


# ---------------------------------------------------------------- bits


@op(
    family="comparison",
    meta=lacking("bitwise_not_cpu", FLOAT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    vjp=None,
    samples=[S(I(3, 2)), S(B(3)), S(I())],
)
def bitwise_not(k: K, input: Array, *, out: Any = None) -> Array:
    """The complement of each integer's bits; of bools, logical not."""
    return k.xp.invert(input, out=out)


def _bitwise(name: str, ufunc: str, doc: str) -> None:
    def kernel(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
        return getattr(k.xp, ufunc)(input, other, out=out)

    kernel.__doc__ = doc
    op(
        name=name,
        family="comparison",
        meta=lacking(f"{name}_cpu", FLOAT, COMPLEX),
        promote="arithmetic",
        elementwise=True,
        keeps=False,
        inplace=True,
        vjp=None,
        samples=[S(I(3, 2), I(2)), S(I(3), 5), S(6, I(3)), S(B(3), B(3)), S(I(0, 2), I(1, 2))],
    )(kernel)


_bitwise("bitwise_and", "bitwise_and", "The bits that both integers have; of bools, logical and.")
_bitwise("bitwise_or", "bitwise_or", "The bits that at least one integer has; of bools, logical or.")
_bitwise("bitwise_xor", "bitwise_xor", "The bits that exactly one integer has; of bools, logical xor.")

_SHIFTS = [S(I(3, 2), I(2)), S(I(3), 2), S(2, I(3)), S(I(), I()), S(I(0, 2), I(1, 2))]


def _alike(k: K, input: Any, other: Any) -> tuple[Any, Any]:
    """Both operands as arrays of their common dtype."""
    d = next((x.dtype for x in (input, other) if type(x) not in NUMBERS), int64.np)
    return tuple(k.backend.asarray(x, d) if type(x) in NUMBERS else x for x in (input, other))


@op(
    family="comparison",
    meta=lacking("lshift_cpu", BOOL, FLOAT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    vjp=None,
    samples=_SHIFTS,
)
def bitwise_left_shift(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """Each integer's bits moved to the left; 0 where they are moved by less than 0 or by all there are."""
    xp = k.xp
    input, other = _alike(k, input, other)
    kept = (other >= 0) & (other < 8 * other.dtype.itemsize)
    return xp.multiply(xp.left_shift(input, other * kept), kept, out=out)


@op(
    family="comparison",
    meta=lacking("rshift_cpu", BOOL, FLOAT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    keeps=False,
    inplace=True,
    vjp=None,
    samples=_SHIFTS,
)
def bitwise_right_shift(k: K, input: Array | Scalar, other: Array | Scalar, *, out: Any = None) -> Array:
    """Each integer's bits moved to the right, the sign staying; by less than 0 counts as by all there are."""
    xp = k.xp
    input, other = _alike(k, input, other)
    last = 8 * other.dtype.itemsize - 1
    inside = (other >= 0) & (other <= last)
    moved = xp.right_shift(input, xp.where(inside, other, last))
    if other.dtype.kind == "u":
        return xp.multiply(moved, inside, out=out)
    return xp.positive(moved, out=out) if out is not None else moved

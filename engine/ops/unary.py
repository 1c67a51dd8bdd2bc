"""Pointwise functions of one operand: rounding, signs, exponentials, logarithms, trigonometry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log, pi, sqrt
from typing import Any, Literal

from engine.approximations import ERF_END, ERF_FAR, ERF_NEAR, ERF_SPLIT
from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import BOOL, COMPLEX, INT, float32, int64, to_real
from engine.errors import Call, DtypeMismatch, Hint, Param
from engine.metas import same
from engine.op import REGISTRY, Spec
from engine.ops.common import either, in_blocks, lacking, not_implemented, selected
from engine.samples import C, I, S, T

_ANY = [S(T(2, 3)), S(T()), S(T(0, 2)), S(C(2, 2))]
_REAL = [S(T(2, 3)), S(T()), S(T(0, 2))]

# ---------------------------------------------------------------- the functions that are one ufunc

Rule = Callable[[Any, Any, Any], Any]


def _function(
    name: str,
    ufunc: str,
    doc: str,
    of: Literal["input", "result"],
    rule: Rule,
    *,
    samples: Sequence[S] = tuple(_ANY),
    alias: Sequence[str] = (),
    node: str | None = None,
) -> None:
    """Declares a function that NumPy has as `ufunc`, integers becoming floats.

    `rule(F, g, c)` is the gradient, `c` being the conjugate of the operand, or of the result: these functions are
    analytic with real coefficients, so that conj(f'(x)) is f'(conj(x)).
    """

    def kernel(k: K, input: Array, *, out: Any = None) -> Array:
        return getattr(k.xp, ufunc)(input, out=out)

    kernel.__doc__ = doc
    declared = op(
        name=name,
        family="pointwise",
        meta=same,
        promote="float",
        elementwise=True,
        ufunc=ufunc,
        inplace=True,
        alias=alias,
        node=node,
        save={"input": (of,)},
        samples=samples,
    )(kernel)

    @declared.vjp
    def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
        return rule(F, g, F.conj(getattr(saved, of)))

    at = 0 if of == "input" else 1

    @declared.array_vjp
    def _(k: K, values: Any, g: Any, mask: int) -> Any:
        return (rule(k.raw, g, values[at]),)


_POSITIVE = (S(T(2, 3, low=0.2)), S(T(low=0.2)), S(T(0, 2)), S(C(2, 2)), S(I(4, low=1)))
_UNIT = (S(T(2, 3, low=-0.9, high=0.9)), S(T(low=-0.9, high=0.9)), S(T(0, 2)), S(C(2, 2)))


def _rooted(of: Callable[[Any, Any], Any]) -> Rule:
    """The rule of a derivative with a root in it: on the cut of complex roots, conj(f'(x)) is not f'(conj(x))."""
    return lambda F, g, x: g * (F.conj(of(F, F.conj(x))) if F.dtype(x).is_complex else of(F, x))


def _acosh_slope(F: Any, x: Any) -> Any:
    # One root of the square would lose the branch cut of complex numbers, two lose real numbers below -1.
    return F.rsqrt(x + -1) * F.rsqrt(x + 1) if F.dtype(x).is_complex else F.rsqrt(x * x - 1)


_function("exp", "exp", "e to the power of each element.", "result", lambda F, g, y: g * y)
_function(
    "expm1",
    "expm1",
    "exp(x) - 1, exact where x is small.",
    "result",
    lambda F, g, y: g * (y + 1),
    alias=("special.expm1",),
)
_function("log", "log", "The natural logarithm.", "input", lambda F, g, x: g / x, samples=_POSITIVE)
_function("log2", "log2", "The logarithm to base 2.", "input", lambda F, g, x: g / (x * log(2)), samples=_POSITIVE)
_function("log10", "log10", "The logarithm to base 10.", "input", lambda F, g, x: g / (x * log(10)), samples=_POSITIVE)
_function(
    "log1p",
    "log1p",
    "log(1 + x), exact where x is small.",
    "input",
    lambda F, g, x: g / (x + 1),
    samples=(S(T(2, 3, low=-0.5)), S(T()), S(T(0, 2)), S(C(2, 2))),
    alias=("special.log1p",),
    node="Log1PBackward0",
)
_function("sqrt", "sqrt", "The square root.", "result", lambda F, g, y: g / (y * 2), samples=_POSITIVE)

_function("sin", "sin", "The sine, of radians.", "input", lambda F, g, x: g * F.cos(x))
_function("cos", "cos", "The cosine, of radians.", "input", lambda F, g, x: g * -F.sin(x))
_function(
    "tan",
    "tan",
    "The tangent, of radians.",
    "result",
    lambda F, g, y: g * (y * y + 1),
    samples=(S(T(2, 3, low=-1.2, high=1.2)), *_ANY[2:]),
)
_function(
    "asin",
    "arcsin",
    "The angle whose sine is x, in radians.",
    "input",
    _rooted(lambda F, x: F.rsqrt(-x * x + 1)),
    samples=_UNIT,
    alias=("arcsin",),
)
_function(
    "acos",
    "arccos",
    "The angle whose cosine is x, in radians.",
    "input",
    _rooted(lambda F, x: -F.rsqrt(-x * x + 1)),
    samples=_UNIT,
    alias=("arccos",),
)
_function(
    "atan",
    "arctan",
    "The angle whose tangent is x, in radians.",
    "input",
    lambda F, g, x: g / (x * x + 1),
    alias=("arctan",),
)
_function("sinh", "sinh", "The hyperbolic sine.", "input", lambda F, g, x: g * F.cosh(x))
_function("cosh", "cosh", "The hyperbolic cosine.", "input", lambda F, g, x: g * F.sinh(x))
_function(
    "tanh",
    "tanh",
    "The hyperbolic tangent.",
    "result",
    lambda F, g, y: F._tanh_backward(g, y),
    alias=("nn.functional.tanh",),
)
_function(
    "asinh",
    "arcsinh",
    "The inverse hyperbolic sine.",
    "input",
    _rooted(lambda F, x: F.rsqrt(x * x + 1)),
    alias=("arcsinh",),
)
_function(
    "acosh",
    "arccosh",
    "The inverse hyperbolic cosine.",
    "input",
    _rooted(_acosh_slope),
    samples=(S(T(2, 3, low=1.2, high=3.0)), S(T(low=1.2, high=3.0)), S(T(0, 2)), S(C(2, 2))),
    alias=("arccosh",),
)
_function(
    "atanh",
    "arctanh",
    "The inverse hyperbolic tangent.",
    "input",
    lambda F, g, x: g / (1 - x * x),
    samples=_UNIT,
    alias=("arctanh",),
)


@op(
    family="pointwise",
    meta=same,
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.exp2",),
    save={"input": ("result",)},
    samples=_ANY,
)
def exp2(k: K, input: Array, *, out: Any = None) -> Array:
    """2 to the power of each element."""
    if input.dtype.kind == "c":  # NumPy has it for real numbers only
        return k.xp.exp(input * log(2), out=out)
    return k.xp.exp2(input, out=out)


@exp2.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.conj(saved.result) * log(2))


@op(
    family="pointwise",
    meta=same,
    promote="float",
    elementwise=True,
    inplace=True,
    save={"input": ("result",)},
    samples=_POSITIVE,
)
def rsqrt(k: K, input: Array, *, out: Any = None) -> Array:
    """1 / sqrt(x)."""
    root = k.xp.sqrt(input, out=out)
    return _inverse(k, root, root if root.ndim else out)


@rsqrt.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y = F.conj(saved.result)
    return g * (y * y * y * -0.5)


@op(
    family="pointwise",
    meta=same,
    promote="float",
    elementwise=True,
    inplace=True,
    save={"input": ("result",)},
    samples=[S(T(2, 3, low=0.2)), S(T(low=0.2)), S(T(0, 2)), S(C(2, 2))],
)
def reciprocal(k: K, input: Array, *, out: Any = None) -> Array:
    """1 / x."""
    return _inverse(k, input, out)


def _inverse(k: K, x: Array, out: Any) -> Array:
    """1 / x: of a complex zero inf + nan j, where NumPy's reciprocal has no inf."""
    return k.xp.divide(1, x, out=out) if x.dtype.kind == "c" else k.xp.reciprocal(x, out=out)


@reciprocal.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y = F.conj(saved.result)
    return -g * (y * y)


def _square_types(k: K, input: Any) -> Any:
    d = int64 if input.dtype.category == BOOL else input.dtype
    return d, d


@op(
    family="pointwise",
    meta=same,
    promote=_square_types,
    elementwise=True,
    keeps=True,
    inplace=True,
    node="PowBackward0",
    save={"input": ("input",)},
    samples=[*_ANY, S(I(4))],
)
def square(k: K, input: Array, *, out: Any = None) -> Array:
    """x * x; bools count as integers."""
    return k.xp.square(input, out=out)


@square.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.conj(saved.input) * 2)


# ---------------------------------------------------------------- the error function


def _erf32(xp: Any, x: Any, out: Any) -> None:
    """erf in float32 by two polynomials; SciPy's goes through float64, one element after the other."""
    z = xp.multiply(x, x)
    low = xp.multiply(z, ERF_NEAR[-1])
    for c in ERF_NEAR[-2:0:-1]:
        xp.add(low, c, out=low)
        xp.multiply(low, z, out=low)
    xp.add(low, ERF_NEAR[0], out=low)
    xp.multiply(low, x, out=low)
    xp.add(low, x, out=low)
    a = xp.abs(x)
    xp.minimum(a, ERF_END, out=a)
    high = xp.multiply(a, ERF_FAR[-1], out=z)
    for c in ERF_FAR[-2:0:-1]:
        xp.add(high, c, out=high)
        xp.multiply(high, a, out=high)
    xp.add(high, ERF_FAR[0], out=high)
    xp.exp(high, out=high)
    xp.subtract(1, high, out=high)
    xp.copysign(high, x, out=high)
    selected(xp, a < ERF_SPLIT, low, high, out)


@op(
    family="pointwise",
    meta=lacking("erf_vml_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.erf",),
    save={"input": ("input",)},
    samples=_REAL,
)
def erf(k: K, input: Array, *, out: Any = None) -> Array:
    """The error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x."""
    if k.backend.kind != "cpu" or input.dtype != float32.np:
        return k.sp.special.erf(input, out=out)
    return in_blocks(k, _erf32, (input,), out, "erf")


@erf.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.exp(-saved.input * saved.input) * (2 / sqrt(pi)))


@op(
    family="pointwise",
    meta=lacking("erfc_vml_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.erfc",),
    save={"input": ("input",)},
    samples=_REAL,
)
def erfc(k: K, input: Array, *, out: Any = None) -> Array:
    """1 - erf(x), exact where erf(x) is near 1."""
    return k.sp.special.erfc(input, out=out)


@erfc.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.exp(-saved.input * saved.input) * (-2 / sqrt(pi)))


@op(
    family="pointwise",
    meta=lacking("erfinv_vml_cpu", COMPLEX),
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("special.erfinv",),
    save={"input": ("result",)},
    samples=[S(T(2, 3, low=-0.9, high=0.9)), S(T(low=-0.9, high=0.9)), S(T(0, 2))],
)
def erfinv(k: K, input: Array, *, out: Any = None) -> Array:
    """The number whose error function is x."""
    return k.sp.special.erfinv(input, out=out)


@erfinv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * (F.exp(saved.result * saved.result) * (sqrt(pi) / 2))


# ---------------------------------------------------------------- signs


def _neg_meta(k: K, input: Any) -> Spec:
    if input.dtype.category == BOOL:
        raise DtypeMismatch(
            "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a mask, use "
            "the `~` or `logical_not()` operator instead.",
            hint=Hint("logical-instead", Call("logical_not", {"input": Param("input")}), name="logical_not"),
        )
    return same(k, input)


@op(
    family="pointwise",
    meta=_neg_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    alias=("negative",),
    samples=[*_ANY, S(I(4))],
)
def neg(k: K, input: Array, *, out: Any = None) -> Array:
    """The negative, -x."""
    return k.xp.negative(input, out=out)


@neg.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return -g


@composite(family="pointwise", moves=True, samples=_ANY)
def positive(F: Any, input: Array) -> Array:
    """The tensor itself."""
    if F.dtype(input).category == BOOL:
        raise DtypeMismatch("The `+` operator, on a bool tensor is not supported.")
    return input


def _abs_meta(k: K, input: Any) -> Spec:
    if input.dtype.category == BOOL:
        raise not_implemented("abs_cpu", input.dtype)
    return Spec(input.shape, to_real(input.dtype))


@op(
    family="pointwise",
    meta=_abs_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    alias=("absolute",),
    save={"input": ("input",)},
    samples=[*_ANY, S(I(4, low=-3))],
)
def abs(k: K, input: Array, *, out: Any = None) -> Array:
    """The absolute value; of complex numbers the distance from 0, which is real. The gradient at 0 is 0."""
    return k.xp.abs(input, out=out)


def _real_only(k: K, input: Any) -> None:
    if input.dtype.category == COMPLEX:
        raise DtypeMismatch("In-place abs is not supported for complex tensors.")


REGISTRY["abs_"].meta = _real_only
REGISTRY["abs_"].samples = lambda: [*_REAL, S(I(4, low=-3))]


@abs.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.mul(g, F.sgn(saved.input))


@op(
    family="pointwise",
    meta=lacking(
        "sign_cpu",
        instead={
            COMPLEX: "Unlike NumPy, torch.sign is not intended to support complex numbers. "
            "Please use torch.sgn instead."
        },
    ),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    samples=[*_REAL, S(I(4, low=-3))],
)
def sign(k: K, input: Array, *, out: Any = None) -> Array:
    """-1, 0 or 1, as the element is negative, 0 (or NaN) or positive."""
    return _real_sign(k.xp, input, out)


def _real_sign(xp: Any, x: Any, out: Any) -> Any:
    if x.dtype.kind == "b":
        return xp.logical_or(x, x, out=out)
    if x.dtype.kind != "f":
        return xp.sign(x, out=out)
    return xp.subtract(x > 0, x < 0, out=out, dtype=x.dtype)  # NumPy's sign of NaN is NaN, PyTorch's is 0


@sign.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.zeros_like(g)


@op(
    family="pointwise",
    meta=same,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    save={"input": ("input", "result")},
    samples=[*_ANY, S(I(4, low=-3))],
)
def sgn(k: K, input: Array, *, out: Any = None) -> Array:
    """x / |x|, 0 where x is 0: the sign of real numbers, the direction of complex ones."""
    xp = k.xp
    if input.dtype.kind != "c":
        return _real_sign(xp, input, out)
    length = xp.abs(input)
    made = either(xp, length == 0, 0, input / length)
    if out is None:
        return made.astype(input.dtype)
    out[...] = made
    return out


@sgn.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    if not F.dtype(g).is_complex:
        return F.zeros_like(g)
    # |z| d(z/|z|) is the part of dz across the direction of z.
    s = saved.result
    across = (g - F.conj(g) * s * s) * 0.5
    length = F.abs(saved.input)
    return F.where(F.eq(length, 0), 0, F.div(across, length))


@composite(family="pointwise", moves=True, samples=_ANY)
def conj(F: Any, input: Array) -> Array:
    """The complex conjugate; a real tensor is its own."""
    return F._conj(input) if F.dtype(input).is_complex else input


@op(family="pointwise", meta=same, promote="arithmetic", elementwise=True, node="ConjBackward0")
def _conj(k: K, input: Array, *, out: Any = None) -> Array:
    """The complex conjugate, in memory of its own."""
    return k.xp.conjugate(input, out=out)


@_conj.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.conj(g)


# ---------------------------------------------------------------- rounding


def _rounding(name: str, doc: str) -> None:
    def kernel(k: K, input: Array, *, out: Any = None) -> Array:
        if input.dtype.kind in "iu":
            return k.xp.positive(input, out=out)
        return getattr(k.xp, name)(input, out=out)

    kernel.__doc__ = doc
    declared = op(
        name=name,
        family="pointwise",
        meta=lacking(f"{name}_vml_cpu", BOOL, instead={COMPLEX: f"{name} is not supported for complex inputs"}),
        promote="arithmetic",
        elementwise=True,
        inplace=True,
        alias=("fix",) if name == "trunc" else (),
        samples=[*_REAL, S(I(4))],
    )(kernel)

    @declared.vjp
    def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
        return F.zeros_like(g)


_rounding("ceil", "The smallest whole number not below each element.")
_rounding("floor", "The largest whole number not above each element.")
_rounding("trunc", "Each element without its fraction.")


def _round_meta(k: K, input: Any, decimals: int = 0) -> Spec:
    d = k.dtype
    if d.category in (BOOL, COMPLEX) or (decimals and d.category == INT):
        raise not_implemented("round_cpu" if decimals else "round_vml_cpu", d)
    return input  # type: ignore[no-any-return]


def _round_node(input: Any, decimals: int) -> str:
    return "RoundBackward1" if decimals else "RoundBackward0"


@op(
    family="pointwise",
    meta=_round_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    alias=("special.round",),
    node=_round_node,
    samples=[*_REAL, S(T(2, 3), decimals=1), S(T(2, 3, low=-200.0, high=200.0), decimals=-1), S(I(4))],
)
def round(k: K, input: Array, decimals: int = 0, *, out: Any = None) -> Array:
    """The nearest whole number, halves to the even one; or the nearest multiple of 10^-decimals."""
    xp = k.xp
    if input.dtype.kind in "iu":
        return xp.positive(input, out=out)
    if not decimals:
        return xp.rint(input, out=out)
    power = decimals if decimals > 0 else -decimals
    scale = 10.0**power if power <= 308 else inf  # beyond, all is NaN, as in PyTorch
    scaled = input * scale if decimals > 0 else input / scale
    whole = xp.rint(scaled)
    return xp.true_divide(whole, scale, out=out) if decimals > 0 else xp.multiply(whole, scale, out=out)


@round.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.zeros_like(g)


@op(
    family="pointwise",
    meta=lacking("frac_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    samples=_REAL,
)
def frac(k: K, input: Array, *, out: Any = None) -> Array:
    """The fraction of each element, with its sign: x - trunc(x)."""
    return k.xp.subtract(input, k.xp.trunc(input), out=out)


@frac.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


# ---------------------------------------------------------------- what elements are


@op(family="pointwise", meta=same, promote="compare", vjp=None, samples=[*_REAL, S(C(2, 2)), S(I(4))])
def isnan(k: K, input: Array) -> Array:
    """Whether each element is NaN; a complex number is where one of its parts is."""
    return k.xp.isnan(input)


@op(family="pointwise", meta=same, promote="compare", vjp=None, samples=[*_REAL, S(C(2, 2)), S(I(4))])
def isinf(k: K, input: Array) -> Array:
    """Whether each element is infinite; a complex number is where one of its parts is."""
    return k.xp.isinf(input)


@op(family="pointwise", meta=same, promote="compare", vjp=None, samples=[*_REAL, S(C(2, 2)), S(I(4))])
def isfinite(k: K, input: Array) -> Array:
    """Whether each element is neither NaN nor infinite."""
    return k.xp.isfinite(input)

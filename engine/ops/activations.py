"""Activation functions. Each is one kernel of few passes over memory, and so is its gradient."""

from __future__ import annotations

from math import isfinite, pi, sqrt
from typing import Any, Literal

from engine.approximations import TAIL_A, TAIL_P
from engine.carriers import K
from engine.declare import Array, Scalar, composite, op
from engine.dtypes import BOOL, COMPLEX, FLOAT, INT, int64, uint8
from engine.errors import DtypeMismatch, Invalid
from engine.metas import broadcast, same
from engine.op import REGISTRY, Spec
from engine.ops.common import bounded, elements, fitting, in_blocks, lacking, publish_inplace, put, select
from engine.samples import C, I, S, T

_REAL = [S(T(2, 3)), S(T()), S(T(0, 2))]


def _applied(F: Any, name: str, inplace: bool, *args: Any) -> Any:
    """An operation or its in-place form, as an `inplace` parameter asks."""
    return getattr(F, f"{name}_" if inplace and F.recording else name)(*args)


def gradient(k: K, *args: Any) -> Spec:
    """The meta of a backward kernel: the common shape and dtype of the gradient and what it is multiplied with."""
    return broadcast(k, *args)


# ---------------------------------------------------------------- sigmoid and tanh


def _sigmoid(xp: Any, x: Any, out: Any) -> None:
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    xp.add(out, 1, out=out)
    xp.reciprocal(out, out=out)


@op(
    family="activations",
    meta=same,
    promote="float",
    elementwise=True,
    inplace=True,
    alias=("nn.functional.sigmoid", "special.expit"),
    save={"input": ("result",)},
    samples=[*_REAL, S(C(2, 2)), S(I(3))],
)
def sigmoid(k: K, input: Array, *, out: Any = None) -> Array:
    """1 / (1 + exp(-x))."""
    return in_blocks(k, _sigmoid, (input,), out, "sigmoid")


@sigmoid.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._sigmoid_backward(g, F.conj(saved.result))


def _sigmoid_slope(xp: Any, g: Any, y: Any, out: Any) -> None:
    xp.subtract(1, y, out=out)
    xp.multiply(out, y, out=out)
    xp.multiply(out, g, out=out)


@op(family="activations", meta=gradient, promote="arithmetic", elementwise=True, save={"g": ("y",), "y": ("g", "y")})
def _sigmoid_backward(k: K, g: Array, y: Array) -> Array:
    """g * y * (1 - y), where y is the sigmoid."""
    return in_blocks(k, _sigmoid_slope, (g, y))


@_sigmoid_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y = F.conj(saved.y)
    return need.g and F._sigmoid_backward(g, y), need.y and g * F.conj(saved.g) * (1 - y * 2)


def _tanh_slope(xp: Any, g: Any, y: Any, out: Any) -> None:
    xp.multiply(y, y, out=out)
    xp.subtract(1, out, out=out)
    xp.multiply(out, g, out=out)


@op(family="activations", meta=gradient, promote="arithmetic", elementwise=True, save={"g": ("y",), "y": ("g", "y")})
def _tanh_backward(k: K, g: Array, y: Array) -> Array:
    """g * (1 - y^2), where y is the hyperbolic tangent."""
    return in_blocks(k, _tanh_slope, (g, y))


@_tanh_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y = F.conj(saved.y)
    return need.g and F._tanh_backward(g, y), need.y and g * F.conj(saved.g) * y * -2


def _logsigmoid(xp: Any, x: Any, out: Any) -> None:
    low = bounded(xp, x, high=0.0)
    xp.abs(x, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)
    xp.subtract(low, out, out=out)


@op(
    family="activations",
    name="nn.functional.logsigmoid",
    meta=lacking("log_sigmoid_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    node="LogSigmoidBackward0",
    save={"input": ("input",)},
    samples=_REAL,
)
def logsigmoid(k: K, input: Array, *, out: Any = None) -> Array:
    """log(sigmoid(x)), exact for large negative numbers too."""
    return in_blocks(k, _logsigmoid, (k.xp.ascontiguousarray(input) if input.ndim else input,), out)


@logsigmoid.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F.sigmoid(-saved.input)


# ---------------------------------------------------------------- relu and what is cut off


_RELU = lacking(
    "relu",
    instead={BOOL: "Boolean inputs not supported for relu", COMPLEX: "clamp is not supported for complex types"},
)


@op(
    family="activations",
    meta=_RELU,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    save={"input": ("result",)},
    samples=[*_REAL, S(I(4, low=-3))],
)
def relu(k: K, input: Array, *, out: Any = None) -> Array:
    """max(x, 0). The gradient at 0 is 0."""
    if input.dtype.kind == "f":
        return bounded(k.xp, input, 0.0, out=out)
    return k.xp.maximum(input, 0, out=out)


REGISTRY["nn.functional.relu_"] = REGISTRY["relu_"]
REGISTRY["relu_"].aliases = ("nn.functional.relu_",)


@relu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._unless_low(g, saved.result)


@relu.array_vjp
def _(k: K, values: Any, g: Any, mask: int) -> Any:
    return (k.raw._unless_low(g, values[1]),)


@op(family="activations", meta=gradient, promote="arithmetic", elementwise=True, save={"g": ("y",)})
def _unless_low(k: K, g: Array, y: Array) -> Array:
    """g where y, which is never below 0, is not 0; elsewhere 0."""
    if (made := elements(k, "unless_low", g, y)) is not None:
        return made
    return select(k, y != 0, g, 0)


@_unless_low.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.g and F._unless_low(g, saved.y), need.y and F.zeros_like(g)


@composite(family="activations", name="nn.functional.relu", node="ReluBackward0", moves=True,
           samples=[*_REAL, S(T(2, 3), inplace=False)])  # fmt: skip
def functional_relu(F: Any, input: Array, inplace: bool = False) -> Array:
    """max(x, 0). The gradient at 0 is 0."""
    return _applied(F, "relu", inplace, input)


def _hardtanh_meta(k: K, input: Any, min_val: Any = -1.0, max_val: Any = 1.0) -> Spec:
    d = input.dtype
    if d.category == BOOL:
        raise DtypeMismatch("Bool inputs not supported for hardtanh")
    if d.category == COMPLEX:
        raise DtypeMismatch("clamp is not supported for complex types")
    if d.category == INT:  # the limits lose their fractions first
        limits = fitting(min_val, int64, "min_val"), fitting(max_val, int64, "max_val")
        if d is uint8 and min(limits) < 0:
            raise DtypeMismatch("cannot do hardtanh on an unsigned type with negative limits", param="min_val")
        for limit, name in zip(limits, ("min_val", "max_val"), strict=True):
            fitting(limit, d, name)
    elif d.category == FLOAT:
        fitting(min_val, d, "min_val"), fitting(max_val, d, "max_val")
    return same(k, input)


_BOUNDED = [*_REAL, S(T(2, 3), -0.5, 1.5), S(I(4, low=-3), -1, 2)]


@op(
    family="activations",
    meta=_hardtanh_meta,
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="HardtanhBackward0",
    save={"input": ("input",)},
    samples=_BOUNDED,
)
def _hardtanh(k: K, input: Array, min_val: Scalar = -1.0, max_val: Scalar = 1.0, *, out: Any = None) -> Array:
    """Every element moved into [min_val, max_val]; the gradient is 0 outside and at the ends."""
    min_val, max_val = min_val.real, max_val.real  # complex numbers without an imaginary part, too
    if min_val > max_val:
        raise Invalid("min_val cannot be greater than max_val", param="min_val")
    if input.dtype.kind in "iu":
        min_val, max_val = int(min_val), int(max_val)
    if input.dtype.kind == "f" and isfinite(min_val) and isfinite(max_val):
        return bounded(k.xp, input, float(min_val), float(max_val), out)
    raised = k.xp.maximum(input, min_val, out=out)
    return k.xp.minimum(raised, max_val, out=raised if raised.ndim else out)


@_hardtanh.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._hardtanh_backward(g, saved.input, float(saved.min_val.real), float(saved.max_val.real))


@op(family="activations", meta=gradient, promote="arithmetic", over=("g", "x"), elementwise=True, save={"g": ("x",)})
def _hardtanh_backward(k: K, g: Array, x: Array, low: float, high: float) -> Array:
    """g where low < x < high, elsewhere 0."""
    if (made := elements(k, "between", g, x, numbers=(low, high))) is not None:
        return made
    return select(k, (x <= low) | (x >= high), 0, g)


@_hardtanh_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.g and F._hardtanh_backward(g, saved.x, saved.low, saved.high), need.x and F.zeros_like(g)


publish_inplace(_hardtanh, "nn.functional.hardtanh_")


@composite(family="activations", name="nn.functional.hardtanh", moves=True, node="HardtanhBackward0", samples=_BOUNDED)
def hardtanh(F: Any, input: Array, min_val: Scalar = -1.0, max_val: Scalar = 1.0, inplace: bool = False) -> Array:
    """Every element moved into [min_val, max_val]; the gradient is 0 outside and at the ends."""
    if inplace and F.recording:
        return F.hardtanh_(input, min_val, max_val)
    return F._hardtanh(input, min_val, max_val)


@composite(
    family="activations",
    name="nn.functional.relu6",
    moves=True,
    node="HardtanhBackward0",
    samples=[S(T(2, 3, low=-8.0, high=8.0)), *_REAL, S(I(4, low=-3, high=9))],
)
def relu6(F: Any, input: Array, inplace: bool = False) -> Array:
    """min(max(x, 0), 6)."""
    return F.hardtanh_(input, 0, 6) if inplace and F.recording else F._hardtanh(input, 0, 6)


# ---------------------------------------------------------------- leaks and exponentials below 0


def _leaky(k: K, slope: float) -> Any:
    def run(xp: Any, x: Any, out: Any) -> None:
        if 0 < slope <= 1:
            xp.maximum(x, x * slope, out=out)
        else:
            out[...] = select(k, x > 0, x, x * slope)

    return run


@op(
    family="activations",
    meta=lacking("leaky_relu_cpu", BOOL, INT, COMPLEX, numbers="wide"),
    promote="arithmetic",
    over=("input",),
    elementwise=True,
    inplace=True,
    node="LeakyReluBackward0",
    save={"input": ("input",)},
    samples=[*_REAL, S(T(2, 3), 0.3)],
)
def _leaky_relu(k: K, input: Array, negative_slope: Scalar = 0.01, *, out: Any = None) -> Array:
    """x where it is positive, negative_slope * x elsewhere."""
    slope = float(negative_slope.real)
    if out is None and (made := elements(k, "leaky", input, input, numbers=(slope,))) is not None:
        return made
    return in_blocks(k, _leaky(k, slope), (input,), out)


@_leaky_relu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._leaky_backward(g, saved.input, float(saved.negative_slope.real))


@op(family="activations", meta=gradient, promote="arithmetic", over=("g", "x"), elementwise=True, save={"g": ("x",)})
def _leaky_backward(k: K, g: Array, x: Array, slope: float) -> Array:
    """g where x > 0, slope * g elsewhere."""
    if (made := elements(k, "leaky", g, x, numbers=(slope,))) is not None:
        return made
    return select(k, x > 0, g, g * slope)


@_leaky_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.g and F._leaky_backward(g, saved.x, saved.slope), need.x and F.zeros_like(g)


publish_inplace(_leaky_relu, "nn.functional.leaky_relu_")


@composite(
    family="activations",
    name="nn.functional.leaky_relu",
    moves=True,
    node="LeakyReluBackward0",
    samples=[*_REAL, S(T(2, 3), 0.3), S(T(2, 3), -0.5)],
)
def leaky_relu(F: Any, input: Array, negative_slope: Scalar = 0.01, inplace: bool = False) -> Array:
    """x where it is positive, negative_slope * x elsewhere. The gradient at 0 is negative_slope."""
    if inplace and F.recording:
        return F.leaky_relu_(input, negative_slope)
    return F._leaky_relu(input, negative_slope)


def below_zero(F: Any, x: Any) -> Any:
    """min(x, 0), whose gradient at 0 is 0, as PyTorch's second derivatives of exponentials below 0 have it."""
    return F.where(F.lt(x, 0), x, 0)


def exponential_below(k: K, alpha: float, scale: float, input_scale: float) -> Any:
    """elu with its three numbers, as a function of blocks."""

    def run(xp: Any, x: Any, out: Any) -> None:
        t = bounded(xp, x, high=0.0)
        if input_scale != 1:
            xp.multiply(t, input_scale, out=t)
        xp.expm1(t, out=t)
        xp.multiply(t, alpha * scale, out=t)
        out[...] = select(k, x <= 0, t, x if scale == 1 else x * scale)

    return run


@op(
    family="activations",
    meta=lacking("elu_cpu", BOOL, INT, COMPLEX, numbers="wide"),
    promote="arithmetic",
    over=("input",),
    elementwise=True,
    inplace=True,
    node="EluBackward0",
    save={"input": ("input",)},
    samples=[*_REAL, S(T(2, 3), 2.0, 1.5, 0.5)],
)
def _elu(
    k: K, input: Array, alpha: Scalar = 1.0, scale: Scalar = 1.0, input_scale: Scalar = 1.0, *, out: Any = None
) -> Array:
    """scale * (x where it is positive, alpha * (exp(input_scale * x) - 1) elsewhere)."""
    return in_blocks(
        k, exponential_below(k, float(alpha.real), float(scale.real), float(input_scale.real)), (input,), out
    )


@_elu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.input
    alpha, scale, input_scale = float(saved.alpha.real), float(saved.scale.real), float(saved.input_scale.real)
    scaled = g if scale == 1 else g * scale
    low = below_zero(F, x)
    slope = F.exp(low if input_scale == 1 else low * input_scale) * (alpha * input_scale)
    return F.where(F.le(x, 0), scaled * slope, scaled)


publish_inplace(_elu, "nn.functional.elu_")


@composite(
    family="activations",
    name="nn.functional.elu",
    moves=True,
    node="EluBackward0",
    samples=[*_REAL, S(T(2, 3), 2.0)],
)
def elu(F: Any, input: Array, alpha: Scalar = 1.0, inplace: bool = False) -> Array:
    """x where it is positive, alpha * (exp(x) - 1) elsewhere."""
    return F.elu_(input, alpha) if inplace and F.recording else F._elu(input, alpha)


def _soft_ramp(k: K, beta: float, threshold: float) -> Any:
    def run(xp: Any, x: Any, out: Any) -> None:
        scaled = x if beta == 1 else x * beta
        t = xp.exp(scaled)
        xp.log1p(t, out=t)
        if beta != 1:
            xp.true_divide(t, beta, out=t)
        out[...] = select(k, scaled > threshold, x, t)

    return run


@op(
    family="activations",
    name="nn.functional.softplus",
    meta=lacking("softplus_cpu", BOOL, INT, COMPLEX, numbers="wide"),
    promote="arithmetic",
    over=("input",),
    elementwise=True,
    node="SoftplusBackward0",
    save={"input": ("input",)},
    samples=[*_REAL, S(T(2, 3), 2.0, 3.0), S(T(2, 3), 0.5)],
)
def softplus(k: K, input: Array, beta: Scalar = 1, threshold: Scalar = 20, *, out: Any = None) -> Array:
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    return in_blocks(k, _soft_ramp(k, float(beta.real), float(threshold.real)), (input,), out)


@softplus.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g * F._softplus_slope(saved.input, float(saved.beta.real), float(saved.threshold.real))


@op(family="activations", meta=broadcast, promote="arithmetic", over=("input",), elementwise=True,
    save={"input": ("input",)})  # fmt: skip
def _softplus_slope(k: K, input: Array, beta: Any, threshold: Any, *, out: Any = None) -> Array:
    """The derivative of softplus."""
    scaled = input if beta == 1 else input * beta
    made = k.xp.empty_like(scaled)
    _sigmoid(k.xp, scaled, made)
    k.xp.copyto(made, 1, where=scaled > threshold)
    return put(made, out)


@_softplus_slope.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scaled = saved.input * saved.beta
    s = F.sigmoid(scaled)
    return F.where(F.lt(scaled, saved.threshold), g * s * (1 - s) * saved.beta, 0)


# ---------------------------------------------------------------- silu


def _silu_values(xp: Any, x: Any, out: Any) -> None:
    t = xp.negative(x)
    xp.exp(t, out=t)
    xp.add(t, 1, out=t)
    xp.true_divide(x, t, out=out)


@op(
    family="activations",
    meta=lacking("silu_cpu", BOOL, INT),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="SiluBackward0",
    save={"input": ("input",)},
)
def _silu(k: K, input: Array, *, out: Any = None) -> Array:
    """x * sigmoid(x)."""
    return in_blocks(k, _silu_values, (input,), out, "silu")


@_silu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._silu_backward(g, F.conj(saved.input))


def _silu_slope(xp: Any, g: Any, x: Any, out: Any) -> None:
    s = xp.empty_like(x)
    _sigmoid(xp, x, s)
    t = xp.subtract(1, s)
    xp.multiply(t, x, out=t)
    xp.add(t, 1, out=t)
    xp.multiply(t, s, out=t)
    xp.multiply(t, g, out=out)


@op(family="activations", meta=gradient, promote="arithmetic", elementwise=True, save={"g": ("x",), "x": ("g", "x")})
def _silu_backward(k: K, g: Array, x: Array) -> Array:
    """g times the slope of x * sigmoid(x)."""
    return in_blocks(k, _silu_slope, (g, x), None, "silu_slope")


@_silu_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = F.conj(saved.x)
    of_x = None
    if need.x:
        s = F.sigmoid(x)
        of_x = g * F.conj(saved.g) * (s * (1 - s) * (2 + x * (1 - s * 2)))
    return need.g and F._silu_backward(g, x), of_x


@composite(
    family="activations",
    name="nn.functional.silu",
    moves=True,
    node="SiluBackward0",
    samples=[*_REAL, S(C(2, 2))],
)
def silu(F: Any, input: Array, inplace: bool = False) -> Array:
    """x * sigmoid(x), also called swish."""
    return _applied(F, "_silu", inplace, input)


# ---------------------------------------------------------------- gelu

# In float32 the approximation of the normal distribution's tail has float32's own precision here, and is five times as
# fast as the exact function; float64 takes the exact one.


def _tail(xp: Any, x: Any, size: Any) -> tuple[Any, Any]:
    """erfc(|x| / sqrt(2)) / 2: how much of the normal distribution lies beyond |x|; and exp(-x^2 / 2). float32.

    `size` is |x|.
    """
    t = xp.multiply(size, TAIL_P)
    xp.add(t, 1, out=t)
    xp.true_divide(1, t, out=t)  # `reciprocal` takes twice as long in NumPy
    r = xp.multiply(t, TAIL_A[0])
    for a in TAIL_A[1:]:
        xp.add(r, a, out=r)
        xp.multiply(r, t, out=r)
    xp.square(x, out=t)
    xp.multiply(t, -0.5, out=t)
    xp.exp(t, out=t)
    xp.multiply(r, t, out=r)
    return r, t


def _gelu_none(k: K) -> Any:
    def run(xp: Any, x: Any, out: Any) -> None:
        if x.dtype.itemsize == 4:  # x P(X <= x) = max(x, 0) - |x| P(X > |x|), where nothing cancels
            size = xp.abs(x)
            r, t = _tail(xp, x, size)
            xp.multiply(r, size, out=r)
            xp.subtract(bounded(xp, x, 0.0, out=t), r, out=out)
        else:
            t = xp.multiply(x, -1 / sqrt(2))
            k.sp.special.erfc(t, out=t)
            xp.multiply(t, 0.5, out=t)
            xp.multiply(t, x, out=out)

    return run


_SLOPE, _CUBE = sqrt(2 / pi), 0.044715


def _inner_tanh(xp: Any, x: Any) -> Any:
    """tanh(sqrt(2 / pi) (x + 0.044715 x^3))."""
    t = xp.multiply(x, x)
    xp.multiply(t, _CUBE, out=t)
    xp.add(t, 1, out=t)
    xp.multiply(t, x, out=t)
    xp.multiply(t, _SLOPE, out=t)
    xp.tanh(t, out=t)
    return t


def _gelu_tanh(xp: Any, x: Any, out: Any) -> None:
    t = _inner_tanh(xp, x)
    xp.add(t, 1, out=t)
    xp.multiply(t, 0.5, out=t)
    xp.multiply(t, x, out=out)


def _check_approximate(approximate: str) -> None:
    if approximate not in ("none", "tanh"):
        raise Invalid("approximate argument must be either none or tanh.", param="approximate")


@op(
    family="activations",
    name="nn.functional.gelu",
    meta=lacking("GeluKernelImpl", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    node="GeluBackward0",
    save={"input": ("input",)},
    samples=[*_REAL, S(T(2, 3), "tanh")],
)
def gelu(k: K, input: Array, approximate: Literal["none", "tanh"] = "none", *, out: Any = None) -> Array:
    """x times the probability that a normal number is below x; "tanh" is the usual approximation of it."""
    _check_approximate(approximate)
    if approximate == "tanh":
        return in_blocks(k, _gelu_tanh, (input,), out)
    return in_blocks(k, _gelu_none(k), (input,), out, "gelu")


@gelu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._gelu_backward(g, saved.input, saved.approximate)


_SIGN = 1 << 31  # of a float32


def _gelu_none_slope(k: K) -> Any:
    def run(xp: Any, g: Any, x: Any, out: Any) -> None:
        if x.dtype.itemsize == 4:
            size = xp.abs(x)
            r, t = _tail(xp, x, size)  # P(X <= x) = 1/2 + sign(x) (1/2 - P(X > |x|))
            xp.subtract(0.5, r, out=r)
            if k.backend.kind == "cpu":  # NumPy's `copysign` takes half as long as all the rest
                sign = xp.bitwise_and(x.view("u4"), _SIGN, out=size.view("u4"))
                xp.bitwise_xor(r.view("u4"), sign, out=r.view("u4"))
            else:
                xp.copysign(r, x, out=r)
            xp.add(r, 0.5, out=r)
        else:
            r = xp.multiply(x, -1 / sqrt(2))
            k.sp.special.erfc(r, out=r)
            xp.multiply(r, 0.5, out=r)
            t = xp.multiply(x, x)
            xp.multiply(t, -0.5, out=t)
            xp.exp(t, out=t)
        xp.multiply(t, 1 / sqrt(2 * pi), out=t)
        xp.multiply(t, x, out=t)
        xp.add(r, t, out=r)
        xp.multiply(r, g, out=out)

    return run


def _gelu_tanh_slope(xp: Any, g: Any, x: Any, out: Any) -> None:
    t = _inner_tanh(xp, x)
    r = xp.multiply(x, x)
    xp.multiply(r, 3 * _CUBE, out=r)
    xp.add(r, 1, out=r)
    xp.multiply(r, _SLOPE, out=r)
    xp.multiply(r, x, out=r)
    rest = xp.subtract(1, t)
    xp.multiply(r, rest, out=r)  # (1 + t) (1 + x (1 - t) u') / 2, with u' the slope inside of tanh
    xp.add(r, 1, out=r)
    xp.add(t, 1, out=t)
    xp.multiply(r, t, out=r)
    xp.multiply(r, 0.5, out=r)
    xp.multiply(r, g, out=out)


@op(
    family="activations",
    meta=gradient,
    promote="arithmetic",
    over=("g", "x"),
    elementwise=True,
    save={"g": ("x",), "x": ("g", "x")},
)
def _gelu_backward(k: K, g: Array, x: Array, approximate: Literal["none", "tanh"]) -> Array:
    """g times the slope of gelu."""
    if approximate == "tanh":
        return in_blocks(k, _gelu_tanh_slope, (g, x))
    return in_blocks(k, _gelu_none_slope(k), (g, x), None, "gelu_slope")


@_gelu_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.x
    of_x = None
    if need.x:
        square = x * x
        if saved.approximate == "tanh":
            t = F.tanh((square * _CUBE + 1) * x * _SLOPE)
            first = (square * (3 * _CUBE) + 1) * _SLOPE
            bend = (1 - t * t) * (first * (1 - x * t * first) + square * (3 * _CUBE * _SLOPE))
        else:
            bend = F.exp(square * -0.5) * (2 - square) * (1 / sqrt(2 * pi))
        of_x = g * saved.g * bend
    return need.g and F._gelu_backward(g, x, saved.approximate), of_x

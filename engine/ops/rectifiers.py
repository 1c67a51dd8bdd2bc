"""Activation functions that cut, shrink, gate or bend: the rest of torch.nn.functional's."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

import numpy as np

from engine.carriers import K
from engine.context import Context
from engine.declare import Array, Dim, Scalar, composite, op, special
from engine.dtypes import BOOL, COMPLEX, DTYPES, FLOAT, INT, cast_scalar, float16, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.metas import broadcast, same
from engine.op import REGISTRY, Spec
from engine.ops.activations import below_zero, exponential_below, gradient
from engine.ops.common import bounded, elements, fitting, in_blocks, lacking, not_implemented, number, select
from engine.record import REC
from engine.samples import I, S, T
from engine.shapes import wrap_dim
from engine.tensor import Tensor

_REAL = [S(T(2, 3)), S(T()), S(T(0, 2))]


def _also_functional(name: str) -> None:
    """`torch.x_` is `nn.functional.x_` too."""
    twin = REGISTRY[f"{name}_"]
    REGISTRY[f"nn.functional.{name}_"] = twin
    twin.aliases = (*twin.aliases, f"nn.functional.{name}_")


def _applied(F: Any, name: str, inplace: bool, *args: Any) -> Any:
    return getattr(F, f"{name}_" if inplace and F.recording else name)(*args)


def _first(k: K, g: Spec, x: Spec) -> Spec:
    return g


@op(family="activations", meta=_first, moves=True, save={})
def _on(k: K, g: Array, x: Array) -> Array:
    """g as it is, on the tape of x: what a slope of pieces gives depends on x, with the gradient 0."""
    return g


@_on.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g, need.x and F.zeros_like(g)


# ---------------------------------------------------------------- selu and celu

_SELU = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946)  # alpha, scale: Klambauer et al. 2017


@op(
    family="activations",
    meta=lacking("elu_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="EluBackward0",
    save={"input": ("input",)},
    samples=_REAL,
)
def selu(k: K, input: Array, *, out: Any = None) -> Array:
    """scale * (x where it is positive, alpha * (exp(x) - 1) elsewhere): keeps mean 0 and variance 1 (Klambauer 2017).

    alpha = 1.67326..., scale = 1.05070...
    """
    return in_blocks(k, exponential_below(k, *_SELU, 1.0), (input,), out)


@selu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    alpha, scale = _SELU
    scaled = g * scale
    return F.where(F.le(saved.input, 0), scaled * (F.exp(below_zero(F, saved.input)) * alpha), scaled)


_also_functional("selu")


@composite(family="activations", name="nn.functional.selu", moves=True, node="EluBackward0", samples=_REAL)
def functional_selu(F: Any, input: Array, inplace: bool = False) -> Array:
    """scale * (x where it is positive, alpha * (exp(x) - 1) elsewhere), alpha = 1.67326..., scale = 1.05070..."""
    return _applied(F, "selu", inplace, input)


def _celu_meta(k: K, input: Any, alpha: Any = 1.0) -> Spec:
    if alpha == 0:
        raise Invalid("ZeroDivisionError: alpha cannot be 0 for CELU", param="alpha")
    return _ELU(k, input, alpha)


_ELU = lacking("elu_cpu", BOOL, INT, COMPLEX, numbers="wide")
_CELU_SAMPLES = [*_REAL, S(T(2, 3), 2.0), S(T(2, 3), -0.5)]


@op(
    family="activations",
    meta=_celu_meta,
    promote="arithmetic",
    over=("input",),
    keeps=False,
    elementwise=True,
    inplace=True,
    save={"input": ("input",)},
    samples=_CELU_SAMPLES,
)
def celu(k: K, input: Array, alpha: Scalar = 1.0, *, out: Any = None) -> Array:
    """x where it is positive, alpha * (exp(x / alpha) - 1) elsewhere (Barron 2017)."""
    return in_blocks(k, exponential_below(k, float(alpha.real), 1.0, 1.0 / float(alpha.real)), (input,), out)


@celu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.input
    return F.where(F.le(x, 0), g * F.exp(below_zero(F, x) * (1.0 / float(saved.alpha.real))), g)


_also_functional("celu")


@composite(family="activations", name="nn.functional.celu", moves=True, node="CeluBackward0", samples=_CELU_SAMPLES)
def functional_celu(F: Any, input: Array, alpha: float = 1.0, inplace: bool = False) -> Array:
    """x where it is positive, alpha * (exp(x / alpha) - 1) elsewhere."""
    return _applied(F, "celu", inplace, input, alpha)


# ---------------------------------------------------------------- gates


@composite(
    family="activations",
    name="nn.functional.glu",
    node="GluBackward0",
    samples=[S(T(2, 4)), S(T(4, 3), 0), S(T(2)), S(T(0, 2)), S(T(3, 2, 2), -2)],
)
def glu(F: Any, input: Array, dim: Dim = -1) -> Array:
    """The gated linear unit: a * sigmoid(b), where a and b are the halves of the input along `dim` (Dauphin 2016)."""
    shape = F.shape(input)
    if not shape:
        raise ShapeMismatch("glu does not support scalars because halving size must be even", param="input")
    at = wrap_dim(dim, len(shape))
    if shape[at] % 2:
        raise ShapeMismatch(f"Halving dimension must be even, but dimension {at} is size {shape[at]}", param="dim")
    if F.dtype(input).category != FLOAT:
        raise not_implemented("glu_cpu", F.dtype(input))
    half = shape[at] // 2
    return F.mul(F.narrow(input, at, 0, half), F.sigmoid(F.narrow(input, at, half, half)))


def _ramp(xp: Any, x: Any, out: Any) -> None:
    xp.add(x, 3, out=out)
    bounded(xp, out, 0.0, 6.0, out)


def _hardsigmoid_values(xp: Any, x: Any, out: Any) -> None:
    _ramp(xp, x, out)
    xp.true_divide(out, 6, out=out)


_WIDE = [S(T(2, 3, low=-6.0, high=6.0)), *_REAL]


@op(
    family="activations",
    meta=lacking("hardsigmoid_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="HardsigmoidBackward0",
    save={"input": ("input",)},
)
def _hardsigmoid(k: K, input: Array, *, out: Any = None) -> Array:
    """min(max(x + 3, 0), 6) / 6."""
    return in_blocks(k, _hardsigmoid_values, (input,), out)


_SIXTH = float(np.float32(1) / np.float32(6))  # PyTorch's has float32's digits in float64 too


@_hardsigmoid.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.input
    return F._on(F.where(F.logical_and(F.gt(x, -3), F.lt(x, 3)), g * _SIXTH, 0), x)


@composite(
    family="activations", name="nn.functional.hardsigmoid", moves=True, node="HardsigmoidBackward0", samples=_WIDE
)
def hardsigmoid(F: Any, input: Array, inplace: bool = False) -> Array:
    """min(max(x + 3, 0), 6) / 6: a sigmoid of straight lines. The gradient at -3 and 3 is 0."""
    return _applied(F, "_hardsigmoid", inplace, input)


def _hardswish_values(xp: Any, x: Any, out: Any) -> None:
    t = xp.empty_like(x)
    _ramp(xp, x, t)
    xp.multiply(t, x, out=t)
    xp.true_divide(t, 6, out=out)


@op(
    family="activations",
    meta=lacking("hardswish_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="HardswishBackward0",
    save={"input": ("input",)},
)
def _hardswish(k: K, input: Array, *, out: Any = None) -> Array:
    """x * min(max(x + 3, 0), 6) / 6."""
    return in_blocks(k, _hardswish_values, (input,), out, "hardswish")


@_hardswish.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._hardswish_backward(g, saved.input)


def _hardswish_slope(k: K) -> Any:
    def run(xp: Any, g: Any, x: Any, out: Any) -> None:
        t = xp.true_divide(x, 3)
        xp.add(t, 0.5, out=t)
        xp.multiply(t, g, out=t)
        t = select(k, x < 3, t, g)
        out[...] = select(k, x <= -3, 0, t)

    return run


@op(family="activations", meta=gradient, promote="arithmetic", elementwise=True, save={"g": ("x",), "x": ("g", "x")})
def _hardswish_backward(k: K, g: Array, x: Array) -> Array:
    """g times the slope of hardswish: 0 up to -3, x / 3 + 1/2 in between, 1 from 3 on."""
    return in_blocks(k, _hardswish_slope(k), (g, x), None, "hardswish_slope")


@_hardswish_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    of_x = None
    if need.x:
        inside = F.logical_and(F.gt(saved.x, -3), F.lt(saved.x, 3))
        of_x = F.where(inside, g * saved.g * (1.0 / 3.0), 0)
    return need.g and F._hardswish_backward(g, saved.x), of_x


@composite(family="activations", name="nn.functional.hardswish", moves=True, node="HardswishBackward0", samples=_WIDE)
def hardswish(F: Any, input: Array, inplace: bool = False) -> Array:
    """x * min(max(x + 3, 0), 6) / 6 (Howard 2019, MobileNetV3)."""
    return _applied(F, "_hardswish", inplace, input)


def _mish_values(xp: Any, x: Any, out: Any) -> None:
    t = xp.exp(x)
    xp.log1p(t, out=t)
    xp.tanh(t, out=t)
    xp.multiply(t, x, out=out)


@op(
    family="activations",
    meta=lacking("mish_cpu", BOOL, INT, COMPLEX),
    promote="arithmetic",
    elementwise=True,
    inplace=True,
    node="MishBackward0",
    save={"input": ("input",)},
)
def _mish(k: K, input: Array, *, out: Any = None) -> Array:
    """x * tanh(log(1 + exp(x)))."""
    return in_blocks(k, _mish_values, (input,), out)


@_mish.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    x = saved.input
    t = F.tanh(F.softplus(x))
    return g * (t + x * F.sigmoid(x) * (1 - t * t))


@composite(family="activations", name="nn.functional.mish", moves=True, node="MishBackward0", samples=_REAL)
def mish(F: Any, input: Array, inplace: bool = False) -> Array:
    """x * tanh(log(1 + exp(x))) (Misra 2019)."""
    return _applied(F, "_mish", inplace, input)


# ---------------------------------------------------------------- shrinking


@composite(family="activations", name="nn.functional.softsign", samples=[*_REAL, S(I(3))])
def softsign(F: Any, input: Array) -> Array:
    """x / (1 + |x|)."""
    return F.div(input, F.add(F.abs(input), 1))


@composite(family="activations", name="nn.functional.tanhshrink", samples=[*_REAL, S(I(3))])
def tanhshrink(F: Any, input: Array) -> Array:
    """x - tanh(x)."""
    return F.sub(input, F.tanh(input))


_SHRINKS = [*_REAL, S(T(2, 3), 1.0)]


@op(
    family="activations",
    alias=("nn.functional.hardshrink",),
    meta=lacking("hardshrink_cpu", BOOL, INT, COMPLEX, numbers="own"),
    promote="arithmetic",
    over=("input",),
    elementwise=True,
    save={"input": ("input",)},
    samples=_SHRINKS,
)
def hardshrink(k: K, input: Array, lambd: Scalar = 0.5, *, out: Any = None) -> Array:
    """x where |x| > lambd, elsewhere 0."""
    return _large(k, input, input, float(lambd.real))


def _large(k: K, g: Any, x: Any, bound: float) -> Any:
    if (made := elements(k, "beyond", g, x, numbers=(bound,))) is not None:
        return made
    return select(k, (x >= -bound) & (x <= bound), 0, g)


@hardshrink.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._shrink_backward(g, saved.input, float(saved.lambd.real))


@op(family="activations", meta=gradient, promote="arithmetic", over=("g", "x"), elementwise=True, save={"g": ("x",)})
def _shrink_backward(k: K, g: Array, x: Array, bound: float) -> Array:
    """g, but 0 where -bound <= x <= bound."""
    return _large(k, g, x, bound)


@_shrink_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.g and F._shrink_backward(g, saved.x, saved.bound), need.x and F.zeros_like(g)


_LARGEST = {"float16": 65504.0, "bfloat16": 3.38953e38, "float32": 3.40282e38, "float64": 1.79769e308}


def _softshrink_meta(k: K, input: Any, lambd: Any = 0.5) -> Spec:
    d = input.dtype
    if d.category != FLOAT:
        raise not_implemented("softshrink_check", d)
    if not 0 <= lambd <= _LARGEST[d.name] * 1.00001 or lambd == inf:
        raise Invalid(
            f"lambda must be in range [0, {_LARGEST[d.name]:g}] for input dtype {scalar_type(d)}, but found "
            f"{number(float(lambd))}",
            param="lambd",
        )
    return same(k, input)


@op(
    family="activations",
    name="nn.functional.softshrink",
    meta=_softshrink_meta,
    promote="arithmetic",
    over=("input",),
    keeps=False,
    elementwise=True,
    node="SoftshrinkBackward0",
    save={"input": ("input",)},
    samples=_SHRINKS,
)
def softshrink(k: K, input: Array, lambd: float = 0.5, *, out: Any = None) -> Array:
    """x moved towards 0 by lambd, and no further than 0."""
    bound = float(lambd)
    if out is None and (made := elements(k, "softshrink", input, numbers=(bound,))) is not None:
        return made
    moved = k.xp.subtract(input, bounded(k.xp, input, -bound, bound))
    return k.xp.copysign(moved, input)  # a small negative number becomes -0, as in PyTorch


@softshrink.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._shrink_backward(g, saved.input, float(saved.lambd))


def _threshold_meta(k: K, input: Any, threshold: Any, value: Any) -> Spec:
    d = input.dtype
    if d.category in (BOOL, COMPLEX):
        raise not_implemented("threshold_cpu", d)
    fitting(threshold, d.compute, "threshold"), fitting(value, d, "value")
    return same(k, input)


_THRESHOLDS = [S(T(2, 3), 0.5, 0.25), S(T(), 0.0, 1.0), S(T(0, 2), 0.0, 1.0), S(I(4, low=-3), 0, 2)]


@op(
    family="activations",
    meta=_threshold_meta,
    promote="arithmetic",
    over=("input",),
    keeps=False,
    elementwise=True,
    inplace=True,
    save={"input": ("input",)},
    samples=_THRESHOLDS,
)
def threshold(k: K, input: Array, threshold: Scalar, value: Scalar, *, out: Any = None) -> Array:
    """x where it is larger than `threshold`, elsewhere `value`."""
    d = DTYPES[input.dtype.name]
    made = select(k, input <= cast_scalar(threshold, d), cast_scalar(value, d), input)
    if out is not None:
        out[...] = made
        return out
    return made


@threshold.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._on(F.where(F.le(saved.input, float(saved.threshold.real)), 0, g), saved.input)


_also_functional("threshold")


@composite(
    family="activations",
    name="nn.functional.threshold",
    moves=True,
    node="ThresholdBackward0",
    samples=_THRESHOLDS,
)
def functional_threshold(F: Any, input: Array, threshold: Scalar, value: Scalar, inplace: bool = False) -> Array:
    """x where it is larger than `threshold`, elsewhere `value`. The gradient at the threshold is 0."""
    return _applied(F, "threshold", inplace, input, threshold, value)


# ---------------------------------------------------------------- slopes that are learnt or drawn


def _prelu_meta(k: K, input: Spec, weight: Spec) -> Spec:
    if input.dtype.category != FLOAT:
        raise not_implemented("prelu_cpu", input.dtype)
    return broadcast(k, input, weight)


@op(
    family="activations",
    meta=_prelu_meta,
    promote="arithmetic",
    elementwise=True,
    node="PreluKernelBackward0",
    save={"input": ("input", "weight"), "weight": ("input",)},
    samples=[S(T(2, 3), T(3)), S(T(2, 3), T(1, 1)), S(T(), T())],
)
def _prelu_kernel(k: K, input: Array, weight: Array, *, out: Any = None) -> Array:
    """x where it is positive, weight * x elsewhere, with broadcasting."""
    return select(k, input > 0, input, input * weight)


@_prelu_kernel.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.input and F._prelu_slope(g, saved.input, saved.weight),
        need.weight and F.where(F.ge(saved.input, 0), 0, g * saved.input),
    )


@op(
    family="activations",
    meta=broadcast,
    promote="arithmetic",
    elementwise=True,
    save={"grad": ("input", "weight"), "weight": ("grad", "input")},
)
def _prelu_slope(k: K, grad: Array, input: Array, weight: Array, *, out: Any = None) -> Array:
    """The gradient of prelu for its input: at 0 the weight's side."""
    return select(k, input > 0, grad, grad * weight)


@_prelu_slope.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    beyond = F.ge(saved.input, 0)  # at 0 the other side, as in PyTorch's second derivative
    return (
        need.grad and F.where(beyond, g, g * saved.weight),
        None,
        need.weight and F.where(beyond, 0, g * saved.grad),
    )


@composite(
    family="activations",
    alias=("nn.functional.prelu",),
    moves=True,
    node="PreluKernelBackward0",
    samples=[S(T(2, 3), T(3)), S(T(2, 3, 2), T(1)), S(T(), T(1)), S(T(2, 3), T()), S(T(0, 3), T(3))],
)
def prelu(F: Any, input: Array, weight: Array) -> Array:
    """x where it is positive, weight * x elsewhere; one weight for all, or one for each channel (dimension 1)."""
    shape, slopes = F.shape(input), F.shape(weight)
    a, b = F.dtype(input), F.dtype(weight)
    if a is not b:
        raise DtypeMismatch(
            f"prelu: Type promoting not supported. Got {scalar_type(a)} and {scalar_type(b)}", param="weight"
        )
    count = 1
    if slopes:
        if len(slopes) != 1:
            raise ShapeMismatch(
                f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {len(slopes)}", param="weight"
            )
        count = slopes[0]
    if count != 1:
        if not shape:
            raise ShapeMismatch("Not allow zero-dim input tensor.", param="input")
        channels = shape[1] if len(shape) > 1 else 1
        if channels != count:
            raise ShapeMismatch(
                f"Mismatch of parameter numbers and input channel size. Found parameter numbers = {count} and channel "
                f"size = {channels}.",
                param="weight",
            )
    if slopes and shape:
        spread = [1] * len(shape)
        if len(shape) > 1:
            spread[1] = count
        weight = F.reshape(weight, spread)
    elif slopes:
        weight = F.reshape(weight, [])
    return F._prelu_kernel(input, weight)


def _noise_meta(k: K, input: Any, lower: float, upper: float) -> Spec:
    d = input.dtype
    if d.category != FLOAT or d is float16:
        raise not_implemented("rrelu_with_noise_out_cpu", d)
    return Spec(input.shape, d)


@op(family="activations", meta=broadcast, promote="arithmetic", elementwise=True, inplace=True,
    save={"input": ("input", "noise")}, node="RreluWithNoiseBackward0")  # fmt: skip
def _rrelu_drawn(k: K, input: Array, noise: Array, *, out: Any = None) -> Array:
    """x times its slope."""
    return k.xp.multiply(input, noise, out=out)


@_rrelu_drawn.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._on(g * saved.noise, saved.input), None


@op(family="activations", meta=_noise_meta, vjp=None, random=True)
def _rrelu_noise(k: K, input: Array, lower: float, upper: float) -> Array:
    """The slopes of rrelu in training: one from [lower, upper) where x <= 0, elsewhere 1."""
    spec = k.spec
    host = k.backend.to_host(input).reshape(-1)
    made = k.rng.rrelu_noise(host, lower, upper, spec.dtype.name)
    return k.from_host(made.astype(spec.dtype.compute.np)).reshape(spec.shape)


_RRELUS = [S(T(2, 3)), S(T(2, 3), 0.1, 0.3), S(T()), S(T(0, 2)), S(T(2, 3), 0.2, 0.2, True)]


def _rrelu(F: Any, input: Any, lower: Any, upper: Any, training: bool, inplace: bool) -> Any:
    for which, bound in (("lower", lower), ("upper", upper)):
        if isinstance(bound, complex):
            raise Invalid("value cannot be converted to type double without overflow", param=which)
        if not isfinite(bound):
            raise Invalid(f"rrelu: {which} bound must be finite, got {bound:g}", param=which)
    if lower > upper:
        raise Invalid("Lower bound should be less than or equal to the upper bound", param="lower")
    inplace = inplace and F.recording
    if not inplace:
        input = F.contiguous(input)
    if training:
        noise = F._rrelu_noise(input, float(lower), float(upper))
        return _applied(F, "_rrelu_drawn", inplace, input, noise)
    slope = (lower + upper) / 2
    return F.leaky_relu_(input, slope) if inplace else F._leaky_relu(input, slope)


@composite(family="activations", moves=True, node="RreluWithNoiseBackward0", samples=_RRELUS)
def rrelu(F: Any, input: Array, lower: Scalar = 1.0 / 8, upper: Scalar = 1.0 / 3, training: bool = False) -> Array:
    """x where it is positive, r * x elsewhere; r is drawn from [lower, upper) in training, else their mean."""
    return _rrelu(F, input, lower, upper, training, False)


@composite(
    family="activations",
    name="nn.functional.rrelu",
    moves=True,
    node="RreluWithNoiseBackward0",
    samples=_RRELUS,
)
def functional_rrelu(
    F: Any,
    input: Array,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Array:
    """x where it is positive, r * x elsewhere; r is drawn from [lower, upper) in training, else their mean."""
    return _rrelu(F, input, lower, upper, training, inplace)


@special(family="activations", alias=("nn.functional.rrelu_",), samples=[S(T(2, 3)), S(T(2, 3), 0.1, 0.3)])
def rrelu_(
    ctx: Context, input: Array, lower: Scalar = 1.0 / 8, upper: Scalar = 1.0 / 3, training: bool = False
) -> Tensor:
    """In-place version of `rrelu`: changes `input`, keeps its id and raises its version."""
    made: Tensor = _rrelu(REC, input, lower, upper, training, True)
    return made

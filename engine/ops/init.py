"""Initial values of weights, in place and untracked, as torch.nn.init draws them; and clipping of gradients.

These work on leaves that require gradients: nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, isfinite, sqrt
from typing import Any, Literal

from engine.context import Context, grad_mode
from engine.declare import Array, Declared, special
from engine.errors import Invalid, ShapeMismatch
from engine.record import REC
from engine.samples import S, T
from engine.tensor import Tensor

Nonlinearity = Literal[
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "selu",
]
_GAINS = {"tanh": 5.0 / 3, "relu": sqrt(2.0), "selu": 0.75}


def _declare(name: str, *samples: S) -> Callable[[Callable[..., Any]], Declared]:
    return special(family="init", name=f"nn.init.{name}", samples=samples)


_MATRIX = S(T(3, 2))


def _gain(nonlinearity: str, param: float | None = None) -> float:
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if type(slope) is bool:
            raise Invalid(f"negative_slope {param} not a valid number", param="param")
        return sqrt(2.0 / (1 + slope**2))
    return _GAINS.get(nonlinearity, 1)


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(inputs of an element of the output, outputs that an element of the input takes part in)."""
    if len(tensor.shape) < 2:
        raise ShapeMismatch(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions", param="tensor"
        )
    places = 1
    for n in tensor.shape[2:]:
        places *= n
    return tensor.shape[1] * places, tensor.shape[0] * places


@special(
    family="init",
    name="nn.init.calculate_gain",
    returns="value",
    example={"nonlinearity": "relu"},
)
def calculate_gain(ctx: Context, nonlinearity: Nonlinearity, param: float | None = None) -> float:
    """How much the standard deviation of weights should be raised before a nonlinearity. Shapes: none; a number."""
    return _gain(nonlinearity, param)


# ---------------------------------------------------------------- plain fillings


@_declare("uniform_", _MATRIX, S(T(3), -1.0, 2.0))
def uniform_(ctx: Context, tensor: Array, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fills with numbers from [a, b), all equally likely."""
    with grad_mode(False):
        return REC.uniform_(tensor, a, b)  # type: ignore[no-any-return]


@_declare("normal_", _MATRIX, S(T(3), 1.0, 2.0))
def normal_(ctx: Context, tensor: Array, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fills with normal numbers."""
    with grad_mode(False):
        return REC.normal_(tensor, mean, std)  # type: ignore[no-any-return]


@_declare("constant_", S(T(3, 2), 0.5))
def constant_(ctx: Context, tensor: Array, val: float) -> Tensor:
    """Fills with one number."""
    with grad_mode(False):
        return REC.fill_(tensor, val)  # type: ignore[no-any-return]


@_declare("ones_", _MATRIX)
def ones_(ctx: Context, tensor: Array) -> Tensor:
    """Fills with 1."""
    with grad_mode(False):
        return REC.fill_(tensor, 1.0)  # type: ignore[no-any-return]


@_declare("zeros_", _MATRIX)
def zeros_(ctx: Context, tensor: Array) -> Tensor:
    """Fills with 0."""
    with grad_mode(False):
        return REC.zero_(tensor)  # type: ignore[no-any-return]


@_declare("eye_", _MATRIX)
def eye_(ctx: Context, tensor: Array) -> Tensor:
    """Makes a matrix the identity, as far as it goes."""
    if len(tensor.shape) != 2:
        raise ShapeMismatch("Only tensors with 2 dimensions are supported", param="tensor")
    with grad_mode(False):
        return REC.copy_(tensor, REC.eye(*tensor.shape, dtype=tensor.dtype, device=tensor.backend.name))  # type: ignore[no-any-return]


@_declare("dirac_", S(T(4, 2, 3)), S(T(4, 2, 3, 3), 2), S(T(2, 2, 2, 3, 3)))
def dirac_(ctx: Context, tensor: Array, groups: int = 1) -> Tensor:
    """Makes a convolution's weight (out, in, ...) hand its inputs on: 1 in the middle of filter i for channel i."""
    shape = tensor.shape
    if len(shape) not in (3, 4, 5):
        raise ShapeMismatch("Only tensors with 3, 4, or 5 dimensions are supported", param="tensor")
    if groups == 0:
        raise Invalid("integer modulo by zero", param="groups")
    if shape[0] % groups:
        raise Invalid("dim 0 must be divisible by groups", param="groups")
    each = shape[0] // groups
    with grad_mode(False):
        REC.zero_(tensor)
        middle = tensor
        for n in shape[2:]:
            middle = REC.select(middle, 2, n // 2)
        for group in range(groups):
            rows = REC.narrow(middle, 0, group * each, each)
            REC.fill_(REC.diagonal(rows, 0, 0, 1), 1.0)
    return tensor  # type: ignore[no-any-return]


# ---------------------------------------------------------------- by the sizes of a layer


@_declare("xavier_uniform_", _MATRIX, S(T(3, 2, 2), 2.0))
def xavier_uniform_(ctx: Context, tensor: Array, gain: float = 1.0) -> Tensor:
    """Fills from [-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = sqrt(3.0) * gain * _glorot(tensor)
    with grad_mode(False):
        return REC.uniform_(tensor, -bound, bound)  # type: ignore[no-any-return]


@_declare("xavier_normal_", _MATRIX, S(T(3, 2, 2), 2.0))
def xavier_normal_(ctx: Context, tensor: Array, gain: float = 1.0) -> Tensor:
    """Fills with normal numbers of deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    with grad_mode(False):
        return REC.normal_(tensor, 0.0, gain * _glorot(tensor))  # type: ignore[no-any-return]


def _glorot(tensor: Tensor) -> float:
    total = sum(_fans(tensor))
    if not total:
        raise Invalid("float division by zero", param="tensor")
    return sqrt(2.0 / total)


def _he(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fan = _fans(tensor)[mode == "fan_out"]
    return _gain(nonlinearity, a) / sqrt(fan)


@_declare("kaiming_uniform_", _MATRIX, S(T(3, 2, 2), 0.1, "fan_out", "relu"), S(T(0, 2)))
def kaiming_uniform_(
    ctx: Context,
    tensor: Array,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
) -> Tensor:
    """Fills from [-b, b) with b = gain * sqrt(3 / fan) (He 2015); `a` is the slope of leaky_relu below 0."""
    if 0 in tensor.shape:
        return tensor  # type: ignore[no-any-return]
    bound = sqrt(3.0) * _he(tensor, a, mode, nonlinearity)
    with grad_mode(False):
        return REC.uniform_(tensor, -bound, bound)  # type: ignore[no-any-return]


@_declare("kaiming_normal_", _MATRIX, S(T(3, 2, 2), 0.1, "fan_out", "relu"), S(T(0, 2)))
def kaiming_normal_(
    ctx: Context,
    tensor: Array,
    a: float = 0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
) -> Tensor:
    """Fills with normal numbers of deviation gain / sqrt(fan) (He 2015); `a` is the slope of leaky_relu below 0."""
    if 0 in tensor.shape:
        return tensor  # type: ignore[no-any-return]
    with grad_mode(False):
        return REC.normal_(tensor, 0.0, _he(tensor, a, mode, nonlinearity))  # type: ignore[no-any-return]


@_declare("orthogonal_", _MATRIX, S(T(2, 3), 2.0), S(T(3, 2, 2)))
def orthogonal_(ctx: Context, tensor: Array, gain: float = 1) -> Tensor:
    """Fills with a random matrix of orthogonal rows or columns, times gain (Saxe 2013).

    Dimensions after the first count as columns.
    """
    shape = tensor.shape
    if len(shape) < 2:
        raise ShapeMismatch("Only tensors with 2 or more dimensions are supported", param="tensor")
    if 0 in shape:
        return tensor  # type: ignore[no-any-return]
    with grad_mode(False):
        columns = 1
        for n in shape[1:]:
            columns *= n
        drawn = REC.normal_(REC.new_empty(tensor, [shape[0], columns]), 0.0, 1.0)
        turned = shape[0] < columns
        q, r = REC.qr(REC.transpose(drawn, 0, 1) if turned else drawn)
        q = REC.mul(q, REC.sign(REC.diagonal(r)))
        q = REC.transpose(q, 0, 1) if turned else q
        return REC.copy_(tensor, REC.mul(REC.reshape(q, list(shape)), gain))  # type: ignore[no-any-return]


@_declare("sparse_", S(T(4, 2), 0.5))
def sparse_(ctx: Context, tensor: Array, sparsity: float, std: float = 0.01) -> Tensor:
    """Fills a matrix with normal numbers, and in each column the part `sparsity` of them with 0 (Martens 2010)."""
    if len(tensor.shape) != 2:
        raise ShapeMismatch("Only tensors with 2 dimensions are supported", param="tensor")
    rows, columns = tensor.shape
    if not isfinite(sparsity):
        kind = "NaN" if sparsity != sparsity else "infinity"
        raise Invalid(f"cannot convert float {kind} to integer", code="bad-value", param="sparsity")
    count = -int(-sparsity * rows // 1)
    with grad_mode(False):
        REC.normal_(tensor, 0.0, std)
        for column in range(columns):
            picked = REC.narrow(REC.randperm(rows, device=tensor.backend.name), 0, 0, min(count, rows))
            REC.index_fill_(REC.select(tensor, 1, column), 0, picked, 0.0)
    return tensor  # type: ignore[no-any-return]


# ---------------------------------------------------------------- truncated normal numbers

_TRIES = 100_000  # draws before a truncation that no number meets is refused, not tried for ever


def _chance(x: float) -> float:
    """The normal distribution function."""
    return (1.0 + erf(x / sqrt(2.0))) / 2.0


@_declare("trunc_normal_", _MATRIX, S(T(3), 0.0, 1.0, 1.0, 2.0))
def trunc_normal_(
    ctx: Context, tensor: Array, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Fills with normal numbers from [a, b]: numbers outside are drawn anew.

    Where [a, b] holds little of the distribution, numbers are drawn from [a, b) and kept with the chance that their
    density has of the largest one.
    """
    if not std:
        raise Invalid("float division by zero: std must not be 0", param="std")
    with grad_mode(False):
        if _chance((b - mean) / std) - _chance((a - mean) / std) > 0.3:
            return _redrawn(tensor, mean, std, a, b)
        return _rejected(tensor, mean, std, a, b)


def _redrawn(tensor: Tensor, mean: float, std: float, a: float, b: float) -> Tensor:
    low, high = REC.new_full(tensor, [], a), REC.new_full(tensor, [], b)
    made = REC.normal_(tensor, mean, std)
    for _ in range(_TRIES):
        outside = REC.logical_or(REC.lt(made, low), REC.gt(made, high))
        if not _any(outside):
            return tensor if made is tensor else REC.copy_(tensor, made)  # type: ignore[no-any-return]
        made = REC.where(outside, REC.normal_(REC.empty_like(made), mean, std), made)
    raise _endless(a, b)


def _rejected(tensor: Tensor, mean: float, std: float, a: float, b: float) -> Tensor:
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2
    made = REC.uniform_(tensor, a, b)
    pending = _refused(made, mean, std, peak)
    for _ in range(_TRIES):
        if not _any(pending):
            return tensor if made is tensor else REC.copy_(tensor, made)  # type: ignore[no-any-return]
        drawn = REC.uniform_(REC.empty_like(tensor), a, b)
        made = REC.where(pending, drawn, made)
        pending = REC.logical_and(pending, _refused(drawn, mean, std, peak))
    raise _endless(a, b)


def _refused(drawn: Tensor, mean: float, std: float, peak: float) -> Tensor:
    """Where the logarithm of a uniform number is above that of the density, of which `peak` is the largest."""
    density = REC.sub(REC.mul(REC.pow(REC.div(REC.sub(drawn, mean), std), 2), -0.5), peak)
    return REC.gt(REC.log(REC.uniform_(REC.empty_like(drawn))), density)  # type: ignore[no-any-return]


def _any(mask: Tensor) -> bool:
    return bool(mask.backend.to_host(mask.array).any())


def _endless(a: float, b: float) -> Invalid:
    return Invalid(f"trunc_normal_ found no numbers in [{a}, {b}] in {_TRIES} draws", param="a")


# ---------------------------------------------------------------- clipping


def _gradients(parameters: Any) -> list[Tensor]:
    """The gradients of a tensor, or of those of a list that have one."""
    found = parameters if isinstance(parameters, list | tuple) else [parameters]
    return [p.grad for p in found if p.grad is not None]


def _total(grads: list[Tensor], norm_type: float, strict: bool) -> Tensor:
    if not grads:
        return REC.tensor(0.0)  # type: ignore[no-any-return]
    norms = [REC.vector_norm(g, norm_type) for g in grads]
    total: Tensor = REC.vector_norm(REC.stack(norms), norm_type)
    if strict and not bool(total.backend.xp.isfinite(total.array)):
        raise Invalid(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it cannot "
            "be clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`",
            param="error_if_nonfinite",
        )
    return total


def _scale(grads: list[Tensor], max_norm: float, total: Tensor) -> None:
    factor = REC.clamp_max(REC.mul(REC.reciprocal(REC.add(total, 1e-6)), float(max_norm)), 1.0)
    for g in grads:
        REC.mul_(g, REC.to(factor, g.backend.name) if factor.backend is not g.backend else factor)


_CLIPPED = {"parameters": [[0.5, 1.5]], "max_norm": 1.5}


@special(family="init", name="nn.utils.get_total_norm", example={"tensors": [[2.5, 1.5]]})
def get_total_norm(
    ctx: Context, tensors: Array | list[Array], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all elements of all tensors together."""
    with grad_mode(False):
        given = list(tensors) if isinstance(tensors, list | tuple) else [tensors]
        return _total(given, norm_type, error_if_nonfinite)


@special(family="init", name="nn.utils.clip_grad_norm_", example=_CLIPPED)
def clip_grad_norm_(
    ctx: Context,
    parameters: Array | list[Array],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scales the gradients of `parameters`, in place, so that their norm together is at most `max_norm`.

    Gives the norm that they had; those without a gradient do not count.
    """
    with grad_mode(False):
        grads = _gradients(parameters)
        total = _total(grads, norm_type, error_if_nonfinite)
        if grads:
            _scale(grads, max_norm, total)
        return total


@special(
    family="init",
    name="nn.utils.clip_grads_with_norm_",
    returns="value",
    example={**_CLIPPED, "total_norm": 2.5},
)
def clip_grads_with_norm_(ctx: Context, parameters: Array | list[Array], max_norm: float, total_norm: Array) -> None:
    """Scales the gradients of `parameters`, in place, by min(1, max_norm / (total_norm + 1e-6))."""
    with grad_mode(False):
        grads = _gradients(parameters)
        if grads:
            _scale(grads, max_norm, total_norm)


@special(
    family="init",
    name="nn.utils.clip_grad_value_",
    returns="value",
    example={"parameters": [[0.5, 1.5]], "clip_value": 0.5},
)
def clip_grad_value_(ctx: Context, parameters: Array | list[Array], clip_value: float) -> None:
    """Moves every element of the gradients of `parameters`, in place, into [-clip_value, clip_value]."""
    with grad_mode(False):
        for g in _gradients(parameters):
            REC.clamp_(g, -float(clip_value), float(clip_value))

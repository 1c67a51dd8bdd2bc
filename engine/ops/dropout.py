"""Dropout in its kinds. The masks are PyTorch's for the session's seed."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

from engine.carriers import K
from engine.context import Context
from engine.declare import Array, composite, op, special
from engine.dtypes import COMPLEX, FLOAT, bool_, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import laid_out, not_implemented
from engine.ops.random import stored
from engine.record import REC
from engine.samples import S, T
from engine.tensor import Tensor


def _check_p(p: float) -> None:
    if not 0 <= p <= 1:
        raise Invalid(f"dropout probability has to be between 0 and 1, but got {p:g}", param="p")


def _check_dtype(input: Any) -> None:
    d = input.dtype
    if d.category < FLOAT:
        raise DtypeMismatch(f"result type Float can't be cast to the desired output type {scalar_type(d)}")
    if d.category == COMPLEX:
        raise not_implemented("bernoulli_scalar_cpu_", d)


# ---------------------------------------------------------------- masks


def _mask_meta(k: K, input: Any, p: float, divisor: float, shape: Any = None) -> Spec:
    _check_dtype(input)
    return Spec(input.shape if shape is None else tuple(shape), input.dtype)


@op(family="dropout", meta=_mask_meta, vjp=None, random=True, moves=True)
def _keep_mask(k: K, input: Array, p: float, divisor: float, shape: Any = None) -> Array:
    """1 / divisor with probability 1 - p, else 0, in the dtype of `input`; in its shape and layout, or in `shape`."""
    spec = k.spec
    kept = k.rng.dropout_mask(spec.numel, p).astype(spec.dtype.compute.np)
    if divisor != 1:
        kept /= divisor
    values = stored(k, kept, spec.dtype)
    if shape is None:
        return laid_out(k, values, input)
    return k.from_host(values).reshape(spec.shape)


def _channels(F: Any, input: Any) -> tuple[int, ...]:
    """The shape of a mask that drops whole channels: those of the first two dimensions."""
    shape = F.shape(input)
    if len(shape) < 2:
        raise ShapeMismatch("Feature dropout requires at least 2 dimensions in the input", param="input")
    return (*shape[:2], *(1 for _ in shape[2:]))


def _dropped(F: Any, input: Any, p: float, training: bool, inplace: bool, channels: bool) -> Any:
    _check_p(p)
    if not training or p == 0 or 0 in F.shape(input):
        return input
    if p == 1:
        scale: Any = False  # zeros of the input's dtype, whatever it is
    else:
        scale = F._keep_mask(input, p, 1 - p, _channels(F, input) if channels else None)
    return F.mul_(input, scale) if inplace and F.recording else F.mul(input, scale)


_KINDS = [S(T(2, 3)), S(T(2, 3), 0.2), S(T(2, 3), training=False), S(T(2, 3), 1.0), S(T(0, 2)), S(T(2, 3), 0.0)]
_SAMPLES = _KINDS


@composite(family="dropout", name="nn.functional.dropout", moves=True, samples=_SAMPLES)
def dropout(F: Any, input: Array, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """In training each element becomes 0 with probability p, the others x / (1 - p); else `input` itself."""
    return _dropped(F, input, p, training, inplace, False)


@composite(family="dropout", name="dropout", moves=True, samples=[S(T(2, 3), 0.5, True), S(T(2, 3), 0.5, False)])
def plain_dropout(F: Any, input: Array, p: float, train: bool) -> Array:
    """With `train`, each element becomes 0 with probability p, the others x / (1 - p); else `input` itself."""
    return _dropped(F, input, p, train, False, False)


_PLANES = [S(T(2, 3, 4)), S(T(2, 3, 4), 0.2), S(T(2, 3, 4), training=False), S(T(2, 3, 4), 1.0)]


def _expected(rank: int, plain: int, ndim: int, kind: str) -> str:
    return (
        f"dropout{rank}d: Expected {plain}D or {plain + 1}D input, but received a {ndim}D input. Note that "
        f"dropout{rank}d exists to provide channel-wise dropout on inputs with {kind}, a channel dimension, and an "
        f"optional batch dimension (i.e. {plain}D or {plain + 1}D inputs)."
    )


@composite(family="dropout", name="nn.functional.dropout1d", moves=True, samples=_PLANES)
def dropout1d(F: Any, input: Array, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Dropout of whole channels of (N, C, L) or (C, L) inputs."""
    _check_p(p)
    ndim = len(F.shape(input))
    if ndim not in (2, 3):
        raise ShapeMismatch(_expected(1, 2, ndim, "1 spatial dimension"), param="input")
    if ndim == 3:
        return _dropped(F, input, p, training, inplace, True)
    made = F.squeeze(_dropped(F, F.unsqueeze(input, 0), p, training, inplace, True), 0)
    return input if inplace and F.recording else made


@composite(family="dropout", name="nn.functional.dropout2d", moves=True, samples=_PLANES)
def dropout2d(F: Any, input: Array, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Dropout of whole channels of (N, C, H, W) inputs."""
    return _dropped(F, input, p, training, inplace, True)


@composite(family="dropout", name="nn.functional.dropout3d", moves=True, samples=_PLANES)
def dropout3d(F: Any, input: Array, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Dropout of whole channels of (N, C, D, H, W) or (C, D, H, W) inputs."""
    if len(F.shape(input)) == 5:
        return _dropped(F, input, p, training, inplace, True)
    made = F.squeeze(_dropped(F, F.unsqueeze(input, 0), p, training, inplace, True), 0)
    return input if inplace and F.recording else made


@composite(
    family="dropout", name="feature_dropout", moves=True, samples=[S(T(2, 3, 4), 0.5, True), S(T(2, 3, 4), 0.5, False)]
)
def feature_dropout(F: Any, input: Array, p: float, train: bool) -> Array:
    """Dropout of whole channels: of all that has the same place in the first two dimensions."""
    return _dropped(F, input, p, train, False, True)


# ---------------------------------------------------------------- alpha dropout

_ALPHA = 1.7580993408473766  # the negative of what selu tends to on the left


def _alpha(F: Any, input: Any, p: float, training: bool, inplace: bool, channels: bool) -> Any:
    _check_p(p)
    if not training or p == 0 or 0 in F.shape(input):
        return input
    if p == 1:
        nothing = F.new_zeros(input, [])
        return F.mul_(input, nothing) if inplace and F.recording else F.mul(input, nothing)
    mask = F._keep_mask(input, p, 1.0, _channels(F, input) if channels else None)
    a = 1 / sqrt((_ALPHA * _ALPHA * p + 1) * (1 - p))
    shift = (mask - 1) * (_ALPHA * a) + _ALPHA * a * p
    if inplace and F.recording:
        return F.add_(F.mul_(input, mask * a), shift)
    return F.add(F.mul(input, mask * a), shift)


@composite(family="dropout", name="nn.functional.alpha_dropout", moves=True, samples=_SAMPLES)
def alpha_dropout(F: Any, input: Array, p: float = 0.5, training: bool = False, inplace: bool = False) -> Array:
    """Dropout that keeps mean and variance of what selu gives: elements become selu's lowest value, not 0."""
    return _alpha(F, input, p, training, inplace, False)


@composite(family="dropout", name="nn.functional.feature_alpha_dropout", moves=True, samples=_PLANES)
def feature_alpha_dropout(F: Any, input: Array, p: float = 0.5, training: bool = False, inplace: bool = False) -> Array:
    """Alpha dropout of whole channels."""
    return _alpha(F, input, p, training, inplace, True)


# ---------------------------------------------------------------- native dropout


def _native_meta(k: K, input: Any, p: float, train: Any = None) -> Any:
    if train is not False and not 0 <= p <= 1:
        raise Invalid(f"bernoulli_ expects p to be in [0, 1], but got p={1 - p:g}", param="p")
    if train is not False and p < 1:
        _check_dtype(input)
    return input, Spec(input.shape, bool_ if input.numel else input.dtype)  # PyTorch's mask of nothing is no bool


@op(
    family="dropout",
    meta=_native_meta,
    outputs=("output", "mask"),
    nondiff=("mask",),
    random=True,
    save={"input": ("mask",)},
    samples=[
        S(T(2, 3), 0.5, True, gradcheck=False),  # random: no two calls agree
        S(T(2, 3), 0.5, False),
        S(T(2, 3), 1.0, True),
        S(T(0, 2), 0.5, True),
    ],
)
def native_dropout(k: K, input: Array, p: float, train: bool | None) -> Array:
    """Dropout that also gives the mask: true where an element was kept."""
    xp = k.xp
    if train is False or not input.size:
        return input.copy(order="K"), xp.ones(input.shape, dtype=bool)
    if p == 1:
        return xp.zeros_like(input), xp.zeros(input.shape, dtype=bool)
    mask = laid_out(k, k.rng.dropout_mask(input.size, p), input)
    return input * mask * (1 / (1 - p)), mask


@native_dropout.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    scale = 1.0 if saved.train is False or saved.p == 1 else 1 / (1 - saved.p)
    return F.mul(g[0] * scale, saved.mask)


# ---------------------------------------------------------------- the names without nn.functional


@composite(family="dropout", name="alpha_dropout", samples=[S(T(2, 3), 0.5, True), S(T(2, 3), 0.5, False)])
def plain_alpha_dropout(F: Any, input: Array, p: float, train: bool) -> Array:
    """Dropout that keeps mean and variance of what selu gives: elements become selu's lowest value, not 0."""
    return _alpha(F, input, p, train, False, False)


@composite(
    family="dropout",
    name="feature_alpha_dropout",
    samples=[S(T(2, 3, 4), 0.5, True), S(T(2, 3, 4), 0.5, False)],
)
def plain_feature_alpha_dropout(F: Any, input: Array, p: float, train: bool) -> Array:
    """Alpha dropout of whole channels."""
    return _alpha(F, input, p, train, False, True)


def _in_place(name: str, run: Callable[..., Any], channels: bool) -> None:
    def dropped(ctx: Context, input: Array, p: float, train: bool) -> Tensor:
        made: Tensor = run(REC, input, p, train, True, channels)
        return made

    dropped.__doc__ = f"In-place version of `{name}`: changes `input`, keeps its id and raises its version."
    shape = (2, 3, 4) if channels else (2, 3)
    special(family="dropout", name=f"{name}_", samples=[S(T(*shape), 0.5, True), S(T(*shape), 0.5, False)])(dropped)


_in_place("dropout", _dropped, False)
_in_place("feature_dropout", _dropped, True)
_in_place("alpha_dropout", _alpha, False)
_in_place("feature_alpha_dropout", _alpha, True)

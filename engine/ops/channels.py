"""Each channel times one number and plus another: the last step of batch_norm, group_norm and instance_norm."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, op
from engine.fitting import ones
from engine.op import Spec
from engine.ops.outer import add_outer

# Samples of fewer elements, and channels of more, are left to NumPy's broadcasting.
_SAMPLE, _CHANNEL = 1 << 14, 1 << 11


def per_channel(p: Array, ndim: int) -> Array:
    """A vector of the channels' numbers, to be broadcast."""
    return p.reshape((-1,) + (1,) * (ndim - 2))


def add_to_channels(k: K, made: Array, shift: Array) -> None:
    """made += shift, (N, C, *) and (C); of one dtype."""
    inner = prod(made.shape[2:])
    if inner == 1 and k.backend.kind == "cpu" and made.size >= _SAMPLE and made.flags.c_contiguous:
        rows = made.reshape(made.shape[:2])
        add_outer(k, rows, ones(len(rows), made.dtype), k.xp.ascontiguousarray(shift.reshape(-1)))
        return
    if (
        k.backend.kind != "cpu"
        or not 1 < inner <= _CHANNEL
        or made.shape[1] * inner < _SAMPLE
        or not made.flags.c_contiguous
    ):
        made += per_channel(shift, made.ndim)
        return
    row = k.xp.ascontiguousarray(shift.reshape(-1))
    for sample in made.reshape(len(made), -1, inner):
        add_outer(k, sample, row, ones(inner, made.dtype))


def affine(k: K, x: Array, scale: Array | None, shift: Array | None) -> Array:
    """x * scale + shift in new memory; the two are vectors of the channels' numbers, of x's dtype, or missing."""
    inner = prod(x.shape[2:])
    if scale is not None and inner > 1:
        run = k.backend.compiled("affine_rows" if shift is not None else "scale_rows", x)
        if run is not None:
            made = k.xp.empty_like(x)
            rows, by = x.reshape(-1, inner), k.xp.ascontiguousarray(scale.reshape(-1))
            if shift is None:
                run(rows, k.xp.tile(by, len(x)), made.reshape(rows.shape))
            else:
                run(rows, by, k.xp.ascontiguousarray(shift.reshape(-1)), made.reshape(rows.shape))
            return made
    made = x.copy() if scale is None else x * per_channel(scale, x.ndim)
    if shift is not None:
        add_to_channels(k, made, shift)
    return made


def channel_dots(k: K, a: Array, b: Array) -> Array:
    """The sum over all but the channels of a * b, (N, C, *inner) each."""
    n, c = a.shape[:2]
    inner = prod(a.shape[2:])  # not -1, which is ambiguous where there is no element
    a, b = a.reshape(n, c, inner), b.reshape(n, c, inner)
    if k.backend.kind == "cpu" and a.dtype.kind == "f" and inner > 1:
        return k.xp.vecdot(a, b).sum(axis=0)
    return k.xp.einsum("nci,nci->nc", a, b).sum(axis=0)


def _meta(k: K, input: Spec, weight: Spec | None, bias: Spec | None) -> Spec:
    return input


@op(family="nn", meta=_meta, save={"input": ("weight",), "weight": ("input",), "bias": ()}, node="AddBackward0")
def _channel_affine(k: K, input: Array, weight: Array | None, bias: Array | None) -> Array:
    """input * weight + bias, the two by channel or missing."""
    return affine(k, input, weight, bias)


@_channel_affine.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shape = F.shape(g)
    axes = [0, *range(2, len(shape))]
    of_weight = None
    if need.weight:
        x = saved.input
        of_weight = F.sum(F.mul(g, x), axes) if F.recording else F._channel_dots(g, x)
    return (
        need.input and (g if saved.weight is None else F._channel_affine(g, saved.weight, None)),
        of_weight,
        need.bias and F.sum(g, axes),
    )


def _dots_meta(k: K, grad: Spec, input: Spec) -> Spec:
    return Spec((grad.shape[1],), grad.dtype)


@op(family="nn", meta=_dots_meta, vjp=None)
def _channel_dots(k: K, grad: Array, input: Array) -> Array:
    """The sum over all but the channels of the products: the gradient of a weight by channel."""
    return channel_dots(k, grad, input)

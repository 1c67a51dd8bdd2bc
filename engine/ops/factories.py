"""Factories: tensors from sizes, numbers and data."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Device, DTypeArg, Shape, op
from engine.metas import as_dtype, sized
from engine.op import Spec
from engine.samples import S, T


def _like(k: K, input: Any, dtype: Any = None, *rest: Any) -> Spec:
    return Spec(input.shape, as_dtype(dtype) or input.dtype)


@op(family="factories", meta=_like, vjp=None, samples=[S(T(2, 3)), S(T())])
def ones_like(k: K, input: Array, dtype: DTypeArg | None = None, device: Device | None = None,
              requires_grad: bool = False) -> Array:
    """Ones in the shape of `input`."""
    return k.xp.ones_like(input, dtype=k.spec.dtype.compute.np)


@op(family="factories", meta=_like, vjp=None, samples=[S(T(2, 3)), S(T())])
def zeros_like(k: K, input: Array, dtype: DTypeArg | None = None, device: Device | None = None,
               requires_grad: bool = False) -> Array:
    """Zeros in the shape of `input`."""
    return k.xp.zeros_like(input, dtype=k.spec.dtype.compute.np)


def _sized(k: K, size: Any, dtype: Any = None, *rest: Any) -> Spec:
    return sized(k, size, dtype)


@op(family="factories", meta=_sized, vjp=None, samples=[S([2, 3])])
def zeros(k: K, size: Shape, dtype: DTypeArg | None = None, device: Device | None = None,
          requires_grad: bool = False) -> Array:
    """Zeros of the given size."""
    return k.xp.zeros(k.spec.shape, dtype=k.spec.dtype.compute.np)


@op(family="factories", meta=_sized, vjp=None, samples=[S([2, 3])])
def ones(k: K, size: Shape, dtype: DTypeArg | None = None, device: Device | None = None,
         requires_grad: bool = False) -> Array:
    """Ones of the given size."""
    return k.xp.ones(k.spec.shape, dtype=k.spec.dtype.compute.np)

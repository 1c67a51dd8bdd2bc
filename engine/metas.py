"""The metas that most operations share: result specs from specs alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.carriers import K
from engine.dtypes import BOOL, DType, dtype
from engine.errors import DtypeMismatch, Hint
from engine.op import Spec
from engine.shapes import Shape, broadcast_two, check_size, reduced, wrap_dims


def same(k: K, input: Spec, *rest: Any) -> Spec:
    """The input's shape, and the promoted dtype where the operation promotes."""
    return Spec(input.shape, k.dtype)


def like(k: K, input: Spec, *rest: Any) -> Spec:
    """The input's shape and dtype."""
    return input


def broadcast(k: K, *args: Any) -> Spec:
    """The common shape of all tensor arguments, in the promoted dtype."""
    d = k.dtype
    shape: Shape = ()
    for a in args:
        if type(a) is Spec:
            shape = broadcast_two(shape, a.shape)
    return Spec(shape, d)


def reduce(k: K, input: Spec, dim: Any = None, keepdim: bool = False, *rest: Any) -> Spec:
    """The shape without `dim`, in the promoted dtype."""
    d = k.dtype
    return Spec(reduced(input.shape, wrap_dims(dim, input.ndim), keepdim), d)


def sized(k: K, size: Sequence[int], given: Any, default: DType | None = None) -> Spec:
    """A factory's spec: its size checked; the dtype that was given, or the default one."""
    shape = tuple(size) if not isinstance(size, int) else (size,)
    check_size(shape)
    return Spec(shape, as_dtype(given) or default or k.default_dtype)


def as_dtype(given: Any) -> DType | None:
    """A dtype argument: a DType, a name, or None."""
    return dtype(given) if isinstance(given, str) else given


def refuse_bool(specs: Sequence[Any], words: str, hint: Hint | None = None) -> None:
    """Refuses arithmetic on bool tensors where PyTorch does."""
    if all(type(s) is bool or (type(s) is Spec and s.dtype.category == BOOL) for s in specs):
        raise DtypeMismatch(words, hint=hint)

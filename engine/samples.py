"""Sample inputs as data: each operation declares a few, and every law, example and document is made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class T:
    """A tensor to be drawn: shape, dtype, and the interval its values come from.

    Without a dtype it is floating, in whatever precision the law asks for. `distinct` spaces the values apart, for
    operations that compare them; `values` fixes them; `spd` makes a well-conditioned positive definite matrix.
    """

    __slots__ = ("distinct", "dtype", "grad", "high", "low", "shape", "spd", "values")

    def __init__(
        self,
        *shape: int,
        dtype: str | None = None,
        low: float = -2.0,
        high: float = 2.0,
        distinct: bool = False,
        values: Any = None,
        spd: bool = False,
        grad: bool = True,
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.low = low
        self.high = high
        self.distinct = distinct
        self.values = values
        self.spd = spd
        self.grad = grad and dtype in (None, "complex64", "complex128", "float32", "float64", "float16", "bfloat16")

    def __repr__(self) -> str:
        return f"T{list(self.shape)}{'' if self.dtype is None else ':' + self.dtype}"


def I(*shape: int, low: int = 0, high: int = 4, dtype: str = "int64", values: Any = None) -> T:  # noqa: E743, N802
    """An integer tensor with values in [low, high)."""
    return T(*shape, dtype=dtype, low=low, high=high, values=values)


def B(*shape: int) -> T:  # noqa: N802
    """A bool tensor."""
    return T(*shape, dtype="bool")


def C(*shape: int) -> T:  # noqa: N802
    """A complex tensor."""
    return T(*shape, dtype="complex64")


@dataclass
class S:
    """One call: positional and keyword arguments, with `T`s where tensors go."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    gradcheck: bool = True

    def __init__(self, *args: Any, gradcheck: bool = True, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs
        self.gradcheck = gradcheck

    def __repr__(self) -> str:
        parts = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"({', '.join(parts)})"

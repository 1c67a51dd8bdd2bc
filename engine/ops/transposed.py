"""Matrices transposed and dimensions moved: short names for permutations."""

from __future__ import annotations

from typing import Any

from engine.declare import Array, Dims, composite
from engine.errors import Invalid, ShapeMismatch
from engine.samples import C, S, T
from engine.shapes import text, wrap_dim


def _moved(F: Any, input: Any, source: Any, destination: Any) -> Any:
    n = len(F.shape(input))
    src = [source] if isinstance(source, int) else list(source)
    dst = [destination] if isinstance(destination, int) else list(destination)
    if len(src) != len(dst):
        raise ShapeMismatch(
            f"movedim: Invalid source or destination dims: source ({text(src)} dims) should contain the same number of "
            f"dims as destination ({text(dst)} dims)",
            param="source",
        )
    ways = []
    for name, given in (("source", src), ("destination", dst)):
        wrapped = [wrap_dim(d, n) for d in given]
        if len(set(wrapped)) != len(wrapped):
            raise Invalid(f"movedim: repeated dim in `{name}` ({text(given)})", code="repeated-dim", param=name)
        ways.append(wrapped)
    if not n:
        return F._basic_index(input, ())
    order: list[int] = [-1] * n
    for a, b in zip(*ways, strict=True):
        order[b] = a
    rest = iter([d for d in range(n) if d not in ways[0]])
    return F.permute(input, tuple([d if d >= 0 else next(rest) for d in order]))


@composite(family="views", moves=True, samples=[S(T(2, 3, 4), 0, 2), S(T(2, 3, 4), [0, 1], [-1, 0]), S(T(), 0, 0)])
def movedim(F: Any, input: Array, source: Dims, destination: Dims) -> Array:
    """Some dimensions at other positions; the others keep their order."""
    return _moved(F, input, source, destination)


@composite(family="views", moves=True, samples=[S(T(2, 3, 4), 0, 2), S(T(2, 3, 4), [0, 1], [-1, 0]), S(T(), 0, 0)])
def moveaxis(F: Any, input: Array, source: Dims, destination: Dims) -> Array:
    """Some dimensions at other positions; another name of `movedim`."""
    return _moved(F, input, source, destination)


@composite(family="views", name="T", moves=True, samples=[S(T(2, 3)), S(T(2, 3, 4)), S(T())])
def T_(F: Any, input: Array) -> Array:  # noqa: N802
    """All dimensions in reverse order."""
    return F.permute(input, tuple(range(len(F.shape(input)) - 1, -1, -1)))


@composite(family="views", name="mT", moves=True, samples=[S(T(2, 3)), S(T(2, 3, 4))])
def mT_(F: Any, input: Array) -> Array:  # noqa: N802
    """The last two dimensions exchanged."""
    return _matrices(F, input, "mT")


@composite(family="views", name="H", moves=True, samples=[S(T(2, 3)), S(C(2, 3))])
def H_(F: Any, input: Array) -> Array:  # noqa: N802
    """A matrix transposed and conjugated."""
    n = len(F.shape(input))
    if n not in (0, 2):
        raise ShapeMismatch(
            f"tensor.H is only supported on matrices (2-D tensors). Got {n}-D tensor."
            + (" For batches of matrices, consider using tensor.mH" if n > 2 else ""),
            param="input",
        )
    return _adjoint(F, input, "H")


@composite(family="views", name="mH", moves=True, samples=[S(T(2, 3)), S(C(2, 2, 3))])
def mH_(F: Any, input: Array) -> Array:  # noqa: N802
    """The last two dimensions exchanged, and conjugated."""
    return _adjoint(F, input, "mH")


@composite(family="views", moves=True, samples=[S(T(2, 3)), S(C(2, 2, 3))])
def adjoint(F: Any, input: Array) -> Array:
    """The last two dimensions exchanged, and conjugated; another name of `mH`."""
    return _adjoint(F, input, "adjoint()")


def _matrices(F: Any, input: Any, name: str) -> Any:
    n = len(F.shape(input))
    if n == 1:
        raise ShapeMismatch(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got 1-D tensor.", param="input"
        )
    return F.transpose(input, -2, -1) if n else input


def _adjoint(F: Any, input: Any, name: str) -> Any:
    made = _matrices(F, input, name)
    return F.conj(made) if F.dtype(input).is_complex else made

"""Shapes, dims, strides and overlaps: plain integer arithmetic, with PyTorch's words where it refuses.

Strides and offsets count elements. A geometry is `(sizes, strides, offset)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from engine.errors import DimOutOfRange, Hint, Invalid, ShapeMismatch

Shape = tuple[int, ...]
Geometry = tuple[Shape, Shape, int]

# One tensor may not have more elements than fit a signed 64-bit byte count, whatever the memory limits say.
MAX_NUMEL = 1 << 56


def text(shape: Sequence[int]) -> str:
    """[2, 3], as PyTorch writes sizes in messages."""
    return "[" + ", ".join(map(str, shape)) + "]"


def numel(shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has."""
    return prod(shape)


def broadcast_two(a: Shape, b: Shape) -> Shape:
    """The common shape of two operands. Raises ShapeMismatch in PyTorch's words."""
    if a == b:
        return a
    la, lb = len(a), len(b)
    if la < lb:
        a, la, b, lb, swapped = b, lb, a, la, True
    else:
        swapped = False
    out = list(a)
    shift = la - lb
    for i in range(lb - 1, -1, -1):
        n, m = a[i + shift], b[i]
        if n == m or m == 1:
            continue
        if n == 1:
            out[i + shift] = m
            continue
        if swapped:
            n, m = m, n
        raise ShapeMismatch(
            f"The size of tensor a ({n}) must match the size of tensor b ({m}) at non-singleton dimension {i + shift}",
            hint=Hint("broadcast", a=list(b if swapped else a), b=list(a if swapped else b), dim=i + shift),
        )
    return tuple(out)


def broadcast(*shapes: Shape) -> Shape:
    """The common shape of any number of operands."""
    out: Shape = ()
    for shape in shapes:
        out = broadcast_two(out, shape)
    return out


def wrap_dim(dim: int, ndim: int, *, scalar_ok: bool = True) -> int:
    """A dim in [0, ndim), negatives counting from the end; a 0-d tensor takes 0 and -1 as PyTorch lets it."""
    if type(dim) is not int:
        raise Invalid(f"dim must be an integer, got {type(dim).__name__}", code="wrong-type", param="dim")
    n = ndim or (1 if scalar_ok else 0)
    if n == 0:
        raise DimOutOfRange(f"Dimension specified as {dim} but tensor has no dimensions", param="dim")
    if -n <= dim < n:
        return dim + n if dim < 0 else dim
    raise DimOutOfRange(
        f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], but got {dim})",
        hint=Hint("dim-range", low=-n, high=n - 1),
        param="dim",
    )


def wrap_dims(dims: int | Iterable[int] | None, ndim: int, *, empty_is_all: bool = True) -> Shape:
    """A tuple of distinct dims; None, and by default an empty list, mean all of them."""
    if dims is None:
        return tuple(range(ndim))
    wanted = (dims,) if isinstance(dims, int) else tuple(dims)
    if not wanted and empty_is_all:
        return tuple(range(ndim))
    out: Shape = tuple([wrap_dim(d, ndim) for d in wanted])
    seen: set[int] = set()
    for d in out:
        if d in seen:
            raise Invalid(f"dim {d} appears multiple times in the list of dims", code="repeated-dim", param="dim")
        seen.add(d)
    return tuple(d for d in out if ndim) if ndim == 0 else out


def reduced(shape: Shape, dims: Sequence[int], keepdim: bool) -> Shape:
    """The shape that is left when `dims` (wrapped) are reduced."""
    if keepdim:
        return tuple(1 if i in dims else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in dims)


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Row-major strides; a dimension of size 0 counts as 1, as in PyTorch."""
    out = [1] * len(shape)
    step = 1
    for i in range(len(shape) - 1, -1, -1):
        out[i] = step
        step *= max(shape[i], 1)
    return tuple(out)


def is_contiguous(shape: Shape, strides: Shape) -> bool:
    """Row-major, where dimensions of size 1 may have any stride; empty tensors are contiguous."""
    step = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        if n == 0:
            return True
        if n != 1:
            if s != step:
                return False
            step *= n
    return 0 not in shape or True


def is_dense(shape: Shape, strides: Shape) -> bool:
    """Non-overlapping and dense: some permutation of the dimensions is contiguous."""
    if is_contiguous(shape, strides):
        return True
    step = 1
    for s, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if n == 0:
            return True
        if s != step:
            return False
        step *= n
    return True


def iterated_strides(shape: Shape, operands: Sequence[tuple[Shape, Shape]]) -> Shape:
    """The strides of what PyTorch makes, element by element, of operands (sizes, strides) that broadcast to `shape`.

    Of two dimensions the one with the smaller stride in the first operand that has both lies inside.
    """
    n = len(shape)
    rows = []
    for sizes, strides in operands:
        lead = n - len(sizes)
        kept = [0 if m == 1 != shape[lead + i] else s for i, (m, s) in enumerate(zip(sizes, strides, strict=True))]
        rows.append([0] * lead + kept)

    def outside(a: int, b: int) -> int:
        for row in rows:
            if row[a] and row[b]:
                if row[a] != row[b]:
                    return 1 if row[a] > row[b] else -1
                if shape[a] > shape[b]:
                    return 1
        return 0

    order = list(range(n - 1, -1, -1))  # from the inside out
    for i in range(1, n):
        at = i
        for j in range(i - 1, -1, -1):
            found = outside(order[j], order[at])
            if found > 0:
                order[j], order[at] = order[at], order[j]
                at = j
            elif found < 0:
                break
    made = [0] * n
    step = 1
    for d in order:
        made[d] = step
        step *= shape[d]
    return tuple(made)


def has_internal_overlap(shape: Shape, strides: Shape) -> bool:
    """Whether two elements surely share a place: an expanded dimension."""
    return any(s == 0 and n > 1 for n, s in zip(shape, strides, strict=True)) and 0 not in shape


def extent(shape: Shape, strides: Shape) -> int:
    """Elements from the first one to one past the last one; 0 for an empty tensor."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def check_size(shape: Sequence[int], op: str | None = None) -> None:
    """Refuses negative sizes and sizes that no memory could hold."""
    for n in shape:
        if type(n) is not int:
            raise Invalid(f"sizes must be integers, got {n!r}", code="wrong-type", param="size", op=op)
        if n < 0:
            raise ShapeMismatch(
                f"Trying to create tensor with negative dimension {n}: {text(shape)}",
                hint=Hint("size-range"),
                param="size",
                op=op,
            )
    if prod(shape) > MAX_NUMEL or prod(n for n in shape if n) > 1 << 62:
        raise ShapeMismatch(f"Storage size calculation overflowed with sizes={text(shape)}", param="size", op=op)


def infer_size(shape: Sequence[int], total: int) -> Shape:
    """`view`'s shape with its one -1 worked out. Raises in PyTorch's words."""
    sizes = list(shape)
    known, unknown = 1, None
    for i, n in enumerate(sizes):
        if n == -1:
            if unknown is not None:
                raise ShapeMismatch("only one dimension can be inferred", hint=Hint("one-unknown"), param="shape")
            unknown = i
        elif n < -1:
            raise ShapeMismatch(f"invalid shape dimension {n} at index {i} of shape {text(sizes)}", param="shape")
        else:
            known *= n
    fits = total == known if unknown is None else known > 0 and total % known == 0
    if unknown is not None and known == 0 and total == 0:
        raise ShapeMismatch(
            f"cannot reshape tensor of 0 elements into shape {text(shape)} because the unspecified dimension size -1 "
            "can be any value and is ambiguous",
            param="shape",
        )
    if not fits:
        raise ShapeMismatch(
            f"shape '{text(shape)}' is invalid for input of size {total}",
            hint=Hint("view-size", total=total, shape=list(shape)),
            param="shape",
        )
    if unknown is not None:
        sizes[unknown] = total // known
    return tuple(sizes)


def view_strides(shape: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides with which `new` is a view of (shape, strides), or None where only a copy will do.

    PyTorch's rule: the old dimensions fall into runs that are contiguous among themselves; each new dimension must
    lie within one run.
    """
    if 0 in shape:
        return contiguous_strides(new) if shape != new else strides
    out = [0] * len(new)
    at = len(new) - 1
    base = strides[-1] if strides else 1
    run = got = 1
    if not shape:
        return (1,) * len(new)
    for i in range(len(shape) - 1, -1, -1):
        run *= shape[i]
        if i == 0 or (shape[i - 1] != 1 and strides[i - 1] != run * base):
            while at >= 0 and (got < run or new[at] == 1):
                out[at] = got * base
                got *= new[at]
                at -= 1
            if got != run:
                return None
            if i > 0:
                base = strides[i - 1]
                run = got = 1
    return tuple(out) if at == -1 else None


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """torch.matmul's result shape. Raises in PyTorch's words."""
    if not a or not b:
        raise ShapeMismatch(
            f"both arguments to matmul need to be at least 1D, but they are {len(a)}D and {len(b)}D", op="matmul"
        )
    if len(a) == 1 and len(b) == 1:
        if a != b:
            raise ShapeMismatch(
                f"inconsistent tensor size, expected tensor {text(a)} and src {text(b)} to have the same number of "
                f"elements, but got {a[0]} and {b[0]} elements respectively",
                op="matmul",
            )
        return ()
    rows = a if len(a) > 1 else (1, *a)
    cols = b if len(b) > 1 else (*b, 1)
    if rows[-1] != cols[-2]:
        raise product_mismatch(a, b)
    batch = broadcast_two(rows[:-2], cols[:-2])
    return batch + (rows[-2:-1] if len(a) > 1 else ()) + (cols[-1:] if len(b) > 1 else ())


def product_mismatch(a: Shape, b: Shape) -> ShapeMismatch:
    """The error of a matrix product whose inner sizes differ, in PyTorch's words."""
    if len(b) == 1:
        words = f"size mismatch, got input ({prod(a[:-1])}), mat ({prod(a[:-1])}x{a[-1]}), vec ({b[0]})"
    elif len(a) >= 3 and len(b) >= 3:
        words = (
            f"Expected size for first two dimensions of batch2 tensor to be: [{prod(a[:-2])}, {a[-1]}] but got: "
            f"[{prod(b[:-2])}, {b[-2]}]."
        )
    else:
        rows = a if len(a) > 1 else (1, *a)
        left, right = prod(rows[:-1]), rows[-1]
        words = f"mat1 and mat2 shapes cannot be multiplied ({left}x{right} and {b[-2]}x{prod(b[-1:])})"
    return ShapeMismatch(words, hint=Hint("inner-sizes", a=list(a), b=list(b)))


__all__ = [
    "Geometry",
    "Shape",
    "broadcast",
    "broadcast_two",
    "check_size",
    "contiguous_strides",
    "extent",
    "has_internal_overlap",
    "infer_size",
    "is_contiguous",
    "is_dense",
    "iterated_strides",
    "matmul_shape",
    "numel",
    "product_mismatch",
    "reduced",
    "text",
    "view_strides",
    "wrap_dim",
    "wrap_dims",
]

"""Copies with the elements in other places: repeated, mirrored, rolled, padded, put on diagonals."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from engine.carriers import K, blank_like
from engine.declare import Array, Device, Dim, Dims, DTypeArg, Ints, Scalar, Shape, composite, op
from engine.dtypes import INT, int64
from engine.errors import DimOutOfRange, DtypeMismatch, Invalid, ShapeMismatch, WrongType
from engine.metas import as_dtype
from engine.op import REGISTRY, Spec
from engine.ops.common import not_implemented
from engine.ops.joining import promoted
from engine.ops.strided import check_strided, geometry_of
from engine.samples import C, I, S, T
from engine.shapes import Shape as Sizes
from engine.shapes import broadcast, check_size, text, wrap_dim, wrap_dims


@op(family="shaping", meta=lambda k, input: input, moves=True, samples=[S(T(2, 3)), S(T()), S(T(0, 2)), S(C(2))])
def clone(k: K, input: Array) -> Array:
    """A copy with memory of its own; the gradient passes through."""
    made = blank_like(k.xp, input)
    made[...] = input
    return made


@clone.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


# ---------------------------------------------------------------- repeated


def _repeat_meta(k: K, input: Spec, repeats: Any) -> Spec:
    if len(repeats) < input.ndim:
        raise ShapeMismatch(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor",
            param="repeats",
        )
    padded = (1,) * (len(repeats) - input.ndim) + input.shape
    size = tuple(n * r for n, r in zip(padded, repeats, strict=True))
    check_size(size)
    return Spec(size, input.dtype)


@op(
    family="shaping",
    meta=_repeat_meta,
    samples=[S(T(2, 3), [2, 1]), S(T(3), [2, 2]), S(T(), [2]), S(T(2), [0]), S(T(), []), S(C(2), [2])],
)
def repeat(k: K, input: Array, repeats: Shape) -> Array:
    """The tensor so many times along each dimension; more numbers than dimensions add dimensions in front."""
    return k.xp.tile(k.xp.ascontiguousarray(input), tuple(repeats)) if repeats else input.copy()


@repeat.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shape, repeats = saved.input.shape, saved.repeats
    padded = (1,) * (len(repeats) - len(shape)) + tuple(shape)
    if 0 in repeats or 0 in shape:
        return F.zeros_for(saved.input) if not F.recording else F.mul(F.sum(g), F.zeros_for(saved.input))
    pairs = tuple(n for pair in zip(repeats, padded, strict=True) for n in pair)
    made = F.sum(F.reshape(g, pairs), list(range(0, len(pairs), 2))) if pairs else g
    return F.reshape(made, shape)


@composite(family="shaping", samples=[S(T(2, 3), [2]), S(T(3), [2, 2]), S(T(), [2])])
def tile(F: Any, input: Array, dims: Ints) -> Array:
    """The tensor so many times along each of the last dimensions."""
    counts = [dims] if isinstance(dims, int) else list(dims)
    return F.repeat(input, tuple([1] * (len(F.shape(input)) - len(counts)) + counts))


def _counts_meta(k: K, repeats: Spec, output_size: Any = None) -> Spec:
    if repeats.ndim != 1:
        raise ShapeMismatch("repeat_interleave only accept 1D vector as repeat", param="repeats")
    if repeats.dtype.category != INT or repeats.dtype.name not in ("int64", "int32"):
        raise not_implemented("repeat_interleave_cpu", repeats.dtype)
    return Spec((output_size if output_size is not None else repeats.numel,), repeats.dtype)


@op(
    family="shaping",
    name="_repeat_places",
    meta=_counts_meta,
    vjp=None,
    dynamic=True,
    joins="repeat_interleave",
    samples=[S(I(3, values=[1, 2, 0]))],
)
def _repeat_places(k: K, repeats: Array, output_size: int | None = None) -> Array:
    """Each place i as often as `repeats[i]` says."""
    ends = repeats.cumsum()
    total = int(ends[-1]) if ends.size else 0
    places = k.xp.arange(total)
    return k.xp.searchsorted(ends, places, side="right").astype(repeats.dtype)


@_repeat_places.guard
def _(k: K, repeats: Any, output_size: Any = None) -> None:
    if repeats.size and int(repeats.min()) < 0:
        raise Invalid("repeats can not be negative", code="negative-repeats", param="repeats")
    if output_size is not None and int(repeats.sum()) != output_size:
        raise ShapeMismatch("allocated size does not match required size", param="output_size")
    total = float(repeats.sum(dtype=k.xp.float64))  # in int64 it could wrap around
    k.ctx.admit(int(total) * (2 * 8 + repeats.itemsize))


@composite(
    family="shaping",
    name="_repeat_interleave",
    joins="repeat_interleave",
    moves=True,
    samples=[S(T(2, 2), 2), S(T(2, 2), 2, 1), S(T(3), I(3, values=[1, 2, 0])), S(T(2, 3), I(1, values=[2]), 1)],
)
def _repeat_interleave(
    F: Any, input: Array, repeats: Array | Scalar, dim: Dim | None = None, output_size: int | None = None
) -> Array:
    """Each element, or each slice along `dim`, several times in a row: a number of times, or one number for each."""
    if dim is None:
        input = F.reshape(input, (-1,)) if 0 not in F.shape(input) else F.reshape(input, (0,))
        dim = 0
    shape = F.shape(input)
    d = wrap_dim(dim, len(shape))
    if not shape:
        raise DimOutOfRange(f"Dimension specified as {dim} but tensor has no dimensions", param="dim")
    n = shape[d]
    if type(repeats) in (bool, float, complex):
        words = f"repeat_interleave(): argument 'repeats' must be Tensor, not {type(repeats).__name__}"
        raise WrongType(words, param="repeats")
    if type(repeats) is int:
        if repeats < 0:
            raise Invalid("Repeats must be non-negative", code="negative-repeats", param="repeats")
        if output_size is not None and output_size != n * repeats:
            raise ShapeMismatch(
                f"repeat_interleave: Invalid output_size, expected {n * repeats} but got {output_size}",
                param="output_size",
            )
        wide = F.expand(F.unsqueeze(input, d + 1), (*shape[: d + 1], repeats, *shape[d + 1 :]))
        return F._reshape_copy(wide, (*shape[:d], n * repeats, *shape[d + 1 :]))
    sizes = F.shape(repeats)
    if len(sizes) > 1:
        raise ShapeMismatch("repeats must be 0-dim or 1-dim tensor", param="repeats")
    if not sizes or sizes[0] == 1:
        repeats = F.expand(F.reshape(repeats, (1,)), (n,))
    elif sizes[0] != n:
        raise ShapeMismatch(
            f"repeats must have the same size as input along dim, but got repeats.size(0) = {sizes[0]} and "
            f"input.size({dim}) = {n}",
            param="repeats",
        )
    return F._index(input, [F._repeat_places(repeats, output_size)], (d,))


# ---------------------------------------------------------------- mirrored and rolled


def _flip_meta(k: K, input: Spec, dims: Any) -> Spec:
    wrap_dims(dims, input.ndim, empty_is_all=False)
    return input


@op(
    family="shaping",
    meta=_flip_meta,
    moves=True,
    samples=[S(T(2, 3), [0]), S(T(2, 3), [0, -1]), S(T(2), []), S(T(), [0])],
)
def flip(k: K, input: Array, dims: Dims) -> Array:
    """The elements in reverse order along `dims`."""
    axes = wrap_dims(dims, input.ndim, empty_is_all=False)
    made = blank_like(k.xp, input)  # in the input's layout, as in PyTorch
    made[...] = k.xp.flip(input, axes) if axes else input
    return made


@flip.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.flip(g, saved.dims)


@composite(family="shaping", moves=True, samples=[S(T(2, 3))])
def fliplr(F: Any, input: Array) -> Array:
    """The columns in reverse order."""
    if len(F.shape(input)) < 2:
        raise ShapeMismatch("Input must be >= 2-d.", param="input")
    return F.flip(input, (1,))


@composite(family="shaping", moves=True, samples=[S(T(2, 3)), S(T(3))])
def flipud(F: Any, input: Array) -> Array:
    """The rows in reverse order."""
    if not F.shape(input):
        raise ShapeMismatch("Input must be >= 1-d.", param="input")
    return F.flip(input, (0,))


def _listed(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else () if value is None else tuple(value)


def _roll_meta(k: K, input: Spec, shifts: Any, dims: Any = ()) -> Spec:
    shifts, dims = _listed(shifts), _listed(dims)
    if not shifts:
        raise Invalid("`shifts` required", code="no-shifts", param="shifts")
    if len(dims) != len(shifts) and not (len(shifts) == 1 and not dims):
        raise ShapeMismatch(f"shifts and dimensions must align. shifts: {len(shifts)}, dims:{len(dims)}", param="dims")
    if input.numel:  # of nothing PyTorch looks no further
        for d in dims:
            wrap_dim(d, input.ndim, scalar_ok=False)
    return input


@op(
    family="shaping",
    meta=_roll_meta,
    moves=True,
    samples=[S(T(2, 3), 1), S(T(2, 3), 1, 0), S(T(2, 3), [1, -1], [0, 1]), S(T(0, 2), 1, 0), S(T(), 1)],
)
def roll(k: K, input: Array, shifts: Ints, dims: Ints | None = ()) -> Array:
    """The elements moved along `dims`, what falls off one end coming in at the other; without dims as if flattened."""
    if not input.size or not input.ndim:
        return input.copy()
    axes = _listed(dims)
    input = k.xp.ascontiguousarray(input)  # the result is in row-major order, whatever the input's
    return k.xp.roll(input, _listed(shifts) if axes else _listed(shifts)[0], axes or None)


@roll.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.roll(g, tuple(-s for s in _listed(saved.shifts)), saved.dims)


def _rot_meta(k: K, input: Spec, times: int = 1, dims: Any = (0, 1)) -> Spec:
    if len(dims) != 2:
        raise Invalid(f"expected total rotation dims == 2, but got dims = {len(dims)}", code="bad-dims", param="dims")
    n = input.ndim
    if n < 2:
        raise ShapeMismatch(f"expected total dims >= 2, but got total dims = {n}", param="input")
    if dims[0] == dims[1] or (abs(dims[0] - dims[1]) == n and all(-n <= d < n for d in dims)):
        raise Invalid(
            f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}",
            code="repeated-dim",
            param="dims",
        )
    a, b = wrap_dim(dims[0], n), wrap_dim(dims[1], n)
    shape = list(input.shape)
    if times % 2:
        shape[a], shape[b] = shape[b], shape[a]
    return Spec(tuple(shape), input.dtype)


def _rot90(k_: K, input: Array, k: int = 1, dims: Shape = (0, 1)) -> Array:
    """The tensor turned by 90 degrees, `k` times, in the plane of two dimensions, from the first to the second."""
    xp = k_.xp
    if not k % 4:
        return input.copy()
    kept = xp.empty_like(input)
    kept[...] = xp.flip(input, tuple(dims) if k % 4 == 2 else dims[k % 4 == 1])
    if k % 4 == 2:
        return kept
    turned = kept.swapaxes(*dims)  # a view in PyTorch's hands too: the result keeps its layout
    made = xp.empty_like(turned)
    made[...] = turned
    return made


def _rot90_gradient(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.rot90(g, -saved.k, saved.dims)


op(
    family="shaping",
    name="rot90",
    meta=_rot_meta,
    moves=True,
    samples=[S(T(2, 3)), S(T(2, 3), 2), S(T(2, 3, 2), -1, [0, 2])],
)(_rot90).vjp(_rot90_gradient)

# ---------------------------------------------------------------- triangles and diagonals


def _triangle_meta(name: str) -> Any:
    def meta(k: K, input: Spec, diagonal: int = 0) -> Spec:
        if input.ndim < 2:
            raise ShapeMismatch(f"{name}: input tensor must have at least 2 dimensions", param="input")
        return input

    return meta


def _below(k: K, rows: int, columns: int, diagonal: int) -> Array:
    """Where a matrix is on or below a diagonal."""
    diagonal = min(max(diagonal, -rows), columns)
    return k.xp.arange(rows).reshape(-1, 1) + diagonal >= k.xp.arange(columns)


_TRIANGLES = [S(T(3, 3)), S(T(2, 3), 1), S(T(2, 3, 2), -1), S(C(2, 2)), S(T(0, 2)), S(I(2, 2))]


@op(family="shaping", meta=_triangle_meta("tril"), moves=True, inplace=True, samples=_TRIANGLES)
def tril(k: K, input: Array, diagonal: int = 0) -> Array:
    """The lower triangle of matrices, zeros above the diagonal numbered `diagonal`."""
    kept = _below(k, input.shape[-2], input.shape[-1], diagonal)
    return k.xp.where(kept, k.xp.ascontiguousarray(input), k.xp.zeros((), input.dtype))


@tril.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.tril(g, saved.diagonal)


@op(family="shaping", meta=_triangle_meta("triu"), moves=True, inplace=True, samples=_TRIANGLES)
def triu(k: K, input: Array, diagonal: int = 0) -> Array:
    """The upper triangle of matrices, zeros below the diagonal numbered `diagonal`."""
    kept = ~_below(k, input.shape[-2], input.shape[-1], diagonal - 1)
    return k.xp.where(kept, k.xp.ascontiguousarray(input), k.xp.zeros((), input.dtype))


@triu.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.triu(g, saved.diagonal)


def _triangle_count(row: int, col: int, offset: int, lower: bool) -> int:
    """The elements of a triangle: in row i of a lower one those of the first i + offset + 1 columns."""
    first = offset + 1 if lower else offset
    start = max(0, min(row, -first))  # rows before have none
    full = max(start, min(row, col - first))  # rows from here on have all
    ramp = full - start
    below = ramp * (start + full - 1) // 2 + ramp * first + col * (row - full)
    return below if lower else row * col - below


def _triangle_indices(name: str, lower: bool) -> None:
    def meta(k: K, row: int, col: int, offset: int = 0, dtype: Any = None, device: Any = None) -> Spec:
        for what, n in (("row", row), ("col", col)):
            if n < 0:
                raise ShapeMismatch(f"{what} must be non-negative, got{n}", param=what)
        d = as_dtype(dtype) or int64
        if d.name not in ("int32", "int64"):
            raise not_implemented(name, d)
        check_size((row, col))
        return Spec((2, _triangle_count(row, col, offset, lower)), d)

    def kernel(
        k: K, row: int, col: int, offset: int = 0, dtype: DTypeArg | None = None, device: Device | None = None
    ) -> Array:
        xp, total = k.xp, k.spec.shape[1]
        if not total:
            return xp.empty((2, 0), k.spec.dtype.np)
        # The rows that have any: as large as the result at most, whatever `row` and `col` are.
        start, stop = (max(0, -offset), row) if lower else (0, min(row, col - offset))
        rows = xp.arange(start, stop)
        ends = xp.clip(rows + (offset + 1), 0, col) if lower else xp.full_like(rows, col)
        begins = xp.zeros_like(rows) if lower else xp.clip(rows + offset, 0, col)
        counts = xp.cumsum(ends - begins)
        place = xp.arange(total)
        at = xp.searchsorted(counts, place, side="right")
        columns = place - (counts - (ends - begins))[at] + begins[at]
        return xp.stack([rows[at], columns]).astype(k.spec.dtype.np)

    kernel.__doc__ = f"Rows and columns of the {'lower' if lower else 'upper'} triangle of a matrix, row by row."
    op(family="shaping", name=name, meta=meta, vjp=None, samples=[S(3, 3), S(2, 4, 1), S(4, 2, -1)])(kernel)


_triangle_indices("tril_indices", True)
_triangle_indices("triu_indices", False)


def _embed_meta(k: K, input: Spec, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Spec:
    n = input.ndim + 1
    a, b = wrap_dim(dim1, n), wrap_dim(dim2, n)
    if a == b:
        raise Invalid(f"diagonal dimensions cannot be identical {dim1}, {dim2}", code="repeated-dim", param="dim2")
    if not input.shape:
        wrap_dim(-1, 0, scalar_ok=False)
    side = input.shape[-1] + abs(offset)
    rest = iter(input.shape[:-1])
    return Spec(tuple([side if i in (a, b) else next(rest) for i in range(n)]), input.dtype)


@op(family="shaping", meta=_embed_meta, moves=True, samples=[S(T(3)), S(T(2, 3), 1), S(T(2, 3), -1, 0, 2), S(T(0))])
def diag_embed(k: K, input: Array, offset: int = 0, dim1: Dim = -2, dim2: Dim = -1) -> Array:
    """Matrices of zeros, in dimensions `dim1` and `dim2`, with the last dimension of the input on a diagonal."""
    made = k.xp.zeros(k.spec.shape, input.dtype)
    if input.size:
        REGISTRY["diagonal"].kernel(k, made, offset, dim1, dim2)[...] = input  # type: ignore[misc]
    return made


@diag_embed.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.diagonal(g, saved.offset, saved.dim1, saved.dim2)


@composite(family="shaping", moves=True, samples=[S(T(3)), S(T(3), 1), S(T(2, 3)), S(T(2, 3), -1)])
def diag(F: Any, input: Array, diagonal: int = 0) -> Array:
    """A matrix with a vector on its diagonal, or a copy of a matrix's diagonal."""
    n = len(F.shape(input))
    if n not in (1, 2):
        raise ShapeMismatch(f"diag(): Supports 1D or 2D tensors. Got {n}D", param="input")
    return F.diag_embed(input, diagonal) if n == 1 else F.clone(F.diagonal(input, diagonal))


@composite(family="shaping", moves=True, samples=[S(T(3)), S(T(2, 2), 1), S(T())])
def diagflat(F: Any, input: Array, offset: int = 0) -> Array:
    """A matrix with all elements on a diagonal."""
    return F.diag_embed(F.ravel(input), offset)


def _block_meta(k: K, tensors: Any) -> Spec:
    rows = columns = 0
    for i, t in enumerate(tensors):
        if t.ndim > 2:
            raise ShapeMismatch(
                f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {i} has {t.ndim} dimensions",
                param="tensors",
            )
        n, m = _as_matrix(t.shape)
        rows, columns = rows + n, columns + m
    return Spec((rows, columns) if tensors else (1, 0), k.dtype)


def _as_matrix(shape: Sizes) -> Sizes:
    return (1,) * (2 - len(shape)) + tuple(shape)


@op(
    family="shaping",
    meta=_block_meta,
    promote=promoted,
    over=("tensors",),
    samples=[S([T(2, 2), T(1, 3)]), S([T(2), T()]), S([T(1, 2), I(1)])],
)
def block_diag(k: K, tensors: list[Array]) -> Array:
    """A matrix with the given matrices along its diagonal; vectors count as rows."""
    made = k.xp.zeros(k.spec.shape, k.spec.dtype.compute.np)
    row = column = 0
    for t in tensors:
        n, m = _as_matrix(t.shape)
        made[row : row + n, column : column + m] = t.reshape(n, m)
        row, column = row + n, column + m
    return made


@block_diag.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    grads: list[Any] = []
    row = column = 0
    for t, wanted in zip(saved.tensors, need.tensors, strict=True):
        n, m = _as_matrix(t.shape)
        part = F._slice(F._slice(g, 0, row, row + n), 1, column, column + m) if wanted else None
        grads.append(F.reshape(part, t.shape) if wanted else None)
        row, column = row + n, column + m
    return (grads,)


# ---------------------------------------------------------------- broadcast together


@composite(family="views", moves=True, returns="list of Tensors", samples=[S([T(3), T(2, 1)]), S([T(), T(2)])])
def broadcast_tensors(F: Any, tensors: list[Array]) -> Any:
    """The tensors expanded to their common shape."""
    shape = broadcast(*[tuple(F.shape(t)) for t in tensors])
    return [t if tuple(F.shape(t)) == shape else F.expand(t, shape) for t in tensors]


@composite(
    family="views",
    moves=True,
    returns="list of Tensors",
    samples=[S([T(2), T(3)]), S([T(2), T(3)], "xy"), S([T(2), T()])],
)
def meshgrid(F: Any, tensors: list[Array], indexing: str | None = None) -> Any:
    """Coordinates of a grid from the coordinates along its axes; with "xy" the first two dimensions are exchanged."""
    if not tensors:
        raise Invalid("meshgrid expects a non-empty TensorList", code="no-tensors", param="tensors")
    if indexing not in (None, "ij", "xy"):
        raise Invalid(
            f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}',
            code="bad-choice",
            param="indexing",
        )
    if any(F.dtype(t) is not F.dtype(tensors[0]) for t in tensors):
        raise DtypeMismatch("meshgrid expects all tensors to have the same dtype", param="tensors")
    for t in tensors:
        if len(F.shape(t)) > 1:
            raise ShapeMismatch(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {text(F.shape(t))}",
                param="tensors",
            )
    swap = indexing == "xy" and len(tensors) >= 2
    given = [tensors[1], tensors[0], *tensors[2:]] if swap else list(tensors)
    sizes = tuple(F.shape(t)[0] if F.shape(t) else 1 for t in given)
    n = len(sizes)
    made = [F.expand(F.view(t, tuple(sizes[i] if j == i else 1 for j in range(n))), sizes) for i, t in enumerate(given)]
    if swap:
        made[0], made[1] = made[1], made[0]
    return made


# ---------------------------------------------------------------- views, copied


def _row_major(F: Any, x: Any) -> Any:
    """A copy in row-major order."""
    return F._reshape_copy(x, F.shape(x))


def _copying(name: str) -> None:
    """`x_copy`: what the view operation `x` shows, in memory of its own."""
    made = REGISTRY[name]
    function: Any = made.body or made.kernel

    def body(F: Any, *args: Any) -> Any:
        seen = getattr(F, "reshape" if name == "view" else name)(*args)
        if isinstance(seen, list):
            return [_row_major(F, x) for x in seen]
        return _row_major(F, seen)

    body.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    body.__annotations__ = get_type_hints(function, include_extras=True)
    body.__doc__ = f"As `{name}`, with memory of its own.\n\n{made.doc}"
    composite(
        family="shaping",
        name=f"{name}_copy",
        moves=True,
        samples=made.samples() if made.samples else [],
        returns=made.returns,
    )(body)


for _name in (
    "diagonal",
    "expand",
    "narrow",
    "permute",
    "select",
    "split_with_sizes",
    "squeeze",
    "t",
    "transpose",
    "unbind",
    "unfold",
    "unsqueeze",
    "view",
    "view_as_complex",
    "view_as_real",
):
    _copying(_name)


def _loose(F: Any, input: Any, parts: Any, dim: int) -> list[Any]:
    """The same parts, each a view by itself: those that come together refuse changes in place."""
    d = wrap_dim(dim, len(F.shape(input)))
    made, at = [], 0
    for part in parts:
        end = at + F.shape(part)[d]
        made.append(F._slice(input, d, at, end, 1))
        at = end
    return made


def _bounds(shape: Any, dim: int, start: int | None, end: int | None, step: int) -> tuple[int, int, int, int]:
    """(dim, start, end, step) of a slice, all of them in range."""
    d = wrap_dim(dim, len(shape))
    if not shape:
        raise DimOutOfRange("slice() cannot be applied to a 0-dim tensor.", param="input")
    if step <= 0:
        raise Invalid("slice step must be positive", code="slice-step", param="step")
    low, high, step = slice(start, end, step).indices(shape[d])
    return d, low, max(low, high), step


@composite(family="shaping", moves=True, samples=[S(T(2, 3)), S(T()), S(I(2))])
def alias_copy(F: Any, input: Array) -> Array:
    """A copy of the tensor, in row-major order."""
    return _row_major(F, input)


@composite(family="shaping", moves=True, samples=[S(T(2, 3, grad=False)), S(T(grad=False)), S(I(2))])
def detach_copy(F: Any, input: Array) -> Array:
    """A copy of the tensor, in row-major order, without its history."""
    return _row_major(F, F.detach(input))


@composite(family="shaping", moves=True, samples=[S(T(4, 2), 2), S(T(2, 5), 2, 1)], returns="list of Tensors")
def split_copy(F: Any, input: Array, split_size: int, dim: Dim = 0) -> Any:
    """As `split`, with memory of its own."""
    return [_row_major(F, x) for x in F._split(input, split_size, dim)]


@composite(family="shaping", moves=True, samples=[S(T(4, 2), 0, 1, 3), S(T(2, 5), 1, None, None, 2), S(T(3))])
def slice_copy(
    F: Any, input: Array, dim: Dim = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """input[start:end:step] along `dim`, with memory of its own."""
    return _row_major(F, F._slice(input, *_bounds(F.shape(input), dim, start, end, step)))


@composite(family="shaping", moves=True, returns="list of Tensors", samples=[S(T(4, 2), [1, 3])])
def unsafe_split_with_sizes(F: Any, input: Array, split_sizes: Shape, dim: Dim = 0) -> Any:
    """As `split_with_sizes`, but each piece may be changed in place."""
    return _loose(F, input, F.split_with_sizes(input, split_sizes, dim), dim)


def _scattered(F: Any, input: Any, src: Any, step: str, rest: tuple[Any, ...]) -> Any:
    want = tuple(F.shape(getattr(F, step)(input, *rest)))
    if tuple(F.shape(src)) != want:
        raise ShapeMismatch(
            f"expected src to have a size equal to the slice of self. src size = {text(F.shape(src))}, slice size = "
            f"{text(want)}",
            param="src",
        )
    if F.dtype(src) is not F.dtype(input):
        src = F._to_dtype(src, F.dtype(input))
    return F._view_put(input, src, ((REGISTRY[step], rest, 0),))


@composite(family="shaping", moves=True, samples=[S(T(2, 3), T(3), 0, 1)], node="SelectScatterBackward0")
def select_scatter(F: Any, input: Array, src: Array, dim: Dim, index: int) -> Array:
    """A copy with `src` in place of one slice along `dim`."""
    return _scattered(F, input, src, "_select", (dim, index))


@composite(family="shaping", moves=True, samples=[S(T(4, 2), T(2, 2), 0, 1, 3)], node="SliceScatterBackward0")
def slice_scatter(
    F: Any, input: Array, src: Array, dim: Dim = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    """A copy with `src` in place of the part from `start` to before `end` along `dim`."""
    return _scattered(F, input, src, "_slice", _bounds(F.shape(input), dim, start, end, step))


@composite(
    family="shaping", moves=True, node="DiagonalScatterBackward0", samples=[S(T(3, 3), T(3)), S(T(2, 3), T(2), 1)]
)
def diagonal_scatter(F: Any, input: Array, src: Array, offset: int = 0, dim1: Dim = 0, dim2: Dim = 1) -> Array:
    """A copy with `src` in place of a diagonal."""
    return _scattered(F, input, src, "diagonal", (offset, dim1, dim2))


@composite(
    family="shaping", moves=True, node="AsStridedScatterBackward0", samples=[S(T(3, 3), T(2, 2), [2, 2], [1, 2])]
)
def as_strided_scatter(
    F: Any, input: Array, src: Array, size: Shape, stride: Shape, storage_offset: int | None = None
) -> Array:
    """A copy with `src` in place of what a view with these sizes and strides sees."""
    here = check_strided(input, size, stride, storage_offset)
    return _scattered(F, input, src, "_as_strided", (*here, geometry_of(input)))


@composite(family="shaping", moves=True, samples=[S(T(3, 3), [2, 2], [1, 2])])
def as_strided_copy(F: Any, input: Array, size: Shape, stride: Shape, storage_offset: int | None = None) -> Array:
    """As `as_strided`, with memory of its own."""
    here = check_strided(input, size, stride, storage_offset)
    return _row_major(F, F._as_strided(input, *here, geometry_of(input)))


@composite(family="shaping", moves=True, returns="list of Tensors", samples=[S(T(4, 2), 3)])
def unsafe_split(F: Any, input: Array, split_size: int, dim: Dim = 0) -> Any:
    """As `split`, but each piece may be changed in place."""
    return _loose(F, input, F._split(input, split_size, dim), dim)


@composite(family="shaping", moves=True, returns="list of Tensors", samples=[S(T(4, 2), 3)])
def unsafe_chunk(F: Any, input: Array, chunks: int, dim: Dim = 0) -> Any:
    """As `chunk`, but each piece may be changed in place."""
    return _loose(F, input, F.chunk(input, chunks, dim), dim)

"""Sampling an image at the places of a grid, and the grids of affine maps: spatial transformers (Jaderberg 2015)."""

from __future__ import annotations

from functools import reduce
from itertools import product
from math import prod
from typing import Any, Literal

from engine.carriers import K
from engine.declare import Array, Shape, composite, op
from engine.dtypes import FLOAT, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.samples import S, T
from engine.shapes import text

BILINEAR, NEAREST, BICUBIC = 0, 1, 2
ZEROS, BORDER, REFLECTION = 0, 1, 2
CUBIC = -0.75  # Keys' kernel, as PyTorch has it


# ---------------------------------------------------------------- places


def _reflected(F: Any, x: Any, low: float, high: float) -> Any:
    """Places mirrored at both ends until they lie in [low, high]."""
    span = high - low
    if span == 0:
        return F.zeros_like(x)
    from_low = F.abs(x - low)
    extra = F.fmod(from_low, span)
    flips = F._flips(from_low, span)
    return F.where(F.eq(F.fmod(flips, 2), 0), extra + low, high - extra)


def _flips_meta(k: K, x: Spec, span: float) -> Spec:
    return x


@op(family="nn", meta=_flips_meta, vjp=None)
def _flips(k: K, x: Array, span: float) -> Array:
    """How often `span` fits into x."""
    return k.xp.floor(k.xp.true_divide(x, span))


def _moved(F: Any, x: Any, n: int, padding: int, align: bool) -> Any:
    """Places moved into the image, as the padding mode asks."""
    if padding == REFLECTION:
        x = _reflected(F, x, 0.0, n - 1.0) if align else _reflected(F, x, -0.5, n - 0.5)
    if padding != ZEROS:
        x = _clipped(F, x, n)
    return x


def _clipped(F: Any, x: Any, n: int) -> Any:
    """Places moved to the nearest pixel's center; nothing is learnt from those at or beyond the ends. NaN becomes 0."""
    inside = F.logical_and(F.gt(x, 0), F.lt(x, n - 1))
    ends = F._ends(x, n)
    return F.where(inside, x, ends)


def _ends_meta(k: K, x: Spec, n: int) -> Spec:
    return x


@op(family="nn", meta=_ends_meta, vjp=None)
def _ends(k: K, x: Array, n: int) -> Array:
    """x in [0, n - 1]; NaN becomes 0."""
    xp = k.xp
    return xp.minimum(xp.fmax(x, xp.zeros((), x.dtype)), n - 1)


def _pixels(F: Any, x: Any, n: int, align: bool) -> Any:
    """Places in [-1, 1] as places in pixels."""
    return ((x + 1) * (0.5 * (n - 1))) if align else ((x + 1) * n - 1) * 0.5


@op(family="nn", meta=lambda k, x, how: x, vjp=None)
def _whole(k: K, x: Array, how: str) -> Array:
    """x rounded down, or to the nearest even; what is no number or too large becomes -100, which lies outside."""
    made = k.xp.floor(x) if how == "floor" else k.xp.rint(x)
    return k.xp.where(abs(made) < 1e9, made, k.xp.asarray(-100, dtype=x.dtype))


# ---------------------------------------------------------------- elements


def _taken_meta(k: K, input: Spec, places: list[Spec]) -> Spec:
    return Spec((input.shape[0], input.shape[1], *places[0].shape[1:]), input.dtype)


def _flat(k: K, sizes: Any, places: Any) -> tuple[Any, Any]:
    """(index within the flattened image, whether it lies in it or None where all do) of each place: (N, places)."""
    xp = k.xp
    index: Any = None
    inside: Any = None
    for n, place in zip(sizes, places, strict=True):
        at = place.astype(xp.int64)
        here = at.view(xp.uint64) < xp.asarray(n, dtype=xp.uint64)  # negative ones are the largest then
        index = at if index is None else index * n + at
        inside = here if inside is None else inside & here
    rows = index.shape[0]
    if bool(inside.all()):
        return index.reshape(rows, -1), None
    return (index * inside).reshape(rows, -1), inside.reshape(rows, -1)


@op(family="nn", meta=_taken_meta, save={"input": ("places",)})
def _grid_take(k: K, input: Array, places: list[Array]) -> Array:
    """The elements of (N, C, *sizes) at places, one array a dimension: (N, C, *places); zero outside the image."""
    xp = k.xp
    n, c = input.shape[:2]
    if not prod(k.spec.shape):
        return xp.zeros(k.spec.shape, input.dtype)
    index, inside = _flat(k, input.shape[2:], places)
    lines = input.reshape(n, c, -1)
    made = xp.empty((n, c, index.shape[1]), input.dtype)
    for i in range(n):
        made[i] = xp.take(lines[i], index[i], axis=1)
    if inside is not None:
        xp.copyto(made, xp.zeros((), made.dtype), where=~inside[:, None, :])
    return made.reshape(k.spec.shape)


@_grid_take.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._grid_put(g, list(saved.places), tuple(saved.input.shape[2:])), [None] * len(saved.places)


def _put_meta(k: K, grad: Spec, places: list[Spec], sizes: Any) -> Spec:
    return Spec((*grad.shape[:2], *sizes), grad.dtype)


@op(family="nn", meta=_put_meta, save={"grad": ("places",)})
def _grid_put(k: K, grad: Array, places: list[Array], sizes: Any) -> Array:
    """Each element added to its place in an image: the transpose of taking."""
    xp = k.xp
    n, c = grad.shape[:2]
    made = xp.zeros((n, c, prod(sizes)), grad.dtype)
    if grad.size:
        index, inside = _flat(k, sizes, places)
        values = grad.reshape(n, c, -1)
        length = prod(sizes)
        rows = xp.arange(c)[:, None] * length
        for i in range(n):
            weights = values[i] if inside is None else xp.where(inside[i], values[i], xp.zeros((), grad.dtype))
            at = (rows + index[i]).reshape(-1)
            made[i] = xp.bincount(at, weights.reshape(-1), c * length).reshape(c, length).astype(grad.dtype)
    return made.reshape(n, c, *sizes)


@_grid_put.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._grid_take(g, list(saved.places)), [None] * len(saved.places)


# ---------------------------------------------------------------- interpolation


def _weighted(F: Any, input: Any, choices: Any) -> Any:
    """The sum over all corners of weight times element; `choices` has for each dimension (place, weight) pairs."""
    total = None
    for corner in product(*choices):
        weight = reduce(lambda a, b: a * b, [w for _, w in corner])
        part = F._grid_take(input, [place for place, _ in corner]) * F.unsqueeze(weight, 1)
        total = part if total is None else total + part
    return total


def _linear(F: Any, input: Any, places: Any) -> Any:
    choices = []
    for x in places:
        low = F._whole(x, "floor")
        part = x - low
        choices.append(((low, 1 - part), (low + 1, part)))
    return _weighted(F, input, choices)


def _near(x: Any) -> Any:
    return ((x * (CUBIC + 2) - (CUBIC + 3)) * x) * x + 1


def _far(x: Any) -> Any:
    return ((x * CUBIC - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC


def _cubic(F: Any, input: Any, places: Any, padding: int, align: bool) -> Any:
    """Four by four elements; each of their places, not the middle, is moved into the image."""
    sizes = F.shape(input)[2:]
    choices = []
    for x, n in zip(places, sizes, strict=True):
        low = F._whole(x, "floor")
        t = x - low
        weights = (_far(t + 1), _near(t), _near(1 - t), _far(2 - t))
        taps = []
        for i, w in enumerate(weights):
            at = low + (i - 1)
            if padding != ZEROS:
                at = F._whole(_moved(F, at, n, padding, align), "round")
            taps.append((at, w))
        choices.append(tuple(taps))
    return _weighted(F, input, choices)


def _check(F: Any, input: Any, grid: Any, mode: int) -> None:
    x, g = tuple(F.shape(input)), tuple(F.shape(grid))
    if x[:1] != g[:1]:
        raise ShapeMismatch(
            "grid_sampler(): expected grid and input to have same batch size, but got input with sizes "
            f"{text(x)} and grid with sizes {text(g)}",
            param="grid",
        )
    dims = len(x) - 2
    if not g or g[-1] != dims:
        raise ShapeMismatch(
            f"grid_sampler(): expected grid to have size {dims} in last dimension, but got grid with sizes {text(g)}",
            param="grid",
        )
    for at in range(2, len(x)):
        if x[at] == 0:
            raise ShapeMismatch(
                f"grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes {text(x)} "
                f"with dimension {at} being empty",
                param="input",
            )
    if dims not in (2, 3) or len(g) != len(x):
        rank = f"{dims + 2}D" if dims in (2, 3) else "4D or 5D"
        raise ShapeMismatch(
            f"grid_sampler(): expected {rank} input and grid with same number of dimensions, but got input with sizes "
            f"{text(x)} and grid with sizes {text(g)}",
            param="input",
        )
    if dims == 3 and mode == BICUBIC:
        raise ShapeMismatch("grid_sampler(): bicubic interpolation only supports 4D input", param="mode")
    a, b = F.dtype(input), F.dtype(grid)
    if a.category != FLOAT and (dims == 3 or 0 not in (*x, *g)):
        raise not_implemented("grid_sampler_2d_cpu_kernel_impl" if dims == 2 else "grid_sampler3d_cpu", a)
    if a is not b:
        raise DtypeMismatch(
            f"expected scalar type {scalar_type(a)} but found {scalar_type(b)}",
            hint=Hint("cast-one", Call("to", {"input": Param("grid"), "dtype": a.name}), a=a.name, b=b.name,
                      param="grid"),
            param="grid",
        )  # fmt: skip


def _sampled(F: Any, input: Any, grid: Any, mode: int, padding: int, align: bool) -> Any:
    sizes = F.shape(input)[2:]
    dims = len(sizes)
    if F.dtype(input).category != FLOAT:
        return F.new_zeros(input, [*F.shape(input)[:2], *F.shape(grid)[1:-1]])  # of no elements
    places = [_pixels(F, F.select(grid, -1, dims - 1 - i), n, align) for i, n in enumerate(sizes)]
    if mode == BICUBIC:
        return _cubic(F, input, places, padding, align)
    places = [_moved(F, x, n, padding, align) for x, n in zip(places, sizes, strict=True)]
    if mode == NEAREST:
        found = F._grid_take(input, [F._whole(x, "round") for x in places])
        line = F.unsqueeze(F.select(grid, -1, 0), 1)
        return F._on(found, F.expand(line, F.shape(found)))
    return _linear(F, input, places)


_IMAGE, _VOLUME = T(1, 2, 3, 4), T(1, 2, 2, 3, 2)
_GRID, _GRID3 = T(1, 2, 3, 2, low=-1.3, high=1.3), T(1, 2, 2, 2, 3, low=-1.3, high=1.3)
_CASES = [
    S(_IMAGE, _GRID, m, p, a) for m, p, a in ((0, 0, False), (0, 1, True), (0, 2, False), (2, 0, True), (2, 2, True))
]
_CASES3 = [S(_VOLUME, _GRID3, 0, p, a) for p, a in ((0, False), (1, True), (2, False))]


def _numbered(name: str, node: str, samples: list[S], dims: int) -> None:
    def sampler(
        F: Any, input: Array, grid: Array, interpolation_mode: int, padding_mode: int, align_corners: bool
    ) -> Array:
        _check(F, input, grid, interpolation_mode)
        have = len(F.shape(input)) - 2
        if dims and have != dims:
            raise ShapeMismatch(f"{name}(): expected {dims + 2}D input, but got {have + 2}D", param="input")
        if not dims:
            return getattr(F, f"grid_sampler_{have}d")(input, grid, interpolation_mode, padding_mode, align_corners)
        return _sampled(F, input, grid, interpolation_mode, padding_mode, align_corners)

    sampler.__doc__ = (
        "Elements of an image between its pixels, at the places of `grid`: what nn.functional.grid_sample does, with "
        "numbers for its modes.\n\n"
        "`interpolation_mode`: 0 bilinear, 1 nearest, 2 bicubic. `padding_mode`: 0 zeros, 1 border, 2 reflection."
    )
    composite(family="nn", name=name, node=node or None, moves=not dims, samples=samples)(sampler)


_numbered("grid_sampler", "", [*_CASES[:2], _CASES3[0]], 0)
_numbered("grid_sampler_2d", "GridSampler2DBackward0", _CASES, 2)
_numbered("grid_sampler_3d", "GridSampler3DBackward0", _CASES3, 3)


@composite(
    family="nn",
    name="nn.functional.grid_sample",
    moves=True,
    samples=[
        S(_IMAGE, _GRID),
        S(_IMAGE, _GRID, "bicubic", "border"),
        S(_IMAGE, _GRID, "nearest", "reflection", True),
        S(_VOLUME, _GRID3, align_corners=True),
        S(T(0, 2, 3, 3), T(0, 2, 2, 2)),
    ],
)
def grid_sample(
    F: Any,
    input: Array,
    grid: Array,
    mode: Literal["bilinear", "nearest", "bicubic"] = "bilinear",
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool | None = None,
) -> Array:
    """Elements of an image between its pixels: (N, C, H, W) at a grid (N, h, w, 2) gives (N, C, h, w).

    A grid's last dimension is (x, y), or (x, y, z) for (N, C, D, H, W); -1 and 1 are the ends of the image, or with
    `align_corners` the centers of its outermost pixels. `padding_mode` says what lies beyond them.
    """
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    if mode not in modes:
        raise Invalid(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'",
            param="mode",
        )
    if padding_mode not in paddings:
        raise Invalid(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'",
            param="padding_mode",
        )
    _check(F, input, grid, modes.index(mode))
    name = f"grid_sampler_{len(F.shape(input)) - 2}d"
    return getattr(F, name)(input, grid, modes.index(mode), paddings.index(padding_mode), bool(align_corners))


# ---------------------------------------------------------------- affine grids


@composite(
    family="nn",
    name="nn.functional.affine_grid",
    node="AffineGridGeneratorBackward0",
    samples=[S(T(1, 2, 3), [1, 1, 2, 3]), S(T(2, 2, 3), [2, 1, 3, 1], True), S(T(1, 3, 4), [1, 1, 2, 2, 3])],
)
def affine_grid(F: Any, theta: Array, size: Shape, align_corners: bool | None = None) -> Array:
    """The grid of an affine map for `grid_sample`: theta (N, 2, 3) and size (N, C, H, W) give (N, H, W, 2).

    theta (N, 3, 4) and size (N, C, D, H, W) give (N, D, H, W, 3).
    """
    shape, sizes = tuple(F.shape(theta)), tuple(size)
    d = F.dtype(theta)
    if d.category != FLOAT:
        raise DtypeMismatch(f"Expected theta to have floating point type, but got torch.{d.name}", param="theta")
    shown = f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"
    if len(sizes) not in (4, 5):
        raise Invalid(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
            f"{shown}.",
            param="size",
        )
    dims = len(sizes) - 2
    if len(shape) != 3 or shape[1:] != (dims, dims + 1):
        raise ShapeMismatch(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size {shown}. Got "
            f"torch.Size({text(shape)}).",
            param="theta",
        )
    if not (align_corners and min(sizes[2:]) == 1) and min(sizes) <= 0:
        raise Invalid(f"Expected non-zero, positive output size. Got {shown}", param="size")
    n, spatial = sizes[0], sizes[2:]
    if n != shape[0]:
        raise ShapeMismatch(
            f"Expected size for first two dimensions of batch2 tensor to be: [{n}, {dims + 1}] but got: [{shape[0]}, "
            f"{dims + 1}].",
            param="theta",
        )
    base = F._affine_base(theta, spatial, bool(align_corners))
    grid = F.matmul(base, F.transpose(theta, 1, 2))
    return F.reshape(grid, (n, *spatial, dims))


def _base_meta(k: K, theta: Spec, sizes: Any, align: bool) -> Spec:
    return Spec((prod(sizes), len(sizes) + 1), theta.dtype)


@op(family="nn", meta=_base_meta, vjp=None)
def _affine_base(k: K, theta: Array, sizes: Any, align: bool) -> Array:
    """The places of all pixels, row by row: (pixels, [x, y, (z,) 1])."""
    xp = k.xp
    made = xp.ones((*sizes, len(sizes) + 1), theta.dtype)
    for i, n in enumerate(sizes):
        line = xp.linspace(-1, 1, n, dtype=theta.dtype) if n > 1 else xp.zeros(n, theta.dtype)
        if not align and n > 1:
            line = line * xp.asarray((n - 1) / n, dtype=theta.dtype)
        shape = [1] * len(sizes)
        shape[i] = n
        made[..., len(sizes) - 1 - i] = line.reshape(shape)
    return made.reshape(-1, len(sizes) + 1)

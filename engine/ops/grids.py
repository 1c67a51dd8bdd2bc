"""Sampling an image at the places of a grid, and the grids of affine maps: spatial transformers (Jaderberg 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Literal

from engine.carriers import K
from engine.declare import Array, Shape, composite, op
from engine.dtypes import FLOAT, int32, int64, scalar_type
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


def _pixels(F: Any, x: Any, n: int, align: bool, dims: int) -> Any:
    """Places in [-1, 1] as places in pixels, in the order of operations in which PyTorch rounds."""
    if align:
        return (x + 1) * (0.5 * (n - 1))
    return (x + 1) * (0.5 * n) - 0.5 if dims == 2 else ((x + 1) * n - 1) * 0.5


@op(family="nn", meta=lambda k, x, how: x, vjp=None)
def _whole(k: K, x: Array, how: str) -> Array:
    """x rounded down, or to the nearest even; what is no number or too large becomes -100, which lies outside."""
    made = k.xp.floor(x) if how == "floor" else k.xp.rint(x)
    if k.backend.kind == "cpu" and made.size and made.max() < 1e9 and made.min() > -1e9:  # neither with a NaN
        return made
    return k.xp.where(abs(made) < 1e9, made, k.xp.asarray(-100, dtype=x.dtype))


@op(family="nn", meta=lambda k, x, low, volume: x, save={"x": ()})
def _past(k: K, x: Array, low: Array, volume: bool) -> Array:
    """How far x is past the pixel below it; 0 where x is so far outside that -100 stands for its pixel.

    Infinities and NaN stay, in a picture: PyTorch weighs with them there, and leaves them out of a volume.
    """
    xp = k.xp
    made = xp.subtract(x, low)
    if k.backend.kind == "cpu" and made.size and made.min() >= 0 and made.max() <= 1:
        return made
    far = ~((made >= 0) & (made <= 1))
    return xp.where(far if volume else far & xp.isfinite(made), xp.zeros((), x.dtype), made)


@_past.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g, None


# ---------------------------------------------------------------- elements

# A sampled image is out[n, c, p] = sum over k of weights[n, k, p] * image[n, c, index[n, k, p]]. Times the gradient of
# out, and summed, that is linear in three factors: the operations here are its three partial derivatives, and the
# gradients of each are the two others. An image has one pixel more than it shows: 0, which stands for all outside.


def _index_meta(k: K, places: list[Spec], sizes: Any) -> Spec:
    taps = prod(p.shape[1] for p in places)
    n, _, *rest = places[0].shape
    return Spec((n, taps, prod(rest)), int32 if prod(sizes) < 1 << 29 else int64)


@op(family="nn", meta=_index_meta, vjp=None)
def _grid_index(k: K, places: list[Array], sizes: Any) -> Array:
    """The pixel of each combination of taps, (N, taps, places) from one (N, taps, *places) a dimension."""
    xp, d = k.xp, k.spec.dtype.np
    rows, _, count = k.spec.shape
    unsigned = xp.uint32 if d.itemsize == 4 else xp.uint64
    pixels = step = prod(sizes)
    index, all_inside = xp.zeros((rows, 1, count), d), True
    for n, place in zip(sizes, places, strict=True):
        step //= n
        at = place.reshape(rows, place.shape[1], count).astype(d)
        inside = at.view(unsigned) < n  # negative ones are the largest then
        at *= step
        if not bool(inside.all()):
            at, all_inside = xp.where(inside, at, xp.asarray(pixels, dtype=d)), False
        taps = index.shape[1] * at.shape[1]
        index = (index[:, :, None] + at[:, None]).reshape(rows, taps, count)
    return index if all_inside else xp.minimum(index, pixels, out=index)


def _images(k: K, x: Array, extra: int = 0) -> Array:
    """(N, C, *sizes) as (N, C, pixels), with `extra` pixels of zeros."""
    flat = x.reshape(*x.shape[:2], prod(x.shape[2:]))
    if not extra:
        return flat
    made = k.xp.zeros((*x.shape[:2], flat.shape[2] + extra), x.dtype)
    made[:, :, :-extra] = flat
    return made


# Entries of one sparse matrix, at most: it stands for as many samples as that.
_ENTRIES = 1 << 17


def _sparse(k: K, weights: Array | None, index: Array, pixels: int, dtype: Any) -> Any:
    """The weights of some samples as a matrix, (samples * places, samples * (pixels + 1))."""
    xp = k.xp
    n, taps, count = index.shape
    values = xp.ones(n * count * taps, dtype) if weights is None else weights.swapaxes(1, 2).reshape(-1)
    columns = (index + xp.arange(n, dtype=index.dtype)[:, None, None] * (pixels + 1)).swapaxes(1, 2).reshape(-1)
    starts = xp.arange(0, n * count * taps + 1, taps, dtype=index.dtype)
    return k.sp.sparse.csr_matrix((values, columns, starts), shape=(n * count, n * (pixels + 1)))


def _sample_blocks(index: Array, pixels: int) -> Iterator[slice]:
    """Samples that share a sparse matrix; its columns have to fit the index's dtype."""
    n, taps, count = index.shape
    step = max(1, min(_ENTRIES // max(taps * count, 1), (1 << 29) // (pixels + 1)))
    return (slice(at, min(at + step, n)) for at in range(0, n, step))


def _compiled(k: K, name: str, weights: Array | None, index: Array, *arrays: Array) -> Any:
    """(the compiled kernel or None, the weights)."""
    run = k.backend.compiled(name, *arrays, *(() if weights is None else (weights,)))
    if run is None or not index.flags.c_contiguous:
        return None, weights
    return run, k.xp.ones(index.shape, arrays[0].dtype) if weights is None else weights


def _mix_meta(k: K, image: Spec, weights: Spec | None, index: Spec, places: Any) -> Spec:
    return Spec((*image.shape[:2], *places), image.dtype)


@op(family="nn", meta=_mix_meta, save={"image": ("weights", "index"), "weights": ("image", "index")})
def _grid_mix(k: K, image: Array, weights: Array | None, index: Array, places: Any) -> Array:
    """The sampled image, (N, C, *places); without weights there is one tap, and its pixel is the result."""
    xp = k.xp
    n, c = image.shape[:2]
    made = xp.zeros((n, c, prod(places)), image.dtype)
    if not made.size:
        return made.reshape(k.spec.shape)
    pixels = prod(image.shape[2:])
    flat = _images(k, image)
    run, given = _compiled(k, "grid_mix", weights, index, flat, made)
    if run is not None:
        run(flat, given, index, made)
        return made.reshape(k.spec.shape)
    if k.backend.kind == "cpu" and weights is not None:
        for part in _sample_blocks(index, pixels):
            lines = xp.zeros((part.stop - part.start, pixels + 1, c), image.dtype)
            lines[:, :-1] = flat[part].swapaxes(1, 2)
            matrix = _sparse(k, weights[part], index[part], pixels, image.dtype)
            made[part] = (matrix @ lines.reshape(-1, c)).reshape(len(lines), -1, c).swapaxes(1, 2)
        return made.reshape(k.spec.shape)
    flat = _images(k, image, 1)
    for i in range(n):
        for tap in range(index.shape[1]):
            part = xp.take(flat[i], index[i, tap], axis=1)
            made[i] += part if weights is None else part * weights[i, tap]
    return made.reshape(k.spec.shape)


@_grid_mix.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    sizes = tuple(s.image.shape[2:])
    return (
        need.image and F._grid_spread(g, s.weights, s.index, sizes),
        need.weights and F._grid_dots(s.image, g, s.index),
        None,
    )


def _spread_meta(k: K, grad: Spec, weights: Spec | None, index: Spec, sizes: Any) -> Spec:
    return Spec((*grad.shape[:2], *sizes), grad.dtype)


@op(family="nn", meta=_spread_meta, save={"grad": ("weights", "index"), "weights": ("grad", "index")})
def _grid_spread(k: K, grad: Array, weights: Array | None, index: Array, sizes: Any) -> Array:
    """Each element times its weights, added to the pixels it came from: the transpose of mixing."""
    xp = k.xp
    n, c = grad.shape[:2]
    pixels = prod(sizes)
    made = xp.zeros((n, c, pixels), grad.dtype)
    if not grad.size:
        return made.reshape(k.spec.shape)
    flat = _images(k, grad)
    run, given = _compiled(k, "grid_spread", weights, index, flat, made)
    if run is not None:
        run(flat, given, index, made)
        return made.reshape(k.spec.shape)
    if k.backend.kind == "cpu":
        for part in _sample_blocks(index, pixels):
            matrix = _sparse(k, None if weights is None else weights[part], index[part], pixels, grad.dtype)
            lines = matrix.T @ flat[part].swapaxes(1, 2).reshape(-1, c)
            made[part] = lines.reshape(-1, pixels + 1, c)[:, :-1].swapaxes(1, 2)
        return made.reshape(k.spec.shape)
    rows = xp.arange(c)[:, None] * (pixels + 1)
    for i in range(n):
        for tap in range(index.shape[1]):
            part = flat[i] if weights is None else flat[i] * weights[i, tap]
            at = (rows + index[i, tap]).reshape(-1)
            total = xp.bincount(at, part.reshape(-1), c * (pixels + 1)).reshape(c, pixels + 1)
            made[i] += total[:, :-1].astype(grad.dtype)
    return made.reshape(k.spec.shape)


@_grid_spread.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    places = tuple(s.grad.shape[2:])
    return (
        need.grad and F._grid_mix(g, s.weights, s.index, places),
        need.weights and F._grid_dots(g, s.grad, s.index),
        None,
    )


def _dots_meta(k: K, image: Spec, grad: Spec, index: Spec) -> Spec:
    return Spec(index.shape, image.dtype)


@op(family="nn", meta=_dots_meta, save={"image": ("grad", "index"), "grad": ("image", "index")})
def _grid_dots(k: K, image: Array, grad: Array, index: Array) -> Array:
    """The sum over channels of each tap's pixel times the element it went into: (N, taps, places)."""
    xp = k.xp
    made = xp.zeros(index.shape, image.dtype)
    if not made.size or not grad.size:
        return made
    flat, values = _images(k, image), _images(k, grad)
    run, _ = _compiled(k, "grid_dots", None, index, flat, values, made)
    if run is not None:
        run(flat, values, index, made)
        return made
    flat = _images(k, image, 1)
    for i in range(index.shape[0]):
        for tap in range(index.shape[1]):
            part = xp.take(flat[i], index[i, tap], axis=1)
            made[i, tap] = xp.multiply(part, values[i], out=part).sum(axis=0)
    return made


@_grid_dots.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    sizes, places = tuple(s.image.shape[2:]), tuple(s.grad.shape[2:])
    return (
        need.image and F._grid_spread(s.grad, g, s.index, sizes),
        need.grad and F._grid_mix(s.image, g, s.index, places),
        None,
    )


# ---------------------------------------------------------------- interpolation


def _weighted(F: Any, input: Any, choices: Any) -> Any:
    """The sum over all corners of weight times element; `choices` has for each dimension its (places, weights)."""
    sizes, places = F.shape(input)[2:], tuple(F.shape(choices[0][0][0]))[1:]
    n, count = F.shape(input)[0], prod(places)
    index = F._grid_index([F.stack(at, 1) for at, _ in choices], tuple(sizes))
    weights: Any = None
    taps = 1
    for _, given in choices:
        mine = F.reshape(F.stack(given, 1), (n, len(given), count))
        taps *= len(given)
        if weights is not None:
            mine = F.reshape(F.unsqueeze(weights, 2) * F.unsqueeze(mine, 1), (n, taps, count))
        weights = mine
    return F._grid_mix(input, weights, index, places)


def _linear(F: Any, input: Any, places: Any) -> Any:
    choices = []
    for x in places:
        low = F._whole(x, "floor")
        part = F._past(x, low, len(places) == 3)
        choices.append(([low, low + 1], [1 - part, part]))
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
        low = F._whole(x, "floor") if padding == ZEROS else F.floor(F.detach(x))
        t = F._past(x, low, False)
        taps = [low + i for i in (-1, 0, 1, 2)]
        if padding != ZEROS:
            taps = [F._whole(_moved(F, at, n, padding, align), "round") for at in taps]
        choices.append((taps, [_far(t + 1), _near(t), _near(1 - t), _far(2 - t)]))
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
    places = [_pixels(F, F.select(grid, -1, dims - 1 - i), n, align, dims) for i, n in enumerate(sizes)]
    if mode == BICUBIC:
        return _cubic(F, input, places, padding, align)
    places = [_moved(F, x, n, padding, align) for x, n in zip(places, sizes, strict=True)]
    if mode == NEAREST:
        index = F._grid_index([F.unsqueeze(F._whole(x, "round"), 1) for x in places], tuple(sizes))
        found = F._grid_mix(input, None, index, tuple(F.shape(places[0]))[1:])
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

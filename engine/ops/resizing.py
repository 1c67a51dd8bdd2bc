"""Other sizes for images: interpolation and adaptive pooling, as weighted sums along each dimension."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor, isfinite
from typing import Any, NamedTuple

import numpy as np

from engine.carriers import K
from engine.declare import Array, Ints, composite, op
from engine.dtypes import FLOAT, float32, int64, uint8
from engine.errors import Invalid, ShapeMismatch, WrongType
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.pool_windows import Pool, rank_words
from engine.samples import S, T
from engine.shapes import Shape, check_size, text

# ---------------------------------------------------------------- tables


class Axis(NamedTuple):
    """How one dimension is resized. `scale` is input elements per output element."""

    mode: str
    input: int
    output: int
    scale: float = 1.0
    align_corners: bool = False


class Table(NamedTuple):
    """For each output element the input elements that it sums, and their weights: arrays (taps, output)."""

    index: Any
    weight: Any
    empty: Any  # where a tap is only there because others have more, or None


def _nearest(a: Axis, real: Any) -> Table:
    place = np.arange(a.output, dtype=real)
    source = np.floor((place + real(0.5)) * real(a.scale) if a.mode == "nearest-exact" else place * real(a.scale))
    return Table(np.minimum(source.astype(np.int64), a.input - 1)[None], np.ones((1, a.output), real), None)


def _source(a: Axis, real: Any) -> Any:
    place = np.arange(a.output, dtype=real)
    return place * real(a.scale) if a.align_corners else (place + real(0.5)) * real(a.scale) - real(0.5)


def _linear(a: Axis, real: Any) -> Table:
    source = np.maximum(_source(a, real), real(0))
    low = np.minimum(source.astype(np.int64), a.input - 1)
    part = np.clip(source - low.astype(real), 0, 1).astype(real)
    return Table(np.stack([low, np.minimum(low + 1, a.input - 1)]), np.stack([real(1) - part, part]), None)


def _cubic_near(x: Any, c: float) -> Any:
    return ((c + 2) * x - (c + 3)) * x * x + 1


def _cubic_far(x: Any, c: float) -> Any:
    return ((c * x - 5 * c) * x + 8 * c) * x - 4 * c


def _cubic(a: Axis, real: Any) -> Table:
    """Four taps of Keys' cubic kernel, a = -0.75."""
    source = _source(a, real)
    low = np.floor(source).astype(np.int64)
    t = source - low.astype(real)
    c = real(-0.75)
    weight = np.stack([_cubic_far(t + 1, c), _cubic_near(t, c), _cubic_near(1 - t, c), _cubic_far(2 - t, c)])
    index = np.clip(low + np.arange(-1, 3)[:, None], 0, a.input - 1)
    return Table(index, weight.astype(real), None)


def _smoothed(a: Axis, real: Any) -> Table:
    """Antialiased: the kernel is stretched over all elements that fall into an output element."""
    cubic = a.mode == "bicubic-aa"
    stretch = max(a.scale, 1.0)
    support = (2.0 if cubic else 1.0) * stretch
    rows = []
    for i in range(a.output):
        center = a.scale * (i + 0.5)
        first = max(int(center - support + 0.5), 0)
        count = min(int(center + support + 0.5), a.input) - first
        x = np.abs((np.arange(count) + first - center + 0.5) / stretch)
        if cubic:
            w = np.where(x < 1, _cubic_near(x, -0.5), np.where(x < 2, _cubic_far(x, -0.5), 0.0))
        else:
            w = np.where(x < 1, 1 - x, 0.0)
        rows.append((range(first, first + count), w / w.sum()))
    return _from_rows(rows, real)


def _area(a: Axis, real: Any) -> Table:
    """Means of the windows of adaptive pooling."""
    rows = []
    for i in range(a.output):
        low, high = i * a.input // a.output, -(-(i + 1) * a.input // a.output)
        rows.append((range(low, high), [1.0 / (high - low)] * (high - low)))
    return _from_rows(rows, real)


def _from_rows(rows: Any, real: Any) -> Table:
    taps = max((len(index) for index, _ in rows), default=1) or 1
    index = np.zeros((taps, len(rows)), np.int64)
    weight = np.zeros((taps, len(rows)), real)
    empty = np.ones((taps, len(rows)), bool)
    for at, (places, weights) in enumerate(rows):
        n = len(places)
        index[:n, at], weight[:n, at], empty[:n, at] = list(places), list(weights), False
    return Table(index, weight, empty if empty.any() else None)


_TABLES = {
    "nearest": _nearest,
    "nearest-exact": _nearest,
    "linear": _linear,
    "bicubic": _cubic,
    "area": _area,
    "linear-aa": _smoothed,
    "bicubic-aa": _smoothed,
}


_SHORT = 1 << 12  # of axes up to this long the tables are kept


def table(a: Axis, kind: str, back: bool) -> Table:
    """The table of an axis in float32 or float64; with `back` the one of its transpose."""
    return (_kept_table if a.input + a.output <= _SHORT else _table)(a, kind, back)


def _table(a: Axis, kind: str, back: bool) -> Table:
    real = np.float64 if kind == "float64" else np.float32
    made = _TABLES[a.mode](a, real)
    return _transposed(made, a.input) if back else made


_kept_table = lru_cache(maxsize=256)(_table)


def _transposed(t: Table, inputs: int) -> Table:
    """For each input element, the outputs that see it: in the order of the taps, and then of the outputs."""
    there = np.ones(t.index.shape, bool) if t.empty is None else ~t.empty
    place = t.index[there]
    order = np.argsort(place, kind="stable")
    place = place[order]
    counts = np.bincount(place, minlength=inputs)
    tap = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (max(int(counts.max(initial=0)), 1), inputs)
    index, weight, empty = np.zeros(shape, np.int64), np.zeros(shape, t.weight.dtype), np.ones(shape, bool)
    index[tap, place] = np.broadcast_to(np.arange(t.index.shape[1]), t.index.shape)[there][order]
    weight[tap, place] = t.weight[there][order]
    empty[tap, place] = False
    return Table(index, weight, empty if empty.any() else None)


# ---------------------------------------------------------------- the kernel


def _resample_meta(k: K, input: Spec, axes: Any, back: bool, node: str) -> Spec:
    sizes = [a.input if back else a.output for a in axes]
    check_size(sizes)
    return Spec((*input.shape[: input.ndim - len(axes)], *sizes), input.dtype)


@op(
    family="nn",
    meta=_resample_meta,
    node=lambda input, axes, back, node: node,
    ties=lambda input, axes, back, node: node.startswith(("Adaptive", "Squeeze")) and not back,
)
def _resample(k: K, input: Array, axes: Any, back: Any, node: Any) -> Array:
    """A weighted sum of elements along each of the last dimensions; `back`: the transpose of that."""
    xp = k.xp
    made = input
    if not k.spec.numel or not input.size:
        return xp.zeros(k.spec.shape, input.dtype)
    kind = "float64" if input.dtype == xp.float64 else "float32"
    first = input.ndim - len(axes)
    order = sorted(
        range(len(axes)),
        key=lambda i: (axes[i].input / axes[i].output) if back else (axes[i].output / max(axes[i].input, 1)),
    )
    for i in order:
        if axes[i].mode in ("nearest", "linear", "area") and axes[i].input == axes[i].output and axes[i].scale == 1:
            continue
        t = table(axes[i], kind, back)
        made = _along(k, made, t, first + i, weighted=axes[i].mode[:7] != "nearest")
    return made if made is not input else input.copy()


def _along(k: K, x: Array, t: Table, axis: int, *, weighted: bool) -> Array:
    xp = k.xp
    tail = x.ndim - 1 - axis
    total: Any = None
    for m in range(len(t.index)):
        part = xp.take(x, k.from_host(t.index[m]), axis=axis)
        if weighted:
            part *= k.from_host(t.weight[m].reshape(-1, *([1] * tail))).astype(x.dtype)
        if t.empty is not None and t.empty[m].any():
            part[(slice(None),) * axis + (k.from_host(np.flatnonzero(t.empty[m])),)] = 0
        total = part if total is None else xp.add(total, part, out=total)
    return total


@_resample.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._resample(g, saved.axes, not saved.back, saved.node)


# ---------------------------------------------------------------- interpolate

_MODES = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "bicubic": (2,),
    "trilinear": (3,),
    "area": (1, 2, 3),
}
_NAMES = {
    "nearest": "Nearest",
    "nearest-exact": "NearestExact",
    "linear": "Linear",
    "bilinear": "Bilinear",
    "bicubic": "Bicubic",
    "trilinear": "Trilinear",
}
_DIMS = {1: "W: {}", 2: "H: {}, W: {}", 3: "D: {}, H: {}, W: {}"}


def _sizes(shape: Shape, size: Any, scale_factor: Any, recompute: bool | None) -> tuple[list[int], list[float] | None]:
    """(output sizes, the factors that are to be used as they were given)."""
    spatial = shape[2:]
    dims = len(spatial)
    if size is not None and scale_factor is not None:
        raise Invalid("only one of size or scale_factor should be defined", param="size")
    if size is not None:
        if recompute:
            raise Invalid(
                "recompute_scale_factor is not meaningful with an explicit size.", param="recompute_scale_factor"
            )
        sizes = [size] * dims if type(size) is int else list(size)
        if len(sizes) != dims:
            raise ShapeMismatch(
                "Input and output must have the same number of spatial dimensions, but got input with spatial "
                "dimensions "
                f"of {text(spatial)} and output size of {_tuple(sizes)}. Please provide input tensor in (N, C, d1, d2, "
                "...,dK) format and output size in (o1, o2, ...,oK) format.",
                param="size",
            )
        return sizes, None
    factors = [float(f) for f in scale_factor] if type(scale_factor) in (list, tuple) else [float(scale_factor)] * dims
    if len(factors) != dims:
        raise ShapeMismatch(
            "Input and scale_factor must have the same number of spatial dimensions, but got input with spatial "
            "dimensions "
            f"of {text(spatial)} and scale_factor of shape {_tuple(factors)}. Please provide input tensor in (N, C, "
            "d1, d2, "
            "...,dK) format and scale_factor in (s1, s2, ...,sK) format.",
            param="scale_factor",
        )
    if not all(isfinite(f) for f in factors):
        raise Invalid(f"scale_factor must be finite, got {_tuple(factors)}", param="scale_factor")
    sizes = [floor(n * f) for n, f in zip(spatial, factors, strict=True)]
    return sizes, None if recompute else factors


def _tuple(values: Any) -> str:
    return f"({values[0]},)" if len(values) == 1 else f"({', '.join(map(str, values))})"


def _check_mode(spec: Spec, mode: str, align_corners: bool | None, antialias: bool) -> int:
    dims = spec.ndim - 2
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        raise Invalid(
            "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | "
            "trilinear",
            param="align_corners",
        )
    if antialias and not (mode in ("bilinear", "bicubic") and dims == 2):
        raise Invalid(
            "Anti-alias option is restricted to bilinear, bicubic, and lanczos modes and requires a 4-D tensor as "
            "input",
            param="antialias",
        )
    if dims not in _MODES.get(mode, ()):
        if dims in (1, 2, 3) and mode in _MODES:
            raise Invalid(f"Got {spec.ndim}D input, but {mode} mode needs {_MODES[mode][0] + 2}D input", param="mode")
        raise Invalid(
            "Input Error: Only 3D, 4D and 5D input Tensors supported (got "
            f"{spec.ndim}D) for the modes: nearest | linear | bilinear | bicubic | trilinear | lanczos | area | "
            "nearest-exact "
            f"(got {mode})",
            param="mode",
        )
    return dims


def _kernel(mode: str, dims: int, antialias: bool) -> str:
    """What PyTorch calls the kernel in which it finds that a dtype is missing."""
    if antialias:
        return "compute_index_ranges_weights"
    if mode == "bilinear" or (mode[:7] == "nearest" and dims == 2):
        return f"upsample_{mode[:8].rstrip('-')}2d_channels_last"
    return f"compute_indices_weights_{'nearest' if mode[:7] == 'nearest' else 'cubic' if dims == 2 else 'linear'}"


def _resized_picture(F: Any, input: Any, axes: list[Axis]) -> Any:
    """uint8 pictures: rows, then columns, each rounded to whole numbers from 0 to 255."""
    made = F.to(input, float32)
    for at in (1, 0):
        other = axes[1 - at]
        still = Axis("linear", other.input if at else other.output, other.input if at else other.output)
        pair = (still, axes[1]) if at else (axes[0], still)
        made = F.clamp(F.floor(F.add(F._resample(made, pair, False, ""), 0.5)), 0, 255)
    return F.to(made, uint8)


def _interpolated(
    F: Any,
    input: Any,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute: bool | None,
    antialias: bool,
) -> Any:
    spec = Spec(tuple(F.shape(input)), F.dtype(input))
    if size is None and scale_factor is None:
        raise Invalid("either size or scale_factor should be defined", param="size")
    if spec.ndim < 3 or spec.ndim > 5:
        _check_mode(spec, mode, None, False)
    if mode in ("nearest", "area", "nearest-exact") and align_corners is not None:
        _check_mode(spec, mode, align_corners, False)
    sizes, factors = _sizes(spec.shape, size, scale_factor, recompute)
    dims = _check_mode(spec, mode, align_corners, antialias)
    if mode == "area":
        return _adaptive(F, input, sizes, dims)
    spatial = spec.shape[2:]
    if spec.shape[1] == 0 and min((*sizes, *spatial)) > 0:
        words = f"Non-empty {spec.ndim}D data tensor expected but got a tensor with sizes {text(spec.shape)}"
        raise ShapeMismatch(words, param="input")
    if min((*sizes, *spatial)) <= 0:
        given, made = _DIMS[dims].format(*spatial), _DIMS[dims].format(*sizes)
        raise ShapeMismatch(
            f"Input and output sizes should be greater than 0, but got input ({given}) {'and ' * (dims == 1)}output "
            f"({made})",
            param="size",
        )
    picture = spec.dtype is uint8 and mode in ("bilinear", "bicubic")
    if not picture and (
        (spec.dtype.category != FLOAT and not (spec.dtype is uint8 and mode[:7] == "nearest"))
        or (antialias and spec.dtype.reduced)
    ):
        raise not_implemented(_kernel(mode, dims, antialias), spec.dtype)
    align = bool(align_corners)
    kind = {"bilinear": "linear", "trilinear": "linear"}.get(mode, mode) + ("-aa" if antialias else "")
    axes = []
    for i, (n, m) in enumerate(zip(spatial, sizes, strict=True)):
        if align:
            scale = (n - 1) / (m - 1) if m > 1 else 0.0
        else:
            scale = 1.0 / factors[i] if factors is not None else n / m
            if kind == "linear" and n == m:  # PyTorch copies then, whatever the factor
                scale = 1.0
        axes.append(Axis(kind, n, m, scale, align))
    if picture:
        return _resized_picture(F, input, axes)
    node = f"Upsample{_NAMES[mode]}{dims}D{'Aa' if antialias else ''}Backward0"
    return F._resample(input, tuple(axes), False, node)


@composite(
    family="nn",
    name="nn.functional.interpolate",
    moves=True,
    samples=[
        S(T(1, 1, 2, 2), scale_factor=2),
        S(T(1, 2, 3, 4), [2, 6]),
        S(T(1, 1, 3, 3), 5, mode="bilinear"),
        S(T(1, 1, 3, 3), 5, mode="bilinear", align_corners=True),
        S(T(1, 1, 4, 4), scale_factor=[0.5, 1.7], mode="bilinear"),
        S(T(1, 1, 4, 3), 5, mode="bicubic"),
        S(T(1, 2, 4), 7, mode="linear"),
        S(T(1, 1, 2, 2, 3), 3, mode="trilinear"),
        S(T(1, 1, 5, 4), 3, mode="area"),
        S(T(1, 1, 6, 6), 3, mode="bilinear", antialias=True),
        S(T(1, 1, 4), 6, mode="nearest-exact"),
    ],
)
def interpolate(
    F: Any,
    input: Array,
    size: Ints | None = None,
    scale_factor: float | list[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Array:
    """Resizes (N, C, ...) to `size`, or by `scale_factor`.

    Modes: nearest, nearest-exact, linear (3-d input), bilinear and bicubic (4-d), trilinear (5-d), area.
    `align_corners` makes the corner elements' centres coincide; else the corners do.
    """
    return _interpolated(F, input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)


@composite(family="nn", name="nn.functional.upsample", moves=True, samples=[S(T(1, 1, 2, 2), scale_factor=2)])
def upsample(
    F: Any,
    input: Array,
    size: Ints | None = None,
    scale_factor: float | list[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Array:
    """The older name of `interpolate`."""
    return _interpolated(F, input, size, scale_factor, mode, align_corners, None, False)


@composite(family="nn", name="nn.functional.upsample_nearest", moves=True, samples=[S(T(1, 1, 2, 2), scale_factor=2)])
def upsample_nearest(
    F: Any, input: Array, size: Ints | None = None, scale_factor: float | list[float] | None = None
) -> Array:
    """`interpolate` with mode "nearest"."""
    return _interpolated(F, input, size, scale_factor, "nearest", None, None, False)


@composite(family="nn", name="nn.functional.upsample_bilinear", moves=True, samples=[S(T(1, 1, 2, 2), scale_factor=2)])
def upsample_bilinear(
    F: Any, input: Array, size: Ints | None = None, scale_factor: float | list[float] | None = None
) -> Array:
    """`interpolate` with mode "bilinear" and `align_corners`."""
    return _interpolated(F, input, size, scale_factor, "bilinear", True, None, False)


# ---------------------------------------------------------------- adaptive means


def _check_listed(output_size: Any, shape: Shape, name: str, dims: int) -> None:
    """What PyTorch's Python layer refuses of sizes, which are an int, or a list of ints and nulls."""
    if type(output_size) is int or output_size is None:
        return
    if type(output_size) not in (list, tuple):
        what = type(output_size).__name__
        raise WrongType(f"{name}(): argument 'output_size' must be tuple of ints, not {what}", param="output_size")
    for at, size in enumerate(output_size):
        if type(size) is not int and size is not None:
            raise WrongType(
                f"{name}(): argument 'output_size' must be tuple of ints, but found element of type "
                f"{type(size).__name__} at pos {at}",
                param="output_size",
            )
    if dims == 1 and len(output_size) != 1:
        raise Invalid(
            f"{name}() argument 'output_size' should contain one int (got {len(output_size)})", param="output_size"
        )
    if dims > 1 and len(shape) <= len(output_size):
        raise ShapeMismatch(f"Input dimension should be at least {len(output_size) + 1}", param="input")


def _adaptive(F: Any, input: Any, output_size: Any, dims: int) -> Any:
    spec = Spec(tuple(F.shape(input)), F.dtype(input))
    name = f"adaptive_avg_pool{dims}d"
    shape = spec.shape
    _check_listed(output_size, shape, name, dims)
    if len(shape) not in (dims + 1, dims + 2):
        if dims == 1:
            raise rank_words(shape, name)
        raise ShapeMismatch(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D tensor, but got {text(shape)}", param="input"
        )
    spatial = shape[-dims:]
    wanted = [output_size] * dims if output_size is None or type(output_size) is int else list(output_size)
    if len(wanted) != dims:
        raise Invalid(f"{name}: output_size must be {dims}", param="output_size")
    sizes = [n if m is None else m for n, m in zip(spatial, wanted, strict=True)]
    single = all(m == 1 for m in sizes)  # PyTorch takes the mean then, with that operation's own checks
    wide, more = ((*shape[:-1], 1, shape[-1]), 1) if dims == 1 else (shape, 0)  # one dimension is two to PyTorch
    for at in range(1 if dims == 3 else len(shape) - dims, len(shape)):
        if shape[at] == 0 and not single:
            raise ShapeMismatch(
                f"{name if dims > 1 else 'adaptive_avg_pool2d'}(): Expected input to have non-zero size for non-batch "
                f"dimensions, but input has sizes {text(wide)} with dimension {at + more} being empty",
                param="input",
            )
    if min(sizes) < 0:
        two = f"{', '.join(map(str, (1, *sizes)[-2:]))}"  # one dimension is two to PyTorch
        raise Invalid(
            f"adaptive_avg_pool{max(dims, 2)}d: elements of output_size must be greater than or equal to 0 "
            f"but received {{{two if dims < 3 else f'{sizes[0]}, {sizes[1]},{sizes[2]}'}}}",
            param="output_size",
        )
    if single and (spec.dtype.category != FLOAT or 0 in shape):
        return F.mean(input, list(range(-dims, 0)), True)
    if spec.dtype.category != FLOAT and (dims == 3 or 0 not in (*shape, *sizes)):
        raise not_implemented("adaptive_avg_pool2d" if dims < 3 else "adaptive_avg_pool3d_cpu", spec.dtype)
    node = "SqueezeBackward1" if dims == 1 else f"AdaptiveAvgPool{dims}DBackward0"
    if dims > 1 and single:
        node = "MeanBackward1"
    if all(m and n % m == 0 for n, m in zip(spatial, sizes, strict=True)):
        kernel = tuple([n // m for n, m in zip(spatial, sizes, strict=True)])
        divisors = tuple([(w,) * m for w, m in zip(kernel, sizes, strict=True)])
        pool = Pool(spatial, tuple(sizes), kernel, kernel, (0,) * dims, (1,) * dims, node, divisors)
        return F._avg_pool(input, pool)
    return F._resample(input, tuple(Axis("area", n, m) for n, m in zip(spatial, sizes, strict=True)), False, node)


def _declare_adaptive_mean(dims: int) -> None:
    size = ((5,), (4, 5), (3, 4, 3))[dims - 1]

    def pool(F: Any, input: Array, output_size: Any) -> Array:
        return _adaptive(F, input, output_size, dims)

    pool.__doc__ = (
        f"The means of windows that split the last {dims} dimension{'s' * (dims > 1)} into `output_size` parts.\n\n"
        "Window i of n goes from floor(i * size / n) to ceil((i + 1) * size / n); null keeps a size."
    )
    names: dict[str, Any] = {"alias": (f"adaptive_avg_pool{dims}d",)} if dims == 1 else {}
    composite(
        family="nn",
        name=f"nn.functional.adaptive_avg_pool{dims}d",
        moves=True,
        samples=[S(T(1, 2, *size), 2), S(T(2, *size), [3] * dims), S(T(1, 1, *size), 1), S(T(1, 1, *size), 7)],
        **names,
    )(pool)


# ---------------------------------------------------------------- adaptive maxima


class Windows(NamedTuple):
    """Adaptive windows: sizes in and out."""

    input: Shape
    output: Shape
    node: str


def _adaptive_max_meta(k: K, input: Spec, windows: Windows) -> tuple[Spec, Spec]:
    shape = (*input.shape[: input.ndim - len(windows.output)], *windows.output)
    return Spec(shape, input.dtype), Spec(shape, int64)


@op(
    family="nn",
    meta=_adaptive_max_meta,
    outputs=("result", "indices"),
    nondiff=("indices",),
    save={"input": ("indices",)},
    node=lambda input, windows: windows.node,
    ties=True,
)
def _adaptive_max(k: K, input: Array, windows: Any) -> Any:
    """The largest element of each window, and its place in the flattened sample."""
    xp = k.xp
    dims = len(windows.input)
    lead = input.shape[: input.ndim - dims]
    out = k.spec[0]
    if not out.numel:
        return xp.zeros(out.shape, input.dtype), xp.zeros(out.shape, int64.np)
    gathered = input.reshape(-1, *windows.input)
    flat = np.arange(int(np.prod(windows.input))).reshape(1, *windows.input)
    taps = []
    for axis, (n, m) in enumerate(zip(windows.input, windows.output, strict=True)):
        bounds = [(i * n // m, ceil((i + 1) * n / m)) for i in range(m)]
        widest = max(high - low for low, high in bounds)
        index = np.stack(
            [np.minimum(np.arange(low, low + widest), high - 1) for low, high in bounds]
        )  # repeats lose ties
        at = 1 + 2 * axis
        gathered = xp.take(gathered, k.from_host(index.reshape(-1)), axis=at)
        gathered = gathered.reshape(*gathered.shape[:at], m, widest, *gathered.shape[at + 1 :])
        flat = np.take(flat, index.reshape(-1), axis=at)
        flat = flat.reshape(*flat.shape[:at], m, widest, *flat.shape[at + 1 :])
        taps.append(widest)
    order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2)]
    count = int(np.prod(taps))
    lines = gathered.transpose(order).reshape(-1, *windows.output, count)
    places = flat.transpose(order).reshape(1, *windows.output, count)
    best = xp.argmax(lines, axis=-1)
    nan = lines != lines
    if lines.dtype.kind == "f" and bool(nan.any()):  # of several the last one counts
        best = xp.where(nan.any(axis=-1), count - 1 - nan[..., ::-1].argmax(axis=-1), best)
    best = best[..., None]
    made = xp.take_along_axis(lines, best, axis=-1)[..., 0]
    index = xp.take_along_axis(xp.broadcast_to(k.from_host(np.ascontiguousarray(places)), lines.shape), best, axis=-1)[
        ..., 0
    ]
    return made.reshape(*lead, *windows.output), index.reshape(*lead, *windows.output)


@_adaptive_max.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shape = saved.input.shape
    dims = len(saved.windows.input)
    lead = tuple(shape[: len(shape) - dims])
    flat_in, flat_out = int(np.prod(shape[len(lead) :])), int(np.prod(saved.windows.output))
    zero = F.zeros_like(F.expand(F.reshape(F.sum(g[0]), (1,) * (len(lead) + 1)), (*lead, flat_in)))
    made = F.scatter_add(zero, -1, F.reshape(saved.indices, (*lead, flat_out)), F.reshape(g[0], (*lead, flat_out)))
    return F.reshape(made, shape)


def _adaptive_windows(F: Any, input: Any, output_size: Any, dims: int) -> Windows:
    spec = Spec(tuple(F.shape(input)), F.dtype(input))
    shape = spec.shape
    name = f"adaptive_max_pool{dims}d"
    _check_listed(output_size, shape, name, dims)
    if dims > 1 and type(output_size) in (list, tuple) and len(output_size) != dims:
        raise Invalid(f"{name}(): internal error: output_size.size() must be {dims}", param="output_size")
    if len(shape) not in (dims + 1, dims + 2):
        if dims == 1:
            raise rank_words(shape, name)
        raise ShapeMismatch(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D tensor, but got: {text(shape)}", param="input"
        )
    for at in range(1, len(shape)):  # the first one may be 0, a batch or not
        if shape[at] == 0:
            raise ShapeMismatch(
                f"{name}(): Expected input to have non-zero size for non-batch "
                f"dimensions, but input has sizes {text(shape)} with dimension {at} being empty",
                param="input",
            )
    wanted = [output_size] * dims if output_size is None or type(output_size) is int else list(output_size)
    if len(wanted) != dims:
        raise Invalid(f"{name}(): internal error: output_size.size() must be {dims}", param="output_size")
    sizes = tuple([n if m is None else m for n, m in zip(shape[-dims:], wanted, strict=True)])
    for m in sizes:
        if m < 0:
            planes = (1,) if dims == 1 else ()
            raise ShapeMismatch(
                f"Trying to create tensor with negative dimension {m}: {text((*shape[:-dims], *planes, *sizes))}",
                param="output_size",
            )
    if spec.dtype.category != FLOAT:
        raise not_implemented("adaptive_max_pool2d" if dims < 3 else "adaptive_max_pool3d_cpu", spec.dtype)
    return Windows(shape[-dims:], sizes, "SqueezeBackward1" if dims == 1 else f"AdaptiveMaxPool{dims}DBackward0")


def _declare_adaptive_max(dims: int) -> None:
    size = ((5,), (4, 5), (3, 4, 3))[dims - 1]

    def pool(F: Any, input: Array, output_size: Any, return_indices: bool = False) -> Array:
        made = F._adaptive_max(input, _adaptive_windows(F, input, output_size, dims))
        return list(made) if return_indices else made[0]

    def both(F: Any, input: Array, output_size: Any, return_indices: bool = False) -> Array:
        return list(F._adaptive_max(input, _adaptive_windows(F, input, output_size, dims)))

    pool.__doc__ = (
        f"The largest elements of windows that split the last {dims} dimension{'s' * (dims > 1)} into `output_size` "
        "parts."
        "\n\nWith `return_indices` also where each one is in the flattened sample."
    )
    both.__doc__ = "The largest elements of windows that split the last dimensions, and their indices in the sample."
    samples = [S(T(1, 2, *size, distinct=True), 2), S(T(2, *size, distinct=True), [3] * dims)]
    composite(
        family="nn",
        name=f"nn.functional.adaptive_max_pool{dims}d",
        moves=True,
        returns="Tensor or list of Tensors",
        samples=[*samples, S(T(1, 1, *size, distinct=True), 2, return_indices=True)],
    )(pool)
    composite(
        family="nn",
        name=f"nn.functional.adaptive_max_pool{dims}d_with_indices",
        moves=True,
        returns="list of Tensors",
        samples=samples[:1],
    )(both)


for _dims in (1, 2, 3):
    _declare_adaptive_mean(_dims)
    _declare_adaptive_max(_dims)

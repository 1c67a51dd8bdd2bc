"""Images in another order: blocks of pixels as channels, groups of channels mixed, windows as columns and back."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Ints, composite, op
from engine.dtypes import INT
from engine.errors import Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.windows import Geometry, pad, positions, shifted
from engine.samples import C, I, S, T
from engine.shapes import Shape, text

# ---------------------------------------------------------------- pixels and channels


def _check_rank(name: str, shape: Shape) -> None:
    if len(shape) < 3:
        raise ShapeMismatch(
            f"{name} expects input to have at least 3 dimensions, but got input with {len(shape)} dimension(s)",
            param="input",
        )


def _shuffle_meta(k: K, input: Spec, upscale_factor: int) -> Spec:
    shape, r = input.shape, upscale_factor
    _check_rank("pixel_shuffle", shape)
    if r <= 0:
        raise Invalid(f"pixel_shuffle expects a positive upscale_factor, but got {r}", param="upscale_factor")
    *lead, c, h, w = shape
    if c % (r * r):
        raise ShapeMismatch(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={c} is not divisible by {r * r}",
            param="input",
        )
    return Spec((*lead, c // (r * r), h * r, w * r), input.dtype)


@op(
    family="nn",
    alias=("nn.functional.pixel_shuffle",),
    moves=True,
    meta=_shuffle_meta,
    node="PixelShuffleBackward0",
    samples=[
        S(T(1, 4, 2, 3), 2),
        S(T(9, 1, 2), 3),
        S(I(1, 4, 2, 2), 2),
        S(T(0, 4, 2, 2), 2),
        S(T(2, 1, 4, 1, 2), 2),
        S(T(1, 2, 3), 1),
    ],
)
def pixel_shuffle(k: K, input: Array, upscale_factor: int) -> Array:
    """(..., C * r^2, H, W) becomes (..., C, H * r, W * r): channels become pixels (Shi 2016). r is `upscale_factor`."""
    r = upscale_factor
    *lead, c, h, w = input.shape
    n = len(lead)
    split = input.reshape(*lead, c // (r * r), r, r, h, w)
    return split.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2).reshape(k.spec.shape)


@pixel_shuffle.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.pixel_unshuffle(g, saved.upscale_factor)


def _unshuffle_meta(k: K, input: Spec, downscale_factor: int) -> Spec:
    shape, r = input.shape, downscale_factor
    _check_rank("pixel_unshuffle", shape)
    if r <= 0:
        raise Invalid(f"pixel_unshuffle expects a positive downscale_factor, but got {r}", param="downscale_factor")
    *lead, c, h, w = shape
    for size, name, at in ((h, "height", -2), (w, "width", -1)):
        if size % r:
            raise ShapeMismatch(
                f"pixel_unshuffle expects {name} to be divisible by downscale_factor, but input.size({at})={size} is "
                f"not divisible by {r}",
                param="input",
            )
    if 0 in shape:  # PyTorch gives back what has no elements as it is
        return input
    return Spec((*lead, c * r * r, h // r, w // r), input.dtype)


@op(
    family="nn",
    alias=("nn.functional.pixel_unshuffle",),
    moves=True,
    meta=_unshuffle_meta,
    node="PixelUnshuffleBackward0",
    samples=[S(T(1, 1, 4, 2), 2), S(T(1, 3, 6), 3), S(I(1, 1, 2, 2), 2), S(T(0, 1, 2, 2), 2), S(T(1, 2, 3), 1)],
)
def pixel_unshuffle(k: K, input: Array, downscale_factor: int) -> Array:
    """(..., C, H * r, W * r) becomes (..., C * r^2, H, W): pixels become channels. r is `downscale_factor`."""
    r = downscale_factor
    *lead, c, h, w = input.shape
    n = len(lead)
    if not input.size:
        return input.copy()
    split = input.reshape(*lead, c, h // r, r, w // r, r)
    return split.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3).reshape(k.spec.shape)


@pixel_unshuffle.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g if 0 in saved.input.shape else F.pixel_shuffle(g, saved.downscale_factor)


_SHUFFLES = [S(T(1, 4, 2), 2), S(T(2, 6, 2, 2), 3), S(I(1, 4, 2), 2), S(T(0, 4, 2), 2)]


def _shuffled(F: Any, input: Any, groups: int) -> Any:
    shape = F.shape(input)
    if len(shape) < 3:
        raise ShapeMismatch(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes {text(shape)}", param="input"
        )
    if groups <= 0:
        raise Invalid(
            f"Number of groups to divide channels in must be positive. Value of groups:{groups}", param="groups"
        )
    n, c, *rest = shape
    if c % groups:
        raise ShapeMismatch(
            f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups.", param="groups"
        )
    if groups in (1, c):
        return F._reshape_copy(input, shape)
    split = F.reshape(input, (n, groups, c // groups, *rest))
    return F.reshape(F.transpose(split, 1, 2), shape)


@composite(
    family="nn",
    alias=("nn.functional.channel_shuffle",),
    moves=True,
    node="ChannelShuffleBackward0",
    samples=_SHUFFLES,
)
def channel_shuffle(F: Any, input: Array, groups: int) -> Array:
    """Channels (dimension 1) in the order 1st of each group, 2nd of each group, ... (Zhang 2018, ShuffleNet)."""
    return _shuffled(F, input, groups)


@composite(family="nn", alias=("nn.functional.native_channel_shuffle",), moves=True, samples=_SHUFFLES)
def native_channel_shuffle(F: Any, input: Array, groups: int) -> Array:
    """What `channel_shuffle` does; it has a gradient here, which PyTorch's lacks."""
    return _shuffled(F, input, groups)


# ---------------------------------------------------------------- windows as columns


def _columns_meta(k: K, input: Spec, geometry: Geometry) -> Spec:
    n, c = input.shape[:2]
    return Spec((n, c * prod(geometry.kernel), prod(geometry.output)), input.dtype)


@op(family="nn", meta=_columns_meta, node="Im2ColBackward0")
def _im2col(k: K, input: Array, geometry: Any) -> Array:
    """Each window of (N, C, H, W) as a column: (N, C * kernel, windows)."""
    geo: Geometry = geometry
    x = pad(k, input, geo.low, geo.high)
    steps = x.strides[2:]
    inner = [s * d for s, d in zip(steps, geo.dilation, strict=True)]
    outer = [s * d for s, d in zip(steps, geo.stride, strict=True)]
    seen = k.backend.view(x, x.dtype, (*x.shape[:2], *geo.kernel, *geo.output), 0, (*x.strides[:2], *inner, *outer))
    return k.xp.ascontiguousarray(seen).reshape(k.spec.shape)


def _images_meta(k: K, columns: Spec, geometry: Geometry) -> Spec:
    n, rows, _ = columns.shape
    return Spec((n, rows // prod(geometry.kernel), *geometry.input), columns.dtype)


@op(family="nn", meta=_images_meta, node="Col2ImBackward0")
def _col2im(k: K, columns: Array, geometry: Any) -> Array:
    """Each column added to the place that its window has: (N, C, H, W)."""
    xp = k.xp
    n, c = k.spec.shape[:2]
    made = xp.zeros((n, c, *geometry.padded), columns.dtype)
    parts = columns.reshape(n, c, prod(geometry.kernel), *geometry.output)
    for i, position in enumerate(positions(geometry.kernel)):
        target = made[(..., *shifted(position, geometry))]
        xp.add(target, parts[:, :, i], out=target)
    return made[(..., *(slice(a, a + m) for a, m in zip(geometry.low, geometry.input, strict=True)))]


@_im2col.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._col2im(g, saved.geometry)


@_col2im.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._im2col(g, saved.geometry)


def _two(value: Any, name: str) -> Shape:
    if type(value) is int:
        return (value, value)
    if len(value) != 2:
        raise Invalid(f"It is expected {name} equals to 2, but got size {len(value)}", param=name)
    return tuple(value)


def _pair(values: Shape) -> str:
    return f"({values[0]}, {values[1]})"


def _check_windows(**given: Shape) -> None:
    """Refuses sizes that are not positive, in the order in which they are given."""
    for name, values in given.items():
        what = name.replace("_", " ")
        prefix = {"kernel_size": "kernel", "padding": "pad"}.get(name, name)
        least, said = (0, "non-negative") if what == "padding" else (1, "greater than zero")
        if min(values) < least:
            shown = f"{prefix}_height: {values[0]} {prefix}_width: {values[1]}"
            raise Invalid(f"{what} should be {said}, but got {shown}", param=name)


def _laid(sizes: Shape, kernel: Shape, dilation: Shape, padding: Shape, stride: Shape) -> Geometry:
    output = tuple(
        [
            (n + 2 * p - d * (w - 1) - 1) // s + 1
            for n, w, d, p, s in zip(sizes, kernel, dilation, padding, stride, strict=True)
        ]
    )
    return Geometry(sizes, output, kernel, stride, padding, padding, dilation, 1)


@composite(
    family="nn",
    name="nn.functional.unfold",
    moves=True,
    node="Im2ColBackward0",
    samples=[
        S(T(1, 2, 3, 4), 2),
        S(T(2, 4, 4), [2, 3], padding=1, stride=2),
        S(T(1, 1, 5, 5), 2, dilation=2),
        S(T(0, 2, 3, 3), 2),
        S(C(1, 1, 3, 3), 2),
    ],
)
def unfold_images(
    F: Any, input: Array, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Array:
    """Each window of an image as a column: (N, C, H, W) gives (N, C * kernel elements, windows); N may be missing."""
    shape = F.shape(input)
    kernel, dilations = _two(kernel_size, "kernel_size"), _two(dilation, "dilation")
    pads, steps = _two(padding, "padding"), _two(stride, "stride")
    _check_windows(kernel_size=kernel, dilation=dilations, padding=pads, stride=steps)
    batched = len(shape) == 4
    if len(shape) not in (3, 4) or 0 in shape[1 if batched else 0 :]:
        raise ShapeMismatch(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
            f"but got: {text(shape)}",
            param="input",
        )
    geo = _laid(tuple(shape[-2:]), kernel, dilations, pads, steps)
    if min(geo.output) < 1:
        raise ShapeMismatch(
            f"Given input with spatial size {_pair(geo.input)}, kernel_size={_pair(kernel)}, "
            f"dilation={_pair(dilations)}, padding={_pair(pads)}, calculated shape of the array of sliding blocks as "
            f"{_pair(geo.output)}, but its components must be at least one.",
            param="kernel_size",
        )
    if F.dtype(input).category == INT:
        raise not_implemented("im2col_out_cpu", F.dtype(input))
    return F._im2col(input, geo) if batched else F.squeeze(F._im2col(F.unsqueeze(input, 0), geo), 0)


@composite(
    family="nn",
    name="nn.functional.fold",
    moves=True,
    node="Col2ImBackward0",
    samples=[
        S(T(1, 4, 6), [3, 4], 2),
        S(T(8, 4), [3, 3], 2),
        S(T(2, 4, 4), [2, 2], [2, 2], padding=1, stride=2),
        S(T(0, 4, 4), [3, 3], 2),
    ],
)
def fold(
    F: Any, input: Array, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Array:
    """Columns added to where `unfold` would have found them: (N, C * kernel elements, windows) gives (N, C, H, W)."""
    shape = F.shape(input)
    sizes, kernel, dilations = (
        _two(output_size, "output_size"),
        _two(kernel_size, "kernel_size"),
        _two(dilation, "dilation"),
    )
    pads, steps = _two(padding, "padding"), _two(stride, "stride")
    _check_windows(kernel_size=kernel, stride=steps, dilation=dilations, padding=pads)
    batched = len(shape) == 3
    if len(shape) not in (2, 3) or 0 in shape[1 if batched else 0 :]:
        raise ShapeMismatch(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for "
            f"input, but got: {text(shape)}",
            param="input",
        )
    rows, count = shape[-2:]
    if rows % prod(kernel):
        raise ShapeMismatch(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={rows} and kernel_size={_pair(kernel)}.",
            param="kernel_size",
        )
    geo = _laid(sizes, kernel, dilations, pads, steps)
    if prod(geo.output) != count or min(geo.output) < 1:
        h, w = geo.output
        given = (
            f"Given output_size={_pair(sizes)}, kernel_size={_pair(kernel)}, dilation={_pair(dilations)}, "
            f"padding={_pair(pads)}, stride={_pair(steps)}, expected"
        )
        raise ShapeMismatch(
            f"{given} size of input's dimension 2 to match the calculated number of sliding blocks {h} * {w} = "
            f"{h * w}, but got input.size(2)={count}."
            if h * w != count
            else f"{given} the shape of the array of sliding blocks to be positive, but got {_pair((h, w))}.",
            param="output_size",
        )
    if F.dtype(input).category == INT:
        raise not_implemented("col2im_out_cpu", F.dtype(input))
    return F._col2im(input, geo) if batched else F.squeeze(F._col2im(F.unsqueeze(input, 0), geo), 0)

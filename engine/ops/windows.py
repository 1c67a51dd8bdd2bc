"""Windows over images: the three sums behind convolutions, by one gather and one matrix product a block of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

from engine.carriers import K
from engine.context import SMALL
from engine.declare import Array
from engine.ops.products import multiply
from engine.shapes import Shape

# Bytes of gathered windows at a time: they are to stay in the second-level cache between gather and product.
BLOCK = {"cpu": 1 << 19, "cuda": 1 << 28}
# How much longer the product may be for the sake of scattering whole images instead of rows.
STRETCH = 1.34
# Rows of fewer elements are copied together.
SHORT_ROW = 24


class Geometry(NamedTuple):
    """How windows lie on an input: everything but the numbers of samples and channels."""

    input: Shape  # spatial sizes
    output: Shape
    kernel: Shape
    stride: Shape
    low: Shape  # padding before
    high: Shape  # padding after
    dilation: Shape
    groups: int

    @property
    def padded(self) -> Shape:
        return tuple([n + a + b for n, a, b in zip(self.input, self.low, self.high, strict=True)])

    @property
    def pointwise(self) -> bool:
        """Whether each output element sees just the input element at its own place."""
        return self.input == self.output and all(n == 1 for n in (*self.kernel, *self.stride))

    @property
    def flat(self) -> int:
        """How many places a window has that moves over the padded image as over a line, or 0 where that is too many.

        With strides of 1 the places of the output are among them, at the positions of its rows in the padded image.
        Copies and sums then run over whole images instead of rows.
        """
        padded = self.padded
        if len(padded) < 2 or any(s != 1 for s in self.stride) or self.pointwise:
            return 0
        length, step = 1, 1
        for n, m in zip(reversed(padded), reversed(self.output), strict=True):
            length += (m - 1) * step
            step *= n
        return length if length <= STRETCH * prod(self.output) else 0

    @property
    def lines(self) -> int:
        """`flat` where rows are so short that copying them one by one would cost more than the places between them."""
        return self.flat if self.output[-1] < SHORT_ROW else 0


def pad(k: K, x: Array, low: Sequence[int], high: Sequence[int], fill: float = 0) -> Array:
    """The last dimensions padded with a value; C-contiguous."""
    if not any(low) and not any(high):
        return k.xp.ascontiguousarray(x)
    lead = x.ndim - len(low)
    sizes = [n + a + b for n, a, b in zip(x.shape[lead:], low, high, strict=True)]
    made = (
        k.xp.full((*x.shape[:lead], *sizes), fill, x.dtype) if fill else k.xp.zeros((*x.shape[:lead], *sizes), x.dtype)
    )
    made[(..., *(slice(a, a + n) for a, n in zip(low, x.shape[lead:], strict=True)))] = x
    return made


def windows(k: K, x: Array, geo: Geometry) -> Array:
    """A view (N, C, *kernel, *output) of the padded input: element [.., i, o] is x[.., o * stride + i * dilation].

    Where geo.lines is set, the output is one dimension of that size: a window moves over an image as over a line.
    """
    steps = x.strides[2:]
    inner = [s * d for s, d in zip(steps, geo.dilation, strict=True)]
    if geo.lines:
        return k.backend.view(
            x, x.dtype, (*x.shape[:2], *geo.kernel, geo.lines), 0, (*x.strides[:2], *inner, x.itemsize)
        )
    outer = [s * d for s, d in zip(steps, geo.stride, strict=True)]
    return k.backend.view(x, x.dtype, (*x.shape[:2], *geo.kernel, *geo.output), 0, (*x.strides[:2], *inner, *outer))


def _samples(k: K, geometry: Geometry, channels: int, itemsize: int, n: int) -> int:
    """How many samples make a block."""
    each = channels * prod(geometry.kernel) * prod(geometry.output) * itemsize
    return max(1, min(n, BLOCK[k.backend.kind] // max(each, 1)))


def _room(k: K, x: Array, geo: Geometry, channels: int, n: int) -> None:
    """Asks for what is taken beside the result: a padded image, a block of windows. Raises OutOfMemory."""
    padded = n * channels * prod(geo.padded) * x.itemsize if any(geo.low) or any(geo.high) else 0
    step = _samples(k, geo, channels, x.itemsize, n)
    block = 0 if geo.pointwise else step * channels * prod(geo.kernel) * prod(geo.output) * x.itemsize
    if padded + block > SMALL:
        k.ctx.admit(padded + block)


def _product(k: K, a: Array, b: Array, out: Array) -> None:
    if a.shape[-1] == 1:
        k.xp.multiply(a, b, out=out)
    elif a.dtype.kind in "iu":
        out[...] = multiply(k, k.xp.broadcast_to(a, (*b.shape[:-2], *a.shape[-2:])), b)
    else:
        k.xp.matmul(a, b, out=out)


def _spread(k: K, g: Array, geo: Geometry) -> Array:
    """Output elements laid out in rows of the padded input's width, zeros between them: (N, O, geo.flat)."""
    made = k.xp.zeros((*g.shape[:2], geo.output[0], *geo.padded[1:]), g.dtype)
    made[(..., *(slice(m) for m in geo.output))] = g
    return made.reshape(*g.shape[:2], -1)[..., : geo.flat]


def forward(k: K, x: Array, w: Array, bias: Array | None, geo: Geometry) -> Array:
    """(N, C, *input) with (O, C / groups, *kernel) gives (N, O, *output)."""
    xp = k.xp
    n, c = x.shape[:2]
    o = w.shape[0]
    groups, places = geo.groups, prod(geo.output)
    made = xp.empty((n, o, *geo.output), x.dtype)
    if not made.size or not w.size:
        made[...] = 0 if bias is None else bias.reshape(-1, *([1] * len(geo.output)))
        return made
    weights = w.reshape(groups, o // groups, -1)
    rows = weights.shape[2]
    _room(k, x, geo, c, n)
    x = pad(k, x, geo.low, geo.high)
    step = _samples(k, geo, c, x.itemsize, n)
    columns = None if bias is None else bias.reshape(-1, *([1] * len(geo.output)))
    flat = geo.lines
    view = None if geo.pointwise else windows(k, x, geo)
    block = None if view is None else xp.empty((step, *view.shape[1:]), x.dtype)
    if flat:
        wide = xp.empty((step, o, geo.output[0], *geo.padded[1:]), x.dtype)
        lines = wide.reshape(step, groups, o // groups, -1)[..., :flat]
        kept = wide[(..., *(slice(m) for m in geo.output))]
    for at in range(0, n, step):
        m = min(step, n - at)
        if block is None:
            gathered = x[at : at + m]
        else:
            gathered = block[:m]
            gathered[...] = view[at : at + m]  # type: ignore[index]
        gathered = gathered.reshape(m, groups, rows, flat or places)
        part = made[at : at + m]
        if flat:
            _product(k, weights, gathered, lines[:m])
            if columns is None:
                part[...] = kept[:m]
            else:
                xp.add(kept[:m], columns, out=part)
        else:
            _product(k, weights, gathered, part.reshape(m, groups, o // groups, places))
            if columns is not None:
                xp.add(part, columns, out=part)
    return made


def to_input(k: K, g: Array, w: Array, geo: Geometry) -> Array:
    """The gradient of the input: each output element's share added to the places its window saw."""
    xp = k.xp
    n, o = g.shape[:2]
    groups, places = geo.groups, prod(geo.output)
    c = w.shape[1] * groups
    if not g.size or not w.size:
        return xp.zeros((n, c, *geo.input), g.dtype)
    weights = w.reshape(groups, o // groups, -1).swapaxes(1, 2)
    if geo.pointwise:
        made = xp.empty((n, c, *geo.input), g.dtype)  # not a view: that would be copied
        _product(
            k,
            weights,
            xp.ascontiguousarray(g).reshape(n, groups, o // groups, places),
            made.reshape(n, groups, c // groups, places),
        )
        return made
    _room(k, g, geo, c, n)
    if (run := k.backend.compiled("add_columns", g)) is not None and w.dtype == g.dtype:
        return _added(k, run, g, weights, geo, c)
    made = xp.zeros((n, c, *geo.padded), g.dtype)
    step = _samples(k, geo, c, g.itemsize, n)
    flat = geo.flat
    g = _spread(k, g, geo) if flat else xp.ascontiguousarray(g).reshape(n, o, places)
    g = g.reshape(n, groups, o // groups, flat or places)
    images = made.reshape(n, c, -1)
    steps = [s // made.itemsize for s in made.strides[2:]]
    block = xp.empty((step, groups, weights.shape[1], g.shape[-1]), g.dtype)
    for at in range(0, n, step):
        m = min(step, n - at)
        _product(k, weights, g[at : at + m], block[:m])
        shares = block[:m].reshape(m, c, prod(geo.kernel), g.shape[-1])
        for i, position in enumerate(positions(geo.kernel)):
            share = shares[:, :, i]
            if flat:
                shift = sum(p * d * s for p, d, s in zip(position, geo.dilation, steps, strict=True))
                target = images[at : at + m, :, shift : shift + flat]
            else:
                target = made[(slice(at, at + m), slice(None), *shifted(position, geo))]
                share = share.reshape(target.shape)
            xp.add(target, share, out=target)
    if not any(geo.low) and not any(geo.high):
        return made
    return made[(..., *(slice(a, a + m) for a, m in zip(geo.low, geo.input, strict=True)))]


def _added(k: K, run: Any, g: Array, weights: Array, geo: Geometry, c: int) -> Array:
    """`to_input` by the compiled kernel that adds columns to images; `weights` are (groups, rows, O / groups)."""
    xp = k.xp
    n, o = g.shape[:2]
    made = xp.zeros((n, c, *geo.input), g.dtype)
    ones = (1,) * (3 - len(geo.kernel))  # all are three dimensions to the kernel
    images = made.reshape(n, c, *ones, *geo.input)
    zeros = (0,) * len(ones)
    steps = xp.array([*ones, *geo.stride, *ones, *geo.dilation, *zeros, *geo.low])
    places = g.reshape(n, geo.groups, o // geo.groups, prod(geo.output))
    step = _samples(k, geo, c, g.itemsize, n)
    block = xp.empty((step, geo.groups, weights.shape[1], places.shape[-1]), g.dtype)
    for at in range(0, n, step):
        m = min(step, n - at)
        _product(k, weights, places[at : at + m], block[:m])
        run(block[:m].reshape(m, c, *ones, *geo.kernel, *ones, *geo.output), steps, images[at : at + m])
    return made


def positions(kernel: Shape) -> Iterator[Shape]:
    """The places in a window, in C order."""
    if not kernel:
        yield ()
        return
    for i in range(kernel[0]):
        for rest in positions(kernel[1:]):
            yield (i, *rest)


def shifted(position: Sequence[int], geo: Geometry) -> tuple[slice, ...]:
    """What all windows see at one of their places."""
    return tuple(
        [
            slice(p * d, p * d + s * (m - 1) + 1, s)
            for p, d, s, m in zip(position, geo.dilation, geo.stride, geo.output, strict=True)
        ]
    )


def to_weight(k: K, g: Array, x: Array, geo: Geometry) -> Array:
    """The gradient of the weight: over many samples and places at once, so that the products have long rows."""
    xp = k.xp
    n, o = g.shape[:2]
    c = x.shape[1]
    groups = geo.groups
    rows = c // groups * prod(geo.kernel)
    if not g.size or not rows:
        return xp.zeros((o, c // groups, *geo.kernel), g.dtype)
    dims = len(geo.kernel)
    _room(k, x, geo, c, n)
    view = windows(k, pad(k, x, geo.low, geo.high), geo)
    view = view.transpose([1, *range(2, 2 + dims), 0, *range(2 + dims, view.ndim)])
    g = _spread(k, g, geo) if geo.lines else g.reshape(n, o, -1)
    places = g.shape[2]
    step = _samples(k, geo, c, x.itemsize, n)
    samples = (slice(None),) * (1 + dims)
    block = xp.empty((*view.shape[: 1 + dims], step, *view.shape[2 + dims :]), x.dtype)
    total: Any = None
    tall = rows > o // groups  # OpenBLAS is a quarter faster where the result has more rows than columns
    for at in range(0, n, step):
        m = min(step, n - at)
        if m != step:
            block = xp.empty((*view.shape[: 1 + dims], m, *view.shape[2 + dims :]), x.dtype)
        block[...] = view[(*samples, slice(at, at + m))]
        left = xp.ascontiguousarray(g[at : at + m].swapaxes(0, 1)).reshape(groups, o // groups, m * places)
        right = block.reshape(groups, rows, m * places)
        part = multiply(k, right, left.swapaxes(1, 2)) if tall else multiply(k, left, right.swapaxes(1, 2))
        total = part if total is None else xp.add(total, part, out=total)
    if tall:
        total = total.swapaxes(1, 2)
    return total.reshape(o, c // groups, *geo.kernel)

"""The values of a tensor as a picture: what GET /v1/tensors/{id}/image answers.

By the number of dimensions, or as `kind` says: a tensor of two is a heat map, one of fewer a line, one of more a
histogram; uint8 of height x width x channels, as an uploaded picture is, is that picture. Of complex numbers the
absolute values are drawn, and the caption says so. NaN is grey in a heat map, a gap in a line, and outside a histogram;
infinities stand at the ends of the colours; the caption counts both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from app.wire.arrays import values_of
from app.wire.drawing import BLACK, FONT, LETTER, Colour, Drawing
from engine.dtypes import bf16_to_f32
from engine.errors import Hint, Invalid
from engine.service import TensorAnswer

Array = np.ndarray[Any, Any]

AUTO, HEATMAP, LINE, HISTOGRAM, PICTURE = KINDS = ("auto", "heatmap", "line", "histogram", "picture")
MOST = 1 << 23  # elements of a tensor that is drawn: of a larger one parts are
MOST_CELLS = {"png": 512, "svg": 96}  # rows and columns of a heat map; of more, neighbours are averaged
MOST_BINS = 50
_WRITTEN = 16  # rows and columns of a heat map in whose cells their numbers stand
_PAD = 16
_LINE = 18  # from one line of words to the next
_PLOT = (560, 320)  # of lines and histograms
_INK: Colour = (38, 84, 158)
_AXIS: Colour = (102, 119, 136)
_FAINT: Colour = (226, 230, 235)
_NAN: Colour = (200, 200, 200)
# From low to high: even in lightness, and told apart by those who do not see red and green.
_SEQUENTIAL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
# From below zero over zero, which is white, to above.
_DIVERGING = ((33, 76, 156), (115, 155, 214), (250, 250, 250), (224, 130, 104), (165, 24, 38))


def draw(name: str, answer: TensorAnswer, kind: str, form: str) -> bytes:
    """The picture as `form`, png or svg. Raises Invalid for a kind that the tensor's shape or dtype cannot be."""
    values, dtype = values_of(answer)
    if dtype.name == "bfloat16":
        values = bf16_to_f32(values)
    if kind == AUTO:
        kind = kind_of(answer)
    with np.errstate(all="ignore"):
        drawn = _DRAWERS[kind](f"{name}  {dtype.name} {list(answer.shape)}", values.reshape(answer.shape), form)
    return drawn.svg() if form == "svg" else drawn.png()


def kind_of(answer: TensorAnswer) -> str:
    """What a tensor is drawn as where nobody says it."""
    if len(answer.shape) == 2:
        return HEATMAP
    if len(answer.shape) < 2:
        return LINE
    return PICTURE if _is_picture(answer.shape, answer.dtype) else HISTOGRAM


def _is_picture(shape: tuple[int, ...], dtype: str) -> bool:
    return dtype == "uint8" and len(shape) == 3 and shape[2] in (1, 3, 4) and 0 not in shape


# ---------------------------------------------------------------- heat map


def _heatmap(title: str, values: Array, form: str) -> Drawing:
    """Rows downwards and columns to the right, as the numbers of a matrix stand."""
    if values.ndim != 2:
        raise _not_drawn(HEATMAP, "two dimensions", values)
    real, said = _real(values)
    caption = [title + said, _summary(real)]
    rows, columns = real.shape
    if not real.size:
        return _words([*caption, "there is nothing to draw"])
    written = rows <= _WRITTEN and columns <= _WRITTEN
    low, high = _range(real)
    real = _averaged(real, MOST_CELLS[form])
    if max(rows, columns) > max(real.shape):
        caption.append(f"drawn as {real.shape[0]} x {real.shape[1]} cells, each the mean of its part")
    letters = max((len(_short(x)) for x in real.flat), default=1) if written else 0
    side = max(1.0, min(40.0, 480 / max(real.shape)))
    wide = max(side, letters * LETTER + 8) if written else side
    tall = max(side, _LINE + 4.0) if written else side
    # A long thin matrix would be a hair: its short side is drawn wider than true.
    width, height = max(wide * real.shape[1], 24.0), max(tall * real.shape[0], 24.0)
    left, top = _PAD + max(len(str(rows - 1)) * LETTER + 8, 24), _PAD + _LINE * len(caption) + _LINE
    made = Drawing(round(max(left + width + 110, _width(caption))), round(top + height + _PAD + _LINE))
    _caption(made, caption)
    scale = _DIVERGING if low < 0 < high else _SEQUENTIAL
    if scale is _DIVERGING:  # white is zero
        low, high = -max(-low, high), max(-low, high)
    colours = _colours(real, low, high, scale)
    made.cells(left, top, width, height, colours)
    made.rect(left - 0.5, top - 0.5, width + 1, height + 1, stroke=_AXIS)
    for i in sorted({0, rows - 1} if not written else set(range(rows))):
        made.text(left - 6, top + height * (i + 0.5) / rows, str(i), "end", _AXIS)
    for j in sorted({0, columns - 1} if not written else set(range(columns))):
        made.text(left + width * (j + 0.5) / columns, top - _LINE / 2, str(j), "middle", _AXIS)
    if written:
        for (i, j), x in np.ndenumerate(real):
            where = left + width * (j + 0.5) / columns, top + height * (i + 0.5) / rows
            made.text(*where, _short(x), "middle", _readable(colours[i, j]))
    _legend(made, left + width + 20, top, max(height, 60.0), low, high, scale)
    return made


def _averaged(values: Array, most: int) -> Array:
    """Not more than so many rows and columns: each cell is the mean of those that it stands for."""
    for axis in (0, 1):
        size = values.shape[axis]
        if size > most:
            edges = np.linspace(0, size, most + 1).astype(np.int64)[:-1]
            counts = np.diff(np.append(edges, size))
            sums = np.add.reduceat(values, edges, axis=axis)
            values = sums / (counts[:, None] if axis == 0 else counts)
    return values


def _colours(values: Array, low: float, high: float, scale: tuple[Colour, ...]) -> Array:
    """Each value's colour; those beyond the ends have the colour of the end."""
    at = np.full(values.shape, 0.5) if low == high else _at(np.clip(values, low, high), low, high)
    stops = np.linspace(0, 1, len(scale))
    nan = np.isnan(values)
    at = np.where(nan, 0.0, at)
    channels = [np.interp(at, stops, [colour[c] for colour in scale]) for c in range(3)]
    colours = np.stack(channels, axis=-1).round().astype(np.uint8)
    colours[nan] = _NAN
    return colours


def _legend(
    made: Drawing, x: float, y: float, height: float, low: float, high: float, scale: tuple[Colour, ...]
) -> None:
    """The colours from low to high, upwards."""
    ramp = np.linspace(high, low, 64).reshape(-1, 1)
    made.cells(x, y, 14, height, _colours(ramp, low, high, scale))
    made.rect(x - 0.5, y - 0.5, 15, height + 1, stroke=_AXIS)
    if low == high:
        made.text(x + 20, y + height / 2, _short(low))
        return
    made.text(x + 20, y + FONT / 2, _short(high))
    made.text(x + 20, y + height - FONT / 2, _short(low))
    if low < 0 < high:
        made.text(x + 20, y + height / 2, "0")
    made.height = max(made.height, round(y + height + _PAD))


def _readable(colour: Array) -> Colour:
    """Black or white, whichever stands out."""
    red, green, blue = (float(c) for c in colour)
    return BLACK if 0.3 * red + 0.59 * green + 0.11 * blue > 130 else (255, 255, 255)


# ---------------------------------------------------------------- line


def _line(title: str, values: Array, form: str) -> Drawing:
    """Values over their index."""
    if values.ndim > 1:
        raise _not_drawn(LINE, "at most one dimension", values)
    real, said = _real(values.reshape(-1))
    caption = [title + said, _summary(real)]
    known = np.isfinite(real)
    if not known.any():
        return _words([*caption, "there is nothing to draw"])
    low, high = _range(real)
    made, box = _axes(caption, (low, high), (0, max(len(real) - 1, 1)), whole=True)
    left, top, width, height = box
    low, high = _spread(low, high)
    x = left + width * (np.arange(len(real)) / max(len(real) - 1, 1))
    if len(real) == 1:
        x = np.array([left + width / 2])
    y = top + height * (1 - _at(np.where(known, real, low), low, high))
    if len(real) > 2 * width:
        x, y, known = _envelope(x, y, known, int(width))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False])).astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start > 1:
            made.line(list(zip(x[start:end].tolist(), y[start:end].tolist(), strict=True)), _INK, 2)
        if end - start == 1 or len(real) <= 60:
            for at in range(start, end):
                made.rect(float(x[at]) - 2, float(y[at]) - 2, 5, 5, fill=_INK)
    return made


def _envelope(x: Array, y: Array, known: Array, columns: int) -> tuple[Array, Array, Array]:
    """The lowest and highest point of each column of pixels: what a line through all of them would cover."""
    edges = np.linspace(0, len(y), columns + 1).astype(np.int64)[:-1]
    lowest = np.minimum.reduceat(np.where(known, y, np.inf), edges)
    highest = np.maximum.reduceat(np.where(known, y, -np.inf), edges)
    there = np.repeat(np.logical_or.reduceat(known, edges), 2)
    ends = np.stack((lowest, highest), axis=1).reshape(-1)
    return np.repeat(x[edges], 2), ends, there


# ---------------------------------------------------------------- histogram


def _histogram(title: str, values: Array, form: str) -> Drawing:
    """How many values lie where."""
    real, said = _real(values.reshape(-1))
    caption = [title + said, _summary(real)]
    finite = real[np.isfinite(real)]
    if not finite.size:
        return _words([*caption, "there is nothing to draw"])
    low, high = float(finite.min()), float(finite.max())
    whole = values.dtype.kind in "biu" and high - low < MOST_BINS
    if whole:  # one bin for each number
        edges = np.arange(round(low), round(high) + 2) - 0.5
    else:
        first, last = _spread(low, high) if low == high else (low, high)
        bins = max(5, min(MOST_BINS, math.isqrt(finite.size) + 1))
        edges = 2 * np.linspace(first / 2, last / 2, bins + 1)
    counts, _ = np.histogram(finite, edges)
    made, (left, top, width, height) = _axes(
        caption, (0, int(counts.max())), (float(edges[0]), float(edges[-1])), bars=True
    )
    for i, n in enumerate(counts.tolist()):
        if n:
            tall = height * n / counts.max()
            x = left + width * i / len(counts)
            made.rect(x + 0.5, top + height - tall, max(width / len(counts) - 1, 1), tall, fill=_INK)
    return made


# ---------------------------------------------------------------- picture


def _picture(title: str, values: Array, form: str) -> Drawing:
    """The pixels themselves, one for one; alpha on white."""
    if not _is_picture(values.shape, str(values.dtype)):
        raise _not_drawn(PICTURE, "uint8 of height x width x 1, 3 or 4 channels", values)
    rows, columns, channels = values.shape
    most = 4096 if form == "png" else MOST_CELLS["svg"]
    if max(rows, columns) > most:
        step = -(-max(rows, columns) // most)
        values = values[::step, ::step]
    pixels = values[..., :3]
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if channels == 4:
        alpha = values[..., 3:].astype(np.float32) / 255
        pixels = (pixels * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    times = max(1, round(480 / max(rows, columns))) if form == "svg" and max(rows, columns) > most else 1
    made = Drawing(pixels.shape[1] * times, pixels.shape[0] * times)
    made.cells(0, 0, made.width, made.height, pixels)
    return made


_DRAWERS: Mapping[str, Callable[[str, Array, str], Drawing]] = {
    HEATMAP: _heatmap,
    LINE: _line,
    HISTOGRAM: _histogram,
    PICTURE: _picture,
}


# ---------------------------------------------------------------- what they share


def _not_drawn(kind: str, wanted: str, values: Array) -> Invalid:
    return Invalid(
        f"a {kind} is drawn of {wanted}, and this is {values.dtype} of shape {list(values.shape)}",
        code="not-drawn-so",
        hint=Hint("image-how"),
        param="kind",
    )


def _real(values: Array) -> tuple[Array, str]:
    """The values as float64, and what has to be said of that."""
    if np.iscomplexobj(values):
        return np.abs(values).astype(np.float64), ", absolute values"
    return values.astype(np.float64), ""


def _range(values: Array) -> tuple[float, float]:
    """The lowest and highest finite value; 0 and 0 where there is none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _at(x: Any, low: float, high: float) -> Any:
    """Where x stands between low, which is 0, and high, which is 1; halved, as their distance may be no float64."""
    return (x / 2 - low / 2) / (high / 2 - low / 2)


def _spread(low: float, high: float) -> tuple[float, float]:
    """Two ends that differ."""
    if low < high:
        return low, high
    room = abs(low) / 2 or 1.0
    return low - room, high + room


def _summary(values: Array) -> str:
    finite = values[np.isfinite(values)]
    if not finite.size:
        said = ["no finite values"]
    else:
        # Halved, so that the sum of very large values is no infinity.
        mean = 2 * float(np.mean(finite / 2))
        said = [f"min {_short(finite.min())}", f"max {_short(finite.max())}", f"mean {_short(mean)}"]
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    return "   ".join([*said, *([f"NaN: {nan}"] if nan else []), *([f"inf: {infinite}"] if infinite else [])])


def _short(value: Any) -> str:
    text = f"{float(value):.4g}"
    return "0" if text == "-0" else text


def _width(lines: list[str]) -> float:
    return max(len(line) for line in lines) * LETTER + 2 * _PAD


def _caption(made: Drawing, lines: list[str]) -> None:
    for number, line in enumerate(lines):
        made.text(_PAD, _PAD + number * _LINE, line, colour=BLACK if number == 0 else _AXIS)


def _words(lines: list[str]) -> Drawing:
    """A picture of words alone."""
    made = Drawing(round(_width(lines)), 2 * _PAD + _LINE * len(lines))
    _caption(made, lines)
    return made


def _axes(
    caption: list[str], y: tuple[float, float], x: tuple[float, float], *, whole: bool = False, bars: bool = False
) -> tuple[Drawing, tuple[float, float, float, float]]:
    """A frame with ticks from `y` and `x`; the rectangle inside it. `whole`: x counts. `bars`: y begins at 0."""
    low, high = y if bars else _spread(*y)
    y_ticks = _ticks(low, high, whole=bars)
    x_ticks = _ticks(*x, whole=whole)
    left = _PAD + max(len(_short(tick)) for tick in y_ticks) * LETTER + 8
    top, (width, height) = _PAD + _LINE * len(caption), _PLOT
    made = Drawing(round(max(left + width + 2 * _PAD, _width(caption))), round(top + height + _LINE + _PAD))
    _caption(made, caption)
    for tick in y_ticks:
        at = top + height * (1 - _at(tick, low, high))
        made.line([(left, at), (left + width, at)], _FAINT)
        made.text(left - 6, at, _short(tick), "end", _AXIS)
    for tick in x_ticks:
        at = left + width * _at(tick, *x)
        made.line([(at, top + height), (at, top + height + 4)], _AXIS)
        made.text(at, top + height + _LINE - 4, f"{tick:g}" if whole else _short(tick), "middle", _AXIS)
    made.rect(left - 0.5, top - 0.5, width + 1, height + 1, stroke=_AXIS)
    return made, (left, top, float(width), float(height))


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Some five round numbers from low to high."""
    span = high / 5 - low / 5
    power = 10.0 ** math.floor(math.log10(span)) if span else 0.0
    if not power:  # as good as no range
        return [low]
    step = next((power * times for times in (1, 2, 5) if power * times >= span), power * 10)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step)
    ticks = [step * k for k in range(first, first + 12) if step * k <= high + step * 1e-9]
    return ticks or [low]

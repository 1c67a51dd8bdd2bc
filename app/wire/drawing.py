"""A drawing of rectangles, lines, words and coloured cells, and how it is written: image/svg+xml or image/png.

Coordinates are in pixels from the top left. Only presentation attributes are used in SVG: the pages' policy allows no
styles, scripts or embedded pictures, and there are none.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PNG = "image/png"
SVG = "image/svg+xml"
FONT = 12  # pixels high
LETTER = 7.3  # no letter of the fonts is wider than this, but for a few capitals

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
BLACK: Colour = (0, 0, 0)


@dataclass(slots=True)
class _Rect:
    x: float
    y: float
    w: float
    h: float
    fill: Colour | None
    stroke: Colour | None


@dataclass(slots=True)
class _Line:
    points: Points
    colour: Colour
    width: float


@dataclass(slots=True)
class _Text:
    x: float
    y: float  # of the middle of the letters
    text: str
    anchor: str  # start, middle, end
    colour: Colour


@dataclass(slots=True)
class _Cells:
    x: float
    y: float
    w: float
    h: float
    colours: np.ndarray[Any, Any]  # rows x columns x 3, uint8


@dataclass(slots=True)
class Drawing:
    """What is drawn, in this order, on a white ground."""

    width: int
    height: int
    parts: list[_Rect | _Line | _Text | _Cells] = field(default_factory=list)

    def rect(
        self, x: float, y: float, w: float, h: float, fill: Colour | None = None, stroke: Colour | None = None
    ) -> None:
        self.parts.append(_Rect(x, y, w, h, fill, stroke))

    def line(self, points: Points, colour: Colour = BLACK, width: float = 1.0) -> None:
        self.parts.append(_Line(points, colour, width))

    def text(self, x: float, y: float, text: str, anchor: str = "start", colour: Colour = BLACK) -> None:
        self.parts.append(_Text(x, y, text, anchor, colour))

    def cells(self, x: float, y: float, w: float, h: float, colours: np.ndarray[Any, Any]) -> None:
        """A grid of coloured cells that fills the rectangle."""
        self.parts.append(_Cells(x, y, w, h, colours))

    # ------------------------------------------------------------ as SVG

    def svg(self) -> bytes:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="{FONT}">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        for part in self.parts:
            if type(part) is _Rect:
                look = f'fill="{_hex(part.fill)}" stroke="{_hex(part.stroke)}"'
                lines.append(
                    f'<rect x="{part.x:.2f}" y="{part.y:.2f}" width="{part.w:.2f}" height="{part.h:.2f}" {look}/>'
                )
            elif type(part) is _Line:
                points = " ".join(f"{x:.2f},{y:.2f}" for x, y in part.points)
                look = f'stroke="{_hex(part.colour)}" stroke-width="{part.width:g}"'
                lines.append(f'<polyline points="{points}" fill="none" {look}/>')
            elif type(part) is _Text:
                where = f'x="{part.x:.2f}" y="{part.y + FONT * 0.35:.2f}" text-anchor="{part.anchor}"'
                lines.append(f'<text {where} fill="{_hex(part.colour)}">{escape(part.text)}</text>')
            elif type(part) is _Cells:
                lines += _svg_cells(part)
        return "\n".join([*lines, "</svg>", ""]).encode()

    # ------------------------------------------------------------ as PNG

    def png(self) -> bytes:
        picture = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(picture)
        font = ImageFont.load_default(FONT)
        for part in self.parts:
            if type(part) is _Rect:
                corner = part.x + max(part.w - 1, 0), part.y + max(part.h - 1, 0)
                draw.rectangle((part.x, part.y, *corner), fill=part.fill, outline=part.stroke)
            elif type(part) is _Line:
                draw.line([(x, y) for x, y in part.points], fill=part.colour, width=max(1, round(part.width)))
            elif type(part) is _Text:
                anchor = {"start": "lm", "middle": "mm", "end": "rm"}[part.anchor]
                draw.text((part.x, part.y), part.text, fill=part.colour, font=font, anchor=anchor)
            elif type(part) is _Cells and part.colours.size:
                grid = Image.fromarray(np.ascontiguousarray(part.colours, np.uint8))
                size = max(1, round(part.w)), max(1, round(part.h))
                picture.paste(grid.resize(size, Image.Resampling.NEAREST), (round(part.x), round(part.y)))
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()


def _hex(colour: Colour | None) -> str:
    return "none" if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)


def _svg_cells(part: _Cells) -> list[str]:
    """The cells, those beside each other that have one colour as one rectangle."""
    rows, columns = part.colours.shape[:2]
    found = []
    # Without it the seams between cells shine through.
    found.append('<g shape-rendering="crispEdges">')
    for i in range(rows):
        row = part.colours[i]
        top, height = part.y + part.h * i / rows, part.h / rows
        starts = [0, *(np.flatnonzero((row[1:] != row[:-1]).any(axis=-1)) + 1).tolist(), columns]
        for start, end in pairwise(starts):
            if end > start:
                where = f'x="{part.x + part.w * start / columns:.2f}" y="{top:.2f}"'
                size = f'width="{part.w * (end - start) / columns:.2f}" height="{height:.2f}"'
                found.append(f'<rect {where} {size} fill="{_hex(tuple(row[start].tolist()))}"/>')
    return [*found, "</g>"]

"""image/svg+xml: the tape behind a tensor as a picture, from the result at the top down to the leaves.

Each node stands one row below the lowest of those that use it, so every edge points down. Only presentation attributes
are used: the pages' policy allows no styles and no scripts, and there are none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

MEDIA_TYPE = "image/svg+xml"
MOST = 1000  # nodes that are drawn; the picture says how many more there are
_ROW, _GAP, _PAD, _LINE = 84, 24, 16, 15  # in pixels
_LETTER = 7.3  # the width of one letter of the font
_LONGEST = 60  # letters of a line
_FILL = {"leaf": "#dcefdc", "node": "#e3ebf7", "freed": "#eeeeee"}

Box = tuple[float, float, float, float]  # left, top, width, height


def graph(given: Mapping[str, Any]) -> str:
    """The picture of the answer to GET /v1/tensors/{id}/graph."""
    nodes = {node["id"]: node for node in given["nodes"][:MOST]}
    edges = [edge for edge in given["edges"] if edge["from"] in nodes and edge["to"] in nodes]
    boxes, width, height = _placed(nodes, edges)
    left_out = len(given["nodes"]) - len(nodes)
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for edge in edges:
        x, y, w, h = boxes[edge["from"]]
        to_x, to_y, to_w, _ = boxes[edge["to"]]
        start, end = x + w / 2, to_x + to_w / 2
        middle = (y + h + to_y) / 2
        path = f"M{start:.1f},{y + h:.1f} C{start:.1f},{middle:.1f} {end:.1f},{middle:.1f} {end:.1f},{to_y:.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="#667788"/>')
        parts.append(f'<path d="M{end - 4:.1f},{to_y - 7:.1f} h8 l-4,7 z" fill="#667788"/>')
    for key, node in nodes.items():
        parts += _box(boxes[key], _lines(node), _FILL[_kind(node)])
    if left_out or given.get("truncated"):
        more = f"{left_out} more nodes are not drawn" if left_out else "the tape goes on"
        parts.append(f'<text x="{_PAD}" y="{height - 8:.0f}">{more}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _kind(node: Mapping[str, Any]) -> str:
    return "leaf" if "tensor" in node else "freed" if node.get("freed") else "node"


def _lines(node: Mapping[str, Any]) -> list[str]:
    lines = [str(node["name"])]
    if node.get("tensor") is not None:
        lines.append(str(node["tensor"]))
    if node.get("shapes"):
        lines.append(" ".join(str(list(shape)) for shape in node["shapes"]))
    if node.get("saved_bytes"):
        lines.append(f"saves {node['saved_bytes']} bytes")
    return [line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…" for line in lines]


def _placed(
    nodes: Mapping[str, Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Box], float, float]:
    """Where each box is, and the size of the picture."""
    level = dict.fromkeys(nodes, 0)
    users: dict[str, list[str]] = {key: [] for key in nodes}
    for edge in edges:
        users[edge["to"]].append(edge["from"])
    # A node's number is higher than those of the nodes that it uses; leaves have none and use nothing.
    for key in sorted(nodes, key=lambda key: -nodes[key].get("seq", -1)):
        level[key] = max((level[user] + 1 for user in users[key]), default=0)
    rows: dict[int, list[str]] = {}
    for key in nodes:
        rows.setdefault(level[key], []).append(key)
    sizes = {key: _size(_lines(node)) for key, node in nodes.items()}
    spans = {at: sum(sizes[key][0] + _GAP for key in row) - _GAP for at, row in rows.items()}
    width = max(spans.values()) + 2 * _PAD
    boxes: dict[str, Box] = {}
    for at, row in rows.items():
        x = (width - spans[at]) / 2
        for key in row:
            w, h = sizes[key]
            boxes[key] = (x, _PAD + at * (_ROW + _LINE), w, h)
            x += w + _GAP
    return boxes, max(width, 260), max(y + h for _, y, _, h in boxes.values()) + _PAD + _LINE


def _size(lines: Sequence[str]) -> tuple[float, float]:
    return max(len(line) for line in lines) * _LETTER + 16, len(lines) * _LINE + 10


def _box(box: Box, lines: Sequence[str], fill: str) -> list[str]:
    x, y, w, h = box
    found = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="5" fill="{fill}" stroke="#667788"/>']
    for number, line in enumerate(lines):
        where = f'x="{x + w / 2:.1f}" y="{y + 17 + number * _LINE:.1f}"'
        found.append(f'<text {where} text-anchor="middle">{escape(line)}</text>')
    return found

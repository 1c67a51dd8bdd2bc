"""The tape as a picture: what is drawn, where, and that names stay text."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import httpx

from app.wire import svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text: str) -> tuple[list[str], list[tuple[float, float, float, float]]]:
    """The texts of a picture, and its boxes."""
    root = ET.fromstring(text)
    size = (float(root.attrib["width"]), float(root.attrib["height"]))
    boxes = []
    for rect in root.iter(f"{SVG}rect"):
        if "rx" in rect.attrib:
            x, y, w, h = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            assert x >= 0
            assert x + w <= size[0]
            assert y >= 0
            assert y + h <= size[1]
            boxes.append((x, y, w, h))
    return [element.text or "" for element in root.iter(f"{SVG}text")], boxes


def leaf(key: str, name: str) -> dict[str, Any]:
    return {"id": key, "name": "AccumulateGrad", "tensor": name, "shapes": [[2]], "saved_bytes": 0}


def node(key: str, seq: int) -> dict[str, Any]:
    return {"id": key, "name": "AddBackward0", "op": "add", "seq": seq, "shapes": [[2]], "saved_bytes": 8}


def test_boxes_do_not_overlap_and_edges_point_down() -> None:
    nodes = [node("n3", 3), node("n2", 2), node("n1", 1), leaf("leaf:t1", "w"), leaf("leaf:t2", "b")]
    pairs = [("n3", "n2"), ("n3", "n1"), ("n2", "n1"), ("n1", "leaf:t1"), ("n2", "leaf:t2")]
    edges = [{"from": a, "to": b, "output": 0} for a, b in pairs]
    texts, boxes = drawn(svg.graph({"nodes": nodes, "edges": edges, "truncated": False}))
    top = dict(zip([n["id"] for n in nodes], (box[1] for box in boxes), strict=True))
    assert all(top[a] < top[b] for a, b in pairs)
    for i, (x, y, w, h) in enumerate(boxes):
        for other in boxes[:i]:
            apart = x >= other[0] + other[2] or other[0] >= x + w
            assert apart or y >= other[1] + other[3] or other[1] >= y + h
    assert texts.count("saves 8 bytes") == 3


def test_names_are_text() -> None:
    text = svg.graph({"nodes": [leaf("leaf:t1", "<script>&\"'")], "edges": [], "truncated": False})
    assert "<script" not in text
    assert "<script>&\"'" in drawn(text)[0]


def test_a_huge_tape_is_drawn_in_part() -> None:
    nodes = [node(f"n{i}", i) for i in range(svg.MOST + 5, 0, -1)]
    edges = [{"from": f"n{i}", "to": f"n{i - 1}", "output": 0} for i in range(svg.MOST + 5, 1, -1)]
    texts, boxes = drawn(svg.graph({"nodes": nodes, "edges": edges, "truncated": False}))
    assert len(boxes) == svg.MOST
    assert texts[-1] == "5 more nodes are not drawn"


def test_the_graph_of_a_tensor_as_svg(http: httpx.Client) -> None:
    http.post("/v1/tensors", json={"data": [1.0], "requires_grad": True, "name": "w"})
    http.post("/v1/ops/exp", json={"input": "w", "out_name": "e"})
    answer = http.get("/v1/tensors/e/graph", headers={"Accept": "image/svg+xml"})
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert {"ExpBackward0", "w"} <= set(drawn(answer.text)[0])
    assert drawn(http.get("/v1/tensors/w/graph?as=svg").text)[1]

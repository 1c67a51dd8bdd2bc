"""The tape behind a tensor, as nodes and edges."""

from __future__ import annotations

from typing import Any

from engine.tape import FREED, Node
from engine.tensor import Tensor

GRAPH_LIMIT = 10_000


def graph_of(t: Tensor) -> dict[str, Any]:
    """{"root", "nodes", "edges", "saved_bytes", "truncated"}: at most GRAPH_LIMIT nodes, those nearest first."""
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    seen: set[str] = set()
    root = _node_id(t.edge[0] if t.edge is not None else t)
    stack: list[Any] = [t.edge[0] if t.edge is not None else t]
    total = 0
    while stack and len(nodes) < GRAPH_LIMIT:
        thing = stack.pop()
        label = _node_id(thing)
        if label in seen:
            continue
        seen.add(label)
        if type(thing) is Tensor:
            nodes.append(
                {
                    "id": label,
                    "name": "AccumulateGrad",
                    "tensor": thing.name or thing.id,
                    "shapes": [list(thing.shape)],
                    "saved_bytes": 0,
                }
            )
            continue
        total += thing.saved_bytes
        nodes.append(
            {
                "id": label,
                "name": thing.grad_fn,
                "op": thing.op.name,
                "seq": thing.seq,
                "saved_bytes": thing.saved_bytes,
                "freed": thing.saved is FREED,
                "shapes": [list(s.shape) for s in thing.outs if s is not None],
            }
        )
        for e in thing.edges:
            if e is None:
                continue
            target, output = e if type(e) is tuple else (e, 0)
            edges.append({"from": label, "to": _node_id(target), "output": output})
            stack.append(target)
    return {"root": root, "nodes": nodes, "edges": edges, "saved_bytes": total, "truncated": bool(stack)}


def _node_id(thing: Any) -> str:
    return f"n{thing.seq}" if type(thing) is Node else f"leaf:{thing.id or id(thing)}"

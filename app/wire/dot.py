"""text/vnd.graphviz: the tape behind a tensor as a DOT graph, drawn from the result down to the leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MEDIA_TYPE = "text/vnd.graphviz"


def write(graph: Mapping[str, Any]) -> str:
    """The graph of the answer to GET /v1/tensors/{id}/graph."""
    lines = ["digraph tape {", "  node [shape=box, fontname=monospace];"]
    for node in graph["nodes"]:
        label = [str(node["name"])]
        if node.get("shapes"):
            label.append(" ".join(str(list(shape)) for shape in node["shapes"]))
        if node.get("saved_bytes"):
            label.append(f"saves {node['saved_bytes']} bytes")
        lines.append(f"  {_quoted(node['id'])} [label={_quoted(*label)}];")
    for edge in graph["edges"]:
        output = f" [label={_quoted(edge['output'])}]" if edge.get("output") else ""
        lines.append(f"  {_quoted(edge['from'])} -> {_quoted(edge['to'])}{output};")
    return "\n".join([*lines, "}", ""])


def _quoted(*parts: object) -> str:
    """A DOT string of the parts, one below the other."""
    escaped = (str(part).replace("\\", "\\\\").replace('"', '\\"') for part in parts)
    return '"' + "\\n".join(escaped) + '"'

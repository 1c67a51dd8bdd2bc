"""Writes tutorial.json: what PyTorch prints, or raises, for the PyTorch code of docs/tutorial/source.

    python tests/data/make_tutorial.py        needs torch (2.13, for the CPU) and NumPy

A chapter's snippets run one after another, as a reader would type them; the value of a last expression is printed. What
needs a CUDA device is left out.
"""

import ast
import contextlib
import io
import json
import tomllib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "docs" / "tutorial" / "source"


def printed(code, names):
    """The output of a snippet, as the Python prompt shows it."""
    statements = ast.parse(code).body
    last = statements.pop() if isinstance(statements[-1], ast.Expr) else None
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(ast.Module(statements, []), "snippet", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "snippet", "eval"), names) if last else None
        prints = last is not None and isinstance(last.value, ast.Call) and ast.unparse(last.value.func) in PRINTERS
        if last is not None and not prints and value is not None:
            print(value)
    return out.getvalue().rstrip("\n")


PRINTERS = ("print", "describe")


def main():
    found = {}
    names = {}
    for path in sorted(SOURCES.glob("*.toml")):
        kept = {name: names[name] for name in ("describe",) if name in names}
        names = {"torch": torch, "np": np, **kept}
        told = found[path.stem] = []
        for part in tomllib.loads(path.read_text("utf-8"))["part"]:
            for item in part["item"]:
                if "torch" not in item or "port" in part:
                    continue
                code = item["torch"].strip("\n")
                try:
                    told.append({"code": code, "printed": printed(code, names)})
                except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, AssertionError) as error:
                    told.append({"code": code, "raised": str(error)})
    (HERE / "tutorial.json").write_text(json.dumps(found, indent=1) + "\n")


main()

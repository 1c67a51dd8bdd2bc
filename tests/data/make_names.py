"""Writes torch_names.json: how PyTorch's functions are called. Run with a Python that has torch.

{name: [signature, ...]}, the names as in PyTorch without the leading "torch." ("add", "nn.functional.relu",
"linalg.inv", "special.expit"); methods of Tensor stand under their own name, and `self` is called `input`. A signature
is "input, other, *, alpha=1", defaults as JSON, from the Python signature where there is one, from the schemas of the
operators, and from the first lines of the documentation. A default that is no plain value is written as "?".
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

# What no operation here takes: where the result goes, how it lies in memory, and in which order kernels run.
LEFT_OUT = {
    "out",
    "generator",
    "layout",
    "pin_memory",
    "memory_format",
    "names",
    "implicit",
    "is_coalesced",
    "driver_hint",
    "class_",
    "cls",
    "foreach",
}
PLACES = (
    ("", torch, ("",)),
    ("", torch.Tensor, ("",)),
    ("nn.functional.", torch.nn.functional, ("", "nn_functional_")),
    ("linalg.", torch.linalg, ("linalg_",)),
    ("special.", torch.special, ("special_",)),
    ("fft.", torch.fft, ("fft_",)),
    ("signal.windows.", torch.signal.windows, ()),
    ("autograd.", torch.autograd, ()),
    ("nn.init.", torch.nn.init, ()),
    ("nn.utils.", torch.nn.utils, ()),
    ("nn.utils.rnn.", torch.nn.utils.rnn, ()),
    ("autograd.functional.", torch.autograd.functional, ()),
    ("cuda.", torch.cuda, ()),
)


def plain(value: Any) -> str:
    if isinstance(value, torch.dtype):
        return json.dumps(str(value).removeprefix("torch."))
    if isinstance(value, tuple):
        value = list(value)
    try:
        return json.dumps(value)
    except TypeError:
        return '"?"'


def text(params: list[tuple[str, bool, bool, Any]]) -> str:
    """(name, keyword only, has default, default) as one line."""
    parts, starred = [], False
    for name, keyword, has_default, default in params:
        if name in LEFT_OUT:
            continue
        if keyword and not starred:
            parts.append("*")
            starred = True
        name = "input" if name == "self" else name
        parts.append(f"{name}={plain(default)}" if has_default else name)
    return ", ".join(parts)


def from_python(f: Any) -> Iterator[str]:
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return
    kinds = inspect.Parameter
    if any(p.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD) for p in signature.parameters.values()):
        return
    yield text(
        [
            (p.name, p.kind is kinds.KEYWORD_ONLY, p.default is not kinds.empty, p.default)
            for p in signature.parameters.values()
        ]
    )


def from_schemas(name: str, schemas: dict[str, list[Any]]) -> Iterator[str]:
    for schema in schemas.get(name, ()):
        if schema.overload_name.endswith("out") or any(a.is_out for a in schema.arguments):
            continue
        yield text([(a.name, a.kwarg_only, a.has_default_value(), a.default_value) for a in schema.arguments])


def from_words(f: Any, name: str) -> Iterator[str]:
    """ "add(input, other, *, alpha=1, out=None) -> Tensor", as the documentation begins."""
    for found in re.finditer(rf"(?m)^(?:.*\.)?{re.escape(name)}\(([^\n]*)\) -> ", f.__doc__ or ""):
        params, keyword = [], False
        try:
            parsed = ast.parse(f"def f({found[1]}): pass").body[0].args  # type: ignore[attr-defined]
        except SyntaxError:
            continue
        every = [*parsed.args, *parsed.kwonlyargs]
        defaults = [None] * (len(parsed.args) - len(parsed.defaults)) + parsed.defaults + parsed.kw_defaults
        for i, (a, d) in enumerate(zip(every, defaults, strict=True)):
            keyword = i >= len(parsed.args)
            try:
                default = None if d is None else ast.literal_eval(d)
            except ValueError:
                default = ast.unparse(d).removeprefix("torch.") if d is not None else None
            params.append((a.arg, keyword, d is not None, default))
        yield text(params)


def main() -> None:
    schemas: dict[str, list[Any]] = {}
    for schema in torch._C._jit_get_all_schemas():
        if schema.name.startswith("aten::"):
            schemas.setdefault(schema.name.removeprefix("aten::"), []).append(schema)
    names: dict[str, list[str]] = {}
    for prefix, place, stems in PLACES:
        for name in dir(place):
            f = getattr(place, name, None)
            if name.startswith("_") or isinstance(f, type) or not callable(f):
                continue
            found = names.setdefault(prefix + name, [])
            sources = [from_python(f), from_words(f, name), *(from_schemas(s + name, schemas) for s in stems)]
            for source in sources:
                found.extend(line for line in source if line not in found)
            if place is torch.Tensor:  # the documentation of a method leaves `self` out
                found.extend(
                    f"input, {line}".removesuffix(", ")
                    for line in from_words(f, name)
                    if not line.startswith("input") and f"input, {line}".removesuffix(", ") not in found
                )
    body = ",\n".join(f"{json.dumps(n)}: {json.dumps(s)}" for n, s in sorted(names.items()) if s)
    target = Path(__file__).with_name("torch_names.json")
    target.write_text("{\n" + f'"torch": {json.dumps(torch.__version__.partition("+")[0])},\n' + body + "\n}\n")


if __name__ == "__main__":
    main()

"""Makes docs/reference: a page for each family of operations, from the registry and from running them; `make docs`.

Words come from the declarations: the docstring, the parameters. The rest is asked of the engine: shapes and dtypes of
its metas, in a dry run for every dtype; gradients by running backward passes over backward passes; the example's
request by sending it to the application, in process. So nothing on a page was written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from engine.answer import ArrayData, TensorAnswer
from engine.declare import catalogue, example_of, example_value
from engine.dtypes import DTYPES
from engine.errors import EngineError
from engine.op import INPLACE, REGISTRY, SPECIAL, Op
from engine.samples import S, T
from engine.session import Session
from scripts.tutorial import PORT, PRACTICE_PORT, Played

ORDERS = 3  # gradients of gradients that are tried
TEXT_ROWS = 12  # lines of an answer's text that are shown
REALS = ("float32", "float64", "float16", "bfloat16")

INDEX = """# Reference

<!-- Made by `make docs` from the declarations in engine/ops; edit those. -->

{count} operations in {families} families, by the names they have after `torch.` or `torch.Tensor.` in PyTorch: one name
stands for the function and for the method. Where PyTorch differs, [docs/fidelity.md](../fidelity.md) says so.
`GET /v1/ops/{{name}}` tells the same as data, and `/docs` lets you try it. NumPy's names for parameters are taken where
PyTorch's parser takes them: `axis` for `dim`, `keepdims` for `keepdim`, `x`, `a` or `x1` for `input`, `x2` for `other`.

Each entry has

- the call, with the defaults; what `x_` is to `x` stands with `x`: it changes the tensor `input`, which keeps its id;
- the formula, and what there is to know;
- **shapes** of its samples, and what becomes of them;
- **dtypes**: what the result has for each dtype of the operands; dtypes that are not named are refused;
- **gradient**: its `grad_fn`, what the tape keeps for it, and whether there are gradients of gradients: those up to the
  third order were run;
- an example: a request, and what the service answered when this page was made, printed as PyTorch prints it.

**∇**: has a gradient. **view**: shares memory with its input. **in place**: changes its input."""


# --- one call in a session of its own ---------------------------------------------------------------------------------


def run(steps: list[dict[str, Any]], inputs: Mapping[str, Any], returns: Sequence[str], *, dry: bool = False) -> Any:
    """The results of a program."""
    running = Session("reference", seed=0).run(
        {"inputs": dict(inputs), "steps": steps, "return": list(returns)},
        values="none" if dry else "all",
        dry_run=dry,
    )
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value["results"]


class Called:
    """A sample of an operation as a program's step: its tensors are inputs, made by `make` from each `T`."""

    def __init__(self, op: Op, sample: S) -> None:
        self.op = op
        self.tensors: dict[str, T] = {}
        bound = {**dict(zip(op.names, sample.args, strict=False)), **sample.kwargs}
        self.args = {name: self._read(value) for name, value in bound.items()}

    def _read(self, value: Any) -> Any:
        if isinstance(value, T):
            name = f"x{len(self.tensors)}"
            self.tensors[name] = value
            return name
        if isinstance(value, list | tuple):
            return [self._read(item) for item in value]
        if isinstance(value, dict):
            return {key: self._read(item) for key, item in value.items()}
        return {"re": value.real, "im": value.imag} if isinstance(value, complex) else value

    def open(self) -> list[str]:
        """The tensors whose dtype the sample leaves open; where there is none, those of the first one's dtype."""
        free = [name for name, t in self.tensors.items() if t.dtype is None]
        first = next(iter(self.tensors.values()), None)
        return free or [name for name, t in self.tensors.items() if first is not None and t.dtype == first.dtype]

    @property
    def step(self) -> dict[str, Any]:
        head = _public(self.op)
        return {"op": head, "args": self.args, "out": {"whole": "y"}}


def _public(op: Op) -> str:
    """The name by which a client calls an operation: an overload's is that of all."""
    return next((name for name, head in REGISTRY.items() if op in head.overloads), op.name)


def _ones(t: T, dtype: str) -> dict[str, Any]:
    stored = "uint16" if dtype == "bfloat16" else dtype
    return {"data": ArrayData(np.ones(t.shape, stored), dtype)}


def _flat(found: Any) -> list[TensorAnswer]:
    if isinstance(found, TensorAnswer):
        return [found]
    if isinstance(found, dict):
        found = list(found.values())
    return [t for item in found for t in _flat(item)] if isinstance(found, list) else []


def samples_of(op: Op) -> list[S]:
    """What the declaration gives to try."""
    return list(op.samples()) if op.samples is not None else []


# --- what the engine says of an operation -----------------------------------------------------------------------------


def shapes(op: Op) -> list[str]:
    """`[3, 2], [2] → [3, 2]` for each sample, the result's from its meta."""
    found: dict[str, None] = {}
    for sample in samples_of(op):
        call = Called(op, sample)
        if not call.tensors:
            continue
        inputs = {name: _ones(t, t.dtype or "float32") for name, t in call.tensors.items()}
        try:
            result = run([call.step], inputs, ["y"], dry=op.kind != SPECIAL)["y"]
        except EngineError:
            continue  # a sample of numbers that ones are not: a refusal says nothing of shapes
        outs = _flat(result)
        if outs:
            given = ", ".join(str(list(t.shape)) for t in call.tensors.values())
            found[f"{given} → {', '.join(str(list(t.shape)) for t in outs)}"] = None
    return list(found)


def dtypes(op: Op) -> list[str]:
    """What the results have for each dtype of the operands: `float16 → float16`, those alike together."""
    for sample in samples_of(op):
        call = Called(op, sample)
        free = call.open()
        if not free:
            continue
        made: dict[str, tuple[str, ...] | None] = {}
        for dtype in DTYPES:
            inputs = {n: _ones(t, dtype if n in free else t.dtype or "float32") for n, t in call.tensors.items()}
            try:
                outs = _flat(run([call.step], inputs, ["y"], dry=op.kind != SPECIAL)["y"])
            except EngineError:
                made[dtype] = None
                continue
            made[dtype] = tuple("the same" if t.dtype == dtype else t.dtype for t in outs)
        if any(made.values()):
            return _grouped(made)
    return []


def _grouped(made: Mapping[str, tuple[str, ...] | None]) -> list[str]:
    """Dtypes with the same answer in one line, refused ones last."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for dtype, outs in made.items():
        if outs:
            groups.setdefault(tuple(dict.fromkeys(outs)) if len(set(outs)) == 1 else outs, []).append(dtype)
    lines = [
        f"{_listed(names)} → {', '.join(w if w == 'the same' else f'`{w}`' for w in outs)}"
        for outs, names in groups.items()
    ]
    refused = [dtype for dtype, outs in made.items() if outs is None]
    return lines + ([f"refused: {_listed(refused)}"] if refused else [])


def _listed(names: Sequence[str]) -> str:
    return "every dtype" if len(names) == len(DTYPES) else " ".join(f"`{name}`" for name in names)


def gradient(op: Op) -> str:
    """grad_fn, what is kept for it, and the orders that can be had, by running them."""
    if not op.differentiable:
        return "none"
    for sample in samples_of(op):
        call = Called(op, sample)
        wanted = [n for n, t in call.tensors.items() if t.dtype is None and t.grad]
        if not wanted or any(0 in t.shape for t in call.tensors.values()):
            continue
        inputs = {}
        for i, (name, t) in enumerate(call.tensors.items()):
            data = example_value(t, 3 * i)
            body = dict(data) if isinstance(data, dict) else {"data": data, "dtype": t.dtype or "float32"}
            inputs[name] = {**body, "requires_grad": True} if name in wanted else body
        said = _differentiated(call, inputs, wanted)
        if said:
            return said
    return "yes"


def _differentiated(call: Called, inputs: Mapping[str, Any], wanted: list[str]) -> str | None:
    steps = [call.step]
    if call.op.kind == INPLACE:  # a leaf that requires grad is not changed in place
        steps = [{"op": "clone", "args": {"input": n}, "out": f"c{n}"} for n in wanted]
        steps.append({**call.step, "args": {k: f"c{v}" if v in wanted else v for k, v in call.args.items()}})
    try:
        outs = _flat(run(steps, inputs, ["y"])["y"])
    except EngineError:
        return None
    recorded = [t for t in outs if t.requires_grad and t.grad_fn]
    if not recorded:
        return None
    order = _orders(steps, inputs, wanted, outs)
    parts = [f"`{'`, `'.join(dict.fromkeys(t.grad_fn or '' for t in recorded))}`"]
    if call.op.vjp is not None and call.op.save:
        kept = [f"that of `{name}` needs {_names(names)}" for name, names in call.op.save.items() if names]
        parts += kept or ["keeps nothing"]
    elif call.op.vjp is not None:
        parts.append("keeps nothing")
    else:
        parts.append("made of other operations, which keep what they need")
    parts.append("every order" if order == ORDERS else f"order {order} at most" if order else "by backward passes")
    return "; ".join(parts)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" if name != "result" else "the result" for name in names)


def _orders(
    steps: list[dict[str, Any]], inputs: Mapping[str, Any], wanted: list[str], outs: Sequence[TensorAnswer]
) -> int:
    """How often the call can be differentiated, up to ORDERS.

    The result is multiplied with a leaf before each pass, so that a linear operation has a tape to follow as well.
    """
    graded = [i for i, t in enumerate(outs) if t.requires_grad]
    if len(outs) != 1 or not graded or "complex" in outs[0].dtype:
        return 0
    program, order, name = list(steps), 0, "y"
    leaves = dict(inputs)
    shape = outs[0].shape
    for order in range(1, ORDERS + 1):
        leaves[f"v{order}"] = {"data": ArrayData(np.full(shape, 0.5, "float32"), "float32"), "requires_grad": True}
        program += [
            {"op": "mul", "args": {"input": name, "other": f"v{order}"}, "out": "m"},
            {"op": "sum", "args": {"input": "m"}, "out": "s"},
            {
                "op": "autograd.grad",
                "args": {"outputs": ["s"], "inputs": [wanted[0]], "create_graph": True, "allow_unused": True},
                "out": [f"g{order}"],
            },
        ]
        try:
            found = run(program, leaves, [f"g{order}"])[f"g{order}"]
        except EngineError:
            return order - 1
        if found is None or not found.requires_grad:  # the gradients beyond are zero, unless the first was not
            zero = found is None or found.values is None or not found.values.any()
            return ORDERS if order > 1 or zero else order
        name, shape = f"g{order}", found.shape
    return order


# --- pages ------------------------------------------------------------------------------------------------------------


def signature(op: Op, name: str) -> str:
    """`add(input, other, alpha=1)`."""
    params = (p.name if p.required else f"{p.name}={shown(p.default)}" for p in op.params)
    return f"{name}({', '.join(params)})"


def shown(default: Any) -> str:
    """A default as JSON has it."""
    if isinstance(default, float) and default in (float("inf"), float("-inf")):
        return "Infinity" if default > 0 else "-Infinity"
    if isinstance(default, complex):
        return json.dumps({"re": default.real, "im": default.imag})
    return json.dumps(default) if default is None or isinstance(default, bool | str | list | tuple) else str(default)


def traits(entry: Mapping[str, Any]) -> str:
    """The words of the index that hold for an operation."""
    words = (("∇", "differentiable"), ("view", "view"), ("in place", "inplace"))
    return " ".join(word for word, key in words if entry[key])


def example(name: str, made: Op, played: Played) -> Iterator[str]:
    """The request, and what the service answers; an operation that needs a GPU is asked of the practice server."""
    body = example_of(made)
    text = json.dumps(body, ensure_ascii=False)
    for port in (PORT, PRACTICE_PORT):
        server = f"http://127.0.0.1:{port}/v1"
        played.request("DELETE", f"{server}/sessions/default")
        played.request("POST", f"{server}/ops/manual_seed", json={"seed": 0})
        response, again = (played.request("POST", f"{server}/ops/{name}", json=body) for _ in range(2))
        if response.json().get("code") != "no-such-device":
            break
    if response.status_code != 200:
        raise ValueError(f"the example of {name}: {response.status_code} {response.text}")
    yield f"\n```sh\ncurl {server}/ops/{name} -d '{text}'\n```\n"
    result = response.json()["result"]
    if not isinstance(result, dict | list) and result != again.json()["result"]:
        lines = ["(another one each time)"]
    else:
        lines = "\n".join(_answer("", result, server, played)).splitlines()
    if len(lines) > TEXT_ROWS:
        lines = [*lines[:TEXT_ROWS], "…"]
    yield "```text\n" + "\n".join(lines) + "\n```\n"


def _answer(label: str, result: Any, server: str, played: Played) -> Iterator[str]:
    """A result: tensors as text, what is a plain value as JSON."""
    if isinstance(result, dict) and "shape" in result and "dtype" in result:
        said = played.request("GET", f"{server}/tensors/{result['id']}?as=text").text.rstrip("\n")
        yield f"{label}{said}"
    elif isinstance(result, dict) and any(isinstance(v, dict | list) for v in result.values()):
        for key, value in result.items():
            yield from _answer(f"{key}: ", value, server, played)
    elif isinstance(result, list) and any(isinstance(v, dict) for v in result):
        for i, value in enumerate(result):
            yield from _answer(f"{label}[{i}]: ", value, server, played)
    else:
        yield f"{label}{json.dumps(result, ensure_ascii=False)}"


def entry_lines(name: str, made: Op, entry: Mapping[str, Any], played: Played) -> Iterator[str]:
    """One operation."""
    yield f"## {name}\n"
    variants = made.overloads or [made]
    twin = REGISTRY.get(name + "_")
    for variant in variants:
        for paragraph in ([f"`{signature(variant, name)}`"], variant.doc.split("\n\n")):
            yield from (f"{words}\n" for words in paragraph if words)
    facts = []
    aliases = [alias for alias in made.aliases if alias != name]
    if aliases:
        facts.append(f"also called {', '.join(f'`{alias}`' for alias in aliases)}")
    if twin is not None and twin.functional is made:
        facts.append(f"in place: `{signature(twin, twin.name)}`")
    if entry["view"]:
        facts.append("a view: the result shares the memory of its input")
    told = {p.name: p for variant in variants for p in variant.params}
    facts += [f"`{p.name}` ({p.type}): {p.doc}" for p in told.values() if p.doc]
    sizes = list(dict.fromkeys(line for v in variants for line in shapes(v)))
    if sizes:
        facts.append("**shapes**: " + "; ".join(f"`{line}`" for line in sizes))
    kinds = [dtypes(v) for v in variants]
    kinds = [lines for at, lines in enumerate(kinds) if lines and lines not in kinds[:at]]
    facts += ["**dtypes**: " + "; ".join(lines) for lines in kinds]
    slopes = list(dict.fromkeys(gradient(v) for v in variants))
    facts.append("**gradient**: " + " · ".join(slopes))
    yield "\n".join(f"- {fact}" for fact in facts)
    yield from example(name, variants[0], played)


def pages() -> dict[str, str]:
    """Every page, by its path in docs/."""
    entries = {e["name"]: e for e in catalogue()}
    first: dict[int, str] = {}  # aliases and in-place forms stand with the operation
    for name in sorted(entries, key=lambda n: (n != REGISTRY[n].name, n)):
        first.setdefault(id(REGISTRY[name]), name)
    heads = sorted(first.values(), key=lambda n: (entries[n]["family"], n))
    heads = [n for n in heads if not _is_twin(n, first)]
    made: dict[str, str] = {}
    parts = [INDEX.format(count=len(entries), families=len({e["family"] for e in entries.values()}))]
    with Played() as played:
        for family, members in groupby(heads, key=lambda n: entries[n]["family"]):
            names = list(members)
            file = f"{family}.md"
            parts.append(f"\n## {family}\n\n| operation | | |\n| --- | --- | --- |")
            for name in names:
                entry = entries[name]
                summary = entry["summary"].replace("|", "\\|")
                parts.append(f"| [{_short(name, entry)}]({file}#{_slug(name)}) | {traits(entry)} | {summary} |")
                parts += [
                    f"| `{other}` | {traits(entries[other])} | {_stands_for(other, name)} |"
                    for other in _others(name, entries)
                ]
            lines = [
                f"# {family}\n",
                "<!-- Made by `make docs` from the declarations in engine/ops; edit those. -->\n",
                "[All operations](README.md)\n",
            ]
            for name in names:
                lines += entry_lines(name, REGISTRY[name], entries[name], played)
            made[f"reference/{file}"] = "\n".join(lines).rstrip() + "\n"
    made["reference/README.md"] = "\n".join(parts) + "\n"
    return made


def _is_twin(name: str, first: Mapping[int, str]) -> bool:
    """Whether this is `x_` and `x` has an entry to stand with."""
    op = REGISTRY[name]
    return op.kind == INPLACE and op.functional is not None and first.get(id(op.functional)) == name.removesuffix("_")


def _others(name: str, entries: Mapping[str, Any]) -> list[str]:
    """The aliases of an operation, its in-place form and the aliases of that."""
    op = REGISTRY[name]
    twin = REGISTRY.get(name + "_")
    mine = [op, twin] if twin is not None and twin.functional is op else [op]
    return sorted(other for other in entries if other != name and REGISTRY[other] in mine)


def _stands_for(other: str, name: str) -> str:
    return f"in-place form of `{name}`" if other.endswith("_") and not name.endswith("_") else f"`{name}`"


def _short(name: str, entry: Mapping[str, Any]) -> str:
    params = ", ".join(p["name"] if p["required"] else f"{p['name']}={shown(p['default'])}" for p in entry["params"])
    return f"`{name}({params})`"


def _slug(name: str) -> str:
    """The anchor that code hosts give the heading `## name`."""
    return name.lower().replace(".", "")

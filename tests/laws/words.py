"""What every operation says of itself: documentation, examples, and PyTorch's names, parameters and defaults.

`torch_names.json` beside the other golden data has PyTorch's signatures; `make_names.py` there writes it.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from engine.declare import catalogue, example_of
from engine.errors import EngineError
from engine.op import COMPOSITE, INPLACE, PRIMITIVE, REGISTRY, VIEW, Op
from engine.session import Session
from tests.engine.programs import run
from tests.laws.excluded import OWN, OWN_PARAMETERS
from tests.laws.harness import DEVICES, Broken

GOLDEN = Path(__file__).parent.parent / "data" / "torch_names.json"
Param = tuple[str, Any]  # name, and the default or REQUIRED
REQUIRED = "required"
DTYPE_NUMBERS = {4: "int64"}  # a default dtype in a schema is c10's number


@cache
def torch_names() -> dict[str, list[str]]:
    return json.loads(GOLDEN.read_text("utf-8"))  # type: ignore[no-any-return]


def public() -> list[str]:
    return sorted(name for name, op in REGISTRY.items() if not op.internal)


# ---------------------------------------------------------------- names


def parse(signature: str) -> list[Param]:
    """The parameters of a line of torch_names.json."""
    found: list[Param] = []
    for part in re.split(r", (?=[a-zA-Z_*])(?![^\[]*\])", signature):
        name, eq, default = part.partition("=")
        if name not in ("*", ""):
            found.append((name, json.loads(default) if eq else REQUIRED))
    return found


def ours(op: Op) -> list[Param]:
    return [(p.name, REQUIRED if p.required else _value(p.default)) for p in op.params]


def _value(default: Any) -> Any:
    if isinstance(default, tuple | list):
        return [_value(x) for x in default]
    return default


def names_are_torchs(name: str) -> None:
    """The name exists in PyTorch, and for every way to call the operation PyTorch has one with these parameters, in
    this order, with these defaults."""
    if name in OWN:
        return
    known = torch_names()
    base = name if name in known else None
    if base is None:
        raise Broken(f"{name}: PyTorch has no such function")
    op = REGISTRY[name]
    for variant in op.overloads or [op]:
        have = ours(variant)
        signatures = [parse(line) for line in known[base]]
        why = [_unlike(have, want, name) for want in signatures]
        if all(why) and (several := _unlike_all(have, signatures, name)):
            why.append(several)
            shown = "; ".join(sorted({w for w in why if w}, key=len)[:3])
            raise Broken(f"{name}({_shown(have)}): not as in PyTorch, which has {known[base]}: {shown}")


def _shown(params: list[Param]) -> str:
    return ", ".join(n if d is REQUIRED else f"{n}={d!r}" for n, d in params)


def _unlike(have: list[Param], want: list[Param], op: str) -> str | None:
    """Why a signature is not PyTorch's; None where it is."""
    own = {"requires_grad", *OWN_PARAMETERS.get(op, {})}
    have = [(n, d) for n, d in have if n not in own]
    want = [(n, d) for n, d in want if n not in own]
    if [n for n, _ in have] != [n for n, _ in want]:
        return f"parameters {', '.join(n for n, _ in want)}"
    for (n, d), (_, t) in zip(have, want, strict=True):
        if n == "dtype" and isinstance(t, int):
            t = DTYPE_NUMBERS.get(t, t)
        if t == "?":
            continue
        if (d is REQUIRED) != (t is REQUIRED) or not _equal(d, t):
            return f"{n} is {'required' if t is REQUIRED else repr(t)}"
    return None


def _unlike_all(have: list[Param], signatures: list[list[Param]], op: str) -> str | None:
    """Why one operation cannot stand for several of PyTorch's overloads at once; None where it does.

    Every parameter is one of theirs, in an order that agrees with theirs; where some overload does without it, it may
    be left out, by the default that another overload has, or null.
    """
    own = OWN_PARAMETERS.get(op, {})
    have = [(n, d) for n, d in have if n not in own and n != "requires_grad"]
    for n, d in have:
        theirs = [dict(s)[n] for s in signatures if n in dict(s)]
        if not theirs:
            return f"no overload has {n}"
        defaults = [t for t in theirs if t is not REQUIRED]
        optional = any(n not in dict(s) for s in signatures)
        if d is REQUIRED:
            if defaults and len(defaults) == len(theirs) and not optional:
                return f"{n} has the default {defaults[0]!r}"
        elif d is None and (optional or None in defaults or n == "dtype"):
            continue
        elif not any(_equal(d, DTYPE_NUMBERS.get(t, t) if n == "dtype" else t) for t in defaults):
            return f"{n} has the default {defaults[0]!r}" if defaults else f"{n} is required"
    order = [n for n, _ in have]
    for s in signatures:
        shared = [n for n, _ in s if n in order]
        if len(shared) == len(order) and shared != order:
            continue
        if shared == [n for n in order if n in shared]:
            break
    else:
        return "another order"
    missing = [n for n, d in max(signatures, key=len) if n not in order and d is REQUIRED and n not in own]
    return (
        f"PyTorch requires {missing[0]}"
        if missing and not any(not _missing(s, order, own) for s in signatures)
        else None
    )


def _missing(signature: list[Param], order: list[str], own: Any) -> list[str]:
    return [n for n, d in signature if n not in order and d is REQUIRED and n not in own]


def _equal(a: Any, b: Any) -> bool:
    if {repr(a), repr(b)} == {"None", "[]"}:  # a schema writes an int list that was left out as []
        return True
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if isinstance(b, list) and isinstance(a, int | float):  # a schema writes stride=1 as [1, 1]
        return bool(b) and all(_equal(a, x) for x in b)
    return bool(a == b) and (type(a) is type(b) or {type(a), type(b)} <= {int, float})


# ---------------------------------------------------------------- documents


def is_documented(name: str) -> None:
    """An operation has a summary, a family, a word on every parameter, and an example or a sample to make one of."""
    op = REGISTRY[name]
    entry = next(e for e in entries() if e["name"] == name)
    missing = []
    if not re.fullmatch(r"\S.{3,}[.:!?)]", entry["summary"]):
        missing.append(f"a summary that is a sentence (it has {entry['summary']!r})")
    if not entry["family"]:
        missing.append("a family")
    if missing_docs := [p["name"] for p in entry["params"] if not p["doc"]]:
        missing.append(f"words on {', '.join(missing_docs)}")
    if not entry["example"] and any(p["required"] for p in entry["params"]):
        missing.append("an example or a sample")
    for variant in op.overloads or [op]:
        if variant.kind == PRIMITIVE and not variant.vjp_stated:
            missing.append("a gradient rule, or a word that there is none")
        if variant.kind == VIEW and variant.vjp is None and not variant.vjp_stated:
            missing.append("a gradient rule")
        if variant.kind in (PRIMITIVE, VIEW, COMPOSITE) and not (variant.samples and variant.samples()):
            missing.append(f"samples of {variant.name}")
        if variant.kind == INPLACE and (variant.functional is None or variant.functional.kernel is None):
            missing.append("the operation that it is the in-place form of")
    if missing:
        raise Broken(f"{name} lacks {'; '.join(missing)}")


@cache
def entries() -> list[dict[str, Any]]:
    return catalogue()


def example_runs(name: str) -> None:
    """The documented example works, as it stands."""
    op = REGISTRY[name]
    variant = (op.overloads or [op])[0]
    session = Session("example", seed=0, devices=DEVICES)
    try:
        run(session, {"op": name, "args": example_of(variant)}, values="none")
    except EngineError as e:
        raise Broken(f"{name} {json.dumps(example_of(variant))[:300]}: {e}") from e

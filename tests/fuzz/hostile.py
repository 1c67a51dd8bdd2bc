"""Programs that are often wrong, over the whole registry: a call that works, with some of its arguments exchanged.

`program(rng, store)` makes one from any `random.Random`, also from hypothesis's, which then shrinks it. What arguments
are exchanged for is a closed pool of what goes wrong: sizes that are negative, none or enormous, NaN and infinities
where integers go, lists nested otherwise, references to nothing, tensors of other dtypes and layouts.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from random import Random
from typing import Any

from engine import declare
from engine.errors import Bug, EngineError
from engine.limits import Limits
from engine.session import Session
from tests.engine.programs import floats, run, state, step

Json = dict[str, Any]

# Small, so that a program which asks for much is refused and none takes long.
LIMITS = Limits(session_bytes=16 << 20, server_bytes=64 << 20, max_steps=50, max_rounds=50, max_run=500, max_nesting=3)

INTEGERS = (0, 1, -1, 2, -2, 3, 5, 7, 64, 100, -100, 65_537, 10**6, 10**9, 2**31 - 1, 2**31, -(2**31), 2**32)
HUGE = (2**53 + 1, 10**12, -(10**12), 2**62, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.5, 2.5, 1e-320, 1e10, 1e38, 1e39, 1e300, -1e300)
CONSTANTS = ("NaN", "Infinity", "-Infinity", {"float": 1}, {"re": 1.5, "im": -2.5}, {"re": "NaN", "im": 0})
WORDS = ("", "sum", "mean", "none", "x", "nope", "t1", "t999", "x.grad", "float32", "int64", "bool", "complex64")
MORE_WORDS = ("bfloat16", "cpu", "cuda:0", "reflect", "linear", "same", "ij,jk->ik", "...", "i...i->", "1:", "::-1")
LISTS: tuple[Any, ...] = ([], [[]], [[], []], [1, [2]], [[1.5], [2.5, 3.5]], [None], [True, False], [0], [0, 0], [1, 1])
SIZES: tuple[Any, ...] = (
    [-1],
    [-1, -1],
    [2, 3],
    [3, 2],
    [0, 3],
    [10**9, 10**9],
    [2**62, 4],
    [2**31],
    [1] * 70,
    [2] * 20,
)
NESTED: tuple[Any, ...] = (
    {},
    {"data": 1},
    {"data": [], "dtype": "int64"},
    {"data": [1], "dtype": "nope"},
    {"a": 1},
    [{}],
)

# What a session holds before each program, by name: dtypes and layouts that operations meet.
TENSORS: dict[str, Json] = {
    "f": step("tensor", **floats(2, 3)),
    "cube": step("tensor", **floats(2, 3, 4, seed=1)),
    "square": step("tensor", **floats(3, 3, seed=2)),
    "double": step("tensor", data=[0.5, -1.5, 2.5], dtype="float64"),
    "half": step("tensor", data=[[0.5, -1.5], [65504.0, 6e-8]], dtype="float16"),
    "brain": step("tensor", data=[0.5, -1.5, 3e38], dtype="bfloat16"),
    "i": step("tensor", data=[0, 2, 1], dtype="int64"),
    "far": step("tensor", data=[2**63 - 1, -(2**63), -1], dtype="int64"),
    "bytes": step("tensor", data=[[0, 255], [1, 2]], dtype="uint8"),
    "mask": step("tensor", data=[[True, False, True], [False, True, False]], dtype="bool"),
    "z": step("tensor", data=[[1.5, 2.5], [-0.5, 0.0]], dtype="complex64"),
    "zero": step("tensor", data=1.5),
    "count": step("tensor", data=3, dtype="int64"),
    "none": step("zeros", size=[0, 3]),
    "wild": step("tensor", data=["NaN", "Infinity", "-Infinity", 0.0, -0.0], dtype="float32"),
    "leaf": step("tensor", **floats(2, 3, seed=3), requires_grad=True),
    "made": step("mul", input="leaf", other=2.0),
    "turned": step("transpose", input="cube", dim0=0, dim1=2),
    "part": step("getitem", input="turned", index=["1:", "::2"]),
    "wide": step("expand", input="zero", size=[4, 5]),
    "same": step("as_strided", input="f", size=[2, 2], stride=[1, 1]),
    "picture": step("reshape", input=floats(1, 2, 5, 5, seed=4), shape=[1, 2, 5, 5]),
}


@cache
def entries() -> tuple[Json, ...]:
    """Every operation of the catalogue."""
    return tuple(sorted(declare.catalogue(), key=lambda entry: str(entry["name"])))


def session() -> Session:
    """A session that holds `TENSORS`."""
    made = Session("s", seed=0, limits=LIMITS)
    named = [{**call, "out": name} for name, call in TENSORS.items()]
    run(made, *named, keep={name: name for name in TENSORS}, values="none")
    run(made, step("sum", "total", input="leaf"), step("backward", input="total"), values="none")
    return made


def number(rng: Random) -> Any:
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(INTEGERS)
    return rng.choice(HUGE if kind == 4 else FLOATS if kind < 7 else CONSTANTS)


def anything(rng: Random) -> Any:
    """An argument of no particular kind."""
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(tuple(TENSORS))
    if kind < 6:
        return number(rng)
    if kind == 6:
        return rng.choice(WORDS + MORE_WORDS)
    if kind == 7:
        return copy.deepcopy(rng.choice(LISTS))
    if kind == 8:
        return list(rng.choice(SIZES))
    if kind == 9:
        return rng.choice((None, True, False))
    if kind == 10:
        return copy.deepcopy(rng.choice(NESTED))
    return [anything(rng) for _ in range(rng.randrange(4))]


def fitting(rng: Random, type_: str) -> Any:
    """An argument of a parameter's type, though perhaps of a wrong value."""
    if rng.randrange(6) == 0:
        return anything(rng)
    if "list of Tensors" in type_ and rng.randrange(2):
        return [rng.choice(tuple(TENSORS)) for _ in range(rng.randrange(5))]
    if "Tensor" in type_:
        return rng.choice(tuple(TENSORS))
    if "list of ints" in type_ and rng.randrange(3):
        return [rng.choice(INTEGERS) for _ in range(rng.randrange(5))]
    if type_.startswith(("list of float", "floats")):
        return [rng.choice(FLOATS) for _ in range(rng.randrange(4))]
    if "int" in type_:
        return rng.choice(INTEGERS + HUGE)
    if "float" in type_ or "Number" in type_:
        return number(rng)
    if "bool" in type_:
        return rng.choice((True, False))
    if "dtype" in type_:
        return rng.choice(("float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64", "nope"))
    if " | " in type_:
        return rng.choice(type_.removesuffix(" or null").split(" | "))
    return anything(rng)


def call(rng: Random, out: str) -> Json:
    """A step: an operation's own example, with none, some or all of its arguments exchanged, left out or added."""
    entry = rng.choice(entries())
    args = copy.deepcopy(dict(entry["example"]))
    chance = rng.choice((0.15, 0.3, 0.6, 1.0))
    for param in entry["params"]:
        name = param["name"]
        if rng.random() >= (chance if name in args else chance / 3):
            continue
        what = rng.randrange(12)
        if what == 0:
            args.pop(name, None)
        elif what == 1 and isinstance(args.get(name), list):
            args[name] = [args[name]]
        else:
            args[name] = fitting(rng, param["type"])
    if rng.randrange(40) == 0:
        args[rng.choice(("", "nope", "self", "out", "dim"))] = anything(rng)
    made = {"op": entry["name"], "args": args, "out": out}
    if rng.randrange(8) == 0:
        made["out"] = [out, f"{out}b", None][: rng.randrange(4)]
    if rng.randrange(12) == 0:
        made["no_grad"] = True
    return made


def program(rng: Random) -> Json:
    """One to four calls, which may use what came before, sometimes in a repeat, sometimes with wrong fields."""
    steps: list[Json] = []
    for n in range(rng.choice((1, 1, 1, 2, 3, 4))):
        made = call(rng, f"r{n}")
        if steps and rng.randrange(2) and made["args"]:
            made["args"][rng.choice(sorted(made["args"]))] = f"r{n - 1}"
        if rng.randrange(10) == 0:
            made = {"repeat": rng.choice((0, 1, 3, 9, 50, 51, -1, 2.5)), "steps": [made]}
        steps.append(made)
    whole: Json = {"steps": steps}
    if rng.randrange(6) == 0:
        whole["return"] = [rng.choice(("r0", "f", "leaf.grad", "nope", "r0", "made"))]
    if rng.randrange(6) == 0:
        name = rng.choice(("kept", "kept", "kept", "f", "f", "", "a b", "t1", "x" * 300, 1))
        whole["keep"] = {rng.choice(("r0", "f", "nope")): name}
    if rng.randrange(10) == 0:
        whole["inputs"] = {rng.choice(("a", "f", "f", "")): anything(rng)}
    if rng.randrange(30) == 0:
        whole[rng.choice(("no_grad", "strict", "expect", "detect_anomaly", "nope", "if_none_match"))] = anything(rng)
    return whole


def run_as_worker(session: Session, program: Json, how: int = 0) -> EngineError | None:
    """Runs a program as a worker does, `how` says whether dry, explained or with values; what it was refused with.

    Fails where that is a bug, cannot be sent, or has left anything behind in the session.
    """
    before = state(session)
    values = "all" if how % 3 == 0 else "none"
    try:
        for _ in session.run(program, values=values, dry_run=how % 11 == 5, explain=how % 13 == 6):
            pass
    except EngineError as error:
        # As the worker does: a traceback holds the frames of the program, and they its tensors.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        refused = error
    else:
        return None
    assert not isinstance(refused, Bug), refused.detail
    assert refused.code not in ("error", "internal-error")
    json.dumps(refused.to_data())
    assert state(session) == before, f"{refused.detail}: and the session is not as it was"
    return refused

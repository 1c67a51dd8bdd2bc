"""The way of single operations (engine.single) beside the general one: the same call sent both ways gives equal
answers, errors, records, generators, histories and sessions, bit for bit, whatever it asks for."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.commit import whole
from engine.durability.records import payload_of
from engine.durability.store import commit_payload
from engine.errors import EngineError, OutOfMemory
from engine.limits import Limits
from engine.op import REGISTRY
from engine.session import Session
from engine.workers.messages import Codec
from engine.workers.replies import Replies
from tests.laws.harness import Case, operations, samples_of
from tests.laws.undoing import as_json, public_name

HEAD = {"session": "s", "n": 1, "at": 0.0, "call": "c", "key": None, "reply": b"", "short": None}
CHUNKS = 8


def head() -> dict[str, Any]:
    return {"is": "commit", **HEAD}


def record(commit: Any) -> bytes | None:
    """A commit as it would be written."""
    return None if commit is None else b"".join(bytes(part) for part in commit_payload(head(), commit))


def packed(reply: Any) -> bytes:
    body, blobs = Codec().pack({"ok": reply})
    return body + b"".join(blob.tobytes() for blob in blobs)


def full() -> OutOfMemory:
    return OutOfMemory("the disk is full", code="disk-full")


def generally(session: Session, program: Any, values: str, *, refused: bool) -> Any:
    """What a call comes to by the general way; `refused`: its commit cannot be written."""
    commits: list[Any] = []
    session.on_commit = commits.append
    written = None
    try:
        running = session.run(program, values=values)
        while True:
            try:
                if next(running) is not None:
                    written = record(commits.pop())
                    if refused:
                        running.throw(full())
            except StopIteration as end:
                return "done", packed(end.value), written
    except EngineError as problem:
        return "refused", problem.to_data(), written


def shortly(session: Session, program: Any, values: str, *, refused: bool, alone: bool = True) -> Any:
    """The same by its own way; None where that leaves it to the general one."""
    try:
        single = session.single(program, values, journal=True, alone=alone)
    except EngineError as problem:
        return "refused", problem.to_data(), None
    if single is None:
        return None
    written = record(single.commit)
    answer = packed(single.reply)
    if single.fields is not None:
        ok, kept = Replies().single(single.fields)
        assert b"\x81\xa2ok" + ok == answer
        assert kept == Replies().pack(single.reply, keyed=False)[0]
    if refused and single.commit is not None:
        single.take_back()
        return "refused", full().to_data(), written
    single.keep()
    return "done", answer, written


def everything(session: Session) -> dict[str, Any]:
    """All of a session that a later call, a start or a caller could tell."""
    ctx = session.ctx
    return {
        "whole": b"".join(bytes(part) for part in payload_of({}, whole(session))),
        "order": [list(session.names), list(session.tensors)],
        "history": repr(session.history.to_data()),
        "tally": session.tally.to_data(),
        "ran": session.progress(),
        "held": ctx.ledger.held,
        "tape": session.count_tape_from,
        "grad": ctx.grad_enabled,
        "undo": (ctx.undo.empty, ctx.undo.start_seq),
    }


class Both:
    """Two sessions that are told the same, each by its own way."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.general, self.short = (Session("s", seed=5, limits=self.limits, incarnation="00") for _ in range(2))
        self.taken = self.left = 0

    def load(self, inputs: dict[str, Any]) -> None:
        """Tensors for both of them, as a program of the general way."""
        for session in (self.general, self.short):
            program = {"inputs": copy.deepcopy(inputs), "steps": [], "keep": {name: name for name in inputs}}
            assert generally(session, program, "none", refused=False)[0] == "done"

    def call(self, program: Any, values: str = "auto", *, refused: bool = False) -> Any:
        """Sends a call both ways; what it came to."""
        expected = generally(self.general, copy.deepcopy(program), values, refused=refused)
        found = shortly(self.short, copy.deepcopy(program), values, refused=refused)
        if found is None:
            self.left += 1
            found = generally(self.short, copy.deepcopy(program), values, refused=refused)
        else:
            self.taken += 1
        if expected[2] is None or expected[0] == "refused":  # a record that was not kept may say what it likes
            assert found[:2] == expected[:2], program
        else:
            assert found == expected, program
        return expected

    def check(self) -> None:
        assert everything(self.short) == everything(self.general)


def one(op: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The program of one operation, as the route makes it."""
    program: dict[str, Any] = {"steps": [{"op": op, "args": args, "out": {"whole": "r"}}], "return": ["r"]}
    if "name" in more:
        program["keep_all"] = {"r": more.pop("name")}
    return {**program, **more}


# ---------------------------------------------------------------- every operation


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_operation_by_both_ways(chunk: int) -> None:
    """By reference and by value, with and without a name, with gradients wanted or not."""
    taken = left = 0
    for name in operations()[chunk::CHUNKS]:
        op = REGISTRY[name]
        public = public_name(op)
        if public is None:
            continue
        for number in range(min(3, len(samples_of(name)))):
            case = Case(name, number, "cpu", "float32")
            both = Both()
            inputs = {
                f"l{i}": {
                    "data": ArrayData(np.array(host, order="C", copy=True), d.name),
                    "dtype": d.name,
                    "requires_grad": i in case.floats and number != 1,
                }
                for i, (host, d) in enumerate(case.hosts)
            }
            both.load(inputs)
            spelt = [
                {"data": host.tolist(), "dtype": d.name}
                if d.name not in ("bfloat16", "complex64", "complex128")
                else f"l{i}"
                for i, (host, d) in enumerate(case.hosts)
            ]
            for tensors in ([f"l{i}" for i in range(len(case.hosts))], spelt):
                args = {n: as_json(a) for n, a in zip(op.names, case.fill(tensors), strict=True)}
                for p in op.params:
                    if not p.required and args[p.name] == as_json(p.default):
                        del args[p.name]
                both.call(one(public, args, name="z"))
                both.call(one(public, args, name="z", no_grad=True))
                both.call(one(public, args, name=None), "none")
                both.call(one(public, args, name=["a", None]), "all")
                both.call(one(public, args, name="z", no_grad=True), refused=True)
                both.call(one(public, args, no_grad=True))
            both.check()
            if not op.functions:
                taken, left = taken + both.taken, left + both.left
    assert left < taken / 4, "few are left to the general way: what is refused before it runs"


# ---------------------------------------------------------------- random calls

NAMES = ("a", "b", "c", "w", "v.1", "t7", "nan", "true", "x.grad", "a.grad", "", "한", "NaN")
NUMBERS = (0, 1, -2, 3.5, True, 1e300, 2**63, 2**70, "Infinity", {"re": 1, "im": 2}, {"float": 3}, None, "t1", "t3")
ROWS = (
    [1.0, 2.0, 3.0],
    [4.0, 5.5, 6.0],
    [1, 2, 3],
    [True, False],
    [],
    [[1.0, 2.0], [3.0, 4.0]],
    [[1.0], [2.0, 3.0]],
    [1.0, "NaN"],
    [1.0, "a"],
    [1e39, 2.0],
    {"data": [1.0, 2.0, 3.0], "requires_grad": True},
    {"data": [[1, 2], [3, 4]], "dtype": "float64"},
    {"data": [1.0], "dtype": "bfloat16"},
    {"dtype": "float32"},
    {"data": [1.0], "colour": 3},
)
OPS = (
    *("add", "sub", "mul", "div", "relu", "exp", "sum", "mean", "matmul", "clone", "abs", "max", "eq", "where"),
    *("add_", "mul_", "zero_", "relu_", "exp_", "normal_", "reshape", "view", "transpose", "detach", "contiguous"),
    *("rand", "randn", "randperm", "bernoulli", "zeros", "ones", "full", "arange", "tensor", "empty_like", "topk"),
    *("split", "chunk", "backward", "getitem", "requires_grad_", "manual_seed", "set_default_dtype", "to", "cat"),
    *("nothing", "_release", "_release_unnamed", "nn.functional.dropout", "retain_grad", "item", "std", "resize_"),
)


def argument(rng: random.Random) -> Any:
    return rng.choice(
        (rng.choice(NAMES), rng.choice(NAMES[:5]), rng.choice(NUMBERS), rng.choice(ROWS), rng.choice(ROWS))
    )


def random_call(rng: random.Random, both: Both) -> dict[str, Any]:
    op = rng.choice(OPS)
    found = REGISTRY.get(op)
    names = list(found.names) if found is not None and not found.overloads else ["input", "dim"]
    if found is not None and found.overloads:
        names = list(rng.choice(found.overloads).names)
    args: dict[str, Any] = {}
    for i, name in enumerate(names):
        if rng.random() < (0.95 if i < (2 if found is None else found.required or 1) else 0.15):
            args[name] = argument(rng)
    if op in ("zeros", "ones", "rand", "randn", "full"):
        args["size"] = rng.choice(([2, 3], [3], [], 4, [-1], "a"))
    if op in ("randperm", "arange", "manual_seed"):
        args[names[0]] = rng.choice((3, 5, 0, -1))
    if op == "set_default_dtype":
        args[names[0]] = rng.choice(("float32", "float64", "int64"))
    if rng.random() < 0.04:
        args[rng.choice(("x", "colour", "axis", "alpha"))] = argument(rng)
    more: dict[str, Any] = {}
    if rng.random() < 0.85:
        more["name"] = rng.choice(
            (None, "a", "b", "c", "w", "v.1", "a", "b", rng.choice(NAMES), ["a", "b"], ["a", None, "c"], 7, [3])
        )
    if rng.random() < 0.1:
        more["no_grad"] = rng.choice((True, False, 1))
    if rng.random() < 0.1:
        more["if_none_match"] = rng.choice((True, False, None))
    if rng.random() < 0.1:
        ref = rng.choice(("a", "b", "t1", "none"))
        t = both.general.find(ref)
        tag = both.general.etag(t) if t is not None and rng.random() < 0.7 else "other"
        more["expect"] = rng.choice(({ref: tag}, {ref: tag}, {ref: 3}, {}, None))
    program = one(op, args, **more)
    if rng.random() < 0.02:
        program[rng.choice(("strict", "keep", "colour", "inputs"))] = rng.choice((True, {}, {"r": "q"}, None))
    if rng.random() < 0.02:
        program["steps"][0]["no_grad"] = True
    if rng.random() < 0.01:
        program["steps"] = rng.choice(([], None, [3], program["steps"] * 2))
    return program


@pytest.mark.parametrize("seed", range(40))
def test_random_calls_by_both_ways(seed: int) -> None:
    """Good and bad ones, one after the other, now and then on a disk that is full, or beyond a session's bounds."""
    rng = random.Random(seed)
    tight = seed % 4 == 3
    limits = {"max_names": 4, "max_unnamed": 6, "session_bytes": 700} if tight else {}
    both = Both(**limits)
    both.call(one("tensor", {"data": [1.0, 2.0, 3.0], "requires_grad": True}, name="w"))
    for i in range(200):
        both.call(random_call(rng, both), rng.choice(("auto", "auto", "none", "all")), refused=rng.random() < 0.05)
        if i % 10 == 9:
            both.check()
    assert both.taken > 30


def test_a_run_of_calls_is_taken_back_in_order() -> None:
    """Several operations that are done and not written yet, each on what the one before has made: taken back, the last
    first, they leave nothing; and then they come to the same as at first."""
    rng = random.Random(1)
    for _ in range(60):
        both = Both()
        for name in ("a", "b", "c"):
            both.call(one("tensor", {"data": [rng.random() for _ in range(3)]}, name=name))
        both.call(one("add", {"input": "a", "other": 1.0}, name=None))
        session = both.short
        before = everything(session)
        programs = []
        for _ in range(rng.randint(1, 6)):
            args = {"input": rng.choice("abc"), "other": rng.choice(("a", "b", "c", 2.0))}
            if rng.random() < 0.3:
                programs.append(one("add_", args, name=rng.choice((args["input"], None))))
            else:
                programs.append(one(rng.choice(("add", "mul", "sub")), args, name=rng.choice(("a", "b", "d", None))))
        done = []
        for i, program in enumerate(programs):
            single = session.single(copy.deepcopy(program), "auto", journal=True, alone=not i)
            assert single is not None
            assert single.lasting
            done.append(single)
        records = [record(single.commit) for single in done]
        assert everything(session)["whole"] != before["whole"]
        assert len(done) == len(programs)
        while done:
            done.pop().take_back(failed=False)
        del single  # and with it the tensor that it made
        after = everything(session)
        for found in (before, after):
            found["ran"] = found["tape"] = None  # of the last call, and a bound that only ever comes down
            found["order"] = [sorted(names) for names in found["order"]]
        uids = session.uids
        assert uids == both.general.uids + 2 * sum(p["steps"][0]["op"] != "add_" for p in programs)
        session.uids = both.general.uids  # numbers are not given twice, which is the one thing that is left
        after["whole"] = everything(session)["whole"]
        session.uids = uids
        assert {**after, "whole": len(after["whole"])} == {**before, "whole": len(before["whole"])}
        session.uids = both.general.uids
        for program, written in zip(programs, records, strict=True):
            single = session.single(copy.deepcopy(program), "auto", journal=True)
            assert single is not None
            assert record(single.commit) == written
            single.keep()
            generally(both.general, copy.deepcopy(program), "auto", refused=False)
        assert whole(session).keys() == whole(both.general).keys()
        assert everything(session)["whole"] == everything(both.general)["whole"]


@pytest.mark.parametrize(
    "program",
    [
        one("add_", {"input": "a", "other": 1.0}, name="q"),
        one("add_", {"input": "v", "other": 1.0}, name=None),
        one("reshape", {"input": "a", "shape": [3, 1]}, name="v"),
        one("rand", {"size": [2]}, name="v"),
        one("mul", {"input": "w", "other": 2.0}, name="v"),
        one("add", {"input": "a", "other": [1.0, 2.0]}, name="v"),
        one("add", {"input": "a", "other": 1.0}),
        one("split", {"tensor": "a", "split_size_or_sections": 1}, name="v"),
        one("add", {"input": "a", "other": 1.0}, name="b", if_none_match=True),
    ],
)
def test_what_has_to_wait_for_those_before_it_leaves_no_trace(program: dict[str, Any]) -> None:
    """Behind an operation that is not written yet only plain ones and writes run; all others have not been there."""
    both = Both()
    both.call(one("tensor", {"data": [1.0, 2.0, 3.0]}, name="a"))
    both.call(one("tensor", {"data": [1.0, 2.0, 3.0]}, name="b"))
    both.call(one("tensor", {"data": [1.0, 2.0, 3.0], "requires_grad": True}, name="w"))
    both.call(one("reshape", {"input": "b", "shape": [3, 1]}, name="v"))
    before = everything(both.short)
    assert both.short.single(copy.deepcopy(program), "auto", journal=True, alone=False) is None
    after = everything(both.short)
    assert {**after, "ran": None} == {**before, "ran": None}
    both.call(program)
    both.check()


def test_what_is_kept_of_forms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import single

    monkeypatch.setattr(single, "_FORMS", 8)
    for kept in (single._forms, single._variants, single._names):
        kept.clear()
    both = Both()
    for i in range(40):
        both.call(one(OPS[i % 14], {"input": [1.0], "other": [2.0 + i]}, name=f"n{i}"))
        both.call(one("sum" if i % 2 else "std", {"input": [1.0, 3.0], "dim": 0}, name=f"n{i}"))
    both.check()
    assert len(single._forms) <= 8
    assert len(single._names) <= 8
    assert len(single._variants) <= 8

"""Commits: a session can be rebuilt from them alone, and goes on with equal bits."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from engine.commit import whole
from engine.errors import OutOfMemory
from engine.session import Session
from engine.tape import FREED
from tests.engine.programs import floats, run, state, step

HISTORY: list[dict[str, Any]] = [
    {
        "inputs": {"x": {**floats(4, 3), "requires_grad": True}, "w": {**floats(3, 2, seed=1), "requires_grad": True}},
        "keep": {"x": "x", "w": "w"},
    },
    {"steps": [step("mm", "h", input="x", mat2="w"), step("mul", "h", input="h", other=0.5)], "keep": {"h": "h"}},
    {
        "steps": [step("getitem", "v", input="h", index=["1:3", 0]), step("mul_", input="v", other=3)],
        "keep": {"v": "v"},
    },
    {"steps": [step("sum", "l", input="h")], "keep": {"l": "l"}},
    {"steps": [step("backward", input="l", retain_graph=True)]},
    {"steps": [step("randn", "n", size=[5]), step("nn.functional.dropout", "n", input="n", p=0.5)], "keep": {"n": "n"}},
    {"steps": [step("optim.adam_state", "st", params=["x", "w"])], "keep": {"st": "adam"}},
    {
        "steps": [
            {"repeat": 3, "steps": [step("optim.adam_", params=["x", "w"], grads=["x.grad", "w.grad"], state="adam")]}
        ]
    },
    {
        "steps": [
            step("mm", "h2", input="x", mat2="w"),
            step("mul", "h2", input="h2", other=0.5),
            step("getitem", "v2", input="h2", index=["1:3", 0]),
            step("mul_", input="v2", other=3),
            step("retain_grad", input="h2"),
            step("sum", "l2", input="h2"),
        ],
        "keep": {"h2": "h2", "v2": "v2", "l2": "l2"},
    },
    {"steps": [step("set_default_dtype", d="float64"), step("rand", "d", size=[2])], "keep": {"d": "d"}},
    {"steps": [step("_release", input="n")]},
    {
        "steps": [
            step("cat", "c", tensors=["x", "x"]),
            step("split", ["p", "q", "r"], input="c", split_size_or_sections=3),
        ],
        "keep": {"q": "q"},
    },
    {
        "steps": [step("to", "b", input="x", dtype="bfloat16"), step("mul", "b", input="b", other="b")],
        "keep": {"b": "b"},
    },
]
NEXT: list[dict[str, Any]] = [
    {"steps": [step("backward", input="l2", retain_graph=True)], "return": ["x.grad", "w.grad", "h2.grad"]},
    {
        "steps": [
            step("sum", "s", input="v2"),
            step("sum", "t", input="q"),
            step("add", "s", input="s", other="t"),
            step("to", "u", input="b", dtype="float32"),
            step("sum", "u", input="u"),
            step("add", "s", input="s", other="u"),
            step("backward", input="s"),
        ],
        "return": ["x.grad"],
    },
    {
        "steps": [step("randn", "n", size=[20]), step("randint", "m", high=9, size=[4])],
        "return": ["n", "m"],
        "keep": {"n": "n"},
    },
    {
        "steps": [
            step(
                "optim.adam_",
                params=["w"],
                grads=["w.grad"],
                state={"step": ["adam.step.1"], "exp_avg": ["adam.exp_avg.1"], "exp_avg_sq": ["adam.exp_avg_sq.1"]},
            )
        ],
        "return": ["w", "x", "h", "v", "h2"],
    },
]


def packed(commit: dict[str, Any]) -> bytes:
    """A copy of a commit, whose data are memory of the session."""
    return msgpack.packb(commit, default=bytes)  # type: ignore[no-any-return]


def replay(session: Session, program: dict[str, Any]) -> Any:
    fields = {k + "_" if k == "return" else k: v for k, v in program.items() if k != "steps"}
    return run(session, *program.get("steps", ()), **fields)


def bits(session: Session) -> dict[str, Any]:
    """Values, gradients, tape and generator, as far as a client can ever tell."""
    out: dict[str, Any] = {
        "generator": (session.ctx.rng.get_state(), session.ctx.rng.get_device_state()),
        "names": sorted(session.names),
        "seq": session.ctx.seq,
    }
    out["counter"], out["default"] = session.counter, session.ctx.default_dtype.name
    for key, t in session.tensors.items():
        grad = t.grad
        out[key] = (
            t.uid,
            t.name,
            _bytes(t),
            t.device,
            t.shape,
            t.strides,
            t.offset,
            t.requires_grad,
            t.version,
            None if grad is None else (_bytes(grad), grad.version),
            None if t.edge is None else graph(t.edge[0]),
            None if t.view is None else (t.view.base.uid, len(t.view.steps), t.view.creation, t.view.version),
        )
    aliases: dict[int, list[str]] = {}
    for key, t in session.tensors.items():
        aliases.setdefault(id(t.storage), []).append(key)
    out["aliases"] = sorted(aliases.values())
    return out


def _bytes(t: Any) -> bytes:
    found: bytes = t.backend.to_host(t.array).tobytes()
    return found


def graph(node: Any) -> list[Any]:
    rows, stack, seen = [], [node], set()
    while stack:
        n = stack.pop()
        if n.seq in seen:
            continue
        seen.add(n.seq)
        saved = "freed" if n.saved is FREED else [(n.backend.to_host(row[2]).tobytes(), row[4]) for row in n.saved]
        rows.append((n.seq, n.op.name, n.grad_fn, n.mask, saved))
        stack.extend(e[0] for e in n.edges if type(e) is tuple)
    return sorted(rows)


@pytest.mark.parametrize("upto", range(1, len(HISTORY) + 1))
def test_a_session_is_rebuilt_from_its_commits_and_goes_on_with_equal_bits(upto: int) -> None:
    commits: list[bytes] = []
    session = Session("s", seed=5, on_commit=lambda commit: commits.append(packed(commit)))
    for program in HISTORY[:upto]:
        replay(session, program)
    again = Session.rebuild([msgpack.unpackb(c, strict_map_key=False) for c in commits], "s", seed=5)
    assert bits(again) == bits(session)
    if upto < len(HISTORY):
        return
    for program in NEXT:
        ours, theirs = replay(session, program)["results"], replay(again, program)["results"]
        for name, answer in ours.items():
            assert answer.values.tobytes() == theirs[name].values.tobytes(), name
        assert bits(again) == bits(session)


@pytest.mark.parametrize("upto", range(1, len(HISTORY) + 1))
def test_a_session_is_rebuilt_from_the_whole_of_it(upto: int) -> None:
    session = Session("s", seed=5)
    for program in HISTORY[:upto]:
        replay(session, program)
    kept = packed(whole(session))
    again = Session.rebuild([msgpack.unpackb(kept, strict_map_key=False)], "s", seed=5)
    assert bits(again) == bits(session)
    assert packed(whole(again)) == kept
    assert again.ctx.ledger.held == session.ctx.ledger.held
    if upto < len(HISTORY):
        return
    for program in NEXT:
        ours, theirs = replay(session, program)["results"], replay(again, program)["results"]
        for name, answer in ours.items():
            assert answer.values.tobytes() == theirs[name].values.tobytes(), name
        assert bits(again) == bits(session)


def test_a_rebuilt_session_holds_nothing_that_was_let_go() -> None:
    commits: list[bytes] = []
    session = Session("s", seed=5, on_commit=lambda commit: commits.append(packed(commit)))
    for _ in range(3):
        run(session, step("ones", "big", size=[100_000]), keep={"big": "big"})
    run(session, step("_release", input="big"))
    again = Session.rebuild([msgpack.unpackb(c, strict_map_key=False) for c in commits], "s", seed=5)
    assert again.ctx.ledger.held == session.ctx.ledger.held == 0


def test_what_changed_nothing_makes_no_commit() -> None:
    commits: list[Any] = []
    session = Session("s", seed=5, on_commit=commits.append)
    run(session, step("ones", "x", size=[3]), return_=["x"])
    assert not commits


def test_a_commit_that_cannot_be_kept_is_taken_back() -> None:
    session = Session("s", seed=5, on_commit=lambda commit: None)
    run(session, inputs={"x": floats(2)}, keep={"x": "x"})
    before = state(session)
    running = session.run({"steps": [step("mul_", input="x", other=2)], "return": ["x"]})
    while (reply := next(running)) is None:
        pass
    assert reply["results"]["x"].version == 1
    with pytest.raises(OutOfMemory):
        running.throw(OutOfMemory("the disk is full"))
    assert state(session) == before


def test_a_refused_program_makes_no_commit() -> None:
    commits: list[Any] = []
    session = Session("s", seed=5, on_commit=commits.append)
    run(session, inputs={"x": floats(2)}, keep={"x": "x"})
    with pytest.raises(Exception, match="nosuch"):
        run(session, step("add_", input="x", other=1), step("add", input="nosuch", other=1))
    assert len(commits) == 1


def test_a_commit_holds_only_what_changed() -> None:
    commits: list[Any] = []
    session = Session("s", seed=5, on_commit=commits.append)
    run(session, inputs={"x": floats(100, 100), "y": floats(100, 100)}, keep={"x": "x", "y": "y"})
    run(session, step("getitem", "r", input="x", index=[3]), step("fill_", input="r", value=1))
    last = commits[-1]
    assert last["storages"] == []
    assert [[(low, high) for low, high, _ in w["ranges"]] for w in last["writes"]] == [[(300, 400)]]
    assert last["tensors"] == []

"""Forks: the same in every bit, apart from the first write on, on shared memory until then."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from engine.commit import whole
from engine.errors import EngineError, OutOfMemory
from engine.limits import Limits
from engine.session import Session
from engine.tensor import ServerLedger
from tests.devices import cuda
from tests.engine.test_commit import bits, replay

SETUP: dict[str, Any] = {
    "steps": [
        {"op": "randn", "args": {"size": [64, 64], "requires_grad": True}, "out": "w"},
        {"op": "randn", "args": {"size": [64, 64]}, "out": "x"},
        {"op": "t", "args": {"input": "x"}, "out": "turned"},
        {"op": "mm", "args": {"input": "turned", "mat2": "w"}, "out": "h"},
        {"op": "mul", "args": {"input": "h", "other": "h"}, "out": "h2"},
        {"op": "sum", "args": {"input": "h2"}, "out": "loss"},
        {"op": "backward", "args": {"input": "loss", "retain_graph": True}},
        {"op": "optim.adam_state", "args": {"params": ["w"]}, "out": "state"},
    ],
    "keep": {"w": "w", "x": "x", "turned": "turned", "loss": "loss", "state": "adam"},
}
STEP = {"op": "optim.adam_", "args": {"params": ["w"], "grads": ["w.grad"], "state": "adam"}}
CHANGES: dict[str, dict[str, Any]] = {
    "in place": {"steps": [{"op": "mul_", "args": {"input": "x", "other": 2}}]},
    "through a view": {"steps": [{"op": "fill_", "args": {"input": "turned", "value": 3}}]},
    "an index": {"steps": [{"op": "setitem_", "args": {"input": "x", "index": [3], "value": 1.5}}]},
    "an optimizer": {"steps": [STEP], "no_grad": True},
    "a gradient": {"steps": [{"op": "backward", "args": {"input": "loss"}}]},
    "a planned repeat": {"steps": [{"repeat": 20, "steps": [{"op": "add_", "args": {"input": "x", "other": 0.5}}]}]},
    "all at once": {
        "inputs": {"mine": {"data": [1.0, 2.0]}},
        "steps": [
            {"op": "add_", "args": {"input": "mine", "other": 1}},
            {"op": "randn", "args": {"size": [64, 64]}, "out": "noise"},
            {"op": "backward", "args": {"input": "loss"}},
            {"op": "add_", "args": {"input": "x", "other": "noise"}},
            STEP,
        ],
        "keep": {"mine": "mine"},
    },
}


@pytest.fixture(params=["cpu", "cuda:0"])
def device(request: pytest.FixtureRequest) -> str:
    """Where the sessions are; the CUDA device is simulated, and refuses what CuPy would not do."""
    cuda()
    found: str = request.param
    return found


def there(device: str) -> dict[str, Any]:
    """What a session on the device is made with."""
    return {"device": device, "devices": ("cpu", "cuda:0")}


def pair(server: ServerLedger | None = None, device: str = "cpu") -> tuple[Session, Session]:
    """A session with everything in it, and its fork."""
    source = Session("a", seed=7, server=server, **there(device))
    replay(source, SETUP)
    made = Session("b", seed=99, server=server, incarnation=source.incarnation, **there(device))
    made.fork(source)
    return source, made


def run_on(session: Session, name: str) -> None:
    replay(session, CHANGES[name])


def test_a_fork_is_the_same_in_every_bit(device: str) -> None:
    source, made = pair(device=device)
    assert {t.device for t in made.tensors.values()} == {device}
    assert bits(made) == bits(source)
    assert made.ctx.ledger.held == source.ctx.ledger.held


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("first", ["source", "fork"])
def test_whoever_writes_changes_the_own_alone(name: str, first: str, device: str) -> None:
    source, made = pair(device=device)
    before = bits(source)
    alone = Session("c", seed=7, incarnation=source.incarnation, **there(device))
    replay(alone, SETUP)
    run_on(alone, name)
    one, other = (source, made) if first == "source" else (made, source)
    run_on(one, name)
    assert bits(one) == bits(alone)
    assert bits(other) == before
    run_on(other, name)
    assert bits(other) == bits(alone)
    for _ in range(2):
        for session in (alone, one, other):
            run_on(session, "in place")
            run_on(session, "an optimizer")
    assert bits(one) == bits(other) == bits(alone)


def test_a_program_that_fails_leaves_both_as_they_were(device: str) -> None:
    source, made = pair(device=device)
    before = bits(source)
    failing = {"steps": [*CHANGES["all at once"]["steps"][1:], {"op": "mm", "args": {"input": "w", "mat2": "noise2"}}]}
    with pytest.raises(EngineError):
        replay(made, failing)
    assert bits(made) == bits(source) == before


def test_the_tape_goes_on_in_both(device: str) -> None:
    source, made = pair(device=device)
    run_on(made, "in place")
    read = {"steps": [{"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["w"]}, "out": "g"}]}
    with pytest.raises(EngineError, match="modified by an inplace operation"):
        replay(made, read)
    replay(source, read)


def test_memory_is_shared_until_it_is_written_and_counted_once(device: str) -> None:
    server = ServerLedger(1 << 30)
    source, made = pair(server, device)
    assert server.held == source.ctx.ledger.held
    x = source.names["x"].storage
    run_on(made, "in place")
    assert server.held == source.ctx.ledger.held + x.nbytes
    assert made.names["w"].storage.buf is source.names["w"].storage.buf
    assert made.names["x"].storage.buf is not x.buf
    run_on(source, "in place")  # nobody stands on it any more: nothing is copied
    assert source.names["x"].storage is x
    assert server.held == source.ctx.ledger.held + x.nbytes
    source.close()
    del source, x
    gc.collect()
    assert server.held == made.ctx.ledger.held
    made.close()
    del made
    gc.collect()
    assert (server.held, sum(server.lent.values())) == (0, 0)


def test_a_fork_of_a_fork() -> None:
    source, made = pair()
    third = Session("c", incarnation=source.incarnation)
    third.fork(made)
    before = bits(source)
    run_on(made, "all at once")
    assert bits(third) == bits(source) == before
    run_on(third, "all at once")
    assert bits(third) == bits(made)
    assert bits(source) == before


def test_what_a_session_may_not_hold_is_not_forked() -> None:
    source = Session("a", seed=7)
    replay(source, SETUP)
    small = Session("b", limits=Limits(session_bytes=1000))
    with pytest.raises(OutOfMemory):
        small.fork(source)
    owner = ServerLedger(1 << 30, owner_limit=source.ctx.ledger.held + 10)
    one = Session("c", owner="ann", server=owner)
    one.fork(source)
    with pytest.raises(OutOfMemory, match="owner's"):
        Session("d", owner="ann", server=owner).fork(source)


def test_a_copy_that_the_server_has_no_room_for_is_refused() -> None:
    server = ServerLedger(1 << 30)
    source, made = pair(server)
    server.limit = server.held + 100
    before = bits(made)
    with pytest.raises(OutOfMemory):
        run_on(made, "in place")
    assert bits(made) == before
    assert whole(source)["names"] == whole(made)["names"]

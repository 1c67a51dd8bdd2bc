"""Memory that somebody reads where it lies: a session that writes meanwhile does so to memory of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.errors import EngineError, OutOfMemory
from engine.session import Session
from engine.tensor import Lendable, ServerLedger
from tests.engine.test_commit import bits, replay
from tests.engine.test_fork import CHANGES, SETUP

SIDE = 600  # its square is above Lendable.LENT_FROM


class Memory(Lendable):
    """Memory as a front passes it, here of this process."""

    __slots__ = ("__array_interface__", "held")

    def __init__(self, held: np.ndarray[Any, Any]) -> None:
        super().__init__()
        self.held = held
        self.__array_interface__ = held.reshape(-1).view(np.uint8).__array_interface__

    def lend(self, more: int) -> None:
        self.readers += more
        Lendable.out += more


@pytest.fixture(autouse=True)
def nobody_reads() -> Iterator[None]:
    yield
    Lendable.out = 0


def array_on(memory: Memory) -> ArrayData:
    flat: np.ndarray[Any, Any] = np.asarray(memory)
    return ArrayData(flat.view(memory.held.dtype).reshape(memory.held.shape), memory.held.dtype.name)


def uploaded(session: Session, name: str = "x") -> Memory:
    memory = Memory(np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE))
    replay(session, {"inputs": {"d": {"data": array_on(memory)}}, "steps": [], "keep": {"d": name}})
    assert session.names[name].storage.origin is memory
    return memory


@pytest.mark.parametrize("name", CHANGES)
def test_whoever_writes_leaves_what_is_read_alone(name: str) -> None:
    session, alone = Session("a", seed=7), Session("c", seed=7)
    for one in (session, alone):
        replay(one, SETUP)
    alone.incarnation = session.incarnation
    storages = {id(t.storage): t.storage for t in session.tensors.values()}.values()
    read = [(storage.buf, storage.buf.copy()) for storage in storages]
    for storage in storages:
        storage.origin = Memory(storage.buf)
        storage.origin.lend(1)
    replay(session, CHANGES[name])
    replay(alone, CHANGES[name])
    assert bits(session) == bits(alone)
    for buf, before in read:
        assert np.array_equal(buf, before)


def test_memory_that_nobody_reads_any_more_is_written_where_it_lies() -> None:
    session = Session("a")
    memory = uploaded(session)
    before = memory.held.copy()
    held = session.ctx.ledger.held
    memory.lend(1)
    memory.lend(-1)
    replay(session, {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]})
    assert np.array_equal(memory.held, before + 1)
    memory.lend(1)
    replay(session, {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]})
    assert np.array_equal(memory.held, before + 1)
    assert np.array_equal(session.names["x"].array, before + 2)
    assert session.names["x"].storage.origin is None
    assert session.ctx.ledger.held == held


def test_views_and_the_tape_move_along() -> None:
    session = Session("a")
    memory = uploaded(session)
    before = memory.held.copy()
    replay(
        session,
        {
            "steps": [
                {"op": "t", "args": {"input": "x"}, "out": "turned"},
                {"op": "randn", "args": {"size": [SIDE, 1], "requires_grad": True}, "out": "w"},
                {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "h"},
                {"op": "sum", "args": {"input": "h"}, "out": "loss"},
            ],
            "keep": {"turned": "turned", "w": "w", "loss": "loss"},
        },
    )
    memory.lend(1)
    replay(session, {"steps": [{"op": "zero_", "args": {"input": "turned"}}]})
    assert np.array_equal(memory.held, before)
    assert not session.names["x"].array.any()
    assert not session.names["turned"].array.any()
    with pytest.raises(EngineError, match="modified by an inplace operation"):
        replay(session, {"steps": [{"op": "backward", "args": {"input": "loss"}}]})


def test_a_fork_leaves_alone_what_its_source_is_read_from() -> None:
    session = Session("a")
    memory = uploaded(session)
    before = memory.held.copy()
    fork = Session("b", incarnation=session.incarnation)
    fork.fork(session)
    memory.lend(1)
    add = {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]}
    replay(session, add)
    replay(fork, add)  # alone on it by now, and it is read still
    assert np.array_equal(memory.held, before)
    assert np.array_equal(fork.names["x"].array, before + 1)


def test_a_program_that_begins_again_finds_its_inputs_as_they_came() -> None:
    session = Session("a")
    uploaded(session).lend(1)
    mine = Memory(np.zeros((SIDE, SIDE), np.float32))
    replay(
        session,
        {
            "inputs": {"m": {"data": array_on(mine)}},
            "steps": [
                {"op": "add_", "args": {"input": "m", "other": 1}},
                {"op": "add_", "args": {"input": "x", "other": "m"}},
            ],
            "keep": {"m": "m"},
        },
    )
    assert np.array_equal(session.names["m"].array, np.ones((SIDE, SIDE), np.float32))


def test_a_copy_that_the_server_has_no_room_for_is_refused_and_changes_nothing() -> None:
    server = ServerLedger(1 << 30)
    session = Session("a", server=server)
    memory = uploaded(session)
    before = memory.held.copy()
    memory.lend(1)
    server.limit = server.held + 100
    with pytest.raises(OutOfMemory):
        replay(session, {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]})
    assert np.array_equal(session.names["x"].array, before)
    memory.lend(-1)
    server.limit = 1 << 30
    replay(session, {"steps": [{"op": "neg_", "args": {"input": "x"}}]})
    assert np.array_equal(memory.held, -before)
    del session
    gc.collect()
    assert server.held == 0


def test_what_is_small_or_converted_is_no_memory_to_lend() -> None:
    session = Session("a")
    small = Memory(np.zeros((10, 10), np.float32))
    wide = Memory(np.zeros((SIDE, SIDE), np.float32))
    replay(
        session,
        {
            "inputs": {"s": {"data": array_on(small)}, "w": {"data": array_on(wide), "dtype": "float64"}},
            "steps": [],
            "keep": {"s": "s", "w": "w"},
        },
    )
    assert session.names["s"].storage.origin is session.names["w"].storage.origin is None

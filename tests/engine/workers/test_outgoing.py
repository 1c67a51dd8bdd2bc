"""Large answers are copied while others have their turns, and nothing changes what is copied."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.service import Limits, Service
from engine.workers import outgoing
from engine.workers.frames import Parcel
from engine.workers.messages import Closed, Codec
from tests.engine.programs import step
from tests.engine.workers.fakes import asynchronous
from tests.engine.workers.test_worker import Front, House

LARGE = outgoing.LARGE


class Posting(Front):
    """A front that takes frames which were made elsewhere."""

    copy: Any = staticmethod(lambda body, blobs: (body, [blob.copy() for blob in blobs]))

    def __init__(self) -> None:
        super().__init__()
        self.posted = 0

    def prepare(self, message: dict[str, Any]) -> Any:
        return partial(self.copy, *Codec().pack(message))

    def post(self, item: Any) -> None:
        self.posted += 1
        self.replies.append(Codec().unpack(*item))


class Copying:
    """Copies when it is told to, or fails."""

    def __init__(self) -> None:
        self.go, self.problem = threading.Event(), None

    def __call__(self, body: bytes, blobs: Sequence[Any]) -> Any:
        assert self.go.wait(30)
        if self.problem is not None:
            raise self.problem
        return body, [blob.copy() for blob in blobs]


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Copying]:
    made = Copying()
    monkeypatch.setattr(Posting, "copy", staticmethod(made))
    yield made
    made.go.set()


@pytest.fixture
def house() -> House:
    house = House()
    house.front = Posting()
    for name, owner in (("s", "ann"), ("t", "bob")):
        house.open(name, owner)
    data = ArrayData(np.ones(LARGE // 8), "float64")
    house.run("s", {"op": "keep", "args": {"name": "big", "data": data}})
    house.finish()
    return house


def sent(house: House) -> None:
    """Waits until everything that is copied has been sent."""
    for _ in range(3000):
        house.worker.outgoing.finish()
        if not house.worker.outgoing:
            return
        time.sleep(0.01)
    raise AssertionError("it was never copied")


def test_others_have_their_turn_and_the_session_itself_waits(house: House, copying: Copying) -> None:
    read = house.read("s", "big")
    later = house.run("s", {"op": "scale", "args": {"name": "big"}})
    other = house.run("t", "add", "number")
    house.finish()
    assert house.front.of(other)["ok"]["results"] == {"n": 1}
    assert not {read, later} & set(house.front.answered())
    copying.go.set()
    sent(house)
    house.finish()
    assert house.front.of(read)["ok"].values.tolist() == [1.0] * (LARGE // 8), "as it was when it was read"
    assert house.front.of(read)["run_ms"] >= 0
    assert "ok" in house.front.of(later)
    again = house.read("s", "big")
    house.finish()
    sent(house)
    assert house.front.of(again)["ok"].values[0] == 2.0
    assert house.front.posted == 2
    house.worker.close()


def test_a_programs_answer_is_copied_so_too(house: House, copying: Copying) -> None:
    ran = house.run("s", {"op": "return", "args": {"name": "big"}})
    later = house.run("s", "number")
    house.finish()
    assert not {ran, later} & set(house.front.answered())
    copying.go.set()
    sent(house)
    house.finish()
    assert house.front.of(ran)["ok"]["results"]["big"].values.size == LARGE // 8
    assert "ok" in house.front.of(later)
    house.worker.close()


def test_small_answers_go_at_once(house: House) -> None:
    read = house.read("s", "n")
    house.finish()
    assert read in house.front.answered()
    assert not house.worker.outgoing
    house.worker.close()


@pytest.mark.parametrize("what", ["read", "run"])
def test_no_memory_for_the_copy_is_said(house: House, copying: Copying, what: str) -> None:
    copying.problem = MemoryError("Unable to allocate")
    copying.go.set()
    number = house.read("s", "big") if what == "read" else house.run("s", {"op": "return", "args": {"name": "big"}})
    later = house.run("s", "number")
    house.finish()
    sent(house)
    house.finish()
    error = house.front.of(number)["error"]
    assert error["class"] == ("OutOfMemory" if what == "read" else "Unavailable")
    assert "Unable to allocate" in error["detail"]
    assert "ok" in house.front.of(later)
    house.worker.close()


def test_what_is_being_copied_is_not_cancelled(house: House, copying: Copying) -> None:
    read = house.read("s", "big")
    house.finish()
    assert house.front.of(house.say("cancel", target=read))["ok"] == {"cancelled": False}
    copying.go.set()
    sent(house)
    assert "ok" in house.front.of(read)
    house.worker.close()


def test_a_front_that_is_gone_meanwhile_leaves_nothing_behind(house: House, copying: Copying) -> None:
    gone = Posting()
    house.say("query", gone, session="s", q={"do": "read", "ref": "big"}, values="auto")
    house.finish()
    house.worker.receive(gone, None)
    mine = house.run("s", "number")
    house.finish()
    assert mine not in house.front.answered()
    copying.go.set()
    sent(house)
    house.finish()
    assert "ok" in house.front.of(mine)
    assert house.worker.receive(house.front, {"do": "info", "id": 999, "sessions": []}) is None
    assert house.front.of(999)["ok"]["waiting"] == 0
    house.worker.close()


def test_an_owner_whose_answer_is_copied_may_have_been_forgotten(house: House, copying: Copying) -> None:
    read = house.read("s", "big")
    house.finish()
    house.worker._turns._forget()
    copying.go.set()
    sent(house)
    assert "ok" in house.front.of(read)
    house.worker.close()


def test_a_worker_that_ends_waits_for_the_copies(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Parcel] = []

    class Item:
        def close(self) -> None:
            closed.append(self)  # type: ignore[arg-type]

    monkeypatch.setattr(Posting, "copy", staticmethod(lambda body, blobs: Item()))
    house.read("s", "big")
    house.finish()
    house.worker.close()
    assert len(closed) == 1
    assert not house.worker.outgoing


@pytest.mark.skipif(sys.platform == "win32", reason="workers in processes need Unix sockets")
@asynchronous
async def test_reads_of_a_real_worker_are_of_one_moment() -> None:
    """Reads of 32 MB and in-place additions, sent together: each read is of one value all over, in the order sent."""
    house = Service("cpu:1", limits=Limits(session_bytes=1 << 30, server_bytes=2 << 30), threads=1)
    await house.start()
    try:
        numel = 8 << 20
        await house.run("ann", None, {"steps": [step("zeros", "x", size=[numel])], "keep": {"x": "x"}})
        calls: list[Any] = []
        for _ in range(4):
            calls.append(house.query("ann", None, {"do": "read", "ref": "x"}, "all"))
            calls.append(house.run("ann", None, {"steps": [step("add_", input="x", other=1)]}))
            calls.append(house.run("bob", None, {"steps": [step("ones", size=[10])]}))
        calls.append(house.query("ann", None, {"do": "snapshot"}, "all"))
        answers = [reply for reply, _ in await asyncio.gather(*calls)]
        for i in range(4):
            values = answers[3 * i].values
            assert values.size == numel
            assert (values.min(), values.max()) == (i, i)
        assert answers[-1]["tensors"]["x"].values.max() == 4
    finally:
        await house.close()


def test_what_waited_for_a_copy_runs_at_once_when_it_is_sent(house: House) -> None:
    """And not when the next message comes, which may be never."""
    read = house.read("s", "big")
    later = [house.run("s", {"op": "scale", "args": {"name": "big"}}), house.read("s", "big"), house.run("s", "number")]

    class Quiet:
        """An inbox in which nothing comes any more."""

        def poll(self, timeout: float | None) -> list[Any]:
            if timeout is None:
                assert {read, *later} <= set(house.front.answered()), "it waits for messages with calls to run"
                raise Closed("the front hung up")
            time.sleep(timeout)
            return []

        def drop(self, peer: Any) -> None:
            raise AssertionError("nothing is wrong with the front")

    house.worker.serve(Quiet())
    assert house.front.of(later[1])["ok"].values[0] == 2.0

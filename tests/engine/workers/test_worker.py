"""The worker's loop, turn by turn, with a clock that stands still unless a test moves it."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.workers.messages import BadMessage, CannotPack, Codec
from engine.workers.worker import SLICE, Worker
from tests.engine.workers.fakes import LIMITS, TRACE, FakeSession


class Clock:
    """Every look at it takes `pace` seconds."""

    def __init__(self) -> None:
        self.now, self.pace = 1000.0, 0.0

    def __call__(self) -> float:
        self.now += self.pace
        return self.now


class Front:
    """A peer that keeps its replies."""

    def __init__(self) -> None:
        self.replies: list[dict[str, Any]] = []

    def reply(self, message: dict[str, Any]) -> None:
        body, blobs = Codec().pack(message)
        self.replies.append(Codec().unpack(body, blobs))

    def of(self, number: int) -> dict[str, Any]:
        (found,) = [reply for reply in self.replies if reply["id"] == number]
        return found

    def answered(self) -> list[int]:
        return [reply["id"] for reply in self.replies]


class House:
    """A worker, a front, and a clock."""

    def __init__(self) -> None:
        self.clock, self.front, self.ids = Clock(), Front(), count(1)
        self.worker = Worker("w", ["cpu"], LIMITS, session_factory=FakeSession, clock=self.clock)

    def say(self, do: str, front: Front | None = None, **fields: Any) -> int:
        number = next(self.ids)
        self.worker.receive(front or self.front, {"do": do, "id": number, **fields})
        return number

    def open(self, name: str, owner: str = "ann", **fields: Any) -> int:
        facts = {"device": "cpu", "seed": None, "default_dtype": "float32", **fields}
        return self.say("open", session=name, owner=owner, name=name, **facts)

    def run(self, session: str, *ops: str | dict[str, Any], **fields: Any) -> int:
        steps = [{"op": op} if isinstance(op, str) else op for op in ops]
        facts = {"values": "auto", "dry_run": False, "explain": False, **fields}
        return self.say("run", session=session, program={"steps": steps}, **facts)

    def read(self, session: str, ref: str = "n", **fields: Any) -> int:
        return self.say("query", session=session, q={"do": "read", "ref": ref}, values="auto", **fields)

    def finish(self, turns: int = 10_000) -> None:
        for _ in range(turns):
            if not self.worker.work():
                return
        raise AssertionError("the worker is never done")


@pytest.fixture
def house() -> Iterator[House]:
    TRACE.clear()
    house = House()
    yield house
    house.worker.close()


def test_a_program_from_start_to_end(house: House) -> None:
    opened = house.open("s")
    assert house.front.of(opened)["ok"]["tensors"] == 0
    ran = house.run("s", "add", "add", "number")
    house.finish()
    assert house.front.of(ran)["ok"] == {"results": {"n": 2}, "steps_run": 3}


def test_calls_of_a_session_take_effect_in_the_order_of_arrival(house: House) -> None:
    house.open("s")
    house.clock.pace = SLICE  # every step is a turn of its own
    expected = []
    for i in range(5):
        house.run("s", "add", "noop", "noop")
        expected.append((house.read("s"), i + 1))
    house.finish()
    assert [house.front.of(number)["ok"] for number, _ in expected] == [n for _, n in expected]
    assert house.front.answered() == sorted(house.front.answered())


def test_a_read_comes_before_the_next_step_of_other_sessions(house: House) -> None:
    house.open("a")
    house.open("b", "bob")
    house.clock.pace = SLICE / 2
    house.run("a", {"op": "noop", "times": 50})
    house.worker.work()
    steps = len(TRACE)
    read = house.read("b")
    house.worker.work()
    assert read in house.front.answered()
    assert len(TRACE) == steps + 1, "no step between"


def test_a_read_of_the_session_itself_waits_for_its_program(house: House) -> None:
    house.open("a")
    house.clock.pace = SLICE
    ran = house.run("a", "add", {"op": "noop", "times": 20})
    house.worker.work()
    read = house.read("a")
    house.finish()
    assert house.front.answered()[-2:] == [ran, read]
    assert house.front.of(read)["ok"] == 1


def test_information_waits_for_nothing(house: House) -> None:
    house.open("a")
    house.clock.pace = SLICE
    house.run("a", {"op": "noop", "times": 20})
    house.run("a", "noop")
    house.worker.work()
    info = house.say("query", session="a", q={"do": "info"}, values="none")
    assert {"tensors", "created", "last_used"} <= house.front.of(info)["ok"].keys()
    about = house.say("info", sessions=["a", "nobody"])
    answer = house.front.of(about)["ok"]
    assert (answer["sessions"], answer["waiting"]) == (1, 2)
    assert answer["infos"]["a"]["seed"] is None
    assert answer["infos"]["nobody"] is None


def test_turns_are_fair_between_a_greedy_owner_and_a_modest_one(house: House) -> None:
    house.clock.pace = SLICE
    for i in range(10):
        house.open(f"greedy{i}", "greedy")
        house.run(f"greedy{i}", {"op": "noop", "times": 300})
    house.open("modest", "modest")
    ran = house.run("modest", {"op": "noop", "times": 100})
    while ran not in house.front.answered():
        assert house.worker.work()
    steps = [name for name, _ in TRACE]
    greedy = [name for name in steps if name != "modest"]
    assert 95 <= len(greedy) <= 105
    assert max(greedy.count(f"greedy{i}") for i in range(10)) - min(greedy.count(f"greedy{i}") for i in range(10)) <= 1


def test_a_turn_is_many_small_steps(house: House) -> None:
    house.open("a")
    house.open("b", "bob")
    house.clock.pace = SLICE / 100
    house.run("a", {"op": "noop", "times": 1000})
    house.run("b", {"op": "noop", "times": 1000})
    house.worker.work()
    first = len(TRACE)
    assert 90 <= first <= 110
    assert {name for name, _ in TRACE} == {"a"}
    house.worker.work()
    assert {name for name, _ in TRACE[first:]} == {"b"}


# ---------------------------------------------------------------- what goes wrong


def test_refusals_change_nothing_and_go_back_as_they_are(house: House) -> None:
    house.open("s")
    ran = house.run("s", "add", "refuse")
    read = house.read("s")
    house.finish()
    error = house.front.of(ran)["error"]
    assert (error["class"], error["code"], error["param"]) == ("NoSuchTensor", "no-such-tensor", "input")
    assert house.front.of(read)["ok"] is None


def test_a_bug_is_said_logged_and_survived(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.open("s")
    with caplog.at_level(logging.ERROR):
        ran = house.run("s", "add", "bug")
        house.finish()
    error = house.front.of(ran)["error"]
    assert error["class"] == "Bug"
    assert "ZeroDivisionError" in error["detail"]
    assert "mistake" not in error["detail"], "what a kernel says may hold a user's values"
    (record,) = caplog.records
    assert error["facts"]["reference"] in record.getMessage()
    assert record.exc_info is not None
    read = house.read("s")
    house.finish()
    assert house.front.of(read)["ok"] is None


def test_out_of_memory_is_said(house: House) -> None:
    house.open("s")
    ran = house.run("s", "add", "hungry")
    house.finish()
    error = house.front.of(ran)["error"]
    assert error["class"] == "OutOfMemory"
    assert "1 TiB" in error["detail"]


def test_a_session_that_cannot_be_made(house: House) -> None:
    opened = house.open("s", seed=666)
    assert house.front.of(opened)["error"]["class"] == "Conflict"
    ran = house.run("s", "add")
    assert house.front.of(ran)["error"]["code"] == "moved"


def test_an_answer_that_cannot_be_sent(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.open("s")
    with caplog.at_level(logging.CRITICAL):
        ran = house.run("s", "add", "unsendable")
        house.finish()
    error = house.front.of(ran)["error"]
    assert (error["class"], error["code"]) == ("Unavailable", "outcome-unknown"), "it was done"


def test_no_memory_for_an_answer(house: House) -> None:
    class Full(Front):
        def reply(self, message: dict[str, Any]) -> None:
            if "ok" in message:
                raise MemoryError("no room")
            super().reply(message)

    house.open("s")
    front = Full()
    read, ran = house.read("s", front=front), house.run("s", "add", front=front)
    house.finish()
    assert front.of(read)["error"]["class"] == "OutOfMemory"
    assert front.of(ran)["error"]["code"] == "outcome-unknown"


def test_errors_hold_no_memory_of_the_program(house: House) -> None:
    house.open("s")
    data = np.zeros(100_000)
    alive = weakref.ref(data)
    keep = {"op": "keep", "args": {"name": "x", "data": ArrayData(data, "float64")}}
    del data
    gc.disable()
    try:
        house.run("s", keep, "refuse")
        del keep
        house.finish()
        assert alive() is None
    finally:
        gc.enable()


def test_a_queue_has_an_end(house: House) -> None:
    house.open("s")
    house.open("t", "bob")
    numbers = [house.run("s", "noop") for _ in range(101)]
    error = house.front.of(numbers[-1])["error"]
    assert (error["class"], error["code"]) == ("QueueFull", "queue-full")
    assert error["facts"] == {"waiting": 100, "limit": 100}
    house.run("t", "noop")
    house.say("close", session="s")
    house.finish()
    assert house.run("t", "noop") not in house.front.answered()


def test_readers_of_what_is_public_stand_in_their_own_queue(house: House) -> None:
    house.open("s")
    asked = [house.say("query", session="s", q={"do": "peek"}, values="none", by="bob") for _ in range(101)]
    assert house.front.of(asked[-1])["error"]["facts"] == {"waiting": 100, "limit": 100}
    mine = house.run("s", "noop")
    house.finish()
    assert "ok" in house.front.of(mine)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": "run"},
        {"do": "dance", "id": 1},
        {"do": ["run"], "id": 1},
        {"do": "run", "id": "1", "session": "s", "program": {}, "values": "auto", "dry_run": False, "explain": False},
        {"do": "run", "id": 1, "session": "s", "program": [], "values": "auto", "dry_run": False, "explain": False},
        {"do": "run", "id": 1, "program": {}, "values": "auto", "dry_run": False, "explain": False},
        {"do": "query", "id": 1, "session": "s", "values": "auto"},
        {"do": "info", "id": 1},
        {"do": "cancel", "id": 1},
        {"do": "open", "id": 1, "session": "s", "owner": 5},
        {"do": "start", "id": 1},
    ],
    ids=str,
)
def test_messages_that_make_no_sense(house: House, message: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        house.worker.receive(house.front, message)


def test_an_id_in_use_makes_no_sense(house: House) -> None:
    house.open("s")
    number = house.run("s", "noop")
    house.ids = count(number)
    with pytest.raises(BadMessage):
        house.run("s", "noop")


def test_arrays_lost_on_the_way(house: House) -> None:
    house.open("s")
    ran = house.run("s", "add", lost=True)
    error = house.front.of(ran)["error"]
    assert (error["class"], error["code"]) == ("Unavailable", "not-applied")


# ---------------------------------------------------------------- cancelling, closing


def test_cancelling_a_program_that_runs(house: House) -> None:
    house.open("s")
    house.clock.pace = SLICE
    ran = house.run("s", "add", {"op": "noop", "times": 100})
    for _ in range(5):
        house.worker.work()
    cancel = house.say("cancel", target=ran)
    assert house.front.of(cancel)["ok"] == {"cancelled": True}
    assert house.front.of(ran)["error"]["code"] == "cancelled"
    assert TRACE[-1] == ("s", "undone")
    read = house.read("s")
    house.finish()
    assert house.front.of(read)["ok"] is None


def test_cancelling_what_waits(house: House) -> None:
    house.open("s")
    house.clock.pace = SLICE
    first = house.run("s", {"op": "noop", "times": 5})
    waiting, read, last = house.run("s", "add"), house.read("s"), house.run("s", "number")
    house.worker.work()
    for number in (waiting, read):
        house.say("cancel", target=number)
        assert house.front.of(number)["error"]["code"] == "cancelled"
    house.finish()
    assert house.front.of(first)["ok"]["steps_run"] == 5
    assert house.front.of(last)["ok"]["results"] == {"n": 0}


def test_cancelling_what_is_over_or_never_was_or_is_anothers(house: House) -> None:
    house.open("s")
    done = house.run("s", "noop")
    house.finish()
    other = Front()
    running = house.run("s", "noop", front=other)
    closing = house.say("close", session="s")
    for target in (done, 12345, running, closing):
        cancel = house.say("cancel", target=target)
        assert house.front.of(cancel)["ok"] == {"cancelled": False}
    house.finish()
    assert "ok" in other.of(running)


def test_closing_a_session_after_what_came_before(house: House) -> None:
    house.open("s")
    ran, closed = house.run("s", "add", "number"), house.say("close", session="s")
    late = house.run("s", "number")
    house.finish()
    assert house.front.of(ran)["ok"]["results"] == {"n": 1}
    assert house.front.of(closed)["ok"] is None
    assert house.front.of(late)["error"]["class"] == "NoSuchSession"
    after = house.run("s", "number")
    assert house.front.of(after)["error"]["code"] == "moved"
    assert TRACE[-1] == ("s", "close")


def test_renaming(house: House) -> None:
    house.open("s")
    house.say("rename", session="s", name="t")
    house.run("s", "noop")
    house.finish()
    assert TRACE == [("t", "noop")]


def test_a_front_that_is_gone_takes_its_calls_along(house: House) -> None:
    house.open("s")
    house.clock.pace = SLICE
    gone = Front()
    house.run("s", "add", {"op": "noop", "times": 50}, front=gone)
    house.run("s", "add", front=gone)
    mine = house.run("s", "number")
    house.worker.work()
    house.worker.receive(gone, None)
    house.finish()
    assert gone.replies == []
    assert house.front.of(mine)["ok"]["results"] == {"n": 0}


def test_closing_the_worker_undoes_and_frees(house: House) -> None:
    house.open("s")
    house.clock.pace = SLICE
    house.run("s", "add", {"op": "noop", "times": 50})
    house.worker.work()
    house.worker.close()
    assert TRACE[-2:] == [("s", "undone"), ("s", "close")]


def test_time_is_told_apart(house: House) -> None:
    """Run is what the call's own steps took, queue is all the rest since the front sent it."""
    clock, front = house.clock, house.front

    class Slow(FakeSession):
        def _step(self, op: str, args: dict[str, Any], results: dict[str, Any]) -> None:
            clock.now += 0.25

    house.worker.sessions.make_session = Slow
    house.open("a")
    house.open("b", "bob")
    first = house.run("a", "noop", "noop", sent=clock.now - 1.0)
    second = house.run("b", "noop", sent="yesterday")
    house.finish()
    assert front.of(first)["run_ms"] == pytest.approx(500)
    assert front.of(first)["queue_ms"] == pytest.approx(1250)
    assert front.of(second)["run_ms"] == pytest.approx(250)
    assert front.of(second)["queue_ms"] == pytest.approx(500)


def test_last_used_is_renewed_by_use_and_not_by_looking(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.open("s")

    def seen() -> float:
        number = house.say("query", session="s", q={"do": "info"}, values="none")
        used: float = house.front.of(number)["ok"]["last_used"]
        return used

    first = seen()
    monkeypatch.setattr(time, "time", lambda: first + 60)
    assert seen() == first
    house.read("s")
    house.finish()
    assert seen() == first + 60


def test_a_front_reply_that_packs_is_required() -> None:
    with pytest.raises(CannotPack):
        Front().reply({"id": 1, "ok": object()})

"""Single operations that come in together: run at once, written in one go, and taken back where that fails."""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.commit import whole
from engine.durability.records import payload_of
from engine.workers.messages import Closed, Codec, Message
from engine.workers.singles import SLICE
from tests.engine.durability.houses import kill
from tests.engine.durability.test_worker import Desk, Front
from tests.engine.programs import step

Batch = Sequence[tuple[Any, Message | None]]


class Packs(Front):
    """A peer that takes packed replies, several at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[int] = []  # how many went in each go

    def reply_bodies(self, bodies: Sequence[bytes]) -> None:
        self.gone.append(len(bodies))
        self.replies += [Codec().unpack(body) for body in bodies]


class Inbox:
    """Messages in batches, the next one when the worker has nothing to do but to look; then no peer is left."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = list(batches)

    def poll(self, timeout: float | None) -> Batch:
        if timeout == 0.0:
            return []
        if not self.batches:
            raise Closed("no front is left")
        return self.batches.pop(0)

    def drop(self, peer: Any) -> None:
        raise AssertionError("nobody is to be hung up on")


def add(a: Any, b: Any, name: Any = None, op: str = "add", **more: Any) -> dict[str, Any]:
    steps = [{"op": op, "args": {"input": a, "other": b}, "out": {"whole": "r"}}]
    return {"steps": steps, "return": ["r"], "keep_all": {"r": name}, **more}


class Office(Desk):
    """A worker that serves batches of messages by its own loop."""

    def __init__(self, folder: Path, front: Front | None = None, **given: Any) -> None:
        super().__init__(folder, **given)
        self.front = front or Packs()
        self.writes, self.serving = 0, False

    def message(self, program: dict[str, Any] | None, session: str = "s", **fields: Any) -> tuple[Any, Message]:
        self.number += 1
        told = {"do": "run", "values": "auto", "dry_run": False, "explain": False, "program": program, **fields}
        return self.front, {"id": self.number, "session": session, "call": f"c{self.number}", **told}

    def bits(self, session: str = "s") -> bytes:
        seat = self.worker.sessions.seats[session]
        assert seat.session is not None
        return b"".join(bytes(part) for part in payload_of({}, whole(seat.session)))

    def serve(self, *batches: Batch, sessions: Sequence[str] = ("s",)) -> list[Message]:
        """Serves them; the replies in the order of the messages. Afterwards the worker is closed."""
        for id in sessions:
            self.open(id)
            self.run(
                id,
                {
                    "inputs": {"x": [1.0, 2.0], "w": {"data": [1.0, 2.0], "requires_grad": True}},
                    "steps": [],
                    "keep": {"x": "x", "w": "w"},
                },
            )
        self.finish()
        self.front.replies.clear()
        write, numbers = self.store.log.append, [m["id"] for batch in batches for _, m in batch if m is not None]

        def append(group: Any) -> Any:
            self.writes += 1
            return write(group)

        self.store.log.append = append  # type: ignore[method-assign]
        self.serving = True
        self.worker.serve(Inbox(batches))
        found = {reply["id"]: reply for reply in self.front.replies}
        assert sorted(found) == sorted(numbers)
        assert len(found) == len(self.front.replies)
        return [found[number] for number in numbers]


def results(replies: Sequence[Message]) -> list[Any]:
    return [
        reply["error"]["code"] if "error" in reply else reply["ok"]["results"]["r"].values.tolist() for reply in replies
    ]


def test_a_batch_is_one_write_and_one_answer(tmp_path: Path) -> None:
    office = Office(tmp_path / "w")
    replies = office.serve([office.message(add("x", 1.0, "x")) for _ in range(5)])
    assert results(replies) == [[2.0 + i, 3.0 + i] for i in range(5)]
    assert office.writes == 1
    assert office.front.gone == [5]  # type: ignore[attr-defined]
    assert all(reply["queue_ms"] >= 0.0 < reply["run_ms"] for reply in replies)


def test_a_peer_that_takes_no_packed_replies_is_told_the_same(tmp_path: Path) -> None:
    told = []
    for front in (Front(), Packs()):
        office = Office(tmp_path / type(front).__name__, front)
        replies = office.serve([office.message(add("x", 1.0, "x")), office.message(add("x", [1.0], None))])
        told.append([(reply["ok"]["results"]["r"].values.tolist(), reply["ok"]["kept"]) for reply in replies])
    assert told[0] == told[1]


@pytest.mark.parametrize("count", [1, 4])
def test_a_full_disk_undoes_all_of_them(tmp_path: Path, count: int) -> None:
    office = Office(tmp_path / "w")
    batch = [office.message(add("x", 1.0, "x")) for _ in range(count)]
    before: list[bytes] = []

    class Failing(list[Any]):
        """Fails when it is looked at, which is when all is set up."""

        def __iter__(self) -> Any:
            if not before:
                before.append(office.bits())
                office.files.fail = {"write": OSError(errno.ENOSPC, "No space left on device")}
            return super().__iter__()

    replies = office.serve(Failing(batch))
    assert results(replies) == ["disk-full"] * count
    assert office.worker.sessions._server is not None
    assert office.worker.sessions._server.tally.failed == count
    assert office.worker._waiting == {}
    office.files.fail = {}


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("sessions", [("s",), ("s", "u")])
def test_those_behind_one_that_was_not_written_are_run_again(
    tmp_path: Path, kind: int, sessions: tuple[str, ...]
) -> None:
    """The first writes of several fail and those of one do not: each is then run and written by itself, to the same
    end. Of one session they come without turns, of two by turns."""
    office = Office(tmp_path / "w")
    write = office.store.write
    calls: list[int] = []

    def once(changes: Any) -> None:
        calls.append(len(changes))
        if office.serving and len({change.session for change in changes}) < len(changes):
            raise OSError(kind, "not now")
        write(changes)

    office.store.write = once  # type: ignore[method-assign]
    batch = [office.message(add("x", 1.0, "x"), session) for session in sessions for _ in range(4)]
    replies = office.serve(batch, sessions=sessions)
    assert results(replies) == [[2.0 + i, 3.0 + i] for i in range(4)] * len(sessions)
    assert max(calls) >= 4
    assert office.worker._waiting == {}
    tally = office.worker.sessions._server.tally  # type: ignore[union-attr]
    assert tally.ops["add"] == 4 * len(sessions)
    assert tally.failed == 0


def test_what_is_no_plain_one_waits_until_those_before_it_are_written(tmp_path: Path) -> None:
    """A refusal, a change in place, a tape, a random number and a program among plain ones: all in their order."""
    office = Office(tmp_path / "w")
    long = {"steps": [step("add", "y", input="x", other=1.0), step("mul", "r", input="y", other=2.0)], "return": ["r"]}
    programs = [
        add("x", 1.0, "x"),
        add("x", [1.0, 2.0, 3.0], "x"),
        add("x", 1.0, "x"),
        add("x", 1.0, None, "add_"),
        add("x", "w", "y"),
        long,
        add("nobody", 1.0, "x"),
        add("x", 1.0, "x"),
    ]
    replies = office.serve([office.message(program) for program in programs])
    assert results(replies) == [
        [2.0, 3.0],
        "shape-mismatch",
        [3.0, 4.0],
        [4.0, 5.0],
        [5.0, 7.0],
        [10.0, 12.0],
        "no-such-tensor",
        [5.0, 6.0],
    ]


def test_several_sessions_have_turns(tmp_path: Path) -> None:
    office = Office(tmp_path / "w")
    batch = [office.message(add("x", 1.0, "x"), session) for session in ("s", "u", "s", "u", "s")]
    replies = office.serve(batch, sessions=("s", "u"))
    assert results(replies) == [[2.0, 3.0], [2.0, 3.0], [3.0, 4.0], [3.0, 4.0], [4.0, 5.0]]
    assert office.writes == 1, "those of a session in one turn, and both sessions in one go"
    assert office.front.gone == [5]  # type: ignore[attr-defined]


def test_what_takes_longer_than_a_turn_has_turns(tmp_path: Path) -> None:
    office = Office(tmp_path / "w")
    clock = office.worker._clock
    late = [0.0]

    def slow() -> float:
        late[0] += SLICE / 3
        return clock() + late[0]

    office.worker._clock = office.worker.clock = slow
    replies = office.serve([office.message(add("x", 1.0, "x")) for _ in range(12)])
    assert results(replies) == [[2.0 + i, 3.0 + i] for i in range(12)]
    assert office.writes > 3
    owner = office.worker._turns._owners["ann"]
    assert owner.used > 12 * SLICE / 3, "it was charged for what it did without a turn, too"


def _some_call(rng: random.Random) -> dict[str, Any]:
    return add(
        rng.choice(("x", "w", "a", [1.0, 2.0], [rng.random()])),
        rng.choice(("x", "a", "b", [3.0, 4.0], 2.0, [1.0, 2.0, 3.0])),
        rng.choice(("a", "b", "a", "c", None)),
        rng.choice(("add", "mul", "add", "add", "add_")),
    )


def test_a_start_finds_what_was_answered(tmp_path: Path) -> None:
    """Random batches; then the process is gone, and what the log says is the same in every bit."""
    for seed in range(12):
        rng = random.Random(seed)
        office = Office(tmp_path / f"w{seed}")
        batches = [
            [office.message(_some_call(rng)) for _ in range(rng.randint(1, 8))] for _ in range(rng.randint(3, 20))
        ]
        ended: list[bytes] = []

        def close(office: Office = office, ended: list[bytes] = ended) -> None:
            ended.append(office.bits())
            kill(office.store)

        office.worker.close = close  # type: ignore[method-assign]
        office.serve(*batches)
        again = Office(tmp_path / f"w{seed}")
        again.worker.sessions.awake(again.worker.sessions.seats["s"])
        assert again.bits() == ended[0], seed
        again.worker.close()

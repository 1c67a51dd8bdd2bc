"""A worker that keeps its sessions, driven by hand: groups, refusals of the disk, what is undone."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.durability.store import Store
from engine.limits import Limits
from engine.session import Session
from engine.tensor import ServerLedger
from engine.workers.messages import Message
from engine.workers.worker import Worker
from tests.engine.durability.houses import ForgetfulFiles
from tests.engine.programs import step

X = {"inputs": {"x": {"data": [1.0, 2.0]}}, "keep": {"x": "x"}, "return": ["x"]}
ADD = {"steps": [step("add_", input="x", other=1)], "return": ["x"]}


class Front:
    """A peer that remembers its replies."""

    def __init__(self) -> None:
        self.replies: list[Message] = []

    def reply(self, message: Message) -> None:
        self.replies.append(message)


class Desk:
    """A worker on a disk that can be made to fail."""

    def __init__(self, folder: Path, **given: Any) -> None:
        self.files, self.front, self.number = ForgetfulFiles(), Front(), 0
        limits = Limits(session_bytes=1 << 26, server_bytes=1 << 28)
        server = ServerLedger(limits.server_bytes)
        self.worker = Worker("w", ["cpu"], limits, session_factory=partial(Session, server=server), server=server)
        self.store = Store(folder, make=self.worker.sessions.restore, files=self.files, thread=False, **given)
        self.worker.sessions.keep(self.store)

    def say(self, do: str, **fields: Any) -> int:
        self.number += 1
        self.worker.receive(self.front, {"do": do, "id": self.number, **fields})
        return self.number

    def open(self, session: str) -> int:
        return self.say("open", session=session, owner="ann", name=None, device="cpu", seed=1, default_dtype="float32")

    def run(self, session: str, program: dict[str, Any], **fields: Any) -> int:
        told = {"values": "all", "dry_run": False, "explain": False, **fields}
        return self.say("run", session=session, program={**program}, **told)

    def read(self, session: str) -> list[float]:
        number = self.say("query", session=session, q={"do": "read", "ref": "x"}, values="all")
        self.finish()
        found: list[float] = self.of(number)["ok"].values.tolist()
        return found

    def of(self, number: int) -> Message:
        (found,) = [reply for reply in self.front.replies if reply["id"] == number]
        return found

    def code(self, number: int) -> str | None:
        reply = self.of(number)
        return reply["error"]["code"] if "error" in reply else None

    def finish(self) -> None:
        while self.worker.work():
            pass


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "w")
    yield made
    made.files.fail = {}
    made.worker.close()


def test_nothing_is_answered_before_it_is_written(desk: Desk) -> None:
    opened, made = desk.open("s"), desk.run("s", X)
    assert desk.front.replies == []
    while desk.store.log.lsn == 0:
        assert desk.front.replies == []
        desk.worker.work()
    desk.finish()
    assert desk.code(opened) is None
    assert desk.code(made) is None
    assert desk.store.log.lsn == 3, "the table, the session and its first change in one group"


def test_a_group_takes_one_change_of_each_session(desk: Desk) -> None:
    for id in ("s", "u", "v"):
        desk.open(id)
        desk.run(id, X)
    desk.finish()
    before = desk.store.log.lsn
    numbers = [desk.run(id, ADD) for id in ("s", "u", "v") for _ in range(2)]
    while desk.store.log.lsn == before:  # how many turns a program takes, a busy machine decides
        desk.worker.work()
    assert desk.store.log.lsn == before + 3
    desk.finish()
    assert [desk.code(number) for number in numbers] == [None] * 6
    assert desk.read("s") == [3.0, 4.0]


def test_a_full_disk_undoes_the_change_and_reads_go_on(desk: Desk) -> None:
    desk.open("s")
    desk.run("s", X)
    desk.finish()
    desk.files.fail = {"write": OSError(errno.ENOSPC, "No space left on device")}
    refused, opened, late = desk.run("s", ADD), desk.open("u"), desk.run("u", X)
    desk.finish()
    assert [desk.code(number) for number in (refused, opened, late)] == ["disk-full"] * 3
    assert desk.of(refused)["error"]["class"] == "OutOfMemory"
    assert desk.read("s") == [1.0, 2.0]
    desk.files.fail = {}
    done = desk.run("s", ADD)
    desk.finish()
    assert desk.code(done) is None
    assert desk.read("s") == [2.0, 3.0]
    assert desk.worker._waiting == {}
    gone = desk.run("u", X)
    assert desk.code(gone) == "moved"


@pytest.mark.parametrize("what, code", [("write", "not-applied"), ("sync", "outcome-unknown")])
def test_a_disk_that_fails_stops_changes_and_not_reads(tmp_path: Path, what: str, code: str) -> None:
    desk = Desk(tmp_path / "w", sync="always")
    desk.open("s")
    desk.run("s", X)
    desk.finish()
    desk.files.fail = {what: OSError(errno.EIO, "Input/output error")}
    refused = desk.run("s", ADD)
    desk.finish()
    assert desk.code(refused) == code
    desk.files.fail = {}
    again = desk.run("s", ADD)
    desk.finish()
    assert desk.code(again) == "not-applied"
    assert desk.read("s") == [1.0, 2.0]
    desk.worker.close()


def test_a_repeat_waits_for_the_first_and_is_answered_alike(desk: Desk) -> None:
    desk.open("s")
    desk.run("s", X)
    numbers = [desk.run("s", ADD, key="k", digest="d") for _ in range(3)]
    other = desk.run("s", ADD, key="k", digest="e")
    desk.finish()
    assert {desk.of(number)["ok"]["results"]["x"].etag for number in numbers} == {
        desk.of(numbers[0])["ok"]["results"]["x"].etag
    }
    assert desk.code(other) == "idempotency-key-reused"
    assert desk.read("s") == [2.0, 3.0]


def test_a_read_changes_nothing_on_the_disk(desk: Desk) -> None:
    desk.open("s")
    desk.run("s", X)
    desk.finish()
    before = desk.store.log.lsn
    desk.run("s", {"steps": [step("mul", "y", input="x", other=2)], "return": ["y"]})
    desk.finish()
    assert desk.read("s") == [1.0, 2.0]
    assert desk.store.log.lsn == before


def test_a_program_that_is_cancelled_leaves_nothing(desk: Desk) -> None:
    desk.open("s")
    desk.run("s", X)
    desk.finish()
    before = desk.store.log.lsn
    long = {"steps": [{"repeat": 1_000_000, "steps": [step("add_", input="x", other=1)]}]}
    number = desk.run("s", long)
    desk.worker.work()
    desk.say("cancel", target=number)
    desk.finish()
    assert desk.code(number) == "cancelled"
    assert desk.read("s") == [1.0, 2.0]
    assert desk.store.log.lsn == before

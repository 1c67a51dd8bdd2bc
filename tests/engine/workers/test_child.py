"""The worker process itself, spoken to over its socket without a supervisor."""

from __future__ import annotations

import os
import platform
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.workers import child as module
from engine.workers.child import SocketInbox, limit_memory
from engine.workers.doors import HELLO, LINK, pass_socket, take_sockets
from engine.workers.frames import Wire, raise_file_limit
from engine.workers.messages import PROTOCOL, Closed, version
from tests.engine.workers.fakes import FACTORY, LIMITS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets")

ROOT = Path(__file__).resolve().parents[3]
START = {
    "do": "start",
    "id": 1,
    "protocol": PROTOCOL,
    "version": version(),
    "name": "w",
    "devices": ["cpu"],
    "practice": False,
    "epoch": 1,
    "limits": LIMITS.to_data(),
}


class Child:
    """A worker process and our end of its socket."""

    def __init__(self, factory: str = FACTORY) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "engine.workers.child", "--fd", str(theirs.fileno()), "--factory", factory]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], cwd=ROOT, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        theirs.close()
        self.socket, self.wire = ours, Wire(ours, keeps=False)

    def say(self, message: dict[str, Any]) -> None:
        self.wire.post_body(self.wire.pack(message)[0])

    def hear(self) -> dict[str, Any]:
        while True:
            assert select.select([self.wire], [], [], 20)[0], "the worker says nothing"
            if found := self.wire.receive():
                return found[0]

    def end(self) -> tuple[int, str]:
        """Waits for the process's own end; its status and what it wrote."""
        errors = self.process.communicate(timeout=20)[1]
        return self.process.returncode, errors.decode()


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.wire.close()
        child.process.kill()
        child.process.communicate()


def make(children: list[Child], factory: str = FACTORY) -> Child:
    children.append(Child(factory))
    return children[-1]


def test_it_starts_answers_and_ends_when_the_front_hangs_up(children: list[Child]) -> None:
    child = make(children)
    child.say(START)
    assert child.hear()["ok"] == {"pid": child.process.pid, "devices": ["cpu"]}
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child.process.pid, number)  # of the terminal, or of a service manager: the front decides
    child.say({"do": "info", "id": 2, "sessions": []})
    assert child.hear()["id"] == 2
    child.wire.close()
    assert child.end() == (0, "")


@pytest.mark.parametrize("change", [{"protocol": 99}, {"version": "0.0.1-other"}, {"do": "dance"}], ids=str)
def test_a_front_of_another_kind_is_refused(children: list[Child], change: dict[str, Any]) -> None:
    child = make(children)
    child.say(START | change)
    assert child.hear()["error"]["class"] == "Unavailable"
    assert child.end()[0] == 3


@pytest.mark.parametrize(
    "change, factory, why",
    [
        pytest.param({}, "tests.engine.workers.nothing:Session", "nothing", id="no module"),
        pytest.param({}, "tests.engine.workers.fakes:Nothing", "Nothing", id="no class"),
        pytest.param({"devices": ["cpu", "cuda:7"]}, FACTORY, "cuda:7", id="no device"),
        pytest.param({"limits": {"patience": 5}}, FACTORY, "patience", id="unknown limits"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    children: list[Child], change: dict[str, Any], factory: str, why: str
) -> None:
    child = make(children, factory)
    child.say(START | change)
    assert why in child.hear()["error"]["detail"]
    status, errors = child.end()
    assert status == 4
    assert "Traceback" in errors


def test_garbage_ends_it_with_a_word(children: list[Child]) -> None:
    for started in (False, True):
        child = make(children)
        if started:
            child.say(START)
            child.hear()
        child.socket.send(b"GET / HTTP/1.1\r\n\r\n              ")
        status, errors = child.end()
        assert status == 3
        assert "hanging up on a front" in errors


def test_a_message_that_makes_no_sense_ends_it_with_a_word(children: list[Child]) -> None:
    child = make(children)
    child.say(START)
    child.hear()
    child.say({"do": "dance", "id": 2})
    with pytest.raises(Closed):
        child.hear()
    status, errors = child.end()
    assert status == 3
    assert "dance" in errors


def test_a_front_that_never_speaks_and_leaves(children: list[Child]) -> None:
    child = make(children)
    child.wire.close()
    assert child.end() == (0, "")


def test_many_fronts_each_get_their_own_replies() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    inbox = SocketInbox(*(Wire(theirs, keeps=True) for _, theirs in pairs))
    fronts = [Wire(ours, keeps=False) for ours, _ in pairs]
    for i, front in enumerate(fronts):
        front.post_body(front.pack({"id": i})[0])
    got = inbox.poll(1.0)
    assert sorted(message["id"] for _, message in got if message) == [0, 1, 2]
    for peer, message in got:
        assert message is not None
        peer.reply({"id": message["id"], "ok": None})
    assert [front.receive() for front in fronts] == [[{"id": i, "ok": None}] for i in range(3)]
    fronts[1].close()
    ((gone, nothing),) = inbox.poll(1.0)
    assert nothing is None
    gone.reply({"id": 1})  # nobody hears it, and that is no error
    fronts[0].close()
    fronts[2].close()
    assert len(inbox.poll(1.0)) == 2
    with pytest.raises(Closed):
        inbox.poll(None)


def test_fronts_come_in_at_the_door_and_all_ends_with_the_server() -> None:
    (server, inside), (door, behind) = socket.socketpair(), socket.socketpair()
    inbox = SocketInbox(Wire(inside, keeps=True), door=behind)
    fronts = []
    for _ in range(2):
        outer, inner = socket.socketpair()
        assert pass_socket(door, inner)
        inner.close()
        fronts.append(Wire(outer, keeps=False))
    assert inbox.poll(1.0) == []
    for i, front in enumerate(fronts):
        front.post_body(front.pack({"id": i})[0])
    for peer, message in inbox.poll(1.0):
        assert message is not None
        peer.reply({"id": message["id"], "ok": None})
    assert [front.receive() for front in fronts] == [[{"id": i, "ok": None}] for i in range(2)]
    fronts[0].close()
    ((_, nothing),) = inbox.poll(1.0)
    assert nothing is None
    # Where the server is gone, sockets that came in last make no difference.
    outer, inner = socket.socketpair()
    assert pass_socket(door, inner)
    server.close()
    door.close()
    inbox.poll(1.0)
    with pytest.raises(Closed):
        inbox.poll(None)
    for peer in list(inbox._peers.values()):
        inbox.drop(peer)
    for sock in (outer, inner, behind, fronts[1]):
        sock.close()


def test_a_socket_that_cannot_be_passed_or_taken_is_lost_alone() -> None:
    door, behind = socket.socketpair()
    behind.setblocking(False)
    ours, theirs = socket.socketpair()
    assert take_sockets(behind) == ([], True)
    assert pass_socket(door, theirs, LINK, 3, 7)
    door.send(bytes(16))  # a record without its descriptor, as where none is free
    ((link, lost), more) = take_sockets(behind)
    assert more
    assert (link.kind, link.number, link.epoch, lost.kind, lost.sock) == (LINK, 3, 7, HELLO, None)
    assert link.sock is not None
    link.sock.send(b"!")
    assert ours.recv(1) == b"!"
    for sock in (ours, theirs, link.sock, behind):
        sock.close()
    assert not pass_socket(door, door)
    door.close()


def test_a_front_that_does_not_read_holds_up_nobody() -> None:
    (slow, one), (quick, two) = socket.socketpair(), socket.socketpair()
    inbox = SocketInbox(Wire(one, keeps=True), Wire(two, keeps=True))
    slow_front, quick_front = Wire(slow, keeps=False), Wire(quick, keeps=False)
    for front in (slow_front, quick_front):
        front.post_body(front.pack({"id": 1})[0])
    text = "x" * 2_000_000
    for peer, message in inbox.poll(1.0):
        assert message is not None
        peer.reply({"id": 1, "ok": text})
        peer.reply({"id": 2, "ok": None})
    heard: list[dict[str, Any]] = []
    while len(heard) < 2:
        inbox.poll(0.0)
        heard += quick_front.receive()
    while len(heard) < 4:
        inbox.poll(0.0)
        heard += slow_front.receive()
    assert [message["ok"] for message in heard] == [text, None] * 2
    assert inbox._wait(None) is None
    for front in (slow_front, quick_front):
        front.close()
    inbox.poll(1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits")
def test_the_hard_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, int] = {}
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.__setitem__(what, limits[0]))
    limit_memory(10 << 30, cpu_only=False)
    assert list(asked) == [resource.RLIMIT_DATA], "drivers reserve address space beyond measure"
    limit_memory(10 << 30, cpu_only=True)
    room = (10 << 30) * 5 // 4
    assert room < asked[resource.RLIMIT_DATA] < asked[resource.RLIMIT_AS] < room + (8 << 30)


def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in [
        ((256, 4096), [(4096, 4096)]),
        ((4096, 4096), []),
        ((256, resource.RLIM_INFINITY), [(65536, resource.RLIM_INFINITY)]),
    ]:
        asked: list[tuple[int, int]] = []
        monkeypatch.setattr(resource, "getrlimit", lambda what, now=before: now)
        monkeypatch.setattr(resource, "setrlimit", lambda what, limits, asked=asked: asked.append(limits))
        raise_file_limit()
        assert asked == after


# ---------------------------------------------------------------- memory that was freed


def test_an_idle_worker_lets_go_of_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now, size = 1000.0, 100 << 20
    released: list[float] = []
    looked: list[float] = []
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "resident", lambda: size)
    monkeypatch.setattr(module, "release_free_memory", lambda: released.append(now))
    monkeypatch.setattr(module.gc, "collect", lambda: looked.append(now))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        front, inbox = Wire(ours, keeps=False), module.SocketInbox(Wire(theirs, keeps=True))

        def called() -> None:
            front.post_body(front.pack({"do": "anything"})[0])
            assert len(inbox.poll(1.0)) == 1

        now += module._TRIM_S
        inbox.poll(0.001)
        assert released == [], "nothing was asked of it yet"
        called()
        inbox.poll(0.0)
        assert released == [], "there are calls to run"
        inbox.poll(0.001)
        assert released == looked == [now], "it has grown from nothing"
        now += module._TRIM_S
        inbox.poll(0.001)
        assert len(released) == 1, "nothing was asked of it since"
        size += module._TRIM_BYTES
        called()
        inbox.poll(0.001)
        assert released[1:] == [now]
        assert len(looked) == 1, "it has not grown by more than that"
        called()
        now += module._TRIM_S - 1
        inbox.poll(0.001)
        assert len(released) == 2, "not so soon again"
        now, size = now + 1, size + module._TRIM_BYTES + 1
        inbox.poll(0.001)
        assert released[2:] == looked[1:] == [now]
        (peer,) = inbox._peers.values()
        inbox._remove(peer)


def test_a_worker_that_would_wait_for_ever_wakes_to_give_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[bool] = []
    monkeypatch.setattr(module, "_TRIM_S", 0.05)
    monkeypatch.setattr(module, "release_free_memory", lambda: released.append(True))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        front, inbox = Wire(ours, keeps=False), module.SocketInbox(Wire(theirs, keeps=True))
        front.post_body(front.pack({"do": "anything"})[0])
        assert len(inbox.poll(None)) == 1
        assert inbox.poll(None) == [], "it wakes by itself"
        inbox.poll(0.001)
        assert released
        (peer,) = inbox._peers.values()
        inbox._remove(peer)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep less, or cannot be told")
def test_freed_memory_goes_back_to_the_system() -> None:
    script = (
        "import numpy as np\n"
        "from engine.backend import release_free_memory, tune_allocator\n"
        "from engine.workers.child import resident\n"
        "tune_allocator()\n"
        "made = [np.ones(1 << 17) for _ in range(200)]\n"
        "kept = made[::40]\n"
        "full = resident()\n"
        "del made\n"
        "freed = resident()\n"
        "release_free_memory()\n"
        "assert all(one.all() for one in kept)\n"
        "print(full, freed, resident())\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    full, freed, after = map(int, ran.stdout.split())
    assert freed > full - (50 << 20), "it is kept, for what is computed next"
    assert after < full - (150 << 20)

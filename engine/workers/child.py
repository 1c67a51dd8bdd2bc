"""A worker as a process: `python -m engine.workers.child --fd N`, started by transports.py and by nothing else.

N is one end of a Unix socket pair; the process listens nowhere. The first message is "start"; the answer is
{"ok": {"pid", "devices", and what is on the disk}}, or an error after which the process ends. It ends as well when the
socket's other end is closed: a server that dies leaves no orphan. With `--door M` more fronts come in at M, each with a
socket of its own; what a front says waits for nothing else, and its calls go when it does. Signals of the terminal are
the server's business and ignored here.

Exit status: 0 the front closed the socket; 3 the front does not speak this protocol or is of another version;
4 the sessions' module or a device could not be had; 5 a GPU failed in a way that only a new process gets over.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from engine import logs
from engine.backend import release_free_memory, tune_allocator
from engine.errors import DeviceLost, EngineError, Unavailable
from engine.workers.busy import BusyPoll
from engine.workers.doors import take_sockets
from engine.workers.frames import Parcel, Wire, comes_back, parcel, raise_file_limit
from engine.workers.making import make_worker
from engine.workers.messages import PROTOCOL, BadMessage, Closed, Message, Peer, version
from engine.workers.pages import Pages

_RETRY = 0.01
_HEADROOM = 1 << 30
_OOM_SCORE = "500"
_YOUNG_OBJECTS = 20_000
_TRIM_S = 10.0  # seconds, at least, between two looks at what the allocator keeps
_TRIM_BYTES = 16 << 20  # by which the memory that is resident has grown since
DEVICE_LOST = 5

log = logging.getLogger("curlgrad.worker")


class SocketPeer:
    """A front at the other end of a socket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._let_go: deque[int] = deque()  # memory that no tensor stands on any more, by number
        wire.let_go = self._let_go.append

    def give_back(self) -> None:
        """Says so to the front."""
        while self._let_go:
            with contextlib.suppress(Closed):  # noticed by the next poll
                self.wire.post(comes_back(self._let_go.popleft()))

    def prepare(self, message: Message) -> Callable[[], Parcel]:
        body, blobs = self.wire.pack(message)
        return partial(parcel, body, blobs, pages=self.wire.pages)

    def post(self, item: Parcel) -> None:
        if self.wire.fileno() < 0:  # who asked is gone
            item.close()
            return
        with contextlib.suppress(Closed):
            self.wire.post(item)

    def reply(self, message: Message) -> None:
        body, blobs = self.wire.pack(message)
        # A front that is gone is noticed by the next poll.
        with contextlib.suppress(Closed):
            if blobs:
                self.wire.post(parcel(body, blobs, pages=self.wire.pages))
            else:
                self.wire.post_body(body)

    def reply_bodies(self, bodies: Sequence[bytes]) -> None:
        """Several replies, each a packed message, in one go."""
        with contextlib.suppress(Closed):
            self.wire.post_bodies(bodies)


class SocketInbox:
    """Messages of any number of fronts, each on its socket; replies that a socket did not take yet go out here too.

    `door`: where more fronts come in. It is then the first wire's end that ends it all: the server is gone.
    """

    def __init__(self, *wires: Wire, door: socket.socket | None = None) -> None:
        self._poll = select.poll()
        self.busy_poll = BusyPoll(self._poll.poll)
        self._door = door
        if door is not None:
            door.setblocking(False)
            self._poll.register(door.fileno(), select.POLLIN)
        self._peers: dict[int, SocketPeer] = {}
        self._watched: dict[int, int] = {}
        self.offended = False  # whether a front had to be hung up on
        self._trim_at, self._trimmed = time.monotonic() + _TRIM_S, 0
        self._asked = False  # whether there was a message since what was freed was given back
        for wire in wires:
            self.attach(wire)
        self._server = self._peers[wires[0].fileno()] if door is not None else None

    def attach(self, wire: Wire) -> SocketPeer:
        peer = self._peers[wire.fileno()] = SocketPeer(wire)
        self._poll.register(wire.fileno(), select.POLLIN)
        self._watched[wire.fileno()] = select.POLLIN
        return peer

    def drop(self, peer: Peer) -> None:
        self.offended = True
        self._remove(peer)

    def _remove(self, peer: Peer) -> None:
        for fd, known in list(self._peers.items()):
            if known is peer:
                self._poll.unregister(fd)
                del self._peers[fd], self._watched[fd]
                known.wire.close()

    def poll(self, timeout: float | None) -> list[tuple[Peer, Message | None]]:
        if not self._peers or (self._server is not None and self._server not in self._peers.values()):
            raise Closed("no front is left")
        if timeout != 0.0 and self._asked:
            left = self._trim_at - time.monotonic()
            if left <= 0.0:
                self._trim()
            else:
                timeout = left if timeout is None else min(timeout, left)
        for peer in self._peers.values():
            peer.give_back()
        found: list[tuple[Peer, Message | None]] = []
        for fd, events in self.busy_poll.wait(self._wait(timeout)):
            if self._door is not None and fd == self._door.fileno():
                self._let_in()
                continue
            peer = self._peers[fd]
            try:
                if events & select.POLLOUT:
                    peer.wire.flush()
                if events & ~select.POLLOUT:
                    found.extend((peer, message) for message in peer.wire.receive())
            except (Closed, BadMessage) as problem:
                if isinstance(problem, BadMessage):
                    found.extend((peer, message) for message in problem.before)
                    log.error("hanging up on a front: %s", problem)
                    self.offended = True
                self._remove(peer)
                found.append((peer, None))
        self._asked = self._asked or bool(found)
        return found

    def _let_in(self) -> None:
        assert self._door is not None
        passed, more = take_sockets(self._door)
        for one in passed:
            if one.sock is not None:
                self.attach(Wire(one.sock, keeps=True))
        if not more:
            self._poll.unregister(self._door.fileno())

    def _trim(self) -> None:
        """Lets go of what was freed since the last time, while there is nothing to do; looks for cycles where much was
        taken.

        What the allocator keeps (tune_allocator) lies wherever it was when most was in use: without this a worker stays
        as large as its sessions together ever were, and grows a little with each new coincidence of theirs.
        """
        self._asked = False
        if resident() > self._trimmed + _TRIM_BYTES:
            gc.collect()
        release_free_memory()
        self._trimmed = resident()
        self._trim_at = time.monotonic() + _TRIM_S

    def _wait(self, timeout: float | None) -> float | None:
        """Milliseconds to wait for; watches for room in those sockets that have something to send, and for memory that
        was kept long enough."""
        choked = False
        for fd, peer in self._peers.items():
            pages = peer.wire.pages
            if isinstance(pages, Pages) and pages.kept_bytes:
                left = pages.expire()
                timeout = timeout if left is None else left if timeout is None else min(timeout, left)
            if not peer.wire.waiting and self._watched[fd] == select.POLLIN:
                continue
            if peer.wire.choked:
                with contextlib.suppress(Closed):
                    peer.wire.flush()
            choked = choked or peer.wire.choked
            events = select.POLLIN | (select.POLLOUT if peer.wire.waiting and not peer.wire.choked else 0)
            if events != self._watched[fd]:
                self._poll.modify(fd, events)
                self._watched[fd] = events
        if choked:
            timeout = _RETRY if timeout is None else min(timeout, _RETRY)
        return None if timeout is None else timeout * 1e3


def resident() -> int:
    """Bytes of this process in memory, without those that it shares; 0 where the system does not say."""
    try:
        pages = [int(field) for field in Path("/proc/self/statm").read_text().split()]
    except OSError:
        return 0
    return (pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE")


def limit_memory(share: int, *, cpu_only: bool) -> None:
    """A hard stop behind admission, which counts what it knows of: allocations beyond it raise MemoryError.

    `share` is what this worker's sessions may hold, in bytes. To that comes what the process holds now (code,
    BLAS buffers) and a quarter, at least 1 GiB, for what admission cannot see. Where there is a GPU only private
    memory is limited, since drivers reserve address space far beyond what they use. Linux only.
    """
    if sys.platform != "linux":
        return
    import resource

    pages = [int(field) for field in Path("/proc/self/statm").read_text().split()]
    room = share + max(_HEADROOM, share // 4)
    wanted = {resource.RLIMIT_DATA: pages[5] * resource.getpagesize() + room}
    if cpu_only:
        wanted[resource.RLIMIT_AS] = pages[0] * resource.getpagesize() + room
    for what, limit in wanted.items():
        hard = resource.getrlimit(what)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(what, (limit, hard))


def _first(inbox: SocketInbox) -> tuple[Peer, Message]:
    while True:
        for peer, message in inbox.poll(None):
            if message is None:
                raise Closed("the front is gone")
            return peer, message


def serve(fd: int, factory: str, door: int | None = None) -> int:
    """Serves the front at socket `fd` until it hangs up, and those that come in at `door`; the exit status."""
    wire = Wire(socket.socket(fileno=fd), keeps=True)
    inbox = SocketInbox(wire, door=None if door is None else socket.socket(fileno=door))
    try:
        peer, start = _first(inbox)
    except Closed:
        return 3 if inbox.offended else 0
    number = start.get("id", 0)
    problem = ""
    if start.get("do") != "start" or start.get("protocol") != PROTOCOL:
        problem = f"the worker speaks protocol {PROTOCOL}, not {start.get('protocol')}"
    elif start.get("version") != version():
        problem = f"the worker is of version {version()} and the server of {start.get('version')}: restart the server"
    if problem:
        peer.reply(_refusal(number, problem))
        return 3
    try:
        worker = make_worker(start, factory)
    except Exception as error:
        log.exception("cannot start")
        peer.reply(_refusal(number, f"{type(error).__name__}: {error}"))
        return 4
    inbox.busy_poll.limit = worker.limits.busy_poll_s
    raise_file_limit()
    tune_allocator()
    if worker.limits.server_bytes:
        limit_memory(worker.limits.server_bytes, cpu_only=all(device == "cpu" for device in worker.devices))
    ready = {"pid": os.getpid(), "devices": worker.devices, **worker.sessions.inventory()}
    peer.reply({"id": number, "ok": ready, "queue_ms": 0.0, "run_ms": 0.0})
    # What exists now stays, and a tape has no cycles however long it gets: looking through it at every 700 new objects,
    # as the collector does by default, takes as long as recording it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
    try:
        worker.serve(inbox)
    except DeviceLost:
        return DEVICE_LOST
    return 3 if inbox.offended else 0


def _refusal(number: int, detail: str) -> Message:
    error: EngineError = Unavailable(detail, code="not-applied")
    return {"id": number, "error": error.to_data(), "queue_ms": 0.0, "run_ms": 0.0}


def main(arguments: Sequence[str] | None = None) -> int:
    """The process, from its arguments to its exit status."""
    parser = argparse.ArgumentParser(prog="engine.workers.child", description="A worker process; the server starts it.")
    parser.add_argument("--fd", type=int, required=True, help="a connected Unix socket")
    parser.add_argument("--door", type=int, help="a connected Unix socket at which more fronts come in")
    parser.add_argument("--name", default="worker", help="shown in process listings")
    parser.add_argument("--factory", default="engine.session:Session", help="the session class")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    text = f"%(asctime)s %(levelname)s {options.name}: %(message)s"
    logs.configure(os.environ.get("CURLGRAD_LOG_FORMAT", "text"), "WARNING", text, worker=options.name)
    # When memory runs out, the kernel should take a worker, which is restarted, and not the web process.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    status = serve(options.fd, options.factory, options.door)
    if status == DEVICE_LOST:  # a clean end would have the driver free what it has lost, which can hang
        logging.shutdown()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())

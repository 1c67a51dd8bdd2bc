"""How a front reaches one incarnation of a worker.

    InlineTransport    a thread of this process; works everywhere, also on Windows, and shares the interpreter lock
    ProcessTransport   a child process behind a Unix socket pair; Linux and macOS

Everything here is called in the event loop's thread, and calls back in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.workers.incoming import Incoming, Private
from engine.workers.making import make_worker
from engine.workers.messages import BadMessage, Blob, Closed, Codec, Message, NotSent, Peer

if sys.platform != "win32":
    from engine.workers.doors import pass_socket
    from engine.workers.frames import raise_file_limit
    from engine.workers.lines import Line
    from engine.workers.pages import Shared

_GRACE = 5.0
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

log = logging.getLogger("curlgrad.supervisor")


class Transport(ABC):
    """One incarnation of a worker. `start` it, `send` to it; `on_message` and `on_lost` are called by it.

    `on_lost` is called once, with the reason, when the worker is gone without `close` having been called.
    `on_message` raises BadMessage for a reply that makes no sense; the worker is then stopped, and lost.
    """

    pid: int | None = None

    def __init__(self, name: str, on_message: Callable[[Message], None], on_lost: Callable[[str], None]) -> None:
        self.name, self.on_message, self.on_lost = name, on_message, on_lost

    @staticmethod
    @abstractmethod
    def incoming(length: int) -> Incoming:
        """Memory for what is to be sent, which need not be copied then. Raises MemoryError."""

    @abstractmethod
    async def start(self, start: Message) -> None:
        """Brings the worker up and gives it its first message. Raises OSError."""

    @abstractmethod
    async def send(self, message: Message, *, alone: bool = False) -> None:
        """Sends, copying big arrays in another thread. `alone`: no other call is under way. Raises NotSent, CannotPack,
        MemoryError."""

    @abstractmethod
    def send_now(self, message: Message) -> None:
        """Sends a message without big arrays. Raises as `send` does."""

    def send_soon(self, message: Message, *, alone: bool = False) -> None:
        """As `send_now`, perhaps together with what else is sent before the event loop turns; that the worker is gone
        may be said by `on_lost` instead."""
        self.send_now(message)

    @abstractmethod
    def unsent(self) -> set[int]:
        """Ids of messages of which the worker has seen nothing."""

    @abstractmethod
    async def close(self) -> None:
        """Ends the worker: politely, then not. May be repeated."""


# ---------------------------------------------------------------- a thread


class _InlinePeer:
    """The front, seen from the worker's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[bytes, list[Blob]], None]) -> None:
        self._loop, self._deliver, self._codec = loop, deliver, Codec()

    def reply(self, message: Message) -> None:
        body, blobs = self._codec.pack(message)
        # Copied: the tensors behind them may change before the front has read them.
        copies = [blob.copy() for blob in blobs]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._deliver, body, copies)


class _InlineInbox:
    def __init__(self, peer: Peer) -> None:
        self.queue: queue.SimpleQueue[tuple[bytes, list[Blob]] | None] = queue.SimpleQueue()
        self._peer, self._codec = peer, Codec()
        self._open = True

    def poll(self, timeout: float | None) -> Sequence[tuple[Peer, Message | None]]:
        found: list[tuple[Peer, Message | None]] = []
        try:
            item = self.queue.get_nowait() if timeout == 0.0 else self.queue.get(timeout=timeout)
            while self._open:
                if item is None:
                    self._open = False
                    break
                found.append((self._peer, self._codec.unpack(*item)))
                item = self.queue.get_nowait()
        except queue.Empty:
            return found
        raise Closed("the front closed the worker")

    def drop(self, peer: Peer) -> None:
        self._open = False


class InlineTransport(Transport):
    """The worker in a thread of this process. Messages go through the same bytes as between processes."""

    def __init__(
        self,
        name: str,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
        *,
        factory: str,
    ) -> None:
        super().__init__(name, on_message, on_lost)
        self._factory = factory
        self._codec = Codec()
        self._inbox: _InlineInbox | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    @staticmethod
    def incoming(length: int) -> Incoming:
        return Private(length)

    async def start(self, start: Message) -> None:
        self._loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        peer = _InlinePeer(self._loop, self._deliver)
        inbox = self._inbox = _InlineInbox(peer)
        # A daemon, so that a step that takes hours does not keep the process from ending.
        self._thread = threading.Thread(
            target=self._serve, args=(start, inbox, peer), name=f"curlgrad-{self.name}", daemon=True
        )
        self._thread.start()

    def _serve(self, start: Message, inbox: _InlineInbox, peer: Peer) -> None:
        why = "the worker's thread ended"
        try:
            worker = make_worker(start, self._factory)
            ready = {"pid": os.getpid(), "devices": worker.devices, **worker.sessions.inventory()}
            peer.reply({"id": start["id"], "ok": ready, "queue_ms": 0.0, "run_ms": 0.0})
            worker.serve(inbox)
        except Exception as error:
            log.exception("worker %s ended", self.name)
            why = f"its thread ended with {type(error).__name__}: {error}"
        finally:
            assert self._loop is not None
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended, why)

    def _ended(self, why: str) -> None:
        if not self._closing:
            self._closing = True
            self.on_lost(why)

    def _deliver(self, body: bytes, blobs: list[Blob]) -> None:
        for blob in blobs:
            blob.flags.writeable = False
        if self._closing:
            return
        try:
            self.on_message(self._codec.unpack(body, blobs))
        except BadMessage as problem:
            log.error("worker %s sent what is no message, and is ended: %s", self.name, problem)
            if self._inbox is not None:
                self._inbox.queue.put(None)
            self._ended(f"it sent what is no message ({problem}) and was stopped")

    async def send(self, message: Message, *, alone: bool = False) -> None:
        self.send_now(message)

    def send_now(self, message: Message) -> None:
        if self._closing or self._inbox is None:
            raise NotSent("the worker is closed")
        body, blobs = self._codec.pack(message)
        for blob in blobs:
            # Views: the arrays stay the caller's. Read-only, so that a session copies them before it writes.
            blob.flags.writeable = False
        self._inbox.queue.put((body, blobs))

    def unsent(self) -> set[int]:
        return set()

    async def close(self) -> None:
        self._closing = True
        if self._inbox is not None and self._thread is not None:
            self._inbox.queue.put(None)
            await asyncio.to_thread(self._thread.join, _GRACE)


# ---------------------------------------------------------------- a process


class ProcessTransport(Transport):
    """The worker in a child process, behind one end of a Unix socket pair.

    `shared`: whether fronts in other processes are to reach the worker, too: see `admit`.
    """

    def __init__(
        self,
        name: str,
        on_message: Callable[[Message], None],
        on_lost: Callable[[str], None],
        *,
        factory: str,
        threads: int,
        shared: bool = False,
        busy_poll_s: float = 0.0,
    ) -> None:
        super().__init__(name, on_message, on_lost)
        self._busy_poll_s = busy_poll_s
        self._factory, self._threads = factory, threads
        self._shared = shared
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Line | None = None
        self._door: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._farewell: asyncio.Task[None] | None = None

    @staticmethod
    def incoming(length: int) -> Incoming:
        return Shared(length) if sys.platform != "win32" else Private(length)

    async def start(self, start: Message) -> None:
        if sys.platform == "win32":
            raise OSError("worker processes need Unix sockets: use --workers inline")
        self._loop = asyncio.get_running_loop()
        raise_file_limit()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        handed = [theirs]
        if self._shared:
            self._door, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            self._door.setblocking(False)
            handed.append(inside)
        spawning = self._loop.run_in_executor(None, self._spawn, handed)
        try:
            self._process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # The thread goes on, so there will be a process: it ends by itself, and `close` waits for it.
            ours.close()
            self._process = await spawning
            raise
        except OSError:
            ours.close()
            raise
        self.pid = self._process.pid
        self._line = Line(
            ours, self.on_message, self._lose, other="the worker", keeps=True, busy_poll_s=self._busy_poll_s
        )
        try:
            self.send_now(start)
        except NotSent as error:
            raise OSError(f"worker {self.name} ended before it began: {error}") from error

    def _spawn(self, handed: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        environment = dict(os.environ)
        # Read by the BLAS libraries when NumPy is loaded, so it must be there before the interpreter starts.
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(self._threads)))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        command = [sys.executable, "-P", "-m", "engine.workers.child"]
        with contextlib.ExitStack() as stack:
            fds = [stack.enter_context(sock).fileno() for sock in handed]
            options = ["--fd", str(fds[0]), "--name", self.name, "--factory", self._factory]
            for door in fds[1:]:
                options += ["--door", str(door)]
            return subprocess.Popen(command + options, pass_fds=fds, stdin=subprocess.DEVNULL, env=environment)

    async def send(self, message: Message, *, alone: bool = False) -> None:
        await self._open_line().send(message, alone=alone)

    def send_now(self, message: Message) -> None:
        self._open_line().send_now(message)

    def _open_line(self) -> Line:
        if self._line is None or self._closing:
            raise NotSent("the worker is gone")
        return self._line

    def send_soon(self, message: Message, *, alone: bool = False) -> None:
        self._open_line().send_soon(message, alone=alone)

    def unsent(self) -> set[int]:
        return self._line.unsent() if self._line is not None else set()

    def admit(self, sock: socket.socket) -> bool:
        """Gives the worker a socket at whose other end is one more front. False where it cannot be given now."""
        return self._door is not None and not self._closing and pass_socket(self._door, sock)

    def kill(self, why: str) -> None:
        """Ends the process at once; `why` is what is said of that."""
        self._end(why)

    def _lose(self, problem: BadMessage | None) -> None:
        """The worker hung up, or sent what is no message."""
        why = None
        if problem is not None:
            # Nothing it says can be relied on any more, and a restart is clean.
            log.error("worker %s sent what is no message, and is killed: %s", self.name, problem)
            why = f"it sent what is no message ({problem}) and was stopped"
        self._end(why)

    def _end(self, why: str | None) -> None:
        if self._closing or self._line is None:
            return
        self._closing = True
        self._line.stop()
        assert self._loop is not None
        self._farewell = self._loop.create_task(self._bury(why))

    async def _bury(self, why: str | None) -> None:
        """Says why the worker is gone, which its exit status tells a moment after the end of its stream."""
        process = self._process
        assert process is not None
        if why is not None:
            process.kill()
        status = await asyncio.to_thread(wait_for, process)
        try:
            self.on_lost(why or describe_exit(status))
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        for end in (self._line, self._door):
            if end is not None:
                end.close()

    async def close(self) -> None:
        if self._farewell is not None:
            await asyncio.wait({self._farewell})  # which, unlike a bare await, does not cancel it when cancelled
        self._closing = True
        self._hang_up()
        if self._process is not None:
            await asyncio.to_thread(wait_for, self._process, _GRACE)


def wait_for(process: subprocess.Popen[bytes], seconds: float = 1.0) -> int:
    """The exit status, at the latest in `seconds`: then the process is killed."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def describe_exit(status: int) -> str:
    """An exit status in words: "killed by SIGKILL"."""
    if status == 5:  # engine.workers.child
        return "its GPU failed, in a way that only a new process gets over"
    if status >= 0:
        return f"its process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"its process was killed by {name}"

"""A wire in an event loop: what one end of a Unix socket pair needs to send and to hear messages. Linux and macOS.

Everything here is called in the event loop's thread, and calls back in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable

from engine.workers.busy import BusyPoll, loop_fd, poller
from engine.workers.frames import Parcel, Wire, comes_back, parcel
from engine.workers.messages import BadMessage, Closed, Message, NotSent
from engine.workers.pages import UPLOADS, Given

_OFF_LOOP_BYTES = 1 << 20  # copying more than this would hold up the event loop for longer than a thread costs
_MAX_WAITING = 64 << 20
_RETRY = 0.01


class Line:
    """One end of a connected socket. `on_message` is told what comes in, and may raise BadMessage for what makes no
    sense; `on_end` is told once that nothing comes any more: why, or None where the other end is gone.

    `other`: who is at the other end, for what is said of it. `bounded`: whether messages are refused while very much
    waits to be read there. `keeps`: whether it is a worker, which keeps arrays and says when it lets go of them.
    `busy_poll_s`: how long the answer to a call that is alone is looked for, if it is likely to come soon and the event
    loop has nothing else to do.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_end: Callable[[BadMessage | None], None],
        *,
        other: str,
        bounded: bool = True,
        keeps: bool = False,
        busy_poll_s: float = 0.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message, self._on_end = on_message, on_end
        self._other, self._bounded = other, bounded
        self._wire = Wire(sock, keeps=False)
        self._wire.let_go = self._let_go
        self._given = self._wire.pages = Given() if keeps else None
        self._writing = self._expiring = False
        self._soon: list[tuple[bytes, int]] = []
        fds = [fd for fd in (self._wire.fileno(), loop_fd(self._loop)) if fd is not None]
        self._busy = BusyPoll(poller(*fds), busy_poll_s if len(fds) > 1 else 0.0)
        self.ended = False
        self._loop.add_reader(self._wire.fileno(), self._readable)

    # ------------------------------------------------ sending

    async def send(self, message: Message, *, alone: bool = False) -> None:
        """Sends, copying big arrays in another thread. `alone`: no other call is under way. Raises NotSent, CannotPack,
        MemoryError."""
        body, blobs = self._open().pack(message)
        if not blobs:
            self._post_body(body, message["id"])
            if alone:
                self._loop.call_soon(self._look)  # when who sends has come to wait
            return
        if sum(blob.nbytes for blob in blobs) <= _OFF_LOOP_BYTES:
            self._post(parcel(body, blobs, message["id"], self._given))
            return
        copying = self._loop.run_in_executor(None, parcel, body, blobs, message["id"], self._given)
        try:
            ready = await asyncio.shield(copying)
        except asyncio.CancelledError:
            copying.add_done_callback(self._discard)
            raise
        self._post(ready)

    def send_now(self, message: Message) -> None:
        """Sends a message without big arrays. Raises as `send` does."""
        body, blobs = self._open().pack(message)
        if blobs:
            self._post(parcel(body, blobs, message["id"], self._given))
        else:
            self._post_body(body, message["id"])

    def send_soon(self, message: Message, *, alone: bool = False) -> None:
        """As `send_now`, together with what else is sent before the event loop turns: one system call, and the other
        end is woken once. What is `alone` goes at once. Where the other end is gone by then, `on_end` says so, and the
        message is among the unsent."""
        body, blobs = self._opened().pack(message)
        if blobs:
            self._post(parcel(body, blobs, message["id"], self._given))
            return
        if not self._soon:
            if alone and self._sent_now(body, message["id"]):
                return
            self._loop.call_soon(self._send_soon)
        self._soon.append((body, message["id"]))

    def _sent_now(self, body: bytes, number: int) -> bool:
        """Sends what has nothing to wait for, so that the other end works while this one ends its turn. False where
        the other end is gone, which is noticed again, and told, when the event loop turns."""
        try:
            if not self._wire.post_body(body, number):
                self._write_later()
        except Closed:
            return False
        self._loop.call_soon(self._look)
        return True

    def _send_soon(self) -> None:
        if self.ended or not self._soon:
            return
        bodies = self._soon
        try:
            sent = self._wire.post_body(*bodies[0]) if len(bodies) == 1 else self._wire.post_several(bodies)
        except Closed:
            self._end(None)
            return
        self._soon = []
        if not sent:
            self._write_later()

    def unsent(self) -> set[int]:
        """Ids of messages of which the other end has seen nothing."""
        return self._wire.unsent() | {number for _, number in self._soon}

    def _open(self) -> Wire:
        if self._soon:
            self._send_soon()  # what came first goes first
        return self._opened()

    def _opened(self) -> Wire:
        if self.ended:
            raise NotSent(f"{self._other} is gone")
        if self._bounded and self._wire.waiting > _MAX_WAITING:
            raise NotSent(f"{self._other} is busy and has too much to read already")
        return self._wire

    def _post_body(self, body: bytes, number: int) -> None:
        wire = self._open()
        try:
            if not wire.post_body(body, number):
                self._write_later()
        except Closed as error:
            self._end(None)
            raise NotSent(str(error)) from error

    def _post(self, item: Parcel) -> None:
        try:
            wire = self._open()
        except NotSent:
            item.close()
            raise
        try:
            if not wire.post(item):
                self._write_later()
        except Closed as error:
            self._end(None)
            if not item.started:
                raise NotSent(str(error)) from error

    def _write_later(self) -> None:
        if self._wire.choked:
            self._stop_writing()
            self._loop.call_later(_RETRY, self._writable)
        elif not self._writing:
            self._loop.add_writer(self._wire.fileno(), self._writable)
            self._writing = True

    def _writable(self) -> None:
        if self.ended:
            return
        try:
            if self._wire.flush():
                self._stop_writing()
            else:
                self._write_later()
        except Closed:
            self._end(None)

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._wire.fileno())
            self._writing = False

    def _let_go(self, number: int) -> None:
        """Nothing here reads that memory any more. Called in any thread, by whatever drops the last array on it."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the other end gone with it
            self._loop.call_soon_threadsafe(self._give_back, number)

    def _give_back(self, number: int) -> None:
        if not self.ended:
            with contextlib.suppress(NotSent):  # it is gone, or so busy that it does without
                self._post(comes_back(number))

    def _discard(self, copying: asyncio.Future[Parcel]) -> None:
        """Nobody wants it sent any more."""
        if copying.cancelled() or copying.exception() is not None:
            return
        item = copying.result()
        item.close()
        if self._given is not None and not self.ended:
            for number in item.numbers:
                self._given.back(number)

    # ------------------------------------------------ receiving

    def _look(self) -> None:
        """Looks for the answer to the only call under way for a moment, before the event loop sleeps."""
        if not self.ended and any(fd == self._wire.fileno() for fd, _ in self._busy.look()):
            self._readable()

    def _readable(self) -> None:
        self._busy.came()
        try:
            for message in self._wire.receive():
                self._on_message(message)
            if UPLOADS.kept_bytes and not self._expiring:
                self._expire()
        except Closed:
            self._end(None)
        except BadMessage as problem:
            with contextlib.suppress(BadMessage):
                for message in problem.before:
                    self._on_message(message)
            self._end(problem)

    def _expire(self) -> None:
        """Looks again when memory that came back has waited long enough."""
        left = UPLOADS.expire()
        self._expiring = left is not None
        if left is not None:
            self._loop.call_later(left + _RETRY, self._expire)

    def drain(self) -> None:
        """Hears what the other end, which is gone, has said before it went."""
        waiting = select.poll()
        waiting.register(self._wire.fileno(), select.POLLIN)
        while not self.ended and waiting.poll(0):
            self._readable()

    # ------------------------------------------------ the end

    def _end(self, problem: BadMessage | None) -> None:
        if not self.ended:
            self.stop()
            self._on_end(problem)

    def stop(self) -> None:
        """Neither hears nor sends any more; `on_end` is not called. May be repeated."""
        if not self.ended:
            self.ended = True
            self._stop_writing()
            self._loop.remove_reader(self._wire.fileno())

    def close(self) -> None:
        """Stops, and hangs up. May be repeated."""
        self.stop()
        self._wire.close()

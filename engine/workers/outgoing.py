"""Answers of many bytes, copied for the front in another thread: other sessions go on meanwhile.

What a front reads is a copy, since tensors may change in place, unless their memory can be lent (pages.py); of a
gigabyte it takes a second. Until it is made the call keeps its place at the head of its session's line, so nothing
changes what is copied, and the worker serves the lines of others. The frame itself is sent by the worker's own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from engine.answer import TensorAnswer
from engine.errors import EngineError, OutOfMemory, Unavailable
from engine.workers.frames import Parcel
from engine.workers.messages import CannotPack, Message
from engine.workers.pages import behind

if TYPE_CHECKING:
    from engine.workers.worker import Worker

LARGE = 4 << 20  # bytes from which an answer is copied so: a millisecond or two
_THREADS = 2


@runtime_checkable
class Posts(Protocol):
    """A peer that takes frames which were made elsewhere."""

    def prepare(self, message: Message) -> Callable[[], Parcel]:
        """What makes the frame of a message, in any thread. Raises CannotPack."""

    def post(self, item: Parcel) -> None:
        """A peer that is gone is no error."""


class _Sending(NamedTuple):
    call: Any
    copying: Future[Parcel]
    begin: float


class Outgoing:
    """The large answers that are being copied. Used in the worker's thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._pool: ThreadPoolExecutor | None = None
        self._sending: list[_Sending] = []

    def __bool__(self) -> bool:
        return bool(self._sending)

    def take(self, call: Any, answer: Any) -> bool:
        """Begins to copy a call's answer; False where it is small, and is sent as ever. A taken call keeps its place
        until `finish` lets it go."""
        if _weight(answer) < LARGE or not isinstance(call.peer, Posts):
            return False
        try:
            copy = call.peer.prepare({"id": call.id, "ok": answer, **self._worker.timing(call)})
        except (CannotPack, MemoryError):
            return False  # the short way says what is wrong
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="curlgrad-copy")
        self._sending.append(_Sending(call, self._pool.submit(copy), self._worker.clock()))
        call.sending = call.seat.parked = True
        return True

    def finish(self) -> bool:
        """Sends what has been copied, and lets the lines of those calls go on; whether there was anything."""
        done = [one for one in self._sending if one.copying.done()]
        if not done:
            return False
        self._sending = [one for one in self._sending if one not in done]
        for call, copying, begin in done:
            self._worker.let_go([call], begin)
            try:
                call.peer.post(copying.result())
            except MemoryError as problem:
                self._worker.refuse(call, _no_memory(call, problem))
        return True

    def close(self) -> None:
        """Waits for the copies that are being made; nobody is there any more to send them to."""
        if self._pool is not None:
            self._pool.shutdown()
        sending, self._sending = self._sending, []
        for one in sending:
            if one.copying.exception() is None:
                one.copying.result().close()


def _no_memory(call: Any, problem: MemoryError) -> EngineError:
    if call.word == "run" and not call.message["dry_run"]:
        said = f"the program was done, but there is no memory for the answer: {problem}"
        return Unavailable(said, code="outcome-unknown")
    return OutOfMemory(f"no memory for the answer: {problem}")


def _weight(answer: Any) -> int:
    """The bytes of the values in an answer that have to be copied."""
    if type(answer) is TensorAnswer:
        values = answer.values
        own = 0 if values is None or behind(values) is not None else values.nbytes
        return own + (_weight(answer.grad) if answer.grad else 0)
    if type(answer) is dict:
        return sum(map(_weight, answer.values()))
    return sum(map(_weight, answer)) if type(answer) is list else 0

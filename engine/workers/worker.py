"""A worker: one thread that owns sessions, and runs their programs a few steps at a time.

    messages ──> receive ──> the session's line ──> turns ──> work: steps of one program, or one query ──> reply
                        └──> info and cancel are answered on the spot

Calls of one session take effect one at a time, in the order of arrival; reads too, so that a read sees what was
written before it. Information about a session or the worker, and cancelling, wait for nothing but the step that is
running. Who gets the next turn is turns.py's business; a turn lasts `SLICE` seconds or one step, whichever is longer,
and the worker looks for messages after each turn (not between steps: looking costs as much as a small step).

The same class serves in a process of its own (child.py) and in a thread of the web process (transports.py).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Protocol

from engine import backend
from engine.errors import (
    Bug,
    Conflict,
    EngineError,
    Hint,
    NoSuchDevice,
    NoSuchSession,
    OutOfMemory,
    QueueFull,
    Unavailable,
)
from engine.limits import Limits
from engine.tensor import ServerLedger, Tally
from engine.workers.messages import BadMessage, CannotPack, Closed, Message
from engine.workers.turns import Turns

SLICE = 0.001
_LONGEST_WAIT = 24 * 3600.0
_MORE = object()  # a program's answer while it has steps to go

_FIELDS: Mapping[str, Mapping[str, type | UnionType]] = {
    "open": {"session": str, "owner": str, "name": str | None, "device": str, "default_dtype": str},
    "run": {"session": str, "program": dict, "values": str, "dry_run": bool, "explain": bool},
    "query": {"session": str, "q": dict, "values": str},
    "rename": {"session": str, "name": str | None},
    "close": {"session": str},
    "cancel": {"target": int},
    "info": {"sessions": list},
}

log = logging.getLogger("curlgrad.worker")


class SessionLike(Protocol):
    """What a worker asks of a session: engine.session.Session, or a stand-in of the tests."""

    name: str | None

    def run(
        self, program: dict[str, Any], *, values: str, dry_run: bool = False, explain: bool = False
    ) -> Generator[None, None, dict[str, Any]]:
        """Yields at every step boundary and returns the reply. If it raises or is closed, nothing has changed."""

    def query(self, q: dict[str, Any], values: str = "auto") -> Any:
        """A reply; changes nothing. {"do": "info"} may be asked while a program is between two steps."""

    def bytes_by_device(self) -> dict[str, dict[str, int]]:
        """What is held now, by device and what holds it. May be asked while a program is between two steps."""

    def close(self) -> None:
        """Frees everything."""


class Peer(Protocol):
    """Someone who sends messages and gets replies: a front."""

    def reply(self, message: Message) -> None:
        """Raises CannotPack, MemoryError. A peer that is gone is no error."""


class Inbox(Protocol):
    """Where a worker's messages come from."""

    def poll(self, timeout: float | None) -> Sequence[tuple[Peer, Message | None]]:
        """What came in within `timeout` seconds (None: for ever), None for a peer that is gone.

        Raises Closed when no peer is left.
        """

    def drop(self, peer: Peer) -> None:
        """Hangs up on a peer that does not keep to the protocol."""


class _Call:
    __slots__ = ("arrived", "id", "message", "peer", "ran", "seat", "steps", "word")

    def __init__(self, peer: Peer, message: Message, seat: _Seat, arrived: float) -> None:
        self.peer, self.message, self.seat = peer, message, seat
        self.id: int = message["id"]
        self.word: str = message["do"]
        self.arrived = arrived  # when the front sent it
        self.ran = 0.0
        self.steps: Generator[None, None, dict[str, Any]] | None = None  # a program that has begun


class _Seat:
    """A session and the calls that wait for it."""

    __slots__ = ("_memory", "_memory_at", "calls", "created", "id", "last_used", "owner", "session")

    def __init__(self, session_id: str, owner: str, session: SessionLike) -> None:
        self.id, self.owner, self.session = session_id, owner, session
        self._memory: dict[str, dict[str, int]] = {}
        self._memory_at = -1.0
        self.calls: deque[_Call] = deque()
        self.created = self.last_used = time.time()

    @property
    def quick(self) -> bool:
        return self.calls[0].word == "query"

    def info(self) -> dict[str, Any]:
        known: dict[str, Any] = self.session.query({"do": "info"}, "none")
        return {**known, "created": self.created, "last_used": self.last_used}

    def memory(self) -> dict[str, dict[str, int]]:
        """Bytes by device and what holds them; counted again only where the session was used since."""
        if self.last_used != self._memory_at or self.calls:
            self._memory, self._memory_at = self.session.bytes_by_device(), self.last_used
        return self._memory


class Worker:
    """Sessions, and the one loop that serves them. Everything runs in the thread that calls `serve`."""

    def __init__(
        self,
        name: str,
        devices: Sequence[str],
        limits: Limits,
        *,
        session_factory: Callable[..., SessionLike],
        clock: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
    ) -> None:
        self._tally = tally
        self.name, self.devices, self.limits = name, list(devices), limits
        self._make_session = session_factory
        self._clock = clock
        self._seats: dict[str, _Seat] = {}
        self._turns: Turns[_Seat] = Turns()
        self._calls: dict[tuple[Peer, int], _Call] = {}
        self._waiting: dict[str, int] = {}  # calls of each owner, the running ones too

    # ------------------------------------------------ the loop

    def serve(self, inbox: Inbox) -> None:
        """Answers messages until the last peer is gone, then frees all sessions."""
        busy, look = False, 0.0
        try:
            while True:
                if not busy or self._clock() >= look:
                    for peer, message in inbox.poll(0.0 if busy else None):
                        try:
                            self.receive(peer, message)
                        except BadMessage as problem:
                            log.error("%s: hanging up on a front: %s", self.name, problem)
                            inbox.drop(peer)
                            self.receive(peer, None)
                    # Otherwise the last message, and its gigabytes, would live until the next one comes.
                    message = None
                    look = self._clock() + SLICE
                busy = self.work()
        except Closed:
            return
        finally:
            self.close()

    def receive(self, peer: Peer, message: Message | None) -> None:
        """Takes one message: answers it, or puts it in its session's line. None: the peer is gone, with its calls."""
        if message is None:
            for call in [call for (who, _), call in self._calls.items() if who is peer]:
                self._withdraw(call)
            return
        now = self._clock()
        number, word = _checked(message)
        if word == "cancel":
            self._reply(peer, number, ok=self._cancel(peer, message["target"]))
        elif word == "open":
            self._answer(peer, number, self._open, message)
        elif word == "info":
            self._answer(peer, number, self._info, message)
        elif word == "query" and message["q"].get("do") == "info":
            self._answer(peer, number, self._query_at_once, message)
        elif (peer, number) in self._calls:
            raise BadMessage(f"id {number} is in use")
        else:
            self._enqueue(peer, message, now)

    def work(self) -> bool:
        """One turn: some steps of a program, or one other call. False when nothing was to do."""
        seat = self._turns.pick()
        if seat is None:
            return False
        begin = self._clock()
        call = seat.calls[0]
        answer, error = None, None
        try:
            answer = self._words[call.word](self, call, begin + SLICE)
        except Exception as problem:  # noqa: BLE001 - whatever a session does wrong, the others go on
            error = self._as_error(problem, call.word)
        taken = self._clock() - begin
        call.ran += taken
        if answer is not _MORE:
            self._leave(call)
            self._finish(call, answer, error)
            taken = self._clock() - begin
        self._turns.put_back(seat, taken)
        return True

    def close(self) -> None:
        """Ends every program, undone, and frees every session."""
        for call in list(self._calls.values()):
            self._withdraw(call)
        for seat in self._seats.values():
            with self._logged("closing a session"):
                seat.session.close()
        self._seats.clear()

    # ------------------------------------------------ calls that wait for their turn

    def _enqueue(self, peer: Peer, message: Message, now: float) -> None:
        number, word = message["id"], message["do"]
        try:
            seat = self._seat(message)
            waiting = self._waiting.get(seat.owner, 0)
            if message.get("lost"):
                raise Unavailable(
                    "the server had no memory, or too many open files, to take this call's arrays; nothing was done",
                    code="not-applied",
                    hint=Hint("try-again"),
                )
            if waiting >= self.limits.max_queue and word != "close":
                raise QueueFull(
                    f"{waiting} of your calls are waiting on worker {self.name} already; nothing was done",
                    hint=Hint("queue-full", waiting=waiting, limit=self.limits.max_queue),
                    waiting=waiting,
                    limit=self.limits.max_queue,
                )
        except EngineError as error:
            self._reply(peer, number, error=error)
            return
        sent = message.get("sent")
        # On another machine's clock the difference means nothing.
        arrived = sent if type(sent) is float and 0.0 <= now - sent < _LONGEST_WAIT else now
        call = _Call(peer, message, seat, arrived)
        self._calls[peer, number] = call
        self._waiting[seat.owner] = waiting + 1
        seat.calls.append(call)
        self._turns.enter(seat)

    def _run(self, call: _Call, until: float) -> Any:
        if call.steps is None:
            message = call.message
            call.seat.last_used = time.time()
            # Taken out of the message, so that the program alone decides how long its arrays live.
            call.steps = call.seat.session.run(
                message.pop("program"),
                values=message["values"],
                dry_run=message["dry_run"],
                explain=message["explain"],
            )
        steps, clock = call.steps, self._clock
        try:
            while True:
                next(steps)
                if clock() >= until:
                    return _MORE
        except StopIteration as end:
            return end.value

    def _query(self, call: _Call, until: float) -> Any:
        call.seat.last_used = time.time()
        return call.seat.session.query(call.message["q"], call.message["values"])

    def _rename(self, call: _Call, until: float) -> None:
        call.seat.session.name = call.message["name"]

    def _close(self, call: _Call, until: float) -> None:
        seat = call.seat
        self._seats.pop(seat.id, None)
        try:
            seat.session.close()
        finally:
            gone = NoSuchSession("the session was deleted", hint=Hint("list-sessions"))
            for other in list(seat.calls)[1:]:
                self._leave(other)
                self._reply(other.peer, other.id, error=gone)

    _words: Mapping[str, Callable[[Worker, _Call, float], Any]] = {
        "run": _run,
        "query": _query,
        "rename": _rename,
        "close": _close,
    }

    def _finish(self, call: _Call, answer: Any, error: EngineError | None) -> None:
        waited = max(0.0, self._clock() - call.arrived - call.ran)
        timing = {"queue_ms": waited * 1e3, "run_ms": call.ran * 1e3}
        changes = call.word == "run" and not call.message["dry_run"]
        self._reply(call.peer, call.id, ok=answer, error=error, timing=timing, changed=changes)

    def _leave(self, call: _Call) -> None:
        """Takes a call out of its line and out of the books."""
        seat = call.seat
        if seat.calls and seat.calls[0] is call:
            seat.calls.popleft()
        else:
            with contextlib.suppress(ValueError):
                seat.calls.remove(call)
        self._calls.pop((call.peer, call.id), None)
        left = self._waiting.get(seat.owner, 1) - 1
        if left:
            self._waiting[seat.owner] = left
        else:
            self._waiting.pop(seat.owner, None)

    def _withdraw(self, call: _Call) -> None:
        """Stops a call, wherever it stands; a program that had begun is undone."""
        self._leave(call)
        if call.steps is not None:
            with self._logged("undoing a program"):
                call.steps.close()

    # ------------------------------------------------ calls that wait for nothing

    def _open(self, message: Message) -> Any:
        session_id = message["session"]
        if session_id in self._seats:
            raise BadMessage(f"session {session_id} is open already")
        session = self._make_session(
            session_id,
            owner=message["owner"],
            name=message["name"],
            device=message["device"],
            seed=message["seed"],
            default_dtype=message["default_dtype"],
            limits=self.limits,
        )
        seat = _Seat(session_id, message["owner"], session)
        self._seats[session_id] = seat
        return seat.info()

    def _query_at_once(self, message: Message) -> Any:
        return self._seat(message).info()

    def _info(self, message: Message) -> Any:
        known = {}
        for session_id in message["sessions"]:
            seat = self._seats.get(session_id)
            known[session_id] = seat.info() if seat else None
        return {
            "name": self.name,
            "pid": os.getpid(),
            "devices": self.devices,
            "sessions": len(self._seats),
            "waiting": sum(self._waiting.values()),
            "infos": known,
            **({"numbers": self._numbers()} if message.get("numbers") else {}),
        }

    def _numbers(self) -> dict[str, Any]:
        """What /metrics tells of this worker, since it started. `journal`: its lag, where there is a journal."""
        memory: dict[str, dict[str, int]] = {}
        for seat in self._seats.values():
            for device, kinds in seat.memory().items():
                on = memory.setdefault(device, {})
                for kind, held in kinds.items():
                    on[kind] = on.get(kind, 0) + held
        return {
            **({} if self._tally is None else self._tally.to_data()),
            "memory": memory,
            "resident_bytes": resident_bytes(),
            "journal": None,
        }

    def _cancel(self, peer: Peer, target: int) -> dict[str, bool]:
        call = self._calls.get((peer, target))
        if call is None or call.word not in ("run", "query"):
            return {"cancelled": False}
        self._withdraw(call)
        error = Conflict("the call was cancelled; the session is as it was before", code="cancelled")
        self._finish(call, None, error)
        return {"cancelled": True}

    # ------------------------------------------------ replies

    def _seat(self, message: Message) -> _Seat:
        try:
            return self._seats[message["session"]]
        except KeyError:
            raise NoSuchSession(f"worker {self.name} has no such session", code="moved") from None

    def _answer(self, peer: Peer, number: int, how: Callable[[Message], Any], message: Message) -> None:
        begin = self._clock()
        answer, error = None, None
        try:
            answer = how(message)
        except BadMessage:
            raise
        except Exception as problem:  # noqa: BLE001 - as in `work`
            error = self._as_error(problem, message["do"])
        timing = {"queue_ms": 0.0, "run_ms": (self._clock() - begin) * 1e3}
        self._reply(peer, number, ok=answer, error=error, timing=timing)

    def _as_error(self, problem: Exception, word: str) -> EngineError:
        if isinstance(problem, EngineError):
            error = problem
        elif isinstance(problem, MemoryError):
            error = OutOfMemory(f"the worker ran out of memory: {str(problem) or 'nothing more is known'}")
        else:
            reference = secrets.token_hex(4)
            log.error("%s: a bug in a %s, reference %s", self.name, word, reference, exc_info=problem)
            error = Bug(
                f"a bug of the server ({type(problem).__name__}); its log has the traceback under {reference}",
                hint=Hint("report-bug", reference=reference),
                reference=reference,
            )
        # A traceback holds the frames it went through, and they the tensors of the failed program, in a cycle.
        problem.__traceback__ = problem.__context__ = problem.__cause__ = None
        return error

    def _reply(
        self,
        peer: Peer,
        number: int,
        *,
        ok: Any = None,
        error: EngineError | None = None,
        timing: Mapping[str, float] | None = None,
        changed: bool = False,
    ) -> None:
        """Sends a reply. One that cannot be sent is replaced by the error that says so."""
        timing = timing or {"queue_ms": 0.0, "run_ms": 0.0}
        try:
            if error is None:
                peer.reply({"id": number, "ok": ok, **timing})
            else:
                peer.reply({"id": number, "error": error.to_data(), **timing})
            return
        except MemoryError as problem:
            failure: EngineError = OutOfMemory(f"no memory for the answer: {problem}")
        except CannotPack as problem:
            failure = self._as_error(problem, "reply")
        if changed and error is None:
            failure = Unavailable(f"the program was done, but {failure.detail}", code="outcome-unknown")
        peer.reply({"id": number, "error": failure.to_data(), **timing})

    @contextlib.contextmanager
    def _logged(self, doing: str) -> Generator[None]:
        """Clean-up that fails must not stop the rest of it, nor be silent."""
        try:
            yield
        except Exception:
            log.exception("%s: %s failed", self.name, doing)


def resident_bytes() -> int | None:
    """The process's memory as the system sees it; None where it does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _checked(message: Message) -> tuple[int, str]:
    """The id and the word of a message whose fields are as they should be. Raises BadMessage."""
    number, word = message.get("id"), message.get("do")
    fields = _FIELDS.get(word) if type(word) is str else None
    if type(number) is not int or type(word) is not str or fields is None:
        raise BadMessage(f"no such message: do={word!r}, id={number!r}")
    for name, kind in fields.items():
        if not isinstance(message.get(name, _MORE), kind):
            raise BadMessage(f"{word!r} with {name}={message.get(name)!r:.80}")
    return number, word


def make_worker(start: Message, factory: str) -> Worker:
    """The worker that a "start" message describes, its sessions of the class "module:Class".

    Raises EngineError for a device that cannot be had, and whatever the import raises.
    """
    module_name, _, class_name = factory.partition(":")
    module = importlib.import_module(module_name)
    for device in start["devices"]:
        if start["practice"] and device != "cpu":
            backend.simulated_cuda(device)
        try:
            backend.find(device, start["devices"])
        except KeyError:
            raise NoSuchDevice(f"there is no device {device} on this machine", param="workers") from None
    limits = Limits(**start["limits"])
    # What all sessions of this worker hold together is counted in one ledger.
    server = ServerLedger(limits.server_bytes, limits.owner_bytes)
    make_session = partial(getattr(module, class_name), devices=tuple(start["devices"]), server=server)
    return Worker(start["name"], start["devices"], limits, session_factory=make_session, tally=server.tally)

"""A worker: one thread that owns sessions, and runs their programs a few steps at a time.

    messages ──> receive ──> the session's line ──> turns ──> work: steps of one program, or one query ──> reply
                        └──> info and cancel are answered on the spot

Calls of one session take effect one at a time, in the order of arrival; reads too, so that a read sees what was
written before it. Information about a session or the worker, and cancelling, wait for nothing but the step that is
running. Who gets the next turn is turns.py's business; a turn lasts `SLICE` seconds or one step, whichever is longer,
and the worker looks for messages after each turn (not between steps: looking costs as much as a small step).

With a data directory a program that is done waits, with its session, until its commit is written: `flush` writes those
of a whole turn of the loop in one go, before any of them is answered. Sessions that nobody uses are written to the disk
and leave memory; the next call wakes them.

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
from engine.commit import Commit
from engine.durability.recovery import Answer, Answers
from engine.durability.store import Change, Store
from engine.errors import (
    Bug,
    Conflict,
    EngineError,
    Gone,
    Hint,
    Invalid,
    NoSuchDevice,
    NoSuchSession,
    OutOfMemory,
    Unavailable,
)
from engine.limits import Limits
from engine.tensor import ServerLedger
from engine.workers.messages import BadMessage, CannotPack, Closed, Message
from engine.workers.replies import Replies
from engine.workers.turns import Turns

SLICE = 0.001
TICK = 1.0  # seconds between two looks at leases, idle sessions and what can be tidied up
LEASE_GRACE = 60.0  # seconds that a session is kept beyond its lease, in which a late call still finds it
_ENDED = 10_000
_LONGEST_WAIT = 24 * 3600.0
_MORE = object()  # a program's answer while it has steps to go
_STAGED = object()  # the answer of a call that is done and waits for its change to be written

_FIELDS: Mapping[str, Mapping[str, type | UnionType]] = {
    "open": {"session": str, "owner": str, "name": str | None, "device": str, "default_dtype": str},
    "run": {"session": str, "program": dict, "values": str, "dry_run": bool, "explain": bool},
    "query": {"session": str, "q": dict, "values": str},
    "rename": {"session": str, "name": str | None},
    "lease": {"session": str, "lease_s": float | int | None},
    "outcome": {"session": str, "call": str, "values": str},
    "close": {"session": str},
    "cancel": {"target": int},
    "info": {"sessions": list},
}

log = logging.getLogger("curlgrad.worker")


class SessionLike(Protocol):
    """What a worker asks of a session: engine.session.Session, or a stand-in of the tests."""

    name: str | None
    on_commit: Callable[[Commit], None] | None

    def run(
        self, program: dict[str, Any], *, values: str, dry_run: bool = False, explain: bool = False
    ) -> Generator[dict[str, Any] | None, None, dict[str, Any]]:
        """Yields None at every step boundary and returns the reply. If it raises or is closed, nothing has changed.

        Where it changed something and `on_commit` is set, it yields its reply, too, before it returns it.
        """

    def query(self, q: dict[str, Any], values: str = "auto") -> Any:
        """A reply; changes nothing. {"do": "info"} may be asked while a program is between two steps."""

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
        self.steps: Generator[dict[str, Any] | None, None, dict[str, Any]] | None = None  # a program that has begun


class _Seat:
    """A session and the calls that wait for it. `session` is None while it sleeps on the disk."""

    __slots__ = ("answers", "calls", "commit", "created", "id", "last_used", "lease_s", "name", "owner", "session")

    def __init__(self, session_id: str, owner: str, name: str | None, session: SessionLike | None) -> None:
        self.id, self.owner, self.name, self.session = session_id, owner, name, session
        self.calls: deque[_Call] = deque()
        self.created = self.last_used = time.time()
        self.lease_s: float | None = None
        self.commit: Commit | None = None  # of the program that has just ended
        self.answers = Answers()  # where there is no data directory: to calls with an idempotency key

    @property
    def quick(self) -> bool:
        return self.calls[0].word == "query"

    @property
    def idle(self) -> bool:
        """Whether no program of it is under way."""
        return not self.calls or self.calls[0].steps is None

    def described(self, known: Mapping[str, Any]) -> dict[str, Any]:
        expires = None if self.lease_s is None else self.last_used + self.lease_s
        return {
            **known,
            "created": self.created,
            "last_used": self.last_used,
            "expires_at": expires,
        }


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
        wall: Callable[[], float] | None = None,
        server: ServerLedger | None = None,
    ) -> None:
        self.name, self.devices, self.limits = name, list(devices), limits
        self._make_session = session_factory
        self._clock, self._wall = clock, wall or _now
        self._leased = False  # whether any session has a lease
        self._server = server
        self._store: Store | None = None
        self._replies = Replies()
        self._staged: list[tuple[Change, Callable[[EngineError | None], None]]] = []
        self._ended: dict[str, Gone] = {}  # sessions whose lease ran out
        self._tick_at = clock() + TICK
        self._seats: dict[str, _Seat] = {}
        self._turns: Turns[_Seat] = Turns()
        self._calls: dict[tuple[Peer, int], _Call] = {}
        self._waiting: dict[str, int] = {}  # calls of each owner, the running ones too

    def keep(self, store: Store) -> None:
        """From now on sessions outlive this worker; those that the store has are there, asleep."""
        self._store = store
        for kept in store.kept.values():
            if not kept.opened:
                continue
            seat = _Seat(kept.id, kept.opened["owner"], kept.opened["name"], None)
            # A lease does not run while nobody can use the session.
            seat.created, seat.last_used, seat.lease_s = kept.opened["created"], self._wall(), kept.opened["lease_s"]
            self._seats[kept.id] = seat
        for _, id, name, why, at in store.ended:
            self._ended[id] = expired(id, name, why, at)
        if self._server is not None:
            self._server.reclaim = self._reclaim

    def restore(self, id: str, opened: Mapping[str, Any]) -> SessionLike:
        """The session that was opened so, still empty: what the store fills."""
        return self._make_session(
            id,
            owner=opened["owner"],
            name=opened["name"],
            device=opened["device"],
            seed=opened["seed"],
            default_dtype=opened["default_dtype"],
            limits=self.limits,
            incarnation=opened["incarnation"],
        )

    def inventory(self) -> dict[str, Any]:
        """What a front has to know of the sessions that are there before it has asked for any."""
        store = self._store
        if store is None:
            return {}
        rows = [
            {
                "id": kept.id,
                "owner": kept.opened["owner"],
                "name": kept.opened["name"],
                "device": kept.opened["device"],
                "number": kept.opened["number"],
                "key": kept.opened["key"],
                "created": kept.opened["created"],
            }
            for kept in store.kept.values()
            if kept.opened
        ]
        return {"sessions": rows, "ended": store.ended, "ran": store.ran_last}

    # ------------------------------------------------ the loop

    def serve(self, inbox: Inbox) -> None:
        """Answers messages until the last peer is gone, then frees all sessions."""
        busy, look = False, 0.0
        try:
            while True:
                if not busy or self._clock() >= look:
                    self.flush()
                    if self._clock() >= self._tick_at:
                        self.tick()
                    for peer, message in inbox.poll(0.0 if busy else self._patience()):
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

    def _patience(self) -> float | None:
        """How long to wait for messages when there is nothing to do."""
        return TICK if self._store is not None or self._leased else None

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
            self._open(peer, message)
        elif word == "info":
            self._answer(peer, number, self._info, message)
        elif word == "query" and message["q"].get("do") == "info":
            self._answer(peer, number, self._query_at_once, message)
        elif word == "outcome":
            self._answer(peer, number, self._outcome, message)
        elif (peer, number) in self._calls:
            raise BadMessage(f"id {number} is in use")
        else:
            self._enqueue(peer, message, now)

    def work(self) -> bool:
        """One turn: some steps of a program, or one other call. False when nothing was to do."""
        seat = self._turns.pick()
        if seat is None:
            return self.flush()
        begin = self._clock()
        call = seat.calls[0]
        answer, error = None, None
        if self._store is not None:
            self._store.mark(call.message.get("call") or "")
        try:
            answer = self._words[call.word](self, call, begin + SLICE)
        except Exception as problem:  # noqa: BLE001 - whatever a session does wrong, the others go on
            error = self._as_error(problem, call.word)
        taken = self._clock() - begin
        call.ran += taken
        if answer is _STAGED:
            return True  # its line goes on when it is written
        if answer is not _MORE:
            self._leave(call)
            self._finish(call, answer, error)
            taken = self._clock() - begin
        self._turns.put_back(seat, taken)
        return True

    def flush(self) -> bool:
        """Writes what waits to be written, in one go, and lets its calls end. False when nothing waited."""
        staged, self._staged = self._staged, []
        if not staged:
            return False
        assert self._store is not None
        failures: list[EngineError | None] = [None] * len(staged)
        try:
            self._store.write([change for change, _ in staged])
        except Exception as problem:  # noqa: BLE001 - as in `work`
            failures = [self._as_error(problem, "write")] * len(staged)
            if isinstance(problem, OutOfMemory) and len(staged) > 1:
                failures = [self._write_alone(change) for change, _ in staged]  # a big one may have kept small ones out
        for (_, done), failure in zip(staged, failures, strict=True):
            done(failure)
        return True

    def _write_alone(self, change: Change) -> EngineError | None:
        assert self._store is not None
        try:
            self._store.write([change])
        except Exception as problem:  # noqa: BLE001 - as in `work`
            return self._as_error(problem, "write")
        return None

    def close(self) -> None:
        """Ends every program, undone, and frees every session."""
        self.flush()
        for call in list(self._calls.values()):
            self._withdraw(call)
        for seat in self._seats.values():
            if seat.session is not None:
                with self._logged("closing a session"):
                    seat.session.close()
        self._seats.clear()
        if self._store is not None:
            self._store.close()

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
                raise Unavailable(
                    f"{waiting} of your calls are waiting on worker {self.name} already; nothing was done",
                    code="not-applied",
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
        seat, message = call.seat, call.message
        if call.steps is None:
            seat.last_used = self._wall()
            session = self._awake(seat)
            if message.get("key") is not None and (known := self._known_answer(seat, message)) is not None:
                return known
            if self._store is None:
                session.on_commit = None if message.get("key") is None else partial(setattr, seat, "commit")
            # Taken out of the message, so that the program alone decides how long its arrays live.
            call.steps = session.run(
                message.pop("program"),
                values=message["values"],
                dry_run=message["dry_run"],
                explain=message["explain"],
            )
        steps, clock = call.steps, self._clock
        try:
            while True:
                reply = next(steps)
                if reply is not None and self._keep(call, reply):
                    return _STAGED
                if clock() >= until:
                    return _MORE
        except StopIteration as end:
            return end.value

    def _keep(self, call: _Call, reply: dict[str, Any]) -> bool:
        """A program has ended and changed something: its commit is to be written before it is answered. False where
        nothing is written."""
        seat, message = call.seat, call.message
        commit, seat.commit = seat.commit, None
        key = message.get("key")
        packed, short = self._replies.pack(reply, keyed=key is not None)
        if self._store is None:
            seat.answers.put(key, Answer(message["digest"], self._wall(), packed, short))
            return False
        head = {
            "call": message.get("call"),
            "key": None if key is None else [key, message["digest"]],
            "reply": packed,
            "short": short,
        }
        self._staged.append((Change("commit", seat.id, head, commit), partial(self._written, call)))
        return True

    def _written(self, call: _Call, failure: EngineError | None) -> None:
        """A program's commit is on its way to the disk, or cannot be: then the program is undone."""
        assert call.steps is not None
        begin = self._clock()
        answer, error = None, None
        try:
            if failure is None:
                next(call.steps)
            else:
                call.steps.throw(failure)
        except StopIteration as end:
            answer = end.value
        except Exception as problem:  # noqa: BLE001 - as in `work`
            error = self._as_error(problem, "run")
        self._done(call, answer, error, begin)

    def _done(self, call: _Call, answer: Any, error: EngineError | None, begin: float) -> None:
        self._leave(call)
        self._finish(call, answer, error)
        self._turns.put_back(call.seat, call.ran + self._clock() - begin)

    def _stage(self, call: _Call, change: Change, then: Callable[[], None]) -> Any:
        """The change of a call that runs no program: written, then done."""
        if self._store is None:
            then()
            return None

        def done(failure: EngineError | None) -> None:
            begin, error = self._clock(), failure
            if failure is None:
                try:
                    then()
                except Exception as problem:  # noqa: BLE001 - as in `work`
                    error = self._as_error(problem, call.word)
            self._done(call, None, error, begin)

        self._staged.append((change, done))
        return _STAGED

    def _known_answer(self, seat: _Seat, message: Message) -> Any:
        """What a call with the same idempotency key was answered. Raises Invalid for another call's key."""
        answers = self._answers(seat)
        known = answers.get(message["key"])
        if known is None:
            return None
        if known.digest != message["digest"]:
            raise Invalid(
                "this Idempotency-Key was used for another request; nothing was done",
                code="idempotency-key-reused",
                hint=Hint("new-idempotency-key"),
            )
        return self._replies.unpack(known.reply)

    def _answers(self, seat: _Seat) -> Answers:
        if self._store is None:
            return seat.answers
        answers = self._store.kept[seat.id].answers
        assert answers is not None, "it is awake"
        return answers

    def _query(self, call: _Call, until: float) -> Any:
        call.seat.last_used = self._wall()
        return self._awake(call.seat).query(call.message["q"], call.message["values"])

    def _rename(self, call: _Call, until: float) -> Any:
        seat, name = call.seat, call.message["name"]

        def renamed() -> None:
            seat.name = name
            if seat.session is not None:
                seat.session.name = name

        return self._stage(call, Change("patch", seat.id, {"name": name}), renamed)

    def _lease(self, call: _Call, until: float) -> Any:
        seat, lease_s = call.seat, call.message["lease_s"]
        seat.last_used = self._wall()
        self._leased = True
        return self._stage(
            call, Change("patch", seat.id, {"lease_s": lease_s}), partial(setattr, seat, "lease_s", lease_s)
        )

    def _close(self, call: _Call, until: float) -> Any:
        seat = call.seat
        return self._stage(call, Change("close", seat.id, {"why": None}), partial(self._closed, seat))

    def _closed(self, seat: _Seat) -> None:
        self._seats.pop(seat.id, None)
        try:
            if seat.session is not None:
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
        "lease": _lease,
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

    def _open(self, peer: Peer, message: Message) -> None:
        """Makes a session; it is answered when it is written, and calls may come before."""
        number, session_id = message["id"], message["session"]
        if session_id in self._seats:
            raise BadMessage(f"session {session_id} is open already")
        begin = self._clock()
        try:
            seat = self._made(message)
            known = seat.described(seat.session.query({"do": "info"}, "none"))  # type: ignore[union-attr]
        except Exception as problem:  # noqa: BLE001 - as in `work`
            self._reply(peer, number, error=self._as_error(problem, "open"))
            return

        def done(failure: EngineError | None) -> None:
            if failure is not None:
                del self._seats[session_id]
                for call in list(seat.calls):
                    self._leave(call)
                    self._reply(call.peer, call.id, error=failure)
                seat.session.close()  # type: ignore[union-attr]
            timing = {"queue_ms": 0.0, "run_ms": (self._clock() - begin) * 1e3}
            self._reply(peer, number, ok=known, error=failure, timing=timing)

        if self._store is None:
            done(None)
        else:
            self._staged.append((Change("open", session_id, {"open": self._opened(seat, message)}), done))

    def _made(self, message: Message) -> _Seat:
        session_id, owner, name = message["session"], message["owner"], message["name"]
        session = self._make_session(
            session_id,
            owner=owner,
            name=name,
            device=message["device"],
            seed=message["seed"],
            default_dtype=message["default_dtype"],
            limits=self.limits,
        )
        seat = _Seat(session_id, owner, name, session)
        seat.lease_s = message.get("lease_s")
        self._leased = self._leased or seat.lease_s is not None
        seat.created = seat.last_used = self._wall()
        self._seats[session_id] = seat
        if self._store is not None:
            session.on_commit = partial(setattr, seat, "commit")
        return seat

    def _opened(self, seat: _Seat, message: Message) -> dict[str, Any]:
        session: Any = seat.session
        return {
            "owner": seat.owner,
            "name": seat.name,
            "device": message["device"],
            "seed": session.seed,
            "default_dtype": message["default_dtype"],
            "created": seat.created,
            "number": message.get("number", 0),
            "incarnation": session.incarnation,
            "lease_s": seat.lease_s,
            "key": message.get("key"),
        }

    def _query_at_once(self, message: Message) -> Any:
        return self._described(self._seat(message))

    def _described(self, seat: _Seat) -> dict[str, Any]:
        known = None
        if seat.session is None and self._store is not None:
            known = self._store.info(seat.id)
        return seat.described(known or self._awake(seat).query({"do": "info"}, "none"))

    def _info(self, message: Message) -> Any:
        known: dict[str, Any] = {}
        for session_id in message["sessions"]:
            seat = self._seats.get(session_id)
            try:
                known[session_id] = self._described(seat) if seat else None
            except EngineError as error:  # set aside, or too big to be woken for this
                known[session_id] = {"error": error.to_data()}
        return {
            "name": self.name,
            "pid": os.getpid(),
            "devices": self.devices,
            "sessions": len(self._seats),
            "waiting": sum(self._waiting.values()),
            "infos": known,
        }

    def _outcome(self, message: Message) -> Any:
        """What became of a call that the worker before this one took: {"known", "ok"}."""
        if self._store is None:
            return {"known": False}
        seat = self._seat(message)
        found = self._store.outcome(seat.id, message["call"])
        if found is False:
            return {"known": False}
        assert found is not True
        reply = self._replies.unpack(found) if found is not None else None
        if reply is not None:
            self._replies.fill(reply, self._awake(seat), message["values"])
        return {"known": True, "ok": reply}

    def _cancel(self, peer: Peer, target: int) -> dict[str, bool]:
        call = self._calls.get((peer, target))
        if call is None or call.word not in ("run", "query"):
            return {"cancelled": False}
        self._withdraw(call)
        error = Conflict("the call was cancelled; the session is as it was before", code="cancelled")
        self._finish(call, None, error)
        return {"cancelled": True}

    # ------------------------------------------------ memory and disk

    def _awake(self, seat: _Seat) -> SessionLike:
        """The seat's session, read from the disk where it sleeps. Raises Gone, OutOfMemory."""
        if seat.session is not None:
            return seat.session
        store, server = self._store, self._server
        assert store is not None
        if server is not None:
            weight = store.weight(seat.id)
            if server.held + weight > server.limit:
                self._reclaim(server.held + weight - server.limit)
            if server.held + weight > server.limit:
                raise OutOfMemory(
                    f"the session takes {weight} bytes, and of the server's {server.limit} bytes {server.held} are held",
                    hint=Hint("free-memory", whose="server"),
                )
        session: SessionLike = store.load(seat.id)
        session.on_commit = partial(setattr, seat, "commit")
        seat.session = session
        return session

    def _reclaim(self, nbytes: int) -> None:
        """Puts idle sessions to sleep, those longest unused first, until so many bytes are free."""
        server = self._server
        assert server is not None
        goal = server.held - nbytes
        idle = [seat for seat in self._seats.values() if seat.session is not None and not seat.calls]
        for seat in sorted(idle, key=lambda seat: seat.last_used):
            if server.held <= goal:
                return
            self._sleep(seat)

    def _sleep(self, seat: _Seat) -> bool:
        """Writes a session to the disk and frees it. False where the disk does not take it: then it stays."""
        store, session = self._store, seat.session
        assert store is not None
        assert session is not None
        if not self._saved(seat.id, session):
            return False
        seat.session = None
        store.asleep(seat.id)
        session.close()
        return True

    def _saved(self, id: str, session: SessionLike) -> bool:
        assert self._store is not None
        try:
            self._store.save(id, session)
        except EngineError as error:
            log.warning("%s: session %s cannot be put on the disk: %s", self.name, id, error.detail)
            return False
        return True

    def tick(self) -> None:
        """What is due from time to time: leases, sleep, snapshots, and files that nothing needs any more."""
        self._tick_at = self._clock() + TICK
        now = self._wall()
        for seat in list(self._seats.values()):
            if seat.calls:
                continue
            if seat.lease_s is not None and now > seat.last_used + seat.lease_s + LEASE_GRACE:
                self._expire(seat, now)
            elif self._store is not None and seat.session is not None and now - seat.last_used > self.limits.idle_s:
                self._sleep(seat)
        self.flush()
        store = self._store
        if store is None:
            return
        for id in store.heavy(self._held):
            seat = self._seats[id]
            if not seat.idle:
                continue
            woken = seat.session is None
            with self._logged("a snapshot"):
                if self._saved(id, self._awake(seat)) and woken:
                    self._sleep(seat)
        store.tidy()

    def _held(self, id: str) -> int:
        session: Any = self._seats[id].session
        held: int = 0 if session is None else session.ctx.ledger.held
        return held

    def _expire(self, seat: _Seat, now: float) -> None:
        why = f"it was not used for longer than its lease of {seat.lease_s:g} s"

        def done(failure: EngineError | None) -> None:
            if failure is None:
                self._remember(expired(seat.id, seat.name, why, now), seat.id)
                self._closed(seat)

        if self._store is None:
            done(None)
        else:
            self._staged.append((Change("close", seat.id, {"why": why}), done))

    def _remember(self, gone: Gone, id: str) -> None:
        self._ended[id] = gone
        while len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]

    # ------------------------------------------------ replies

    def _seat(self, message: Message) -> _Seat:
        session_id = message["session"]
        try:
            return self._seats[session_id]
        except KeyError:
            if session_id in self._ended:
                raise self._ended[session_id] from None
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
    server = ServerLedger(limits.server_bytes)
    make_session = partial(getattr(module, class_name), devices=tuple(start["devices"]), server=server)
    worker = Worker(start["name"], start["devices"], limits, session_factory=make_session, server=server)
    data = start.get("data")
    if data is not None:
        folder, adopt = Path(data["folder"]), [Path(other) for other in data["adopt"]]
        worker.keep(Store(folder, make=worker.restore, sync=data["sync"], adopt=adopt))
    return worker


def _now() -> float:
    return time.time()


def expired(id: str, name: str | None, why: str, at: float) -> Gone:
    """The error of a session whose lease ran out."""
    return Gone(
        f"session {name or id} has expired: {why}",
        code="session-expired",
        hint=Hint("make-session-anew", name=name),
        why=why,
        expired_at=at,
    )

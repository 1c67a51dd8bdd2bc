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
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from engine import backend
from engine.durability.recovery import Answer
from engine.durability.store import Change
from engine.errors import (
    Conflict,
    DeviceLost,
    EngineError,
    Hint,
    Invalid,
    NoSuchSession,
    OutOfMemory,
    QueueFull,
    Unavailable,
)
from engine.limits import Limits
from engine.tensor import ServerLedger
from engine.workers.calls import FIELDS, Call
from engine.workers.facts import devices
from engine.workers.faults import as_error
from engine.workers.jobs import Jobs
from engine.workers.messages import BadMessage, CannotPack, Closed, Inbox, Message, Peer, checked
from engine.workers.outgoing import Outgoing
from engine.workers.replies import Replies
from engine.workers.seats import Seat, Seats, SessionLike, expired
from engine.workers.singles import SLICE, STAGED, Found, Singles
from engine.workers.staged import Staged
from engine.workers.turns import Turns

TICK = 1.0  # seconds between two looks at leases, idle sessions and what can be tidied up
LEASE_GRACE = 60.0  # seconds that a session is kept beyond its lease, in which a late call still finds it
_LONGEST_WAIT = 24 * 3600.0
_MORE = object()  # a program's answer while it has steps to go

log = logging.getLogger("curlgrad.worker")


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
        backends: Sequence[backend.Backend] = (),
    ) -> None:
        self.name, self.devices, self.limits = name, list(devices), limits
        self._server, self._backends = server or ServerLedger(limits.server_bytes), list(backends)
        self._lost: DeviceLost | None = None  # set when a GPU failed for good: then the worker ends
        self.sessions = Seats(name, session_factory, limits, server=server, wall=wall)
        self._clock = self.clock = clock
        self._replies = Replies()
        self.staged = Staged(self._as_error)
        self.singles = Singles(self, self._replies)
        self._tick_at = clock() + TICK
        self._turns: Turns[Seat] = Turns()
        self.jobs, self.outgoing = Jobs(self), Outgoing(self)
        self._calls: dict[tuple[Peer, int], Call] = {}
        self._waiting: dict[str, int] = {}  # calls of each owner, the running ones too

    # ------------------------------------------------ the loop

    def serve(self, inbox: Inbox) -> None:
        """Answers messages until the last peer is gone, then frees all sessions."""
        busy, look = bool(self._calls), 0.0  # jobs of the worker before this one
        try:
            while True:
                if not busy or self._clock() >= look:
                    self.flush()
                    busy = self.outgoing.finish() or busy
                    if self._clock() >= self._tick_at:
                        self.tick()
                    found, long = inbox.poll(0.0 if busy else self._patience()), False
                    if found and not (self._turns.waiting or self.staged):
                        found, long = self._at_once(found)
                    for peer, message in found:
                        try:
                            self.receive(peer, message)
                        except BadMessage as problem:
                            log.error("%s: hanging up on a front: %s", self.name, problem)
                            inbox.drop(peer)
                            self.receive(peer, None)
                    # Otherwise the last message, and its gigabytes, would live until the next one comes.
                    message, found = None, ()
                    self.flush()  # sessions that have just been made: the step that follows may be long
                    if long:  # who came meanwhile has credit, as long as nobody says that nobody waits
                        busy = True
                        continue
                    if not (busy or self._turns.waiting):
                        continue
                    look = self._clock() + SLICE
                busy = self.work()
        except Closed:
            return
        finally:
            self.close()

    def _at_once(self, found: Found) -> tuple[Found, bool]:
        """Runs what of these messages needs no turn; what is left, and whether it took longer than a turn."""
        owner = found[0][1]
        left, seconds = self.singles.take(found)
        if seconds < SLICE:
            return left, False
        seat = None if owner is None else self.sessions.seats.get(owner["session"])
        if seat is not None:
            self._turns.charge(seat.owner, seconds)
        return left, True

    def _patience(self) -> float | None:
        """How long to wait for messages when there is nothing to do."""
        if self.outgoing:
            return 0.001
        return TICK if self.sessions.store is not None or self.sessions.leased else None

    def receive(self, peer: Peer, message: Message | None) -> None:
        """Takes one message: answers it, or puts it in its session's line. None: the peer is gone, with its calls."""
        if message is None:
            for call in [call for (who, _), call in self._calls.items() if who is peer]:
                self._withdraw(call)
            self.jobs.leave(peer)
            return
        now = self._clock()
        number, word = checked(message, FIELDS)
        if word == "cancel":
            self._reply(peer, number, ok=self._cancel(peer, message["target"]))
        elif word == "open":
            self._open(peer, message)
        elif word == "info":
            self._answer(peer, number, self._info, message)
        elif word == "devices":
            self._answer(peer, number, self._devices, message)
        elif word == "query" and message["q"].get("do") == "info":
            self._answer(peer, number, self._query_at_once, message)
        elif word == "outcome":
            self._answer(peer, number, self._outcome, message)
        elif word in Jobs.words:
            self._answer(peer, number, partial(Jobs.words[word], self.jobs, peer), message)
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
        if self.sessions.store is not None:
            self.sessions.store.mark(call.message.get("call") or "")
        try:
            answer = self._words[call.word](self, call, begin + SLICE)
        except Exception as problem:  # noqa: BLE001 - whatever a session does wrong, the others go on
            error = self._as_error(problem, call.word)
        taken = self._clock() - begin
        call.ran += taken
        if answer is STAGED:
            seat.parked = True
            return True  # its line goes on when it is written
        if answer is not _MORE and error is None and self.outgoing.take(call, answer):
            return True  # or when it is copied
        if answer is not _MORE:
            self._leave(call)
            self._finish(call, answer, error)
            taken = self._clock() - begin
        self._turns.put_back(seat, taken)
        if self._lost is not None:
            raise self._lost
        return True

    def flush(self) -> bool:
        """Writes what waits to be written, in one go, and lets its calls end. False when nothing waited."""
        written = self.staged.flush(self.sessions.store)
        self.singles.send()
        return written

    def close(self) -> None:
        """Ends every program, undone, and frees every session."""
        self.flush()
        self.outgoing.close()
        for call in list(self._calls.values()):
            self._withdraw(call)
        for seat in self.sessions.seats.values():
            if seat.session is not None:
                with self._logged("closing a session"):
                    seat.session.close()
        self.sessions.seats.clear()
        if self.sessions.store is not None:
            self.sessions.store.close()

    # ------------------------------------------------ calls that wait for their turn

    def _enqueue(self, peer: Peer, message: Message, now: float) -> None:
        try:
            seat = self.admit(message)
        except EngineError as error:
            self._reply(peer, message["id"], error=error)
            return
        self.line_up(peer, message, seat, now)

    def admit(self, message: Message) -> Seat:
        """The seat in whose line a call may stand. Raises NoSuchSession, Gone, QueueFull, Unavailable."""
        seat = self.sessions.find(message)
        waiting = self._waiting.get(message.get("by") or seat.owner, 0)
        if message.get("lost"):
            raise Unavailable(
                "the server had no memory, or too many open files, to take this call's arrays; nothing was done",
                code="not-applied",
                hint=Hint("try-again"),
            )
        if waiting >= self.limits.max_queue and message["do"] != "close":
            raise QueueFull(
                f"{waiting} of your calls are waiting on worker {self.name} already; nothing was done",
                hint=Hint("queue-full", waiting=waiting, limit=self.limits.max_queue),
                waiting=waiting,
                limit=self.limits.max_queue,
            )
        return seat

    def line_up(self, peer: Peer, message: Message, seat: Seat, now: float | None = None) -> Call:
        """A call takes the last place in its session's line."""
        now = self._clock() if now is None else now
        call = Call(peer, message, seat, self.arrived(message, now))
        self._calls[peer, message["id"]] = call
        self._waiting[call.payer] = self._waiting.get(call.payer, 0) + 1
        seat.calls.append(call)
        self._turns.enter(seat)
        return call

    @staticmethod
    def arrived(message: Message, now: float) -> float:
        """When a message was sent; on another machine's clock that means nothing, and it has come now."""
        sent = message.get("sent")
        return sent if type(sent) is float and 0.0 <= now - sent < _LONGEST_WAIT else now

    def _run(self, call: Call, until: float) -> Any:
        seat, message = call.seat, call.message
        if call.steps is None:
            seat.last_used = self.sessions.wall()
            session = self.sessions.awake(seat)
            if message.get("key") is not None and (known := self._known_answer(seat, message)) is not None:
                return known
            if self.sessions.store is None:
                session.on_commit = None if message.get("key") is None else partial(setattr, seat, "commit")
            if not (message.get("key") is not None or message["dry_run"] or message["explain"]) and hasattr(
                session, "single"
            ):
                done = self.singles.run(call, until)
                if done is not None:
                    return done
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
                    return STAGED
                if clock() >= until:
                    return _MORE
        except StopIteration as end:
            return end.value

    def _keep(self, call: Call, reply: dict[str, Any]) -> bool:
        """A program has ended and changed something: its commit is to be written before it is answered. False where
        nothing is written."""
        seat, message = call.seat, call.message
        commit, seat.commit = seat.commit, None
        key = message.get("key")
        packed, short = self._replies.pack(reply, keyed=key is not None)
        if self.sessions.store is None:
            if key is not None:
                seat.answers.put(key, Answer(message["digest"], self.sessions.wall(), packed, short))
            return False
        head = {
            "call": message.get("call"),
            "key": None if key is None else [key, message["digest"]],
            "reply": packed,
            "short": short,
        }
        self.staged.add([Change("commit", seat.id, head, commit)], partial(self._written, call))
        return True

    def _pack(self, call: Call, until: float) -> Any:
        """An empty session leaves for another worker: what it is, or None where it is not empty and stays."""
        seat = call.seat
        packed = self.sessions.awake(seat).pack()
        if packed is None:
            return None
        answer = {"session": packed, "lease_s": seat.lease_s}
        return self._stage(call, Change("close", seat.id, {"why": None}), partial(self._closed, seat), answer=answer)

    def _written(self, call: Call, failure: EngineError | None) -> None:
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
        self.done(call, answer, error, begin)

    def done(self, call: Call, answer: Any, error: EngineError | None, begin: float) -> None:
        if error is None and self.outgoing.take(call, answer):
            return
        self.let_go([call], begin)
        self._finish(call, answer, error)

    def let_go(self, calls: Sequence[Call], begin: float, seat: Seat | None = None, spent: float = 0.0) -> None:
        """The first calls of a line, which kept their places when its turn was over, leave it; `begin`: since when they
        were worked on again. With none of them the line of `seat` goes on after `spent` seconds."""
        for call in calls:
            seat, spent = call.seat, spent + call.ran
            self._leave(call)
        assert seat is not None
        seat.parked = False
        self._turns.put_back(seat, spent + self._clock() - begin)

    def _stage(self, call: Call, change: Change, then: Callable[[], None], *, answer: Any = None) -> Any:
        """The change of a call that runs no program: written, then done, then answered."""
        if self.sessions.store is None:
            then()
            return answer

        def done(failure: EngineError | None) -> None:
            begin, error = self._clock(), failure
            if failure is None:
                try:
                    then()
                except Exception as problem:  # noqa: BLE001 - as in `work`
                    error = self._as_error(problem, call.word)
            self.done(call, None if error is not None else answer, error, begin)

        self.staged.add([change], done)
        return STAGED

    def _known_answer(self, seat: Seat, message: Message) -> Any:
        """What a call with the same idempotency key was answered. Raises Invalid for another call's key."""
        answers = self.sessions.answers(seat)
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

    def _query(self, call: Call, until: float) -> Any:
        call.seat.last_used = self.sessions.wall()
        return self.sessions.awake(call.seat).query(call.message["q"], call.message["values"])

    def _rename(self, call: Call, until: float) -> Any:
        seat, name = call.seat, call.message["name"]

        def renamed() -> None:
            seat.name = name
            if seat.session is not None:
                seat.session.name = name

        return self._stage(call, Change("patch", seat.id, {"name": name}), renamed)

    def _lease(self, call: Call, until: float) -> Any:
        seat, lease_s = call.seat, call.message["lease_s"]
        seat.last_used = self.sessions.wall()
        self.sessions.leased = True
        return self._stage(
            call, Change("patch", seat.id, {"lease_s": lease_s}), partial(setattr, seat, "lease_s", lease_s)
        )

    def _publish(self, call: Call, until: float) -> Any:
        """The front keeps the public id; here it is only made to last."""
        return self._stage(call, Change("patch", call.seat.id, {"public": call.message["public"]}), lambda: None)

    def _fork(self, call: Call, until: float) -> Any:
        """A new session as a copy of the one whose turn it is; it is there when that is written."""
        seat, change = self.sessions.fork(call.seat, call.message)
        if change is None:
            return None

        def done(failure: EngineError | None) -> None:
            if failure is not None:
                self.sessions.unmake(seat)
            self.done(call, None, failure, self._clock())

        self.staged.add([change], done)
        return STAGED

    def _close(self, call: Call, until: float) -> Any:
        seat = call.seat
        change = Change("close", seat.id, {"why": None, "key": call.message.get("key")})
        return self._stage(call, change, partial(self._closed, seat))

    def _closed(self, seat: Seat) -> None:
        self.sessions.seats.pop(seat.id, None)
        try:
            if seat.session is not None:
                seat.session.close()
        finally:
            gone = NoSuchSession("the session was deleted", hint=Hint("list-sessions"))
            for other in list(seat.calls)[1:]:
                self._leave(other)
                self._reply(other.peer, other.id, error=gone)

    _words: Mapping[str, Callable[[Worker, Call, float], Any]] = {
        "run": _run,
        "query": _query,
        "rename": _rename,
        "leave": _pack,
        "lease": _lease,
        "publish": _publish,
        "fork": _fork,
        "close": _close,
    }

    def timing(self, call: Call) -> dict[str, float]:
        """How long a call waited and ran, in milliseconds."""
        waited = max(0.0, self._clock() - call.arrived - call.ran)
        return {"queue_ms": waited * 1e3, "run_ms": call.ran * 1e3}

    def failed(self, peer: Peer, number: int, problem: Exception, arrived: float, ran: float) -> None:
        """Answers a call that was run at once and failed."""
        timing = {"queue_ms": max(0.0, self._clock() - arrived - ran) * 1e3, "run_ms": ran * 1e3}
        self._reply(peer, number, error=self._as_error(problem, "run"), timing=timing)
        if self._lost is not None:
            raise self._lost

    def reply(self, peer: Peer, number: int, ok: Any, queue_ms: float, run_ms: float) -> None:
        """Answers a call that was run at once and may have changed something."""
        self._reply(peer, number, ok=ok, timing={"queue_ms": queue_ms, "run_ms": run_ms}, changed=True)

    def refuse(self, call: Call, error: EngineError) -> None:
        self._reply(call.peer, call.id, error=error, timing=self.timing(call))

    def _finish(self, call: Call, answer: Any, error: EngineError | None) -> None:
        changes = call.word == "run" and not call.message["dry_run"]
        self._reply(call.peer, call.id, ok=answer, error=error, timing=self.timing(call), changed=changes)

    def _leave(self, call: Call) -> None:
        """Takes a call out of its line and out of the books."""
        seat = call.seat
        if seat.calls and seat.calls[0] is call:
            seat.calls.popleft()
        else:
            with contextlib.suppress(ValueError):
                seat.calls.remove(call)
        self._calls.pop((call.peer, call.id), None)
        left = self._waiting.get(call.payer, 1) - 1
        if left:
            self._waiting[call.payer] = left
        else:
            self._waiting.pop(call.payer, None)

    def _withdraw(self, call: Call) -> None:
        """Stops a call, wherever it stands; a program that had begun is undone. One whose answer is being copied is
        over as good as anything."""
        if call.sending:
            return
        self._leave(call)
        if call.steps is not None:
            with self._logged("undoing a program"):
                call.steps.close()

    # ------------------------------------------------ calls that wait for nothing

    def _open(self, peer: Peer, message: Message) -> None:
        """Makes a session; it is answered when it is written, and calls may come before."""
        number, session_id = message["id"], message["session"]
        if session_id in self.sessions.seats:
            raise BadMessage(f"session {session_id} is open already")
        begin = self._clock()
        try:
            seat = self.sessions.make(message)
            known = seat.described(seat.session.query({"do": "info"}, "none"))  # type: ignore[union-attr]
        except Exception as problem:  # noqa: BLE001 - as in `work`
            self._reply(peer, number, error=self._as_error(problem, "open"))
            return

        def done(failure: EngineError | None) -> None:
            if failure is not None:
                del self.sessions.seats[session_id]
                for call in list(seat.calls)[1 if seat.parked else 0 :]:
                    self._leave(call)
                    self._reply(call.peer, call.id, error=failure)
                seat.session.close()  # type: ignore[union-attr]
            elif message.get("packed") is not None and self.sessions.store is not None:
                self.sessions.saved(session_id, seat.session)  # type: ignore[arg-type]
            timing = {"queue_ms": 0.0, "run_ms": (self._clock() - begin) * 1e3}
            self._reply(peer, number, ok=known, error=failure, timing=timing)

        if self.sessions.store is None:
            done(None)
        else:
            self.staged.add([Change("open", session_id, {"open": self.sessions.opened(seat, message)})], done)

    def _query_at_once(self, message: Message) -> Any:
        return self.sessions.described(self.sessions.find(message))

    def _info(self, message: Message) -> Any:
        known: dict[str, Any] = {}
        for session_id in message["sessions"]:
            seat = self.sessions.seats.get(session_id)
            try:
                known[session_id] = self.sessions.described(seat) if seat else None
            except EngineError as error:  # set aside, or too big to be woken for this
                known[session_id] = {"error": error.to_data()}
        return {
            "name": self.name,
            "pid": os.getpid(),
            "devices": self.devices,
            "sessions": len(self.sessions.seats),
            "waiting": sum(self._waiting.values()),
            "infos": known,
            **({"numbers": self.sessions.counted(self._server.tally)} if message.get("numbers") else {}),
        }

    def _devices(self, message: Message) -> list[dict[str, Any]]:
        return devices(self._backends, self._server)

    def _outcome(self, message: Message) -> Any:
        """What became of a call that the worker before this one took: {"known", "ok"}."""
        if self.sessions.store is None:
            return {"known": False}
        seat = self.sessions.find(message)
        found = self.sessions.store.outcome(seat.id, message["call"])
        if found is False:
            return {"known": False}
        assert found is not True
        reply = self._replies.unpack(found) if found is not None else None
        if reply is not None:
            self._replies.fill(reply, self.sessions.awake(seat), message["values"])
        return {"known": True, "ok": reply}

    def _cancel(self, peer: Peer, target: int) -> dict[str, bool]:
        call = self._calls.get((peer, target))
        if call is None or call.sending or call.word not in ("run", "query"):
            return {"cancelled": False}
        self.cancel(call)
        return {"cancelled": True}

    def cancel(self, call: Call) -> None:
        """Ends a call that is under way, undone."""
        self._withdraw(call)
        error = Conflict("the call was cancelled; the session is as it was before", code="cancelled")
        self._finish(call, None, error)

    # ------------------------------------------------ memory and disk

    def tick(self) -> None:
        """What is due from time to time: leases, sleep, snapshots, and files that nothing needs any more."""
        self._tick_at = self._clock() + TICK
        now, store = self.sessions.wall(), self.sessions.store
        self.jobs.tidy(now)
        for seat in list(self.sessions.seats.values()):
            if seat.calls:
                continue
            if seat.lease_s is not None and now > seat.last_used + seat.lease_s + LEASE_GRACE:
                self._expire(seat, now)
            elif (
                self.sessions.store is not None
                and seat.session is not None
                and now - seat.last_used > self.limits.idle_s
            ):
                self.sessions.sleep(seat)
        self.flush()
        if store is None:
            return
        for id in store.heavy(self.sessions.held):
            seat = self.sessions.seats[id]
            if not seat.idle:
                continue
            woken = seat.session is None
            with self._logged("a snapshot"):
                if self.sessions.saved(id, self.sessions.awake(seat)) and woken:
                    self.sessions.sleep(seat)
        store.tidy()

    def _expire(self, seat: Seat, now: float) -> None:
        why = f"it was not used for longer than its lease of {seat.lease_s:g} s"

        def done(failure: EngineError | None) -> None:
            if failure is None:
                self.sessions.remember(expired(seat.id, seat.name, why, now), seat.id)
                self._closed(seat)

        if self.sessions.store is None:
            done(None)
        else:
            self.staged.add([Change("close", seat.id, {"why": why})], done)

    # ------------------------------------------------ replies

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
        error = as_error(problem, f"{self.name}: {word}", self._backends)
        if isinstance(error, DeviceLost):
            self._lost = error
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

"""The sessions of one worker: in memory, or asleep on the disk.

Without a store a session lives in memory from its making to its end. With one it is in memory while it is used; what
nobody uses is written to the disk and freed, and the next call wakes it, so that sessions can outnumber memory.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from engine.commit import Commit, whole
from engine.durability.recovery import Answers
from engine.durability.store import Change, Store
from engine.errors import EngineError, Gone, Hint, NoSuchSession, OutOfMemory
from engine.limits import Limits
from engine.tensor import ServerLedger, Tally
from engine.workers.messages import Message

_ENDED = 10_000  # sessions whose lease ran out and whose owners are told so

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

    def bytes_by_device(self) -> dict[str, dict[str, int]]:
        """What is held now, by device and what holds it. May be asked while a program is between two steps."""

    def progress(self) -> dict[str, Any] | None:
        """How far the running program is, or how far the last one came: `steps_run` of `steps`, `rounds` of `of`, and
        what is `collected` so far; None where it has not begun."""

    def pack(self) -> dict[str, Any] | None:
        """All that a session without tensors is; None where it has any. `unpack` makes a new session the same."""

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Becomes what `pack` described."""

    def fork(self, source: Any, public: str | None = None) -> None:
        """Becomes what another session is, whose public id that is."""

    def close(self) -> None:
        """Frees everything."""


class Seat:
    """A session and the calls that wait for it. `session` is None while it sleeps on the disk."""

    __slots__ = (
        "_memory",
        "_memory_at",
        "answers",
        "calls",
        "commit",
        "created",
        "id",
        "last_used",
        "lease_s",
        "name",
        "owner",
        "parked",
        "session",
    )

    def __init__(self, session_id: str, owner: str, name: str | None, session: SessionLike | None) -> None:
        self.id, self.owner, self.name, self.session = session_id, owner, name, session
        self.calls: deque[Any] = deque()
        self.created = self.last_used = time.time()
        self.lease_s: float | None = None
        self.commit: Commit | None = None  # of the program that has just ended
        self.parked = False  # whether its first call is done, and waits for its change to be written
        self._memory: dict[str, dict[str, int]] = {}
        self._memory_at = -1.0
        self.answers = Answers()  # where there is no data directory: to calls with an idempotency key

    @property
    def quick(self) -> bool:
        return bool(self.calls[0].word == "query")

    @property
    def idle(self) -> bool:
        """Whether no program of it is under way."""
        return not self.calls or self.calls[0].steps is None

    def memory(self) -> dict[str, dict[str, int]]:
        """Bytes by device and what holds them; counted again only where the session was used since."""
        if self.session is None:
            return {}
        if self.last_used != self._memory_at or self.calls:
            self._memory, self._memory_at = self.session.bytes_by_device(), self.last_used
        return self._memory

    def described(self, known: Mapping[str, Any]) -> dict[str, Any]:
        expires = None if self.lease_s is None else self.last_used + self.lease_s
        return {
            **known,
            "created": self.created,
            "last_used": self.last_used,
            "expires_at": expires,
        }


class Seats:
    """The worker's sessions. `wall`: the time of day, in seconds since 1970."""

    def __init__(
        self,
        worker: str,
        make: Callable[..., SessionLike],
        limits: Limits,
        *,
        server: ServerLedger | None = None,
        wall: Callable[[], float] | None = None,
    ) -> None:
        self.worker, self.make_session, self.limits = worker, make, limits
        self.seats: dict[str, Seat] = {}
        self.store: Store | None = None
        self.leased = False  # whether any session has a lease
        self.wall = wall or _now
        self._server = server
        self._ended: dict[str, Gone] = {}  # sessions whose lease ran out

    def keep(self, store: Store) -> None:
        """From now on sessions outlive this worker; those that the store has are there, asleep."""
        self.store = store
        for kept in store.kept.values():
            if not kept.opened:
                continue
            seat = Seat(kept.id, kept.opened["owner"], kept.opened["name"], None)
            # A lease does not run while nobody can use the session.
            seat.created, seat.last_used, seat.lease_s = kept.opened["created"], self.wall(), kept.opened["lease_s"]
            self.seats[kept.id] = seat
        for _, id, name, why, at in store.ended:
            self._ended[id] = expired(id, name, why, at)
        if self._server is not None:
            self._server.reclaim = self.reclaim

    def restore(self, id: str, opened: Mapping[str, Any]) -> SessionLike:
        """The session that was opened so, still empty: what the store fills."""
        return self.make_session(
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
        store = self.store
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
                "public": kept.opened.get("public"),
            }
            for kept in store.kept.values()
            if kept.opened
        ]
        return {"sessions": rows, "ended": store.ended, "deletions": store.deletions, "ran": store.ran_last}

    def counted(self, tally: Tally) -> dict[str, Any]:
        """What the worker tells of itself since it started; sessions that sleep hold no memory.

        `journal`: its lag, where there is one.
        """
        memory: dict[str, dict[str, int]] = {}
        for seat in self.seats.values():
            for device, kinds in seat.memory().items():
                on = memory.setdefault(device, {})
                for kind, held in kinds.items():
                    on[kind] = on.get(kind, 0) + held
        return {
            **tally.to_data(),
            **({} if self._server is None or self._server.plans is None else {"plans": self._server.plans.to_data()}),
            "memory": memory,
            "resident_bytes": resident_bytes(),
            "journal": None if self.store is None else self.store.lag(),
        }

    def find(self, message: Message) -> Seat:
        """The seat of the session that a message names. Raises NoSuchSession, Gone."""
        session_id = message["session"]
        try:
            return self.seats[session_id]
        except KeyError:
            if session_id in self._ended:
                raise self._ended[session_id] from None
            raise NoSuchSession(f"worker {self.worker} has no such session", code="moved") from None

    def make(self, message: Message) -> Seat:
        """A new session, as an "open" message describes it."""
        session_id, owner, name = message["session"], message["owner"], message["name"]
        session = self.make_session(
            session_id,
            owner=owner,
            name=name,
            device=message["device"],
            seed=message["seed"],
            default_dtype=message["default_dtype"],
            limits=self.limits,
        )
        if message.get("packed") is not None:
            session.unpack(message["packed"])
        seat = Seat(session_id, owner, name, session)
        seat.lease_s = message.get("lease_s")
        self.leased = self.leased or seat.lease_s is not None
        seat.created = seat.last_used = self.wall()
        self.seats[session_id] = seat
        if self.store is not None:
            session.on_commit = partial(setattr, seat, "commit")
        return seat

    def opened(self, seat: Seat, message: Message) -> dict[str, Any]:
        """What the store has to know to make the session again."""
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

    def fork(self, source: Seat, message: Message) -> tuple[Seat, Change | None]:
        """A new session as a copy of another, as a "fork" message describes it; and what is to be written of it before
        it counts. Raises Gone, OutOfMemory."""
        original: Any = self.awake(source)
        opened = {**message, "session": message["into"], "seed": None}
        seat = self.make(opened)
        session: Any = seat.session
        try:
            session.fork(original, message.get("public"))
            if self.store is None:
                return seat, None
            return seat, Change("open", seat.id, {"open": self.opened(seat, opened)}, whole(session))
        except BaseException:
            self.unmake(seat)
            raise

    def unmake(self, seat: Seat) -> None:
        """A session that was only just being made is not to be."""
        del self.seats[seat.id]
        if seat.session is not None:
            seat.session.close()

    def described(self, seat: Seat) -> dict[str, Any]:
        """What the session says of itself; one that sleeps is not woken where the disk says it."""
        known = None
        if seat.session is None and self.store is not None:
            known = self.store.info(seat.id)
        return seat.described(known or self.awake(seat).query({"do": "info"}, "none"))

    def answers(self, seat: Seat) -> Answers:
        """The answers to calls with an idempotency key; the session is awake."""
        if self.store is None or seat.id not in self.store.kept:  # one that is only just being made has none
            return seat.answers
        answers = self.store.kept[seat.id].answers
        assert answers is not None, "it is awake"
        return answers

    # ------------------------------------------------ memory and disk

    def awake(self, seat: Seat) -> SessionLike:
        """The seat's session, read from the disk where it sleeps. Raises Gone, OutOfMemory."""
        if seat.session is not None:
            return seat.session
        store, server = self.store, self._server
        assert store is not None
        if server is not None:
            weight = store.weight(seat.id)
            if server.held + weight > server.limit:
                self.reclaim(server.held + weight - server.limit)
            if server.held + weight > server.limit:
                raise OutOfMemory(
                    f"the session takes {weight} bytes; of the server's {server.limit} bytes {server.held} are held",
                    hint=Hint("free-memory", whose="server"),
                )
        session: SessionLike = store.load(seat.id)
        session.on_commit = partial(setattr, seat, "commit")
        seat.session = session
        return session

    def reclaim(self, nbytes: int) -> None:
        """Puts idle sessions to sleep, those longest unused first, until so many bytes are free."""
        server = self._server
        assert server is not None
        goal = server.held - nbytes
        idle = [seat for seat in self.seats.values() if seat.session is not None and not seat.calls]
        for seat in sorted(idle, key=lambda seat: seat.last_used):
            if server.held <= goal:
                return
            self.sleep(seat)

    def sleep(self, seat: Seat) -> bool:
        """Writes a session to the disk and frees it. False where the disk does not take it: then it stays."""
        store, session = self.store, seat.session
        assert store is not None
        assert session is not None
        if seat.id not in store.kept:  # only just being made
            return False
        if not self.saved(seat.id, session):
            return False
        seat.session = None
        store.asleep(seat.id)
        session.close()
        return True

    def saved(self, id: str, session: SessionLike) -> bool:
        """Writes a session's snapshot. False where the disk does not take it."""
        assert self.store is not None
        try:
            self.store.save(id, session)
        except EngineError as error:
            log.warning("%s: session %s cannot be put on the disk: %s", self.worker, id, error.detail)
            return False
        return True

    def held(self, id: str) -> int:
        """The bytes that a session holds in memory."""
        session: Any = self.seats[id].session
        held: int = 0 if session is None else session.ctx.ledger.held
        return held

    def remember(self, gone: Gone, id: str) -> None:
        """Tells from now on why the session has ended."""
        self._ended[id] = gone
        while len(self._ended) > _ENDED:
            del self._ended[next(iter(self._ended))]


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


def resident_bytes() -> int | None:
    """The process's memory as the system sees it; None where it does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None

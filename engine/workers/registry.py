"""Which sessions there are: whose they are, what they are called, and which incarnation of which worker has them.

An owner sees nothing but their own: every look-up begins at the owner. A session is found by id or by name; `default`
is a name like any other, except that it is made on first use. What was lost with a worker is remembered for its owner
(410 with the reason), what was deleted is remembered so that deleting may be repeated; of both the latest
`REMEMBERED` per owner.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import EngineError, Gone, Hint, Invalid, LimitExceeded, NameTaken, NoSuchSession

DEFAULT = "default"
REMEMBERED = 1000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_ID = re.compile(r"[sp]-[0-9a-f]{32}")
_KEY_S = 24 * 3600.0

log = logging.getLogger("curlgrad.supervisor")


@dataclass(eq=False, slots=True)
class Record:
    """A session as the front knows it. It lives on `worker` as long as that is in its incarnation `epoch`."""

    id: str
    owner: str
    name: str | None
    worker: str
    epoch: int
    device: str
    number: int = 0  # order of creation within the owner, from 1
    key: Sequence[str] | None = None  # the idempotency key that it was made with, and its request's digest
    created: float = 0.0
    public: str | None = None  # the id under which others may read it
    showing: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while that changes
    opened: asyncio.Future[Any] | None = None  # while it is being made
    refused: EngineError | None = None  # why the worker did not make it
    leaving: int = 0  # changes under way of what it is called, or whether it is: no front may remember it meanwhile
    order: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a message of the session is being sent


class _Owner:
    __slots__ = ("deleted", "deletions", "ids", "keys", "lost", "made", "names")

    def __init__(self) -> None:
        self.ids: dict[str, Record] = {}
        self.names: dict[str, Record] = {}
        self.lost: OrderedDict[str, Gone] = OrderedDict()  # by id and by name
        self.deleted: OrderedDict[str, None] = OrderedDict()
        self.keys: dict[str, Record] = {}  # by idempotency key
        self.deletions: OrderedDict[str, tuple[str, float]] = OrderedDict()  # digest and time, by idempotency key
        self.made = 0


class Registry:
    """The session map. Nothing here waits, so every method is atomic in the event loop."""

    def __init__(self, sessions_per_owner: int) -> None:
        self._limit = sessions_per_owner
        self._owners: dict[str, _Owner] = {}
        self._by_worker: dict[str, dict[str, Record]] = {}
        self._public: dict[str, Record] = {}

    def present(self, owner: str, ref: str) -> Record | None:
        """The owner's session, if it is there now."""
        known = self._owners.get(owner)
        return None if known is None else known.names.get(ref) or known.ids.get(ref)

    def find(self, owner: str, ref: str) -> Record | None:
        """The owner's session; None only for a `default` that has to be made. Raises NoSuchSession, Gone."""
        known = self._owners.get(owner)
        if known is not None:
            record = known.names.get(ref) or known.ids.get(ref)
            if record is not None:
                return record
            gone = known.lost.get(ref)
            if gone is not None:
                if ref == DEFAULT:
                    del known.lost[ref]
                raise Gone(gone.detail, code=gone.code, hint=gone.hint, **gone.facts)
        if ref == DEFAULT:
            return None
        hint = Hint("fork-public", public=ref) if ref in self._public else Hint("list-sessions")
        raise NoSuchSession(f"there is no session {ref!r}", hint=hint, param="session")

    def published(self, ref: str | None) -> Record | None:
        """The session of whatever owner that may be read under a public id."""
        return self._public.get(ref or "")

    def publish(self, record: Record, public: str | None) -> None:
        """From now on the session may be read under this id alone; None: by its owner alone."""
        if record.public is not None:
            self._public.pop(record.public, None)
        record.public = public
        if public is not None and record.id in self._owners[record.owner].ids:
            self._public[public] = record

    def check(self, owner: str, name: str | None) -> None:
        """Whether the owner may have one session more, of this name. Raises NameTaken, LimitExceeded, Invalid."""
        known = self._owners.get(owner)
        if name is not None:
            self._check_name(known, name)
        if known is not None and len(known.ids) >= self._limit:
            raise LimitExceeded(
                f"you have {len(known.ids)} sessions, and the limit is {self._limit}",
                code="too-many-sessions",
                hint=Hint("delete-sessions", held=len(known.ids), limit=self._limit),
                held=len(known.ids),
                limit=self._limit,
            )

    def check_name(self, owner: str, name: str) -> None:
        """Whether a session of the owner may be called so. Raises NameTaken, Invalid."""
        self._check_name(self._owners.get(owner), name)

    def _check_name(self, known: _Owner | None, name: str) -> None:
        if not _NAME.fullmatch(name) or _ID.fullmatch(name):
            raise Invalid(
                f"{name[:300]!r} cannot be a session's name",
                code="bad-name",
                hint=Hint("session-name-rule"),
                param="name",
            )
        if known is not None and name in known.names:
            raise NameTaken(f"a session named {name!r} exists already", hint=Hint("session-name-taken"), param="name")

    def add(
        self, owner: str, name: str | None, worker: str, epoch: int, device: str, key: Sequence[str] | None = None
    ) -> Record:
        """A new session, found from now on. Raises as `check`."""
        self.check(owner, name)
        known = self._owners.setdefault(owner, _Owner())
        known.made += 1
        id = "s-" + secrets.token_hex(16)
        record = Record(id, owner, name, worker, epoch, device, known.made, key, time.time())
        if key is not None:
            known.keys[key[0]] = record
        known.ids[record.id] = record
        if name is not None:
            known.names[name] = record
            known.lost.pop(name, None)
            known.deleted.pop(name, None)
        self._by_worker.setdefault(worker, {})[record.id] = record
        return record

    def made_with(self, owner: str, key: Sequence[str] | None) -> Record | None:
        """The session that was made with an idempotency key. Raises Invalid for another request's key."""
        if key is None:
            return None
        known = self._owners.get(owner)
        record = known.keys.get(key[0]) if known is not None else None
        if record is None or record.key is None or time.time() - record.created > _KEY_S:
            return None
        if record.key[1] != key[1]:
            raise _reused()
        return record

    def deleted_with(self, owner: str, key: Sequence[str]) -> bool:
        """Whether a session was deleted with this idempotency key. Raises Invalid for another request's key."""
        known = self._owners.get(owner)
        digest, at = (known.deletions.get(key[0]) if known is not None else None) or ("", 0.0)
        if time.time() - at > _KEY_S:
            return False
        if digest != key[1]:
            raise _reused()
        return True

    def delete_with(self, owner: str, key: Sequence[str], at: float) -> None:
        """A session was deleted with this idempotency key and digest of the request."""
        _remember(self._owners.setdefault(owner, _Owner()).deletions, key[0], (key[1], at))

    def restore(
        self, worker: str, epoch: int, rows: Sequence[Mapping[str, Any]], deletions: Sequence[Sequence[Any]] = ()
    ) -> None:
        """What a worker has when it comes up; what it should have had, and has not, stays as it is: see `lose`.

        `deletions`: (owner, idempotency key, digest, when) of what was deleted.
        """
        for owner, key, digest, at in deletions:
            self.delete_with(owner, (key, digest), at)
        for row in rows:
            known = self._owners.setdefault(row["owner"], _Owner())
            known.made = max(known.made, row["number"])
            record = known.ids.get(row["id"])
            if record is None and row["id"] not in known.deleted:
                record = self._restored(known, worker, row)
            if record is not None:
                if record.worker != worker:
                    self._by_worker.get(record.worker, {}).pop(record.id, None)
                    self._by_worker.setdefault(worker, {})[record.id] = record
                record.worker, record.epoch = worker, epoch
        for known in self._owners.values():
            known.ids = dict(sorted(known.ids.items(), key=lambda item: item[1].number))

    def _restored(self, known: _Owner, worker: str, row: Mapping[str, Any]) -> Record:
        name, key = row["name"], row["key"]
        if name in known.names:  # one was renamed and the other made, and only the latter was written
            log.warning("session %s loses its name %r: another one has it", row["id"], name)
            name = None
        record = Record(row["id"], row["owner"], name, worker, 0, row["device"], row["number"], key, row["created"])
        known.ids[record.id] = record
        if name is not None:
            known.names[name] = record
        if key is not None:
            known.keys[key[0]] = record
        self._by_worker.setdefault(worker, {})[record.id] = record
        self.publish(record, row.get("public"))
        return record

    def end(self, owner: str, refs: Sequence[str | None], gone: Gone) -> None:
        """A session has ended by itself, and its owner is told why."""
        known = self._owners.setdefault(owner, _Owner())
        record = known.ids.get(refs[0] or "")
        if record is not None:
            self._take_out(record)
        for ref in refs:
            if ref is not None and ref not in known.names:
                _remember(known.lost, ref, gone)

    def take_back(self, record: Record) -> None:
        """A session that was to be deleted could not be, and is there again."""
        known = self._owners[record.owner]
        if record.id in known.ids:
            return
        known.deleted.pop(record.id, None)
        if record.name in known.names:
            record.name = None
        if record.name is not None:
            known.deleted.pop(record.name, None)
            known.names[record.name] = record
        known.ids[record.id] = record
        self._by_worker.setdefault(record.worker, {})[record.id] = record
        self.publish(record, record.public)

    def rename(self, record: Record, name: str | None) -> None:
        """Raises NameTaken, Invalid, NoSuchSession; then nothing has changed."""
        known = self._owners[record.owner]
        if record.id not in known.ids:
            raise NoSuchSession("the session was deleted", hint=Hint("list-sessions"))
        if name == record.name:
            return
        if name is not None:
            self._check_name(known, name)
        if record.name is not None:
            del known.names[record.name]
        record.name = name
        if name is not None:
            known.names[name] = record
            known.lost.pop(name, None)
            known.deleted.pop(name, None)

    def move(self, record: Record, worker: str, epoch: int) -> None:
        """The session lives on another worker from now on."""
        self._by_worker[record.worker].pop(record.id, None)
        record.worker, record.epoch = worker, epoch
        self._by_worker.setdefault(worker, {})[record.id] = record

    def remove(self, record: Record) -> None:
        """The session is deleted, or was never made. May be repeated."""
        known = self._owners[record.owner]
        if self._take_out(record):
            for ref in (record.id, record.name):
                if ref is not None:
                    _remember(known.deleted, ref, None)

    def lose(self, worker: str, why: str, at: float, *, but: int | None = None) -> list[Record]:
        """All sessions of a worker are gone, but those that its incarnation `but` has. `at`: time.time()."""
        lost = [record for record in self._by_worker.get(worker, {}).values() if record.epoch != but]
        for record in lost:
            self._take_out(record)
            known = self._owners[record.owner]
            gone = Gone(
                f"session {record.name or record.id} was lost with its worker: {why}",
                code="session-lost",
                hint=Hint("make-session-anew", name=record.name),
                worker=worker,
                why=why,
                lost_at=at,
            )
            for ref in (record.id, record.name):
                if ref is not None:
                    _remember(known.lost, ref, gone)
        return lost

    def _take_out(self, record: Record) -> bool:
        known = self._owners[record.owner]
        if known.ids.pop(record.id, None) is None:
            return False
        if record.public is not None:
            self._public.pop(record.public, None)
        if record.name is not None and known.names.get(record.name) is record:
            del known.names[record.name]
        if record.key is not None and known.keys.get(record.key[0]) is record:
            del known.keys[record.key[0]]
        self._by_worker[record.worker].pop(record.id, None)
        return True

    def forget(self, owner: str, ref: str) -> bool:
        """Deletes what is not there any more: a lost session, or one that was deleted before. False: never was."""
        known = self._owners.get(owner)
        if known is None:
            return ref == DEFAULT
        if known.lost.pop(ref, None) is not None:
            _remember(known.deleted, ref, None)
            return True
        return ref == DEFAULT or ref in known.deleted

    def page(self, owner: str, limit: int, cursor: str | None) -> tuple[list[Record], str | None]:
        """The owner's sessions in order of creation, after `cursor`; and the cursor of what follows, if any does."""
        known = self._owners.get(owner)
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 20):
            raise Invalid(f"{cursor[:100]!r} is no cursor of this list", code="bad-cursor", param="cursor")
        if known is None:
            return [], None
        after = int(cursor or 0)
        found = [record for record in known.ids.values() if record.number > after]
        more = len(found) > limit
        return found[:limit], str(found[limit - 1].number) if more else None

    def page_of_all(self, limit: int, cursor: str | None) -> tuple[list[Record], str | None]:
        """The sessions of all owners, by owner and order of creation, and the cursor of what follows."""
        number, _, owner = (cursor or "").partition(".")
        if cursor is not None and not (number.isascii() and number.isdigit() and len(number) < 20):
            raise Invalid(f"{cursor[:100]!r} is no cursor of this list", code="bad-cursor", param="cursor")
        after = (owner, int(number or 0))
        found: list[Record] = []
        for name in sorted(name for name in self._owners if name >= owner):
            found += [record for record in self._owners[name].ids.values() if (name, record.number) > after]
            if len(found) > limit:
                last = found[limit - 1]
                return found[:limit], f"{last.number}.{last.owner}"
        return found, None

    def by_id(self, session_id: str) -> Record:
        """A session of any owner. Raises NoSuchSession."""
        for known in self._owners.values():
            record = known.ids.get(session_id)
            if record is not None:
                return record
        raise NoSuchSession(f"there is no session {session_id!r}", hint=Hint("list-sessions"), param="session")

    def on(self, worker: str, session_id: str) -> Record | None:
        """A session of any owner that a worker has."""
        return self._by_worker.get(worker, {}).get(session_id)

    def leads(self, owner: str, ref: str, record: Record) -> bool:
        """Whether an owner finds this session by this id or name."""
        known = self._owners.get(owner)
        return known is not None and record in (known.names.get(ref), known.ids.get(ref))

    def owned(self, owner: str) -> list[Record]:
        """All sessions of an owner."""
        known = self._owners.get(owner)
        return [] if known is None else list(known.ids.values())

    def count(self, worker: str) -> int:
        """How many sessions a worker has."""
        return len(self._by_worker.get(worker, ()))


def _reused() -> Invalid:
    return Invalid(
        "this Idempotency-Key was used for another request; nothing was done",
        code="idempotency-key-reused",
        hint=Hint("new-idempotency-key"),
    )


def _remember(where: OrderedDict[str, Any], ref: str, what: Any) -> None:
    where[ref] = what
    where.move_to_end(ref)
    while len(where) > REMEMBERED:
        where.popitem(last=False)

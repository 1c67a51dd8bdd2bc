"""From files to sessions: what is there, what was torn off at the end, and what is damaged.

The crc of every record is checked, and of its payload only the head read; tensors stay on the disk until a session is
touched. Three things can be wrong:

    a torn tail    records behind the last one that is known to have been on the disk (`synced`) are missing or
                   unreadable: that is how a process or a machine ends. All from the first such record on is cut off,
                   and said in the log. Nothing that was acknowledged is in it but what `--sync` says may be.
    damage         a record that was on the disk once is missing or unreadable. Its session is set aside: it answers
                   with an error, the others go on, and nothing is written over it. Whose the record was is said by its
                   own header, by that of the record behind it, or by the session's next `n`. Where none of these is
                   left, every session is set aside of which nothing later says that it is complete.
    a snapshot     that is not what was written: its session is set aside, unless an older one and the records since
                   then are still there.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from engine.durability import snapshots
from engine.durability.files import Files
from engine.durability.log import Place, Segment
from engine.durability.records import (
    HEADER_BYTES,
    NOBODY,
    Damaged,
    Found,
    bodies,
    head_of,
    named,
    raw_head,
    record_at,
    scan,
    tag_of,
)
from engine.durability.snapshots import Snapshot

CALLS = 64  # the newest calls of a session whose outcome can be asked for after the worker died
ANSWER_S = 24 * 3600.0
ANSWER_BYTES = 16 << 20
ENDED = 10_000  # sessions of which it is remembered why they ended

# What is read of a record when its session is: its head only where it holds an answer to keep, its body only where no
# later record says what it does.
WHOLE, HEAD, BODY, NOTHING = range(4)

log = logging.getLogger("curlgrad.durability")


@dataclass(slots=True, frozen=True)
class Answer:
    """What a call with an idempotency key was answered: the reply as the worker packed it, and the same without the
    values of tensors where that is much shorter."""

    digest: str
    at: float
    reply: bytes
    short: bytes | None = None


class Answers:
    """A session's answers to calls with a key, the oldest first: for `ANSWER_S`, in about `ANSWER_BYTES`."""

    def __init__(self) -> None:
        self._known: dict[str, Answer] = {}
        self._long: dict[str, None] = {}  # the keys of those whose values can still be let go of
        self._bytes = 0

    def get(self, key: str) -> Answer | None:
        found = self._known.get(key)
        return None if found is None or time.time() - found.at > ANSWER_S else found

    def put(self, key: str, answer: Answer) -> None:
        """Keeps one more; where that is too much, the oldest lose their values."""
        self._drop(key)
        self._known[key] = answer
        self._bytes += len(answer.reply)
        if answer.short is not None:
            self._long[key] = None
        while answer.at - self._known[oldest := next(iter(self._known))].at > ANSWER_S:
            self._drop(oldest)
        if self._bytes > ANSWER_BYTES:
            while self._long and self._bytes > ANSWER_BYTES // 2:
                old = next(iter(self._long))
                known = self._known[old]
                assert known.short is not None
                self._bytes += len(known.short) - len(known.reply)
                self._known[old] = Answer(known.digest, known.at, known.short)
                del self._long[old]

    def _drop(self, key: str) -> None:
        self._long.pop(key, None)
        if (old := self._known.pop(key, None)) is not None:
            self._bytes -= len(old.reply)

    def rows(self) -> list[list[Any]]:
        """What a snapshot holds of them."""
        now = time.time()
        return [[key, a.digest, a.at, a.reply, a.short] for key, a in self._known.items() if now - a.at < ANSWER_S]

    @classmethod
    def of(cls, rows: list[list[Any]]) -> Answers:
        """What `rows` gave."""
        made = cls()
        for key, digest, at, reply, short in rows:
            made.put(key, Answer(digest, at, reply, short))
        return made


@dataclass(slots=True)
class Kept:
    """A session on the disk. `places`: its records since the snapshot; `parts`: of each, what is to be read of it.
    `damage`: why it is set aside.

    `answers` are those to calls with a key; None while the session is asleep and they are on the disk alone.
    """

    id: str
    opened: dict[str, Any]
    n: int = 0
    lsn: int = 0  # of its last record
    last_used: float = 0.0
    snapshot: Snapshot | None = None
    places: list[Place] = field(default_factory=list)
    parts: bytearray = field(default_factory=bytearray)
    damage: str | None = None
    answers: Answers | None = None
    calls: dict[str, Place] = field(default_factory=dict)
    bytes: int = 0  # of its records since the snapshot

    def add(self, place: Place, part: int) -> None:
        """One record more."""
        self.places.append(place)
        self.parts.append(part)
        self.bytes += place.size

    def forget_last(self) -> None:
        """One record less. What it said in place of earlier ones is read from these again."""
        del self.places[-1]
        self.parts = bytearray(len(self.places))
        self.n -= 1

    def forget_all(self) -> None:
        """No records: a snapshot says all that they did."""
        self.places, self.parts, self.calls, self.bytes = [], bytearray(), {}, 0


@dataclass(slots=True)
class Recovered:
    """What a folder holds."""

    kept: dict[str, Kept] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    lsn: int = 0
    before: bytes = NOBODY
    ended: list[list[Any]] = field(default_factory=list)  # [owner, id, name, why, at]
    deletions: list[list[Any]] = field(default_factory=list)  # [owner, idempotency key, digest, at]
    closed: set[str] = field(default_factory=set)
    torn: int = 0  # records that were cut off
    problems: list[str] = field(default_factory=list)
    bytes: int = 0


Records = list[tuple[Segment, list[Found]]]


class _Light:
    """A light commit, while it may turn out to be nothing: where it is among its session's records, what then stays to
    be read of it, and how many reasons there are to read it all."""

    __slots__ = ("at", "left", "needs")

    def __init__(self, at: int, left: int, needs: int) -> None:
        self.at, self.left, self.needs = at, left, needs


class Later:
    """What later records of one session say about earlier ones: that there is no need to read them.

    Two kinds of commits can be left out. Of those that write into the same places, all but the last. And a light one
    when nobody can tell any more that it was: all that it made was let go of by light ones, which nothing else has
    mentioned, and what it let go of was left out as well. Whatever is in doubt is read.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._over: dict[tuple[int, ...], tuple[int, int]] = {}  # the newest by its places, and what is left of it
        self._makers: dict[int, _Light] = {}  # by uid of the tensors they made
        self._idle: _Light | None = None  # the last commit, if the next makes it nothing: then that has its counters

    def note(self, head: dict[str, Any], left: int) -> None:
        """Takes in the session's newest record, a commit. `left`: what is to be read of it should it be left out."""
        if (idle := self._idle) is not None:
            self._kept.parts[idle.at] = idle.left
            self._idle = None
        if (over := head.get("over")) is not None:
            where = tuple(over)
            if (earlier := self._over.get(where)) is not None:
                self._kept.parts[earlier[0]] = earlier[1]
            self._over[where] = len(self._kept.places) - 1, left
            if self._makers:
                self._pin(over[::3])
        elif (uses := head.get("uses")) is not None:
            self._pin(uses)
        else:
            self._makers.clear()

    def note_light(self, made: list[int], let: list[int], left: int) -> None:
        """As `note`, of a light commit."""
        makers, parts = self._makers, self._kept.parts
        if (idle := self._idle) is not None:
            parts[idle.at] = idle.left
            self._idle = None
        mine = _Light(len(parts) - 1, left, len(made))
        for uid in let:
            if (maker := makers.pop(uid, None)) is None:  # it is there for some other reason, and so must lose its id
                mine.needs += 1
            elif maker.needs == 1:
                parts[maker.at] = maker.left
            else:
                maker.needs -= 1
                mine.needs += 1
        if not mine.needs:
            self._idle = mine
        for uid in made:
            makers[uid] = mine

    def _pin(self, uids: list[int]) -> None:
        """Whatever made these stays needed: nobody will find it. A storage has the number behind its tensor's."""
        for uid in uids:
            self._makers.pop(uid, None)
            self._makers.pop(uid - 1, None)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: places are no cycles, and to look through all of them again and again takes long."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@_uncollected()
def recover(folder: Path, files: Files, *, change: bool = True) -> Recovered:
    """What a worker's folder holds. `change`: cut off a torn tail, and remove what was never finished."""
    found = Recovered()
    _snapshots(folder / "snapshots", files, found, change)
    records: Records = []
    for path in files.list(folder):
        if path.suffix != ".log":
            continue
        with files.mapped(path) as data:
            segment = Segment(int(path.name.split(".")[0]), path, len(data))
            word = segment.sync_word
            found.segments.append(segment)
            found.bytes += len(data)
            records.append((segment, list(scan(data, word))))
    synced = max((record.synced for _, rows in records for record in rows), default=0)
    lost, cut = _missing(records, synced, found)
    if cut is not None:
        records = [(of, [row for row in rows if row.sound and row.lsn < cut]) for of, rows in records]
    records = [(segment, rows) for segment, rows in records if rows]
    _cut(found, records, files, change)
    later: dict[str, Later] = {}
    for segment, rows in records:
        with files.mapped(segment.path) as data:
            for record in rows:
                if record.sound:
                    head = raw_head(data, record.start)
                    if not isinstance(head, list):
                        _apply(found, segment, record, head, later)
                    elif not _apply_light(found, segment, record, head, later):
                        _apply(found, segment, record, named(head), later)
    _set_aside(found, lost)
    for id in found.closed:
        found.kept.pop(id, None)
    found.problems += [f"session {id}: {kept.damage}" for id, kept in found.kept.items() if not kept.opened]
    if records:
        last = records[-1][1][-1]
        found.lsn, found.before = last.lsn, last.tag
    found.lsn = max([found.lsn, *(k.snapshot.lsn for k in found.kept.values() if k.snapshot)])
    return found


def _snapshots(folder: Path, files: Files, found: Recovered, change: bool) -> None:
    for path in files.list(folder):
        name = snapshots.named(path)
        if name is None:
            if change and path.suffix == ".tmp":
                files.remove(path)
            continue
        id, n = name
        known = found.kept.get(id)
        try:
            snapshot = snapshots.open_snapshot(path, files)
        except Damaged as problem:
            found.problems.append(f"{path.name}: {problem}")
            if known is None:
                found.kept[id] = Kept(id, {}, damage=str(problem))
            continue
        if known is not None and known.snapshot is not None and known.snapshot.n >= n:
            continue
        about = snapshot.about
        found.kept[id] = Kept(id, dict(about["open"]), n, snapshot.lsn, about["last_used"], snapshot)


def _missing(records: Records, synced: int, found: Recovered) -> tuple[dict[int, bytes | None], int | None]:
    """The numbers of the records that were on the disk and are not, with whose they were where that is known; and the
    number from which on all is cut off, if any."""
    lost: dict[int, bytes | None] = {}
    due = next((rows[0].lsn for _, rows in records if rows), 0)
    for record in chain.from_iterable(rows for _, rows in records):
        if record.lsn == due and record.sound:
            due += 1
            continue
        for lsn in range(due, record.lsn):
            lost[lsn] = record.before if lsn == record.lsn - 1 else None
        if record.lsn < due:  # a block that was written to the wrong place
            continue
        if not record.sound:
            lost[record.lsn] = record.tag
        due = record.lsn + 1
    behind = [lsn for lsn in lost if lsn > synced]
    if not behind:
        return lost, None
    cut = min(behind)
    found.torn = due - cut
    return {lsn: tag for lsn, tag in lost.items() if lsn < cut}, cut


def _cut(found: Recovered, records: Records, files: Files, change: bool) -> None:
    """Cuts the torn tail off the files, so that what follows is a sound log again. More than one unfinished record is
    kept in a file beside it, which nothing reads."""
    last = {segment.number: rows[-1].end for segment, rows in records}
    newest = max(last, default=0)
    kept = []
    for segment in found.segments:
        if segment.number > newest:  # nothing in it can be read
            if segment.end:
                found.torn = max(found.torn, 1)
            if change:
                files.set_aside(segment.path, 0) if segment.end else files.remove(segment.path)
            continue
        kept.append(segment)
        end = last.get(segment.number, segment.end)
        if segment.number == newest:
            if segment.end > end:
                found.torn = max(found.torn, 1)
                if change and found.torn > 1:  # there may be whole records in it
                    files.set_aside(segment.path, end)
                elif change:
                    files.truncate(segment.path, end)
                segment.end = end
            if change:
                files.sync(segment.path)
    found.segments = kept


def _apply_light(found: Recovered, segment: Segment, record: Found, head: list[Any], later: dict[str, Later]) -> bool:
    """`_apply` for a light commit that is the next one of a sound session, as nearly all are; False for others."""
    id, n, at, call, key, _, _, made, let = head
    kept = found.kept.get(id)
    if kept is None or n != kept.n + 1 or kept.damage is not None or not kept.opened:
        return False
    lsn, _, _, _, start, size, _ = record
    kept.n, kept.lsn, kept.last_used = n, lsn, at
    place = _place(Place, (segment.number, start, size))
    kept.places.append(place)
    kept.parts.append(BODY if key is None else WHOLE)
    kept.bytes += size
    if call is not None:
        kept.calls[call] = place
        if len(kept.calls) > CALLS:
            del kept.calls[next(iter(kept.calls))]
    if (known := later.get(id)) is None:
        known = later[id] = Later(kept)
    known.note_light(made, let, NOTHING if key is None else HEAD)
    return True


_place = tuple.__new__  # what the constructor of a named tuple does, without its cost


def _apply(found: Recovered, segment: Segment, record: Found, head: dict[str, Any], later: dict[str, Later]) -> None:
    kind = head["is"]
    if kind in ("table", "end"):
        _evidence(found, record.lsn, head)
        return
    id, n = head["session"], head["n"]
    kept = found.kept.get(id)
    if kept is None:
        if id in found.closed:
            return
        if kind != "open":  # where its end follows, its snapshot and first segments were let go of
            kept = found.kept[id] = Kept(id, {}, damage=f"its beginning, before record {record.lsn}, is lost")
        else:
            kept = found.kept[id] = Kept(id, dict(head["open"]))
    elif not kept.opened and kind == "open":
        kept.opened = dict(head["open"])  # its only snapshot is damaged, and all its records are there
        kept.damage = None
    if n <= kept.n:
        kept.lsn = max(kept.lsn, record.lsn)
        return
    if n != kept.n + 1 and kept.damage is None:
        kept.damage = f"{n - kept.n - 1} of its changes are lost, after number {kept.n}"
    if kept.damage is None:
        kept.n = n
        place = Place(segment.number, record.start, record.size)
        part = BODY if kind == "commit" and head["key"] is None else WHOLE
        kept.add(place, part)
        if (call := head.get("call")) is not None:
            kept.calls[call] = place
            if len(kept.calls) > CALLS:
                del kept.calls[next(iter(kept.calls))]
        if kind == "commit":
            if (known := later.get(id)) is None:
                known = later[id] = Later(kept)
            left = NOTHING if part == BODY else HEAD
            if "made" in head:
                known.note_light(head["made"], head["let"], left)
            else:
                known.note(head, left)
    kept.lsn, kept.last_used = record.lsn, head["at"]
    if kind == "patch":
        kept.opened.update({key: head[key] for key in ("name", "lease_s", "public") if key in head})
    elif kind == "close":
        found.closed.add(id)
        owner, name = (head.get(key, kept.opened.get(key)) for key in ("owner", "name"))
        if head.get("key"):
            _remember(found.deletions, [owner, *head["key"], head["at"]])
        if head["why"]:
            _remember(found.ended, [owner, id, name, head["why"], head["at"]])
        del found.kept[id]


def _remember(rows: list[list[Any]], row: list[Any]) -> None:
    if row not in rows:
        rows.append(row)
        del rows[:-ENDED]


def _evidence(found: Recovered, lsn: int, head: dict[str, Any]) -> None:
    """A list of all sessions, and how many records each had."""
    for known, rows in ((found.ended, "ended"), (found.deletions, "deletions")):
        for row in head.get(rows, ()):
            _remember(known, row)
    for id, n in head["sessions"].items():
        kept = found.kept.get(id)
        if kept is None:
            if id not in found.closed:
                found.problems.append(f"session {id} had {n} records, and none is left")
        elif kept.n >= n:
            kept.lsn = max(kept.lsn, lsn)
        elif kept.damage is None:
            kept.damage = f"{n - kept.n} of its changes are lost, after number {kept.n}"
    for id, kept in list(found.kept.items()):
        if id not in head["sessions"] and kept.lsn < lsn and kept.lsn:
            found.closed.add(id)  # its end is what was lost
            del found.kept[id]


def _set_aside(found: Recovered, lost: dict[int, bytes | None]) -> None:
    if not lost:
        return
    tags = {tag_of(id): kept for id, kept in found.kept.items()}
    for lsn, tag in lost.items():
        owner = tags.get(tag) if tag is not None else None
        if owner is not None:
            covered = owner.snapshot.lsn if owner.snapshot else 0
            if lsn > covered and owner.damage is None:
                owner.damage = f"a change after its number {owner.n} is lost"
        elif tag is None:
            for kept in found.kept.values():
                if kept.lsn < lsn and kept.damage is None:
                    kept.damage = "its newest changes may be lost: records of unknown sessions are"
    found.problems.append(f"{len(lost)} records of the log are missing or damaged")


# ---------------------------------------------------------------- a session's contents


@_uncollected()
def contents(kept: Kept, segments: dict[int, Segment], files: Files, take: Callable[[dict[str, Any]], None]) -> Answers:
    """Hands a session's commits to `take`, in order, but for those that later ones write over; returns the answers to
    keep. Raises Damaged.

    A commit's arrays are views of files, good only during that call.
    """
    answers = Answers()
    if kept.snapshot is not None:
        with snapshots.opened(kept.snapshot, files) as rows:
            answers = Answers.of(rows["answers"])
            take(rows["commit"])
            rows = {}
    by_segment: dict[int, list[tuple[Place, int]]] = {}
    for place, part in zip(kept.places, kept.parts, strict=True):
        if part != NOTHING:
            by_segment.setdefault(place.segment, []).append((place, part))
    for number, places in by_segment.items():
        segment = segments[number]
        with files.mapped(segment.path) as data:
            read = bodies(data, [(start, size) for (_, start, size), _ in places])
            for body, ((_, start, size), part) in zip(read, places, strict=True):
                if part != HEAD and body is not None:
                    take(body)
                if part == BODY:
                    continue
                head = head_of(data[start : start + size])
                if head["is"] == "commit" and head["key"] is not None:
                    key, digest = head["key"]
                    answers.put(key, Answer(digest, head["at"], head["reply"], head["short"]))
    return answers


def reply_at(place: Place, segments: dict[int, Segment], files: Files) -> bytes | None:
    """What the record at this place says its caller was answered. Raises Damaged."""
    segment = segments[place.segment]
    with files.mapped(segment.path) as data:
        found = record_at(data, place.start - HEADER_BYTES, segment.sync_word)
        if found is None or not found.sound:
            raise Damaged(f"a record in {segment.path.name} is not what was written")
        reply: bytes | None = head_of(data[place.start : place.start + place.size])["reply"]
        return reply

"""What one worker keeps on disk: the door to this room.

The worker gives `write` groups of changes before it answers them, asks for sessions by `load`, and gives them back by
`save`. Opened, in a session's first record:

    {"owner", "name", "device", "seed", "default_dtype", "created", "number": order of creation within the owner,
     "incarnation", "lease_s", "key": [idempotency key, digest] or null, "public": its public id, or not there}

A log that only grows would fill the disk and make the next start slow, so sessions are snapshotted: one whose records
outweigh both `SNAPSHOT_BYTES` and what it holds, or are more than `MANY`, and those that keep the oldest segment when
the log exceeds `LOG_BYTES`. A segment goes when no session needs a record in it.
"""

from __future__ import annotations

import logging
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.commit import Commit, Light, light, overwritten, used, whole
from engine.context import active
from engine.durability import snapshots
from engine.durability.files import Buffer, Files, Locked
from engine.durability.jobs import JobFiles
from engine.durability.log import SEGMENT_BYTES, Log, Place, Segment
from engine.durability.records import LIGHT, Damaged, payload_of, tag_of
from engine.durability.recovery import (
    ANSWER_S,
    BODY,
    ENDED,
    WHOLE,
    Answer,
    Answers,
    Kept,
    Recovered,
    contents,
    recover,
    reply_at,
)
from engine.errors import Gone, Hint, OutOfMemory
from engine.rebuild import Rebuild
from engine.undo import Undo

SNAPSHOT_BYTES = 64 << 20
LOG_BYTES = 512 << 20
MANY = 20_000  # records of one session after which it is snapshotted, whatever they weigh
_LOCK_WAIT = 60.0
_RUNNING_BYTES = 64
FORMAT = "curlgrad data 1\n"

log = logging.getLogger("curlgrad.durability")


@dataclass(slots=True)
class Change:
    """A record to be: `kind` as records.py lists them, what its head says, and perhaps a commit."""

    kind: str
    session: str
    head: dict[str, Any]
    commit: Any = None


class DataDir:
    """--data-dir: locked as long as the server runs. Raises Locked, OSError; ValueError for another version's."""

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self.files = files or Files()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self.files.lock(path / "lock")
        marker = path / "format"
        try:
            if not marker.exists():
                marker.write_text(FORMAT)
            elif marker.read_text() != FORMAT:
                raise ValueError(f"{path} holds data of another version: {marker.read_text().strip()!r:.100}")
        except BaseException:
            os.close(self._lock)
            raise

    def folders(self) -> list[Path]:
        """The workers' folders that are there."""
        return [path for path in self.files.list(self.path) if path.is_dir()]

    def close(self) -> None:
        os.close(self._lock)


def data_bytes(folders: Iterable[Path]) -> int:
    """How much a start may have to read."""
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


class Store:
    """One worker's folder. Everything is called in the worker's thread."""

    def __init__(
        self,
        folder: Path,
        *,
        make: Callable[..., Any],
        sync: str = "everysec",
        adopt: Sequence[Path] = (),
        files: Files | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        log_bytes: int = LOG_BYTES,
        snapshot_bytes: int = SNAPSHOT_BYTES,
        clock: Callable[[], float] = time.monotonic,
        thread: bool = True,
        lsn: int = 0,
    ) -> None:
        """`make`: a session of its id and what was said when it was opened. `adopt`: folders of workers that are no
        more, whose sessions this one takes over. `lsn`: what the log has counted up to elsewhere. Raises Locked."""
        self.folder, self.files = folder, files or Files()
        self._make = make
        self._log_bytes, self._snapshot_bytes = log_bytes, snapshot_bytes
        self.files.folder(folder)
        self.files.folder(folder / "snapshots")
        self._lock = _locked(folder / "lock", self.files)
        self._marker, self.ran_last = _running(folder / "running")
        start = time.perf_counter()
        found = recover(folder, self.files)
        self.kept: dict[str, Kept] = found.kept
        self.ended = found.ended
        self.deletions = found.deletions
        self._unlink: list[tuple[int, Path]] = []  # snapshots of closed sessions, until their end is on the disk
        self.log = Log(
            folder,
            self.files,
            sync=sync,
            segments=found.segments,
            lsn=max(found.lsn, lsn),
            before=found.before,
            segment_bytes=segment_bytes,
            first=self._table,
            clock=clock,
            thread=thread,
        )
        self._say(found, time.perf_counter() - start)
        self._remove_stale()
        for other in adopt:
            self._adopt(other)

    def _say(self, found: Recovered, seconds: float) -> None:
        name = self.folder.name
        for problem in found.problems:
            log.warning("%s: %s", name, problem)
        if found.torn:
            log.warning(
                "%s: %d records at the log's end were torn off by the last end, and are dropped", name, found.torn
            )
        for kept in found.kept.values():
            if kept.damage:
                log.error("%s: session %s is set aside: %s; python -m app repair", name, kept.id, kept.damage)
        if found.kept:
            log.info("%s: %d sessions, %d MB of log read in %.2f s", name, len(found.kept), found.bytes >> 20, seconds)

    def _remove_stale(self) -> None:
        """Snapshots that a newer one, or the session's end, has made useless."""
        for path in self.files.list(self.folder / "snapshots"):
            name = snapshots.named(path)
            kept = self.kept.get(name[0]) if name else None
            if name and (kept is None or (kept.snapshot is not None and kept.snapshot.n > name[1])):
                self.files.remove(path)

    def _table(self) -> list[Buffer]:
        return payload_of(
            {"is": "table", "sessions": self._numbers(), "ended": self.ended, "deletions": self._recent()}
        )

    def _recent(self) -> list[list[Any]]:
        """The deletions with an idempotency key that is still kept."""
        self.deletions = [row for row in self.deletions if time.time() - row[3] < ANSWER_S]
        return self.deletions

    def _numbers(self) -> dict[str, int]:
        return {id: kept.n for id, kept in self.kept.items()}

    # ------------------------------------------------ changes

    def write(self, changes: Sequence[Change]) -> None:
        """Writes a group of changes: when it returns they outlive the process. Raises OutOfMemory, Unavailable; then
        none of them was kept, but for "outcome-unknown"."""
        now = time.time()
        group: list[tuple[bytes, list[Buffer]]] = []
        numbers: dict[str, int] = {}
        for change in changes:
            kept = self.kept.get(change.session)
            n = numbers.get(change.session, kept.n if kept else 0) + 1
            numbers[change.session] = n
            head = {"is": change.kind, "session": change.session, "n": n, "at": now, **change.head}
            if change.kind == "close" and kept is not None:  # what opened it may be gone by then
                head.update(owner=kept.opened["owner"], name=kept.opened["name"])
            payload = (
                commit_payload(head, change.commit) if change.kind == "commit" else payload_of(head, change.commit)
            )
            group.append((tag_of(change.session), payload))
        places = self.log.append(group)
        lsn = self.log.lsn - len(group)
        for change, place in zip(changes, places, strict=True):
            lsn += 1
            self._index(change, place, lsn, now)

    def _index(self, change: Change, place: Place, lsn: int, now: float) -> None:
        if change.kind == "open":
            self.kept[change.session] = Kept(change.session, dict(change.head["open"]), answers=Answers())
        kept = self.kept[change.session]
        kept.n += 1
        kept.lsn, kept.last_used = lsn, now
        head = change.head
        kept.add(place, BODY if change.kind == "commit" and head["key"] is None else WHOLE)
        if change.kind == "commit" and head["key"] is not None and kept.answers is not None:
            key, digest = head["key"]
            kept.answers.put(key, Answer(digest, now, head["reply"], head["short"]))
        elif change.kind == "patch":
            kept.opened.update(head)
        elif change.kind == "close":
            del self.kept[change.session]
            if head.get("key"):
                self.deletions.append([kept.opened["owner"], *head["key"], now])
                del self.deletions[:-ENDED]
            if head["why"]:
                self.ended.append([kept.opened["owner"], kept.id, kept.opened["name"], head["why"], now])
                del self.ended[:-ENDED]
            if kept.snapshot is not None:
                self._unlink.append((lsn, kept.snapshot.path))

    def lag(self) -> dict[str, float]:
        """What the log has not brought to the disk yet (Log.lag)."""
        return self.log.lag()

    def mark(self, call: str) -> None:
        """Remembers, beyond the death of this process, which call runs now."""
        self._marker[:_RUNNING_BYTES] = call.encode("ascii", "replace")[:_RUNNING_BYTES].ljust(_RUNNING_BYTES, b"\0")

    # ------------------------------------------------ sessions

    def load(self, id: str) -> Any:
        """The session, read from the disk. Raises Gone for one that is set aside."""
        kept = self.kept[id]
        if kept.damage is None:
            session = self._make(id, kept.opened)
            work = Rebuild(session)
            try:
                with active(session.ctx):
                    kept.answers = contents(kept, self._segments(), self.files, work.apply)
                session.ctx.undo = Undo(session.ctx.seq + 1)
                return session
            except Damaged as problem:
                kept.damage = str(problem)
                log.error("%s: session %s is set aside: %s; python -m app repair", self.folder.name, id, kept.damage)
        raise set_aside(kept)

    def save(self, id: str, session: Any) -> None:
        """Writes a session's snapshot, where it changed since the last one. Raises OSError, Unavailable."""
        kept = self.kept[id]
        if kept.snapshot is not None and not kept.places:
            return
        self.log.sync_now()
        old = kept.snapshot
        about = {
            "session": id,
            "n": kept.n,
            "lsn": self.log.lsn,
            "last_used": kept.last_used,
            "open": kept.opened,
            "info": session.query({"do": "info"}, "none"),
        }
        answers = kept.answers.rows() if kept.answers is not None else []
        path = snapshots.path_of(self.folder / "snapshots", id, kept.n)
        try:
            kept.snapshot = snapshots.write(path, self.files, about, {"commit": whole(session), "answers": answers})
        except OSError as error:
            raise OutOfMemory(f"no snapshot can be written ({error.strerror or error})", code="disk-full") from error
        kept.forget_all()
        if old is not None:
            self.files.remove(old.path)

    def asleep(self, id: str) -> None:
        """The session is in memory no more; what answered its calls is read again when it wakes."""
        if (kept := self.kept.get(id)) is not None:
            kept.answers = None

    def info(self, id: str) -> dict[str, Any] | None:
        """What a sleeping session says of itself; None where only its contents can tell."""
        kept = self.kept[id]
        if kept.damage is None and kept.snapshot is not None and not kept.places:
            found: dict[str, Any] = kept.snapshot.about["info"]
            return found
        return None

    def weight(self, id: str) -> int:
        """About how many bytes of memory a sleeping session will take."""
        kept = self.kept[id]
        return (kept.snapshot.size if kept.snapshot else 0) + kept.bytes

    def outcome(self, id: str, call: str) -> bytes | bool | None:
        """What became of a call before the worker died: its packed reply (None where none was kept), or False."""
        kept = self.kept.get(id)
        place = kept.calls.get(call) if kept is not None else None
        return False if place is None else reply_at(place, self._segments(), self.files)

    def _segments(self) -> dict[int, Segment]:
        return {segment.number: segment for segment in self.log.segments}

    # ------------------------------------------------ housekeeping

    def heavy(self, held: Callable[[str], int]) -> list[str]:
        """The sessions of which a snapshot is due. `held`: the bytes that a session holds in memory."""
        due = [
            id
            for id, kept in self.kept.items()
            if kept.damage is None
            and len(kept.places) > 1
            and (len(kept.places) > MANY or (kept.bytes > self._snapshot_bytes and kept.bytes > held(id)))
        ]
        if sum(segment.end for segment in self.log.segments) > self._log_bytes and len(self.log.segments) > 1:
            oldest = self.log.segments[0].number
            due += [
                id
                for id, kept in self.kept.items()
                if kept.damage is None and kept.places and kept.places[0].segment == oldest and id not in due
            ]
        return due

    def tidy(self) -> None:
        """Removes what nothing needs any more: snapshots of ended sessions, and the oldest segments."""
        while self._unlink and self._unlink[0][0] <= self.log.synced:
            self.files.remove(self._unlink.pop(0)[1])
        if self.log.segments:
            needed = [kept.places[0].segment for kept in self.kept.values() if kept.places]
            if any(kept.damage for kept in self.kept.values()):
                needed.append(0)  # repair may find more in them
            if self._unlink:
                needed.append(0)
            self.log.drop(min(needed, default=self.log.segments[-1].number))

    def close(self) -> None:
        """Writes the end of the log, which makes the next start certain of everything before it."""
        self.mark("")  # what was running is undone: it is no reason of this end
        self.log.close(payload_of({"is": "end", "sessions": self._numbers()}))
        self._marker.close()
        os.close(self._lock)

    # ------------------------------------------------ other workers' folders

    def _adopt(self, folder: Path) -> None:
        """Takes over the sessions of a worker that is no more; what cannot be read stays where it is."""
        lock = _locked(folder / "lock", self.files)
        try:
            found = recover(folder, self.files)
            segments = {segment.number: segment for segment in found.segments}
            left = []
            for id, kept in found.kept.items():
                if id in self.kept and self.kept[id].n >= kept.n:
                    continue
                try:
                    self.take(kept, segments)
                except (Damaged, KeyError, OSError, OutOfMemory) as problem:
                    kept.damage = kept.damage or str(problem)
                    left.append(id)
                    log.error("session %s stays in %s: %s", id, folder, kept.damage)
            self.ended += [one for one in found.ended if one not in self.ended]
            self.deletions += [one for one in found.deletions if one not in self.deletions]
            if (jobs := folder / "jobs").is_dir():
                JobFiles(self.folder / "jobs", self.files).adopt(jobs)
            if not left:
                for path in [*self.files.list(folder / "snapshots"), *self.files.list(folder)]:
                    if path.is_file() and path.name != "lock":
                        self.files.remove(path)
                (folder / "snapshots").rmdir()
                (folder / "lock").unlink()
                folder.rmdir()
        finally:
            os.close(lock)

    def take(self, kept: Kept, segments: dict[int, Segment]) -> None:
        """Takes over a session from another folder's segments, as a snapshot. Raises Damaged, and what its contents
        make of themselves when they are not what a session wrote."""
        if kept.damage is not None:
            raise Damaged(kept.damage)
        session = self._make(kept.id, kept.opened)
        work = Rebuild(session)
        with active(session.ctx):
            kept.answers = contents(kept, segments, self.files, work.apply)
        self.kept[kept.id] = kept
        before, kept.snapshot, kept.lsn = kept.snapshot, None, self.log.lsn
        try:
            self.save(kept.id, session)
        except BaseException:
            del self.kept[kept.id]
            kept.snapshot = before
            raise
        finally:
            session.close()
        kept.answers = None


def commit_payload(head: dict[str, Any], commit: Commit | Light) -> list[Buffer]:
    """A commit as it is written. What tells whether it has to be read goes into the head."""
    if not isinstance(commit, Light):
        if (over := overwritten(commit)) is not None:
            head["over"] = over
            return payload_of(head, commit)
        short = light(commit)
        if short is None:
            if (uses := used(commit)) is not None:
                head["uses"] = uses
            return payload_of(head, commit)
        commit = short
    body, head["made"], head["let"] = commit
    return payload_of([head[name] for name in LIGHT], body)


def set_aside(kept: Kept) -> Gone:
    """The error of a session whose data are damaged."""
    return Gone(
        f"session {kept.opened.get('name') or kept.id} is set aside, because its data on the disk are damaged: "
        f"{kept.damage}",
        code="session-damaged",
        hint=Hint("session-damaged"),
        why=kept.damage,
    )


def _locked(path: Path, files: Files) -> int:
    """Locks a worker's folder; waits for one that is just ending. Raises Locked."""
    until = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            return files.lock(path)
        except Locked:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _running(path: Path) -> tuple[mmap.mmap, str | None]:
    """The page that says which call runs, and what it said last. Shared memory of a file outlives a killed process."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        os.ftruncate(fd, _RUNNING_BYTES)
        page = mmap.mmap(fd, _RUNNING_BYTES)
    finally:
        os.close(fd)
    said = page[:].rstrip(b"\0").decode("ascii", "replace")
    page[:] = bytes(_RUNNING_BYTES)
    return page, said or None

"""The log of one worker: segments that are only ever written at their end.

`append` writes a group of records in one go and returns when the kernel has them: from then on the death of the process
loses nothing, whatever `sync` says. That decides what the loss of power can take:

    always     nothing that was acknowledged: `append` returns when the disk has the group
    everysec   at most the last second: a thread syncs half a second after a write, or as soon as a segment is full,
               since the next one waits for that; where the disk takes longer than the second, `append` waits for it
    no         what the system had not yet written by itself

In every mode what is left is a prefix of what was written: a segment is synced before the next one begins, and each
record says up to which one all was on the disk (`synced`), so that holes behind that are known for what they are.

A write that fails for want of room is taken back, and the next one may succeed. After any other failure of a write, and
every failure of a sync, nobody knows what the disk has: the log then takes no more, and nothing is tried again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from engine.durability.files import Buffer, File, Files
from engine.durability.records import HEADER_BYTES, NOBODY, seal
from engine.errors import Hint, OutOfMemory, Unavailable

SYNCS = ("always", "everysec", "no")
SEGMENT_BYTES = 64 << 20
SYNC_AFTER = 0.5  # seconds from a write to the sync that takes it
OVERDUE = 1.0  # seconds after which a write waits for a sync that is late
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) if hasattr(errno, "EDQUOT") else (errno.ENOSPC, errno.EFBIG)

log = logging.getLogger("curlgrad.durability")


class Place(NamedTuple):
    """Where a record is: the number of its segment, and its payload there."""

    segment: int
    start: int
    size: int


@dataclass(slots=True)
class Segment:
    """A segment's file. `end` is its size."""

    number: int
    path: Path
    end: int
    sync_word: bytes = field(init=False)  # asked for with every record

    def __post_init__(self) -> None:
        self.sync_word = sync_word(self.path)


def sync_word(path: Path) -> bytes:
    """The word in a segment's name."""
    return bytes.fromhex(path.name.split(".")[1])


class Log:
    """Written by one thread; a second one syncs. `segments`: those that are there, the oldest first."""

    def __init__(
        self,
        folder: Path,
        files: Files,
        *,
        sync: str = "everysec",
        segments: Sequence[Segment] = (),
        lsn: int = 0,
        before: bytes = NOBODY,
        segment_bytes: int = SEGMENT_BYTES,
        first: Callable[[], list[Buffer]],
        clock: Callable[[], float] = time.monotonic,
        thread: bool = True,
    ) -> None:
        """`lsn`: of the last record there is, which is on the disk; `before`: whose it is. `first`: makes the payload
        that begins a segment."""
        self.folder, self.files, self.sync, self.clock = folder, files, sync, clock
        self.segments = list(segments)
        self.segment_bytes = segment_bytes
        self.lsn = self.synced = lsn
        self.failure: str | None = None
        self._first = first
        self._before = before
        self._file: File | None = None
        self._dirty_since: float | None = None  # the first write that no sync has taken yet
        self._taken_since: float | None = None  # the first write of the sync that runs
        self._dirty_bytes = self._taken_bytes = 0  # of those
        self._state = threading.Condition()
        self._syncing = False
        self._closing = False
        self._thread: threading.Thread | None = None
        if thread and sync == "everysec":
            self._thread = threading.Thread(target=self._keep_syncing, name="curlgrad-sync", daemon=True)
            self._thread.start()

    # ------------------------------------------------ writing

    def append(self, group: Sequence[tuple[bytes, list[Buffer]]]) -> list[Place]:
        """Writes records, each (whose it is, payload); where they are. Raises OutOfMemory, Unavailable.

        If it raises, none of them was written, but for Unavailable "outcome-unknown".
        """
        self._check()
        if self._file is None or self._full:
            self._roll()
        since = self._taken_since or self._dirty_since
        if self.sync == "everysec" and since is not None and self.clock() - since > OVERDUE:
            self.sync_now()  # late: whoever changes something waits, so that no more than a second can be lost
        return self._write(group)

    def _write(self, group: Sequence[tuple[bytes, list[Buffer]]]) -> list[Place]:
        segment = self.segments[-1]
        buffers: list[Buffer] = []
        places: list[Place] = []
        end, lsn, before, word = segment.end, self.lsn, self._before, segment.sync_word
        for tag, payload in group:
            lsn += 1
            record = seal(payload, word, lsn, self.synced, tag, before)
            before = tag
            places.append(Place(segment.number, end + HEADER_BYTES, sum(map(len, payload))))
            end += sum(map(len, record))
            buffers += record
        assert self._file is not None
        try:
            self._file.write(buffers)
        except OSError as error:
            self._take_back(error, segment.end)
        with self._state:
            self._dirty_bytes += end - segment.end
            segment.end, self.lsn, self._before = end, lsn, before
            begins = self._dirty_since is None
            if begins:
                self._dirty_since = self.clock()
            if begins or self._full:
                self._state.notify_all()
        if self.sync == "always":
            self.sync_now()
        return places

    def _take_back(self, error: OSError, end: int) -> None:
        """After a failed write: cuts off what got into the file, and raises what the caller is told."""
        assert self._file is not None
        why = f"the log cannot be written ({error.strerror or error})"
        try:
            self._file.truncate(end)
        except OSError:
            self._fail(why)
            raise self._refusal("outcome-unknown") from error
        if error.errno in _NO_ROOM:
            raise OutOfMemory(
                "the disk is full: the change could not be kept, and was taken back; what is there can be read",
                code="disk-full",
                hint=Hint("disk-full"),
            ) from error
        self._fail(why)
        raise self._refusal("not-applied") from error

    def _roll(self) -> None:
        """Begins a segment, when all before it is on the disk."""
        if self._file is not None:
            self.sync_now()
            with self._state:
                self._file.close()
                self._file = None
        number = self.segments[-1].number + 1 if self.segments else 1
        path = self.folder / f"{number:08d}.{secrets.token_hex(8)}.log"
        try:
            made = self.files.create(path)
            self.files.sync_folder(self.folder)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise OutOfMemory(
                    "the disk is full: nothing was changed, and what is there can be read",
                    code="disk-full",
                    hint=Hint("disk-full"),
                ) from error
            self._fail(f"a segment of the log cannot be made ({error.strerror or error})")
            raise self._refusal("not-applied") from error
        with self._state:
            self._file = made
            self.segments.append(Segment(number, path, 0))
        self._write([(NOBODY, self._first())])

    def drop(self, before: int) -> None:
        """Deletes the segments with numbers below `before`, the oldest first; the one that is written stays."""
        while len(self.segments) > 1 and self.segments[0].number < before:
            self.files.remove(self.segments[0].path)
            del self.segments[0]

    # ------------------------------------------------ syncing

    def sync_now(self) -> None:
        """Returns when the disk has all that was written. Raises Unavailable."""
        with self._state:
            while self._syncing:
                self._state.wait()
            self._check("outcome-unknown")
            if self._file is None or self._dirty_since is None:
                return
            self._syncing = True
            file, upto = self._file, self.lsn
            self._taken_since, self._dirty_since = self._dirty_since, None
            self._taken_bytes, self._dirty_bytes = self._dirty_bytes, 0
        try:
            file.sync()
        except OSError as error:
            with self._state:
                self._syncing = False
                self._fail(f"the disk did not take the log ({error.strerror or error})")
            raise self._refusal("outcome-unknown") from error
        with self._state:
            self._syncing, self._taken_since, self._taken_bytes = False, None, 0
            self.synced = upto
            self._state.notify_all()

    def lag(self) -> dict[str, float]:
        """What is written and not yet synced: bytes, and the seconds that the oldest of them has waited."""
        with self._state:
            since = self._dirty_since if self._taken_since is None else self._taken_since
            waited = 0.0 if since is None else max(0.0, self.clock() - since)
            return {"lag_bytes": self._taken_bytes + self._dirty_bytes, "lag_seconds": waited}

    @property
    def _full(self) -> bool:
        """Whether the next write begins a segment."""
        return self.segments[-1].end >= self.segment_bytes

    def _left(self, since: float) -> float:
        """Seconds until what was written at `since` is to be synced."""
        return 0.0 if self._full else since + SYNC_AFTER - self.clock()

    def sync_due(self) -> bool:
        """Syncs where a write has waited for `SYNC_AFTER`, or the segment is full; whether it did."""
        since = self._dirty_since
        if self.sync != "everysec" or since is None or self._left(since) > 0 or self.failure:
            return False
        with contextlib.suppress(Unavailable):  # said in the log, and by every change from now on
            self.sync_now()
        return True

    def _keep_syncing(self) -> None:
        while True:
            with self._state:
                while self._dirty_since is None and not (self._closing or self.failure):
                    self._state.wait()
                if self._closing or self.failure or self._dirty_since is None:
                    return
                wait = self._left(self._dirty_since)
                if wait > 0:
                    self._state.wait(wait)
            self.sync_due()

    def close(self, last: list[Buffer] | None = None) -> None:
        """Writes a last record, syncs, and ends. What fails is said in the log."""
        with contextlib.suppress(Unavailable, OutOfMemory):
            if self._file is not None and not self.failure:
                if last is not None:
                    self._write([(NOBODY, last)])
                self.sync_now()
        with self._state:
            self._closing = True
            self._state.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._file is not None:
            self._file.close()
            self._file = None

    # ------------------------------------------------ failing

    def _fail(self, why: str) -> None:
        with self._state:
            self.failure = why
            self._state.notify_all()
        log.critical("%s: %s; it takes no more, until the server is started again", self.folder.name, why)

    def _check(self, code: str = "not-applied") -> None:
        if self.failure is not None:
            raise self._refusal(code)

    def _refusal(self, code: str) -> Unavailable:
        outcome = "nothing was changed" if code == "not-applied" else "the change may come back with the next start"
        return Unavailable(
            f"{self.failure}; {outcome}. What is there can be read, and changed again when the server was restarted",
            code=code,
            hint=Hint("log-failed"),
            retry_after=30,
        )

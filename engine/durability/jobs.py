"""Jobs on the disk: what was promised to be run, and how it ended. Format 1.

A folder of files, one for each job that waits or runs, and one for each that has ended:

    <id>.job      the job, written before anybody is told that it is taken
    <id>.tried    empty: a worker died while it ran
    <id>.done     how it ended, written after its commit; from then on the other two are not needed

The bytes: 16 of `MAGIC`, u32 CRC-32 of what follows, 4 zeros, and a payload as records.py has it. Its head says what a
job is (engine/workers/jobs.py); the body of a `.job` is its program as messages.py packs it: [body, [blob]].

A job is run with an idempotency key, so its commit says that it was done. One that is found here without an end is run
again, and answered from the journal where its commit is there.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.durability.files import Files
from engine.durability.records import Damaged, Head, body_of, head_of, payload_of
from engine.errors import OutOfMemory

MAGIC = b"curlgrad job 1\n\0"
_START = len(MAGIC) + 8

log = logging.getLogger("curlgrad.durability")


class JobFiles:
    """The jobs of one worker. `sync`: whether the disk has them before anybody is told."""

    def __init__(self, folder: Path, files: Files | None = None, *, sync: bool = True) -> None:
        self.folder, self.files, self.sync = folder, files or Files(), sync
        self.files.folder(folder)
        for path in self.files.list(folder):
            if path.suffix == ".tmp":
                self.files.remove(path)

    def adopt(self, other: Path) -> None:
        """Takes over the jobs of a worker that is no more."""
        for path in self.files.list(other):
            self.files.rename(path, self.folder / path.name)
        other.rmdir()

    def begin(self, id: str, head: Head, program: bytes, blobs: list[Any]) -> None:
        """Writes down a job. Raises OutOfMemory: then it is not there."""
        try:
            self._write(id, "job", head, [program, blobs])
        except OSError as error:
            raise OutOfMemory(f"the job cannot be written ({error.strerror or error})", code="disk-full") from error

    def tried(self, id: str) -> bool:
        """Notes that a worker died while the job ran; whether it is the second time."""
        path = self.folder / f"{id}.tried"
        if path.exists():
            return True
        try:
            self.files.create(path).close()
        except OSError as error:
            log.warning("%s: %s", path.name, error)
        return False

    def end(self, id: str, head: Head) -> None:
        """Writes down how a job ended. Where the disk does not take it the job is found unended at the next start."""
        try:
            self._write(id, "done", head, None)
            self._remove(id, "job", "tried")
        except OSError as error:
            log.warning("the end of job %s cannot be written: %s", id, error.strerror or error)

    def forget(self, id: str) -> None:
        """The job is not there any more."""
        self._remove(id, "job", "tried", "done")

    def all(self) -> Iterator[tuple[str, Head, bool]]:
        """Every job in order: its id, what was written of it last, and whether it has ended. A file that is not what
        was written is set aside."""
        names = {path.name for path in self.files.list(self.folder)}
        for name in sorted(names):
            id, _, kind = name.rpartition(".")
            if kind == "done" or (kind == "job" and f"{id}.done" not in names):
                try:
                    with self.files.mapped(self.folder / name) as data:
                        yield id, head_of(_payload(data)), kind == "done"
                except (Damaged, OSError) as problem:
                    self._set_aside(name, problem)

    def program(self, id: str) -> tuple[bytes, list[np.ndarray[Any, np.dtype[np.uint8]]]]:
        """The program of a job, in memory. Raises Damaged, OSError."""
        with self.files.mapped(self.folder / f"{id}.job") as data:
            body, blobs = body_of(_payload(data))
            return bytes(body), [np.frombuffer(bytearray(blob), np.uint8) for blob in blobs]

    def _set_aside(self, name: str, problem: Exception) -> None:
        log.error("job %s cannot be read and is set aside: %s", name, problem)
        self.files.rename(self.folder / name, self.folder / f"{name}.damaged")

    def _write(self, id: str, kind: str, head: Head, body: Any) -> None:
        payload = payload_of(head, body)
        crc = 0
        for part in payload:
            crc = zlib.crc32(part, crc)
        path = self.folder / f"{id}.{kind}"
        unfinished = path.with_suffix(f".{kind}.tmp")
        self.files.remove(unfinished)
        file = self.files.create(unfinished)
        try:
            file.write([MAGIC + crc.to_bytes(4, "little") + bytes(4), *payload])
            if self.sync:
                file.sync()
        except BaseException:
            self.files.remove(unfinished)
            raise
        finally:
            file.close()
        self.files.rename(unfinished, path)
        if self.sync:
            self.files.sync_folder(self.folder)

    def _remove(self, id: str, *kinds: str) -> None:
        for kind in kinds:
            self.files.remove(self.folder / f"{id}.{kind}")


def _payload(data: memoryview) -> memoryview:
    payload = data[_START:]
    if bytes(data[: len(MAGIC)]) != MAGIC or zlib.crc32(payload) != int.from_bytes(
        data[len(MAGIC) : _START - 4], "little"
    ):
        raise Damaged("it is not what was written")
    return payload

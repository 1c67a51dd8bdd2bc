"""A store with sessions that change, driven as a worker drives it, and a file system that forgets."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.commit import whole
from engine.context import active
from engine.durability.files import Buffer, File, Files
from engine.durability.records import Damaged
from engine.durability.recovery import Recovered, contents, recover
from engine.durability.store import Change, Store
from engine.rebuild import Rebuild
from engine.session import Session
from engine.undo import Undo
from tests.engine.test_commit import bits, replay


class House:
    """A store, and its sessions in memory. Every change is written at once; `states` has each state that ever was."""

    def __init__(self, folder: Path, **given: Any) -> None:
        self.commits: list[Any] = []
        self.store = Store(folder, make=self.make, **{"thread": False, **given})
        self.sessions: dict[str, Session] = {}
        self.states: dict[str, list[Any]] = {}
        self.calls = 0

    def make(self, id: str, opened: dict[str, Any]) -> Session:
        return self.made(id, opened, self.commits.append)

    @staticmethod
    def made(id: str, opened: dict[str, Any], on_commit: Any = None) -> Session:
        return Session(
            id,
            owner=opened["owner"],
            name=opened["name"],
            device=opened["device"],
            devices=("cpu",) if opened["device"] == "cpu" else ("cpu", opened["device"]),
            seed=opened["seed"],
            default_dtype=opened["default_dtype"],
            incarnation=opened["incarnation"],
            on_commit=on_commit,
        )

    def open(self, id: str, seed: int = 5, device: str = "cpu") -> Session:
        opened = {
            "owner": "ann",
            "name": None,
            "device": device,
            "seed": seed,
            "default_dtype": "float32",
            "created": 1.5,
            "number": len(self.sessions) + 1,
            "incarnation": "0badcafe",
            "lease_s": None,
            "key": None,
        }
        session = self.make(id, opened)
        self.store.write([Change("open", id, {"open": opened})])
        self.sessions[id] = session
        self.states[id] = [bits(session)]
        return session

    def change(self, id: str, program: dict[str, Any], *, key: list[str] | None = None) -> None:
        """Runs a program and writes its commit."""
        replay(self.sessions[id], program)
        self.calls += 1
        head = {"call": f"c{self.calls}", "key": key, "reply": b"reply %d" % self.calls, "short": None}
        changes = [Change("commit", id, head, commit) for commit in self.commits]
        self.commits.clear()
        self.store.write(changes)
        self.states[id].append(bits(self.sessions[id]))

    def run(self, id: str, *steps: dict[str, Any], **fields: Any) -> None:
        """`change` with a program's parts."""
        self.change(id, {"steps": list(steps), **{name.removesuffix("_"): v for name, v in fields.items()}})


def kill(store: Store) -> None:
    """Lets go of a store's folder as the death of its process would: nothing is written or synced."""
    store.log.failure = "killed"
    store.close()


World = tuple[dict[str, Any], list[Any], list[Any]]


class Town(House):
    """A house whose sessions are renamed, shown to others, forked and ended, too. `worlds`: what there was after each
    change: of each session its bits, name and public id; then why others ended, and deletions with a key."""

    def __init__(self, folder: Path, **given: Any) -> None:
        super().__init__(folder, **given)
        self.worlds: list[World] = [({}, [], [])]

    def did(self) -> None:
        """Something was changed, and acknowledged."""
        store = self.store
        there = {id: _shown(self.states[id][-1], store.kept[id].opened) for id in self.sessions}
        self.worlds.append((there, [row[:4] for row in store.ended], [row[:3] for row in store.deletions]))

    def open(self, id: str, seed: int = 5, device: str = "cpu") -> Session:
        session = super().open(id, seed, device)
        self.did()
        return session

    def change(self, id: str, program: dict[str, Any], *, key: list[str] | None = None) -> None:
        super().change(id, program, key=key)
        self.did()

    def patch(self, id: str, **fields: Any) -> None:
        """Another name, public id or lease."""
        self.store.write([Change("patch", id, fields)])
        self.did()

    def fork(self, id: str, source: str) -> None:
        """A copy of a session, as one record."""
        opened = {**self.store.kept[source].opened, "name": id, "public": None}
        session = self.make(id, opened)
        session.fork(self.sessions[source])
        self.store.write([Change("open", id, {"open": opened}, whole(session))])
        self.sessions[id] = session
        self.states[id] = [bits(session)]
        self.did()

    def end(self, id: str, *, key: list[str] | None = None, why: str | None = None) -> None:
        """The session is deleted, or its lease has run out."""
        self.store.write([Change("close", id, {"why": why, "key": key})])
        del self.sessions[id]
        self.did()


def _shown(state: Any, opened: dict[str, Any]) -> tuple[Any, ...]:
    return state, opened["name"], opened.get("public")


def world(folder: Path) -> tuple[World, dict[str, str]]:
    """What a start finds, as `Town.worlds` has it, and why sessions are set aside."""
    found, states, aside = _looked(folder)
    there = {id: _shown(state, found.kept[id].opened) for id, state in states.items()}
    return (there, [row[:4] for row in found.ended], [row[:3] for row in found.deletions]), aside


def look(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The state of each session that a start finds, and why others are set aside: what Store does, without locks."""
    return _looked(folder)[1:]


def _looked(folder: Path) -> tuple[Recovered, dict[str, Any], dict[str, str]]:
    files = QuickFiles()
    found = recover(folder, files)
    segments = {segment.number: segment for segment in found.segments}
    states, aside = {}, {}
    for id, kept in found.kept.items():
        if kept.damage is None:
            session = House.made(id, kept.opened)
            try:
                with active(session.ctx):
                    contents(kept, segments, files, Rebuild(session).apply)
                session.ctx.undo = Undo(session.ctx.seq + 1)
                states[id] = bits(session)
                continue
            except Damaged as problem:
                kept.damage = str(problem)
        aside[id] = kept.damage
    return found, states, aside


class QuickFiles(Files):
    """Syncs nothing: for tests that read many damaged copies."""

    def create(self, path: Path) -> File:
        return _Quick(path, super().create(path).fd)

    def truncate(self, path: Path, size: int) -> None:
        path.write_bytes(path.read_bytes()[:size])

    def sync(self, path: Path) -> None:
        pass

    def sync_folder(self, path: Path) -> None:
        pass


class _Quick(File):
    def sync(self) -> None:
        pass


class _Forgetful(File):
    def __init__(self, path: Path, fd: int, disk: ForgetfulFiles) -> None:
        super().__init__(path, fd)
        self.disk = disk

    def write(self, buffers: Sequence[Buffer]) -> None:
        self.disk.check("write", self)
        super().write(buffers)

    def sync(self) -> None:
        self.disk.check("sync", self)
        self.disk.synced[self.path] = self.path.read_bytes()

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self.disk.synced[self.path] = self.disk.synced.get(self.path, b"")[:size]


class ForgetfulFiles(Files):
    """Remembers what was synced: after the loss of power the disk has that, and of the rest what chance left.

    `fail` maps "write" and "sync" to an error to raise.
    """

    def __init__(self) -> None:
        self.synced: dict[Path, bytes] = {}
        self.entered: set[Path] = set()  # whose name is on the disk
        self.removed: dict[Path, bytes] = {}  # whose removal is not
        self.fail: dict[str, OSError] = {}

    def check(self, what: str, file: File) -> None:
        if what in self.fail:
            if what == "write":
                File.write(file, [b"half of wh"])
            raise self.fail[what]

    def create(self, path: Path) -> File:
        made = super().create(path)
        self.synced[path] = b""
        return _Forgetful(path, made.fd, self)

    def sync(self, path: Path) -> None:
        self.synced[path] = path.read_bytes()

    def truncate(self, path: Path, size: int) -> None:
        super().truncate(path, size)
        self.synced[path] = path.read_bytes()

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self.synced[new] = self.synced.pop(old)

    def remove(self, path: Path) -> None:
        if path in self.entered:
            self.removed[path] = self.synced[path]
        self.synced.pop(path, None)
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        self.entered |= {known for known in self.synced if known.parent == path}
        self.removed = {known: data for known, data in self.removed.items() if known.parent != path}

    def power_loss(self, folder: Path, chance: random.Random) -> None:
        """Leaves in `folder` what the disk may have."""
        # Removals reach the disk by themselves, too, in their order.
        left = dict(list(self.removed.items())[chance.randrange(len(self.removed) + 1) :])
        for path, synced in self.synced.items():
            if path not in self.entered and chance.random() < 0.5:
                continue
            now = path.read_bytes()
            kept = bytearray(synced)
            for start in range(len(synced), len(now), 512):  # each block behind may be there, or not
                if chance.random() < 0.7:
                    kept.extend(bytes(start - len(kept)))
                    kept.extend(now[start : start + 512])
            left[path] = bytes(kept)
        for path in [*folder.rglob("*.log"), *folder.rglob("*.safetensors"), *folder.rglob("*.tmp")]:
            path.unlink()
        for path, data in left.items():
            path.write_bytes(data)


def copied(source: Path, to: Path) -> Path:
    """A copy of a store's folder, without its lock."""
    shutil.copytree(source, to, ignore=shutil.ignore_patterns("lock", "running"))
    return to


__all__ = ["ForgetfulFiles", "House", "QuickFiles", "Town", "World", "bits", "copied", "kill", "look", "world"]

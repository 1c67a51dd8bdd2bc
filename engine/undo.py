"""What a program changed, so that it can be taken back, or kept as a commit.

Two kinds of entry. A *slot* entry is (object, attribute, old value): gradients, versions, edges, flags, names.
A *bytes* entry is the old content of the range of a storage that was written to, copied before the first write and
restored into the same buffer. Only what existed before the program is logged, and only its first change, so a
program that trains for a thousand rounds logs each parameter once.
"""

from __future__ import annotations

from typing import Any

_MISSING = object()


class Borrowed(Exception):
    """A program is about to write into memory that other sessions stand on, or that is being sent to somebody who reads
    it. `storage` has to get its own first."""

    def __init__(self, storage: Any) -> None:
        super().__init__("memory that others read")
        self.storage = storage


class Undo:
    """The log of one program. Objects with `uid == 0` were made by the program itself and need no entry."""

    __slots__ = ("bytes_held", "generators", "items", "slots", "start_seq", "storages")

    def __init__(self, start_seq: int) -> None:
        self.start_seq = start_seq
        self.slots: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        self.items: dict[tuple[int, Any], tuple[dict[Any, Any], Any, Any]] = {}
        self.storages: dict[int, tuple[Any, list[tuple[int, int, Any]]]] = {}
        self.generators: dict[int, tuple[Any, Any]] = {}
        self.bytes_held = 0

    def slot(self, thing: Any, name: str) -> None:
        """Call before setting `thing.name`."""
        if thing.uid:
            key = (id(thing), name)
            if key not in self.slots:
                self.slots[key] = (thing, name, getattr(thing, name))

    def force_slot(self, thing: Any, name: str) -> None:
        """As `slot`, for objects that are always there: the session, its context."""
        key = (id(thing), name)
        if key not in self.slots:
            self.slots[key] = (thing, name, getattr(thing, name))

    def node(self, node: Any, name: str) -> None:
        """Call before changing a tape node's attribute."""
        if node.seq < self.start_seq:
            key = (id(node), name)
            if key not in self.slots:
                self.slots[key] = (node, name, getattr(node, name))

    def item(self, mapping: dict[Any, Any], key: Any) -> None:
        """Call before setting or deleting `mapping[key]`."""
        at = (id(mapping), key)
        if at not in self.items:
            self.items[at] = (mapping, key, mapping.get(key, _MISSING))

    def write(self, storage: Any, low: int, high: int) -> None:
        """Call before writing elements [low, high) of a storage's flat memory. Raises Borrowed; nothing is written
        then."""
        if not storage.uid:
            return
        if high <= low:  # no element, but the version rises all the same
            self.slot(storage, "version")
            return
        if storage.lent is not None or (storage.origin is not None and storage.read):
            raise Borrowed(storage)
        self.slot(storage, "version")
        entry = self.storages.get(id(storage))
        if entry is None:
            entry = self.storages[id(storage)] = (storage, [])
        flat, ranges = storage.flat, entry[1]
        for a, b in _missing(low, high, ranges):
            copy = flat[a:b].copy()
            self.bytes_held += copy.nbytes
            ranges.append((a, b, copy))

    def generator(self, rng: Any) -> None:
        """Call before drawing from a generator."""
        if id(rng) not in self.generators:
            self.generators[id(rng)] = (rng, rng.snapshot())

    def rollback(self) -> None:
        """Restores everything that was logged."""
        for rng, state in self.generators.values():
            rng.restore(state)
        for storage, ranges in self.storages.values():
            flat = storage.flat
            for low, high, copy in ranges:
                flat[low:high] = copy
        for thing, name, old in self.slots.values():
            setattr(thing, name, old)
        for mapping, key, old in self.items.values():
            if old is _MISSING:
                mapping.pop(key, None)
            else:
                mapping[key] = old

    @property
    def empty(self) -> bool:
        return not (self.slots or self.items or self.storages or self.generators)


def _missing(low: int, high: int, ranges: list[tuple[int, int, Any]]) -> list[tuple[int, int]]:
    """The parts of [low, high) that no range covers."""
    parts = [(low, high)]
    for a, b, _ in ranges:
        rest = []
        for x, y in parts:
            if b <= x or a >= y:
                rest.append((x, y))
            else:
                if x < a:
                    rest.append((x, a))
                if b < y:
                    rest.append((b, y))
        parts = rest
    return parts

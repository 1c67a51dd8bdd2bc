"""Who keeps memory alive: every storage of a session, its bytes, and what holds it.

A storage is held by tensors with an id (the first is its tensor, the others are views of it), by gradients, and by the
tape: as a value that a node saved, as a leaf that a tape ends in, or as the base of a view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from engine.tape import FREED, Node
from engine.tensor import Storage, Tensor

SHOWN = 5  # how many tensors and nodes are named for one storage

Row = dict[str, Any]
_TAPE = "the tape of "


class Holding:
    """One storage, and what holds it. `tape_of`: the tensors whose tape does, the newest first."""

    __slots__ = ("grads", "nodes", "storage", "tape_of", "tensors")

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.tensors: list[Tensor] = []
        self.grads: list[str] = []
        self.tape_of: tuple[str, ...] = ()
        self.nodes: dict[str, None] = {}

    @property
    def kind(self) -> str:
        """tensors, grads or tape: what it is counted as, the first that holds it."""
        return "tensors" if self.tensors else "grads" if self.grads else "tape"

    def row(self) -> Row:
        """The holding as the API shows it."""
        by: list[Row] = []
        for i, t in enumerate(self.tensors):
            row: Row = {"kind": "view" if i else "tensor", "id": t.id, "name": t.name}
            if i:
                row["of"] = label(self.tensors[0])
            by.append(row)
        by += [{"kind": "gradient", "of": name} for name in self.grads]
        if self.tape_of:
            by.append({"kind": "tape", "of": list(self.tape_of), "saved_by": list(self.nodes)})
        return {
            "storage": self.storage.uid,
            "bytes": self.storage.nbytes,
            "device": self.storage.backend.name,
            "held_by": by,
        }


def label(t: Tensor) -> str:
    """What a tensor is called: its name, or the id of one that has none."""
    return t.name or t.id or ""


class Holdings:
    """All holdings of the tensors with an id."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._by_storage: dict[int, Holding] = {}
        self._heap: list[tuple[int, Node]] = []
        self._roots: dict[Node, tuple[str, ...]] = {}
        known = sorted(tensors, key=lambda t: int((t.id or "t0")[1:]))
        self._known = {id(t) for t in known}
        for t in known:
            self._of(t.storage).tensors.append(t)
        for t in known:
            if t.grad is not None:
                self._of(t.grad.storage).grads.append(label(t))
        for t in reversed(known):
            self._behind(t, (label(t),))
        while self._heap:
            _, node = heappop(self._heap)
            self._node(node, self._roots.pop(node))

    def __iter__(self) -> Any:
        return iter(self._by_storage.values())

    def _of(self, storage: Storage) -> Holding:
        found = self._by_storage.get(id(storage))
        if found is None:
            found = self._by_storage[id(storage)] = Holding(storage)
        return found

    def _behind(self, t: Tensor, roots: tuple[str, ...]) -> None:
        """What a tensor keeps alive beside its own memory and gradient."""
        if t.edge is not None:
            self._reach(t.edge[0], roots)
        if t.view is not None and id(t.view.base) not in self._known:
            self._leaf(t.view.base, roots, "a view")

    def _reach(self, node: Node, roots: tuple[str, ...]) -> None:
        known = self._roots.get(node)
        if known is None:
            heappush(self._heap, (-node.seq, node))
            self._roots[node] = roots[:SHOWN]
        elif len(known) < SHOWN:
            self._roots[node] = tuple(dict.fromkeys((*known, *roots)))[:SHOWN]

    def _node(self, node: Node, roots: tuple[str, ...]) -> None:
        for row in () if node.saved is FREED else node.saved:
            if row[3] is not None:
                self._taped(row[3], roots, node.grad_fn)
        for edge in node.edges:
            if type(edge) is tuple:
                self._reach(edge[0], roots)
            elif edge is not None and id(edge) not in self._known:
                self._leaf(edge, roots, "AccumulateGrad")

    def _leaf(self, t: Tensor, roots: tuple[str, ...], by: str) -> None:
        """A tensor without an id that a tape, or a view, still needs."""
        self._taped(t.storage, roots, by)
        if t.grad is not None:
            self._taped(t.grad.storage, roots, by)
        if t.edge is not None and by == "a view":
            self._reach(t.edge[0], roots)

    def _taped(self, storage: Storage, roots: tuple[str, ...], by: str) -> None:
        holding = self._of(storage)
        if holding.tape_of != roots and len(holding.tape_of) < SHOWN:
            holding.tape_of = tuple(dict.fromkeys((*holding.tape_of, *roots)))[:SHOWN]
        if len(holding.nodes) < SHOWN:
            holding.nodes[by] = None

    # ------------------------------------------------ what is asked of them

    def bytes(self) -> dict[str, dict[str, int]]:
        """Bytes by device, and there by what they are counted as."""
        found: dict[str, dict[str, int]] = {}
        for holding in self:
            on = found.setdefault(holding.storage.backend.name, {"tensors": 0, "grads": 0, "tape": 0})
            on[holding.kind] += holding.storage.nbytes
        return found

    def biggest(self, count: int = 3) -> list[tuple[str, int, str]]:
        """What holds most: what it is called, its bytes, and the tensor to delete for it."""
        sizes: dict[tuple[str, str], int] = {}
        for holding in self:
            if holding.tensors:
                t = holding.tensors[0]
                key = (f"{t.name} ({t.id})" if t.name else t.id or "", label(t))
            elif holding.grads:
                key = (f"{holding.grads[0]}.grad", holding.grads[0])
            elif holding.tape_of:
                key = (_TAPE + holding.tape_of[0], holding.tape_of[0])
            else:
                continue
            sizes[key] = sizes.get(key, 0) + holding.storage.nbytes
        first = sorted(sizes.items(), key=lambda item: -item[1])[:count]
        return [(what, size, ref) for (what, ref), size in first if size]

    def most_taped(self) -> str | None:
        """The tensor whose tape alone keeps most alive."""
        return next((ref for what, _, ref in self.biggest(1 << 30) if what.startswith(_TAPE)), None)

    def page(self, limit: int, after: tuple[int, int] | None) -> tuple[list[Row], str | None]:
        """Holdings from the biggest on, after (bytes, storage), and the cursor of what follows."""
        ranked = sorted(self, key=lambda h: (-h.storage.nbytes, h.storage.uid))
        if after is not None:
            size, uid = after
            ranked = [h for h in ranked if (-h.storage.nbytes, h.storage.uid) > (-size, uid)]
        shown = ranked[:limit]
        more = len(ranked) > limit
        last = shown[-1].storage if shown else None
        return [h.row() for h in shown], f"{last.nbytes}.{last.uid}" if more and last is not None else None


def total(found: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Bytes of all devices together, by what they are counted as."""
    return {kind: sum(on[kind] for on in found.values()) for kind in ("tensors", "grads", "tape")}

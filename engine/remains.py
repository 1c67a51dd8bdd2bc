"""What a planned pass leaves behind: its tensors and their tape, made anew from the arrays of each run.

The trace of a pass has cells where the interpreter would have tensors, and nodes like its own. Here those that somebody
can still see when the program ends are written down as rows without arrays; a run fills them in. Sequence numbers and
versions are kept relative to where the pass began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.backend import CPU, Array
from engine.cells import Cell, NotPlanned
from engine.context import Context
from engine.lower import Slot
from engine.tape import FREED, Node
from engine.tensor import Storage, Tensor, View
from engine.trace import Tracer

_PLAIN = (bool, int, float, complex, str, type(None))


class Remains:
    """What is left of a pass: `names`, and the first gradients of leaves. `slots`: whose arrays a run hands out."""

    def __init__(self, tracer: Tracer, names: Mapping[str, Any], places: Mapping[int, int]) -> None:
        self.slots: list[Slot] = []
        self._at: dict[Slot, int] = {}
        self._tracer, self._places = tracer, places
        self._storages: list[tuple[int | None, int]] = []  # (place of the array, version) or (None, outside tensor)
        self._tensors: list[tuple[Any, ...]] = []
        self._nodes: list[tuple[Any, ...]] = []
        self._known: dict[int, Any] = {}  # by identity: storages, cells and nodes that have their row
        self._open: list[tuple[int, View, Storage]] = []  # views whose bases have no row yet
        self._names = {name: self._told(found) for name, found in names.items()}
        self._grads = [(places[id(leaf.origin)], self._cell(g)) for leaf, g in tracer.first.values()]
        self._views = [
            (at, self._cell(view.base), view.steps, view.creation, *self._version(storage, view.version))
            for at, view, storage in self._pending()
        ]
        del self._tracer, self._places, self._known, self._at, self._open

    # ------------------------------------------------ written down

    def _told(self, found: Any) -> Any:
        if isinstance(found, Cell):
            return self._cell(found)
        if type(found) in (list, tuple):
            return [self._told(x) for x in found]
        if type(found) is dict:
            return {name: self._told(x) for name, x in found.items()}
        if type(found) in _PLAIN:
            return (found,)
        raise NotPlanned(f"a {type(found).__name__} is left behind")

    def _array(self, array: Array) -> int:
        slot = self._tracer.slot(array)
        if slot in self._tracer.constants and slot not in self._tracer.outside:
            raise NotPlanned("a constant is left behind")
        at = self._at.get(slot)
        if at is None:
            at = self._at[slot] = len(self.slots)
            self.slots.append(slot)
        return at

    def _storage(self, storage: Storage) -> int:
        found = self._known.get(id(storage))
        if found is None:
            found = self._known[id(storage)] = len(self._storages)
            given = self._tracer.given.get(id(storage))
            if given is not None:
                self._storages.append((None, self._places[id(given)]))
            else:
                self._storages.append((self._array(storage.buf), storage.version))
        return found

    def _version(self, storage: Storage, version: int) -> tuple[int, int]:
        """(storage, version): of what was there before, relative to what it was when the pass began."""
        if id(storage) in self._tracer.given:
            version -= self._tracer.began(storage)
        return self._storage(storage), version

    def _pending(self) -> Iterable[tuple[int, View, Storage]]:
        """The views whose rows are written so far; their bases may add more."""
        while self._open:
            yield self._open.pop()

    def _cell(self, t: Any) -> int:
        """The row of a tensor: a number from 0 on, or ~n for the tensor from outside with the number n."""
        if not isinstance(t, Cell):
            raise NotPlanned("a tensor from outside the trace is left behind")
        if t.origin is not None:
            return ~self._places[id(t.origin)]
        found = self._known.get(id(t))
        if found is None:
            found = self._known[id(t)] = len(self._tensors)
            self._tensors.append(())  # kept free while the tape behind it is written
            edge = None if t.edge is None else self._tape(t.edge)
            array, storage = self._array(t.array), self._storage(t.storage)
            self._tensors[found] = (array, t.spec, storage, t.backend, t.offset, t._strides, t.requires_grad, edge)
            if t.view is not None:
                self._open.append((found, t.view, t.storage))
        return found

    def _tape(self, edge: tuple[Node, int]) -> tuple[int, int]:
        """The row of a node, and which of its outputs; rows of what it needs come before it."""
        stack = [edge[0]]
        while stack:
            node = stack[-1]
            missing = [e[0] for e in node.edges if type(e) is tuple and id(e[0]) not in self._known]
            if missing:
                stack += missing
                continue
            stack.pop()
            if id(node) not in self._known:
                self._known[id(node)] = len(self._nodes)
                self._nodes.append(self._node(node))
        return self._known[id(edge[0])], edge[1]

    def _node(self, node: Node) -> tuple[Any, ...]:
        edges = tuple(
            [
                None if e is None else (self._known[id(e[0])], e[1]) if type(e) is tuple else self._leaf(e)
                for e in node.edges
            ]
        )
        saved = None
        if node.saved is not FREED:
            saved = tuple(
                [
                    (at, sub, self._array(array), *((None, version) if s is None else self._version(s, version)))
                    for at, sub, array, s, version in node.saved
                ]
            )
        rest = (node.outs, node.mask, node.sizes, node.compute, node.backend)
        return (
            node.op,
            node.args,
            edges,
            saved,
            rest,
            node.seq - self._tracer.start_seq,
            node.name,
            node.plain,
            node.real,
        )

    def _leaf(self, leaf: Any) -> int:
        if not isinstance(leaf, Cell) or leaf.origin is None:
            raise NotPlanned("a leaf is made in the round")
        return self._places[id(leaf.origin)]

    # ------------------------------------------------ made anew

    def left(
        self, arrays: Sequence[Array], tensors: Sequence[Tensor], versions: Mapping[int, int], seq: int, ctx: Context
    ) -> dict[str, Any]:
        """What the names stand for, and the gradients put where they belong, of a run that handed out `arrays`.

        `tensors`: those from outside; `versions`: of their storages when the pass began, by identity; `seq`: then.
        """
        ledger = ctx.ledger
        storages = []
        for at, row in self._storages:
            if at is None:
                storages.append(tensors[row].storage)
            else:
                storages.append(Storage(arrays[at], CPU, ledger))
                storages[-1].version = row
        nodes: list[Node] = []
        for op, args, edges, saved, rest, number, name, plain, real in self._nodes:
            found = tuple(
                [(nodes[e[0]], e[1]) if type(e) is tuple else None if e is None else tensors[e] for e in edges]
            )
            rows: Any = FREED
            if saved is not None:
                rows = tuple(
                    [
                        (at, sub, arrays[a], None, v)
                        if s is None
                        else (at, sub, arrays[a], storages[s], v + versions.get(id(storages[s]), 0))
                        for at, sub, a, s, v in saved
                    ]
                )
            node = Node(op, args, found, rows, *rest, seq + number)  # type: ignore[call-arg]
            node.name, node.plain, node.real = name, plain, real
            nodes.append(node)
        made = []
        for at, spec, storage, backend, offset, strides, flag, edge in self._tensors:
            t = Tensor(arrays[at], spec, storages[storage], backend)
            t.requires_grad = flag
            if offset:
                t.offset = offset
            if strides is not None:
                t._strides = strides
            if edge is not None:
                t.edge = nodes[edge[0]], edge[1]
            made.append(t)

        for at, base, steps, creation, s, version in self._views:
            start = _tensor(base, made, tensors)
            made[at].view = View(start, steps, creation, version + versions.get(id(storages[s]), 0))
        for place, g in self._grads:
            leaf = tensors[place]
            ctx.undo.slot(leaf, "grad")
            leaf.grad = _tensor(g, made, tensors)
        return {name: _known(row, made, tensors) for name, row in self._names.items()}


def _tensor(n: int, made: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    return tensors[~n] if n < 0 else made[n]


def _known(row: Any, made: Sequence[Tensor], tensors: Sequence[Tensor]) -> Any:
    if type(row) is int:
        return _tensor(row, made, tensors)
    if type(row) is list:
        return [_known(x, made, tensors) for x in row]
    return {name: _known(x, made, tensors) for name, x in row.items()} if type(row) is dict else row[0]


__all__ = ["Remains"]

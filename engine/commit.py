"""Commits: what a program changed, as data from which a session can be rebuilt, equal bit for bit.

A commit holds effects, not the program: replaying float programs does not give equal bits (BLAS results change with
the thread count and the processor). It is made from the undo log, which knows what old objects changed, and a walk over
the new objects that are still reachable. Objects get their number (`uid`) here; what has none was never committed.

    {"storages": [{uid, device, dtype, version, data}],          new ones, whole
     "writes":   [{uid, version, ranges: [[low, high, data]]}],   old ones that were written to; element ranges
     "tensors":  [{uid, storage, offset, shape, strides, dtype, requires_grad, grad, edge, view, id, name}], and
                  "retains": true for those that are no leaves and retain their gradients,
     "renamed":  [[uid, id or None, name or None]],               old ones of which nothing else changed
     "nodes":    [{seq, op, args, edges, saved, outs, mask, sizes, compute, device, name}],  "freed": [seq],
     "ids": {id: uid or None}, "names": {name: uid or None},
     "seq", "counter", "uids", "default_dtype", "print_options", "anomaly", "generator": [bytes, bytes] or None}

Every value is a number, a string, bytes, a list or an object, so any plain encoding can carry it. `data` are uint8
arrays on the memory of the tensors themselves where that is possible: whoever keeps a commit encodes or copies it
before the session goes on. `engine/rebuild.py` makes a session of commits.

`whole` is a session as one commit: what a snapshot holds.

A *light* commit does nothing but make tensors without a history, each alone on its memory and dense, and let go of
others. Its short form (`light`) is a list, a quarter as long without the values and read in a tenth of the time:

    [seq, counter, uids, [default_dtype, print_options, anomaly] or None for ["float32", {}, false],
     [id], [name],                                                those that stand for nothing any more
     [[uid, version, dtype, shape, requires_grad, id, name or None, device or None for "cpu", data]]]

The storage of a tensor that it makes has the tensor's uid and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from engine.autograd import offset_in
from engine.backend import Backend
from engine.context import Context
from engine.dtypes import DTYPES, DType
from engine.errors import Bug
from engine.op import Op, Spec
from engine.shapes import contiguous_strides
from engine.tape import FREED, Node
from engine.tensor import Storage, Tensor, View
from engine.undo import Undo

Commit = dict[str, Any]


class Reached:
    """The new objects that are reachable from what a program registered or changed; each has its uid now."""

    def __init__(self, undo: Undo, roots: Iterable[Any], next_uid: Callable[[], int]) -> None:
        self.tensors: list[Tensor] = []
        self.storages: list[Storage] = []
        self.nodes: dict[int, Node] = {}
        self.changed: dict[int, Tensor] = {}
        self.renamed: dict[int, Tensor] = {}  # of these nothing else changed
        self.freed: list[int] = []
        self._next_uid = next_uid
        stack: list[Any] = list(roots)
        for thing, name, _ in undo.slots.values():
            if type(thing) is Tensor:
                # A view's row says more: which version it has seen.
                named = name in ("id", "name") and thing.view is None
                (self.renamed if named else self.changed)[thing.uid] = thing
                stack.append(getattr(thing, name))
            elif type(thing) is Node and thing.saved is FREED:
                self.freed.append(thing.seq)
        start = undo.start_seq
        while stack:
            thing = stack.pop()
            kind = type(thing)
            if kind is Tensor:
                if thing.uid == 0:
                    self._tensor(thing, stack)
            elif kind is View:  # of a tensor whose own sizes were changed in place
                stack.append(thing.base)
            elif kind is Storage:  # of a tensor that was resized beyond its memory
                self._storage(thing)
            elif kind is tuple and thing:
                stack.append(thing[0])
            elif kind is Node and thing.seq >= start and thing.seq not in self.nodes:
                self.nodes[thing.seq] = thing
                stack.extend(e for e in thing.edges if e is not None)
                for row in thing.saved if thing.saved is not FREED else ():
                    self._storage(row[3])

    def _tensor(self, t: Tensor, stack: list[Any]) -> None:
        t.uid = self._next_uid()
        self.tensors.append(t)
        self._storage(t.storage)
        if t.grad is not None:
            stack.append(t.grad)
        if t.edge is not None:
            stack.append(t.edge)
        if t.view is not None:
            stack.append(t.view.base)

    def _storage(self, storage: Storage | None) -> None:
        if storage is not None and storage.uid == 0:
            storage.uid = self._next_uid()
            self.storages.append(storage)


# ---------------------------------------------------------------- to data


def encode(value: Any) -> Any:
    """A node's argument as data."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is Spec:
        return {"spec": [list(value.shape), value.dtype.name]}
    if kind is DType:
        return {"dtype": value.name}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind is slice:
        return {"slice": [value.start, value.stop, value.step]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if kind is tuple:
        return {"tuple": [encode(v) for v in value]}
    if kind is list:
        return [encode(v) for v in value]
    if kind is dict:
        return {"dict": {k: encode(v) for k, v in value.items()}}
    if kind is Op:
        return {"op": value.name}
    raise Bug(f"a node holds a {kind.__name__}, which a commit cannot hold")


def data_of(array: Any, backend: Backend) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The elements' bytes, in C order; the array's own memory where it is on the host and contiguous."""
    return np.ascontiguousarray(backend.to_host(array)).reshape(-1).view(np.uint8)


def _edge(edge: Any) -> Any:
    if edge is None:
        return None
    return edge.uid if type(edge) is Tensor else [edge[0].seq, edge[1]]


def _tensor_row(t: Tensor) -> dict[str, Any]:
    view = t.view
    return {
        "uid": t.uid,
        "storage": t.storage.uid,
        "offset": t.offset,
        "shape": list(t.shape),
        "strides": list(t.strides),
        "dtype": t.dtype.name,
        "requires_grad": t.requires_grad,
        "grad": t.grad.uid if t.grad is not None else None,
        "edge": _edge(t.edge),
        "view": None
        if view is None
        else {
            "base": view.base.uid,
            "steps": encode(view.steps),
            "creation": view.creation,
            "version": view.version,
        },
        "id": t.id,
        "name": t.name,
        **({"retains": True} if t.retains else {}),
    }


def _saved_row(row: tuple[Any, ...], backend: Any) -> dict[str, Any]:
    at, sub, array, storage, version = row
    out = {"at": at, "sub": sub, "version": version, "dtype": array.dtype.str, "shape": list(array.shape)}
    if storage is None:
        out["data"] = data_of(array, backend)
    else:
        out["storage"] = storage.uid
        out["offset"] = offset_in(array, storage)
        out["strides"] = [s // array.itemsize for s in array.strides]
    return out


def _node_row(node: Node) -> dict[str, Any]:
    return {
        "seq": node.seq,
        "op": node.op.name,
        "args": encode(node.args),
        "edges": [_edge(e) for e in node.edges],
        "saved": None if node.saved is FREED else [_saved_row(row, node.backend) for row in node.saved],
        "outs": encode(node.outs),
        "mask": node.mask,
        "sizes": list(node.sizes),
        "compute": node.compute.name if node.compute else None,
        "device": node.backend.name,
        "name": node.name,
    }


def make_commit(undo: Undo, reached: Reached, session: Any) -> Commit:
    """The effects of the program that just ended, from its undo log and what it reached."""
    ctx: Context = session.ctx
    writes = []
    written: dict[int, tuple[Storage, list[tuple[int, int, Any]]]] = dict(undo.storages)
    for thing, name, _ in undo.slots.values():
        if type(thing) is Storage and name == "version":
            written.setdefault(id(thing), (thing, []))
    for storage, ranges in written.values():
        parts = [[low, high, data_of(storage.flat[low:high], storage.backend)] for low, high, _ in ranges]
        writes.append({"uid": storage.uid, "version": storage.version, "ranges": parts})
    tensors = {t.uid: t for t in [*reached.tensors, *reached.changed.values()]}
    renamed = [[t.uid, t.id, t.name] for t in reached.renamed.values() if t.uid not in tensors]
    keyed: dict[str, dict[Any, Any]] = {"ids": {}, "names": {}}
    for mapping, key, _ in undo.items.values():
        for label, whole in (("ids", session.tensors), ("names", session.names)):
            if mapping is whole:
                found = whole.get(key)
                keyed[label][key] = None if found is None else found.uid
    return {
        "storages": [_storage_row(s) for s in reached.storages],
        "writes": writes,
        "tensors": [_tensor_row(t) for t in tensors.values()],
        "renamed": renamed,
        "nodes": [_node_row(reached.nodes[seq]) for seq in sorted(reached.nodes)],
        "freed": reached.freed,
        **keyed,
        **_counters(session),
        "generator": _generator(ctx.rng) if undo.generators else None,
    }


def written(storage: Storage, undo: Undo, session: Any) -> Commit:
    """`make_commit` of a program that wrote into this storage and did nothing else, with copies of what it wrote."""
    flat = storage.flat
    ranges = [[low, high, flat[low:high].tobytes()] for low, high, _ in undo.storages[id(storage)][1]]
    return {
        "storages": [],
        "writes": [{"uid": storage.uid, "version": storage.version, "ranges": ranges}],
        "tensors": [],
        "renamed": [],
        "nodes": [],
        "freed": [],
        "ids": {},
        "names": {},
        **_counters(session),
        "generator": None,
    }


def _storage_row(s: Storage, *, data: bool = True) -> dict[str, Any]:
    return {
        "uid": s.uid,
        "device": s.backend.name,
        "dtype": s.buf.dtype.str,
        "version": s.version,
        # Not `s.flat`, which would stay with each small tensor.
        "data": data_of(s.backend.flat(s.buf), s.backend) if data else None,
    }


def _counters(session: Any) -> dict[str, Any]:
    ctx: Context = session.ctx
    return {
        "seq": ctx.seq,
        "counter": session.counter,
        "uids": session.uids,
        "default_dtype": ctx.default_dtype.name,
        "print_options": ctx.print_options,
        "anomaly": ctx.anomaly,
    }


def _generator(rng: Any) -> list[bytes]:
    """The states of the CPU's stream and of the devices' stream."""
    return [rng.get_state(), rng.get_device_state()]


_RANGES = 64  # up to so many it is worth saying where a commit writes


def overwritten(commit: Commit) -> list[int] | None:
    """Where a commit writes, if it does nothing else: uid, low, high of each range, and 0, 0, 0 for the generator. Two
    commits of which this is equal leave what the later one alone would leave. None for all others."""
    if (
        commit["storages"]
        or commit["tensors"]
        or commit["renamed"]
        or commit["nodes"]
        or commit["freed"]
        or commit["ids"]
        or commit["names"]
    ):
        return None
    over = [0, 0, 0] if commit["generator"] is not None else []
    for row in commit["writes"]:
        if not row["ranges"]:
            return None  # only its version
        for low, high, _ in row["ranges"]:
            over += (row["uid"], low, high)
    return over if len(over) <= 3 * _RANGES else None


SETTINGS: list[Any] = ["float32", {}, False]  # those of most sessions


class Light(NamedTuple):
    """The short form of a light commit, the uids of the tensors that it makes, and of those that it lets go of."""

    body: list[Any]
    made: list[int]
    let: list[int]


def light(commit: Commit) -> Light | None:
    """A light commit's short form; None for all others.

    Once all that it makes has been let go of, and nothing else had to do with that, only a later commit's counters say
    anything of it.
    """
    if commit["writes"] or commit["nodes"] or commit["freed"] or commit["generator"] is not None:
        return None
    storages, tensors = commit["storages"], commit["tensors"]
    if len(storages) != len(tensors) or any(row[1] is not None for row in commit["renamed"]):
        return None
    stored = {row["uid"]: row for row in storages}
    unnamed = {row["uid"]: row for row in tensors}
    rows: list[list[Any]] = []
    made: list[int] = []
    names: dict[str, int] = {}
    gone: list[str] = []
    for id, uid in commit["ids"].items():
        if uid is None:
            gone.append(id)
            continue
        row = unnamed.pop(uid, None)
        storage = stored.pop(row["storage"], None) if row is not None else None
        if row is None or storage is None or not _is_light(row, storage):
            return None
        rows.append(
            [
                uid,
                storage["version"],
                row["dtype"],
                row["shape"],
                row["requires_grad"],
                id,
                row["name"],
                None if storage["device"] == "cpu" else storage["device"],
                storage["data"],
            ]
        )
        made.append(uid)
        if row["name"] is not None:
            names[row["name"]] = uid
    bound = [(name, uid) for name, uid in commit["names"].items() if uid is not None]
    if unnamed or bound != list(names.items()):
        return None
    unbound = [name for name, uid in commit["names"].items() if uid is None]
    let = [row[0] for row in commit["renamed"]]
    rest = [commit["default_dtype"], commit["print_options"], commit["anomaly"]]
    told = None if rest == SETTINGS else rest
    return Light([commit["seq"], commit["counter"], commit["uids"], told, gone, unbound, rows], made, let)


def _is_light(row: dict[str, Any], storage: dict[str, Any]) -> bool:
    """Whether a new tensor is nothing but its values: alone on its memory, dense, without gradient or history."""
    shape, d = row["shape"], DTYPES[row["dtype"]]
    return (
        row["storage"] == row["uid"] + 1
        and row["grad"] is None
        and row["edge"] is None
        and row["view"] is None
        and "retains" not in row
        and row["offset"] == 0
        and 0 < len(storage["data"]) == prod(shape) * d.itemsize
        and d.np.str == storage["dtype"]
        and row["strides"] == list(contiguous_strides(tuple(shape)))
    )


def used(commit: Commit) -> list[int] | None:
    """The uids of all tensors and storages that a commit has to do with; None where they are many."""
    found: set[int] = {row["uid"] for row in commit["writes"]}
    found.update(row[0] for row in commit["renamed"])
    for row in commit["tensors"]:
        found.update((row["uid"], row["storage"]))
        found.update(uid for uid in (row["grad"], row["edge"]) if type(uid) is int)
        if row["view"] is not None:
            found.add(row["view"]["base"])
        if len(found) > _RANGES:
            return None
    for row in commit["nodes"]:
        found.update(uid for uid in row["edges"] if type(uid) is int)
        found.update(saved["storage"] for saved in row["saved"] or () if "storage" in saved)
        if len(found) > _RANGES:
            return None
    found.update(uid for keyed in (commit["ids"], commit["names"]) for uid in keyed.values() if uid is not None)
    return sorted(found) if len(found) <= _RANGES else None


def held(session: Any) -> tuple[dict[int, Tensor], dict[int, Storage], dict[int, Node]]:
    """All that a session holds, between two programs: tensors and storages by uid, nodes by seq."""
    tensors: dict[int, Tensor] = {}
    storages: dict[int, Storage] = {}
    nodes: dict[int, Node] = {}
    stack: list[Any] = list(session.tensors.values())
    while stack:
        thing = stack.pop()
        kind = type(thing)
        if kind is Tensor:
            if thing.uid not in tensors:
                tensors[thing.uid] = thing
                storages[thing.storage.uid] = thing.storage
                stack += [thing.grad, thing.edge, None if thing.view is None else thing.view.base]
        elif kind is tuple:
            stack.append(thing[0])
        elif kind is Node and thing.seq not in nodes:
            nodes[thing.seq] = thing
            stack.extend(thing.edges)
            for row in thing.saved if thing.saved is not FREED else ():
                if row[3] is not None:
                    storages[row[3].uid] = row[3]
    if 0 in tensors or 0 in storages:
        raise Bug("a session holds what no commit has")
    return tensors, storages, nodes


def whole(session: Any, *, data: bool = True) -> Commit:
    """All that a session holds, between two programs, as the one commit that makes it out of an empty session.

    Without `data` what is in the storages is left out.
    """
    tensors, storages, nodes = held(session)
    return {
        "storages": [_storage_row(storages[uid], data=data) for uid in sorted(storages)],
        "writes": [],
        "tensors": [_tensor_row(tensors[uid]) for uid in sorted(tensors)],
        "renamed": [],
        "nodes": [_node_row(nodes[seq]) for seq in sorted(nodes)],
        "freed": [],
        "ids": {id: t.uid for id, t in session.tensors.items()},
        "names": {name: t.uid for name, t in session.names.items()},
        **_counters(session),
        "generator": _generator(session.ctx.rng),
    }

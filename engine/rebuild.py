"""A session made of its commits (engine.commit says what they hold), equal bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar
from weakref import ref

import numpy as np

from engine.backend import CPU, find
from engine.commit import SETTINGS
from engine.context import Context
from engine.dtypes import DTYPES
from engine.op import REGISTRY, Spec
from engine.tape import FREED, Node
from engine.tensor import Storage, Tensor, View, view_of


def decode(value: Any) -> Any:
    """What `encode` encoded."""
    if type(value) is list:
        return [decode(v) for v in value]
    if type(value) is not dict:
        return value
    ((key, inner),) = value.items()
    if key == "spec":
        return Spec(tuple(inner[0]), DTYPES[inner[1]])
    if key == "dtype":
        return DTYPES[inner]
    if key == "complex":
        return complex(*inner)
    if key == "slice":
        return slice(*inner)
    if key == "ellipsis":
        return Ellipsis
    if key == "tuple":
        return tuple(decode(v) for v in inner)
    if key == "dict":
        return {k: decode(v) for k, v in inner.items()}
    return REGISTRY[inner]


T = TypeVar("T")


class _Weakly(Generic[T]):
    """Objects by number, as long as something else holds them. What the library has for this costs five times as much
    for each, since it looks at deaths one by one."""

    def __init__(self) -> None:
        self.refs: dict[int, ref[T]] = {}
        self._sweep_at = 4096

    def get(self, number: int) -> T | None:
        found = self.refs.get(number)
        return None if found is None else found()

    def __getitem__(self, number: int) -> T:
        found = self.refs[number]()
        if found is None:
            raise KeyError(number)
        return found

    def __setitem__(self, number: int, thing: T) -> None:
        self.refs[number] = ref(thing)

    def sweep(self) -> None:
        """Forgets what is gone, if it may be worth it."""
        if len(self.refs) > self._sweep_at:
            self.refs = {number: found for number, found in self.refs.items() if found() is not None}
            self._sweep_at = 2 * len(self.refs) + 4096


class Rebuild:
    """A session's objects, rebuilt from its commits in order."""

    def __init__(self, session: Any) -> None:
        self.session = session
        # Weak: what a later commit lets go of must go here too, or a long history would be held whole.
        self.storages: _Weakly[Storage] = _Weakly()
        self.tensors: _Weakly[Tensor] = _Weakly()
        self.nodes: _Weakly[Node] = _Weakly()
        # What is new, until it is linked to the rest; and what is replaced, which other rows may still speak of.
        self._held: list[Any] = []
        self._unlisted: list[str] = []  # ids of what light commits made since the last of the others
        self._applied = 0
        self._rest: list[Any] | None = []  # the settings that the last short form had

    def apply(self, commit: Any) -> None:
        """What a commit, or the short form of one, did."""
        self._applied += 1
        if not self._applied % 4096:
            self.storages.sweep()
            self.tensors.sweep()
            self.nodes.sweep()
        if type(commit) is list:
            self._light(commit)
        else:
            self._list()
            self._whole(commit)

    def _light(self, commit: list[Any]) -> None:
        session = self.session
        ctx: Context = session.ctx
        tensors, names = session.tensors, session.names
        ctx.seq, session.counter, session.uids, rest, gone, unbound, rows = commit
        for id in gone:
            if (old := tensors.pop(id, None)) is not None:  # it was not even made where nobody can tell
                old.id = old.name = None
        for name in unbound:
            names.pop(name, None)
        for uid, version, dtype, shape, requires_grad, id, name, device, data in rows:
            d = DTYPES[dtype]
            buf = np.frombuffer(data, d.np).copy()
            if device is None:
                storage = Storage(buf, CPU, ctx.ledger)
            else:
                backend = find(device, ctx.devices)
                storage = Storage(backend.from_host(buf), backend, ctx.ledger)
            storage.uid = uid + 1
            if version:
                storage.version = version
            array = storage.buf if len(shape) == 1 else storage.buf.reshape(shape)
            tensors[id] = t = Tensor(array, Spec(tuple(shape), d), storage, storage.backend)
            t.uid, t.id = uid, id
            if requires_grad:
                t.requires_grad = True
            if name is not None:
                t.name = name
                names.pop(name, None)
                names[name] = t
            self._unlisted.append(id)
        if rest != self._rest:
            self._settings(*(rest or SETTINGS))
            self._rest = rest

    def _list(self) -> None:
        """Puts what light commits made where other commits look for it; so far they are the only ones to know of it."""
        for id in self._unlisted:
            if (t := self.session.tensors.get(id)) is not None:
                self.tensors[t.uid] = t
                self.storages[t.storage.uid] = t.storage
        self._unlisted.clear()

    def _settings(self, default_dtype: str, print_options: Mapping[str, Any], anomaly: bool) -> None:
        ctx: Context = self.session.ctx
        ctx.default_dtype = DTYPES[default_dtype]
        ctx.print_options = dict(print_options)
        ctx.anomaly = anomaly

    def _whole(self, commit: Mapping[str, Any]) -> None:
        session = self.session
        ctx: Context = session.ctx
        for row in commit["storages"]:
            storage = self._storage(row)
            storage.uid, storage.version = row["uid"], row["version"]
            self.storages[row["uid"]] = storage
            self._held.append(storage)
        for row in commit["writes"]:
            storage = self.storages[row["uid"]]
            storage.version = row["version"]
            for low, high, data in row["ranges"]:
                host = np.frombuffer(data, storage.flat.dtype)
                storage.flat[low:high] = host if storage.backend is CPU else storage.backend.from_host(host.copy())
        for row in commit["tensors"]:
            self._tensor(row)
        for row in commit["nodes"]:
            self._node(row)
        for row in commit["tensors"]:
            self._link(row)
        for seq in commit["freed"]:
            self.nodes[seq].saved = FREED
        for uid, id, name in commit.get("renamed", ()):
            old = self.tensors.get(uid) if id is None else self.tensors[uid]
            if old is not None:
                old.id, old.name = id, name
        for label, mapping in (("ids", session.tensors), ("names", session.names)):
            for key, uid in commit[label].items():
                mapping.pop(key, None)  # a name that moves goes to the end, as when it moved
                if uid is not None:
                    mapping[key] = self.tensors[uid]
        ctx.seq = commit["seq"]
        session.counter, session.uids = commit["counter"], commit["uids"]
        self._settings(commit["default_dtype"], commit["print_options"], commit["anomaly"])
        self._rest = []
        if commit["generator"] is not None:
            state, devices = commit["generator"]
            ctx.rng.set_state(bytes(state))
            ctx.rng.set_device_state(bytes(devices))
        self._held.clear()

    def _storage(self, row: Mapping[str, Any]) -> Storage:
        ctx: Context = self.session.ctx
        backend = find(row["device"], ctx.devices)
        host = np.frombuffer(row["data"], np.dtype(row["dtype"])).copy()
        return Storage(backend.from_host(host), backend, ctx.ledger)

    def _tensor(self, row: Mapping[str, Any]) -> None:
        storage = self.storages[row["storage"]]
        shape, strides = tuple(row["shape"]), tuple(row["strides"])
        d, offset = DTYPES[row["dtype"]], row["offset"]
        t = self.tensors.get(row["uid"])
        if t is None or (t.storage, t.dtype, t.offset, t.shape, t.strides) != (storage, d, offset, shape, strides):
            origin = Tensor(storage.flat, Spec(storage.flat.shape, d), storage, storage.backend)
            made = view_of(origin, shape, strides, offset, d)
            if t is None:
                self.tensors[row["uid"]] = t = made
                t.uid = row["uid"]
                self._held.append(t)
            else:  # by squeeze_ or resize_
                self._held.append(t.storage)
                t.storage = storage
                t.array, t.spec, t.offset, t._strides = made.array, made.spec, made.offset, made._strides
        t.requires_grad, t.id, t.name = row["requires_grad"], row["id"], row["name"]
        if row.get("retains"):
            ctx: Context = self.session.ctx
            ctx.retain(t)

    def _edge(self, edge: Any) -> Any:
        if edge is None:
            return None
        return (self.nodes[edge[0]], edge[1]) if isinstance(edge, list | tuple) else self.tensors[edge]

    def _link(self, row: Mapping[str, Any]) -> None:
        t = self.tensors[row["uid"]]
        self._held += (t.grad, t.edge, t.view)
        t.grad = self.tensors[row["grad"]] if row["grad"] is not None else None
        t.edge = self._edge(row["edge"])
        view = row["view"]
        t.view = None
        if view is not None:
            steps = decode(view["steps"])
            t.view = View(self.tensors[view["base"]], steps, view["creation"], view["version"])

    def _node(self, row: Mapping[str, Any]) -> None:
        backend = find(row["device"], self.session.ctx.devices)
        saved: Any = FREED
        if row["saved"] is not None:
            saved = tuple(self._saved(s, backend) for s in row["saved"])
        self.nodes[row["seq"]] = node = Node(
            REGISTRY[row["op"]],
            decode(row["args"]),
            tuple(self._edge(e) for e in row["edges"]),
            saved,
            decode(row["outs"]),
            row["mask"],
            tuple(row["sizes"]),
            DTYPES[row["compute"]] if row["compute"] else None,
            backend,
            row["seq"],
        )
        node.name = row["name"]
        self._held.append(node)

    def _saved(self, row: Mapping[str, Any], backend: Any) -> tuple[Any, ...]:
        d, shape = np.dtype(row["dtype"]), tuple(row["shape"])
        if "data" in row:
            array = backend.from_host(np.frombuffer(row["data"], d).reshape(shape).copy())
            return row["at"], row["sub"], array, None, row["version"]
        storage = self.storages[row["storage"]]
        if 0 in shape:
            array = storage.backend.xp.empty(shape, dtype=d)
        else:
            strides = [s * d.itemsize for s in row["strides"]]
            array = storage.backend.view(storage.flat, d, shape, row["offset"] * d.itemsize, strides)
        return row["at"], row["sub"], array, storage, row["version"]

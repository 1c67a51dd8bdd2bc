"""Forks: a session made as a copy of another, which shares its memory until one of the two writes there.

Tensors, tape and names are the fork's own from the start: they are small. Storages stand on the memory of the source's
(`Storage.lent`). Each write goes through `Undo.write`, which refuses it there: the program is taken back as one that
failed is, the session that wanted to write gets memory of its own, and the program begins again. So a program begins at
most twice more: once more for the first storage that it writes to, and where it writes to others, too, once after all
that the session has borrowed was copied.

Memory that a front is just sending to somebody (`Storage.origin`) is treated alike: who reads has the old values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.autograd import offset_in
from engine.commit import held, whole
from engine.context import Context, over_memory
from engine.op import Spec
from engine.rebuild import Rebuild
from engine.tape import FREED
from engine.tensor import Lent, Storage, Tensor, view_of


class _Fork(Rebuild):
    """As from commits, but that storages stand on those of the source."""

    def __init__(self, session: Any, storages: Mapping[int, Storage]) -> None:
        super().__init__(session)
        self._of = storages

    def _storage(self, row: Mapping[str, Any]) -> Storage:
        source, ledger = self._of[row["uid"]], self.session.ctx.ledger
        if source.lent is None:
            source.lent = Lent(source.nbytes, source.backend.name, source.ledger.parent)
        storage = Storage(source.buf, source.backend, ledger)
        storage.lent = source.lent
        storage.lent.join()
        storage.origin = source.origin
        return storage


def fork(session: Any, source: Any) -> None:
    """Makes an empty session what the source is, between two programs of it. Raises OutOfMemory where the session, or
    its owner, may not hold as much."""
    ctx: Context = session.ctx
    ledger, asked = ctx.ledger, source.ctx.ledger.held
    if asked > ledger.limit:
        raise over_memory("session", asked, ledger.limit, ledger.held)
    server = ledger.parent
    if server is not None and server.owner_limit is not None:
        owned = server.held_by(ledger.owner)
        if owned + asked > server.owner_limit:
            raise over_memory("owner", asked, server.owner_limit, owned)
    _, storages, _ = held(source)
    _Fork(session, storages).apply(whole(source, data=False))
    ctx.borrows = source.ctx.borrows = True


def separate(session: Any, only: Storage | None) -> None:
    """Gives a session memory of its own where it stands on memory of others, or on memory that is being read: for one
    storage, or (None) for all."""
    ctx: Context = session.ctx
    tensors, storages, nodes = held(session)
    wanted = {id(s): s for s in (storages.values() if only is None else [only]) if s.lent is not None or s.read}
    offsets = {
        (node.seq, at): offset_in(row[2], row[3])
        for node in nodes.values()
        for at, row in enumerate(node.saved if node.saved is not FREED else ())
        if id(row[3]) in wanted
    }
    copied = [s for s in wanted.values() if (s.lent is not None and s.lent.standing > 1) or s.read]
    _admit(ctx, sum(s.nbytes for s in copied))
    copies = {id(s): s.flat.copy() for s in copied}
    for key, storage in wanted.items():  # from here on nothing fails
        if key in copies:
            storage.buf, storage._flat, storage.origin = copies[key], None, None
        lent, storage.lent = storage.lent, None
        if lent is not None:
            lent.leave()
    for t in tensors.values():
        if id(t.storage) in copies:
            flat = t.storage.flat
            origin = Tensor(flat, Spec(flat.shape, t.spec.dtype), t.storage, t.storage.backend)
            t.array = view_of(origin, t.shape, t.strides, t.offset, t.spec.dtype).array
    for seq in {seq for seq, _ in offsets}:
        node = nodes[seq]
        node.saved = tuple(
            _again(row, offsets[seq, at]) if id(row[3]) in copies else row for at, row in enumerate(node.saved)
        )


def _again(row: tuple[Any, ...], offset: int) -> tuple[Any, ...]:
    """What a node saved, on the new memory of its storage."""
    at, sub, array, storage, version = row
    d = array.dtype
    if array.size:
        moved = storage.backend.view(storage.flat, d, array.shape, offset * d.itemsize, array.strides)
    else:
        moved = storage.backend.xp.empty(array.shape, dtype=d)
    return at, sub, moved, storage, version


def _admit(ctx: Context, nbytes: int) -> None:
    """Refuses copies that the server has no room for; the session is charged for its memory already."""
    server = ctx.ledger.parent
    if server is not None and server.held + nbytes > server.limit:
        server.reclaim(server.held + nbytes - server.limit)
        if server.held + nbytes > server.limit:
            raise over_memory("server", nbytes, server.limit, server.held)

"""Single operations (engine.single) on their way through a worker.

`run` is for a call whose turn it is, and those behind it in its line. `take` is for messages that have just come in
while nobody waits for a turn, all of one session: they are run at once, without a place in a line or a turn. Either
runs one after the other, for `SLICE` seconds at most. What they change is written in one go, and then they are
answered in one go: a later one is run before an earlier one is written, and where the write fails all of them are
taken back, the last first, and run again one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from engine.durability.store import Change
from engine.errors import EngineError
from engine.single import Single
from engine.workers.messages import Message, Peer
from engine.workers.replies import Replies, message_of

if TYPE_CHECKING:
    from engine.workers.calls import Call
    from engine.workers.seats import Seat
    from engine.workers.worker import Worker

SLICE = 0.001
STAGED = object()  # the answer of a call that is done and waits for its change to be written
_VALUES = frozenset(("auto", "none", "all"))

Found = Sequence[tuple[Peer, Message | None]]
_Run = tuple["Call", Single, "bytes | None"]


class _Done:
    """An operation that was run at once: its message, when it came and how long it ran, and its packed answer."""

    __slots__ = ("arrived", "message", "ok", "peer", "ran", "single")

    def __init__(self, peer: Peer, message: Message, single: Single, ok: bytes | None, arrived: float, ran: float):
        self.peer, self.message, self.single, self.ok = peer, message, single, ok
        self.arrived, self.ran = arrived, ran


class Singles:
    """Used in the worker's thread."""

    def __init__(self, worker: Worker, replies: Replies) -> None:
        self._worker, self._replies = worker, replies
        self._pack = msgpack.Packer(buf_size=256).pack
        self._unsent: dict[Any, list[bytes]] = {}  # answers by peer

    # ------------------------------------------------ in a turn

    def run(self, call: Call, until: float) -> Any:
        """Runs a call's program if it is a single operation, and gives its answer, or STAGED; None where it is none.
        Those behind it in the line are run with it until then, as long as they are such ones, too."""
        worker, message, seat = self._worker, call.message, call.seat
        session: Any = seat.session
        single = session.single(message["program"], message["values"], journal=worker.sessions.store is not None)
        if single is None:
            return None
        if single.commit is None:
            single.keep()
            return single.reply
        change, ok = self._change(seat.id, message, single)
        chain, changes = [(call, single, ok)], [change]
        if single.lasting and not call.by_itself and len(seat.calls) > 1:
            self._run_more(seat, until, chain, changes)
            call.ran -= sum(other.ran for other, _, _ in chain[1:])  # the turn's time will be added to it
        for done, _, _ in chain:
            done.sending = True  # from here on it is done, and no cancelling stops it
        worker.staged.add(changes, partial(self._written, chain))
        return STAGED

    def _run_more(self, seat: Seat, until: float, chain: list[_Run], changes: list[Change]) -> None:
        clock, store, session = self._worker.clock, self._worker.sessions.store, seat.session
        now = clock()
        for call in islice(seat.calls, 1, None):
            message, start = call.message, now
            if now >= until or call.by_itself or not _is_ours(message):
                return
            assert store is not None
            store.mark(message.get("call") or "")
            try:
                single = session.single(message["program"], message["values"], journal=True, alone=False)  # type: ignore[union-attr]
                if single is None:
                    return
                change, ok = self._change(seat.id, message, single)
            except Exception:  # noqa: BLE001 - its own turn comes, and says what it is
                return
            now = clock()
            call.ran += now - start
            chain.append((call, single, ok))
            changes.append(change)
            if not single.lasting:
                return

    def _change(self, session: str, message: Message, single: Single) -> tuple[Change, bytes | None]:
        """What is to be written, and the answer where that is packed already."""
        try:
            if single.fields is not None:
                ok, packed = self._replies.single(single.fields)
            else:
                ok, (packed, _) = None, self._replies.pack(single.reply, keyed=False)
        except BaseException:
            single.take_back()
            raise
        head = {"call": message.get("call"), "key": None, "reply": packed, "short": None}
        return Change("commit", session, head, single.commit), ok

    def _written(self, chain: list[_Run], failure: EngineError | None) -> None:
        worker = self._worker
        begin = worker.clock()
        calls = [call for call, _, _ in chain]
        if failure is None:
            for _, single, _ in chain:
                single.keep()
            if chain[0][2] is None:
                worker.done(calls[0], chain[0][1].reply, None, begin)
                return
            worker.let_go(calls, begin)
            for call, single, ok in chain:
                self._answer(call.peer, call.id, ok, single, call.arrived, call.ran)
            return
        for _, single, _ in reversed(chain):
            single.take_back(failed=len(chain) == 1)
        if len(chain) == 1:
            worker.done(calls[0], None, failure, begin)
            return
        spent = sum(call.ran for call in calls)
        for call in calls:
            call.sending, call.by_itself, call.ran = False, True, 0.0
        worker.let_go([], begin, calls[0].seat, spent)

    # ------------------------------------------------ at once

    def take(self, found: Found) -> tuple[Found, float]:
        """Runs the first of these messages, those that are single operations of one session, and stages what they
        changed; what is left, and how many seconds it took. Nobody waits for a turn, and nothing is staged."""
        worker = self._worker
        first = found[0][1]
        id = None if first is None else first.get("session")
        seat = worker.sessions.seats.get(id) if type(id) is str else None
        if seat is None or seat.session is None or seat.calls or not hasattr(seat.session, "single"):
            return found, 0.0
        for _, message in found:
            if message is None or message.get("session") != id:
                return found, 0.0  # others are there as well: by turns
        session: Any = seat.session
        store, clock = worker.sessions.store, worker.clock
        begin = now = clock()
        until, taken = begin + SLICE, 0
        chain: list[_Done] = []
        changes: list[Change] = []
        for peer, message in found:
            if not _is_ours(message) or (taken and now >= until):
                break
            assert message is not None
            start = now
            if store is not None:
                store.mark(message.get("call") or "")
            try:
                single = session.single(
                    message["program"], message["values"], journal=store is not None, alone=not chain
                )
                if single is None:
                    break
                change, ok = (None, None) if single.commit is None else self._change(seat.id, message, single)
            except Exception as problem:  # noqa: BLE001 - as in Worker.work
                now = clock()
                worker.failed(peer, message["id"], problem, worker.arrived(message, start), now - start)
                taken += 1
                continue
            now = clock()
            taken += 1
            done = _Done(peer, message, single, ok, worker.arrived(message, start), now - start)
            if change is None:
                self._kept(done)
                continue
            chain.append(done)
            changes.append(change)
            if not single.lasting:
                break
        if taken:
            seat.last_used = worker.sessions.wall()
        if chain:
            worker.staged.add(changes, partial(self._all_written, chain))
        return found[taken:], now - begin

    def _kept(self, done: _Done) -> None:
        single = done.single
        single.keep()
        ok = self._replies.single(single.fields)[0] if done.ok is None and single.fields is not None else done.ok
        self._answer(done.peer, done.message["id"], ok, single, done.arrived, done.ran)

    def _all_written(self, chain: list[_Done], failure: EngineError | None) -> None:
        if failure is None:
            for done in chain:
                self._kept(done)
            return
        for done in reversed(chain):
            done.single.take_back(failed=len(chain) == 1)
        for done in chain:
            if len(chain) == 1:
                self._worker.failed(done.peer, done.message["id"], failure, done.arrived, done.ran)
            else:
                self._worker.receive(done.peer, done.message)

    # ------------------------------------------------ answers

    def _answer(self, peer: Any, number: int, ok: bytes | None, single: Single, arrived: float, ran: float) -> None:
        queue_ms = max(0.0, self._worker.clock() - arrived - ran) * 1e3
        if ok is None or not hasattr(peer, "reply_bodies"):
            self._worker.reply(peer, number, single.reply, queue_ms, ran * 1e3)
        else:
            self._unsent.setdefault(peer, []).append(message_of(self._pack(number), ok, queue_ms, ran * 1e3))

    def send(self) -> None:
        """Sends the answers that wait, those of each peer in one go."""
        if self._unsent:
            unsent, self._unsent = self._unsent, {}
            for peer, bodies in unsent.items():
                peer.reply_bodies(bodies)


def _is_ours(message: Message | None) -> bool:
    """Whether it asks to run a program, and for nothing that only a turn gives."""
    if message is None or message.get("do") != "run":
        return False
    get = message.get
    return (
        get("key") is None
        and get("dry_run") is False
        and get("explain") is False
        and get("values") in _VALUES
        and type(get("id")) is int
        and "lost" not in message
        and "program" in message
    )

"""A front in a process of its own, as the app sees it: the methods of engine.service.Service.

    app ──> Front ──run, query──> worker      over a wire of its own, where it knows who has the session
              └────everything────> server     (fronts.py), which also says who has a session

What it remembers of a session (a reference of its owner's to an id, a worker and that worker's incarnation) is right
until the server says `forget`, which it does before a name or a session changes hands. A worker that has not, or no
longer, what it is asked for says so, and has done nothing then: the call goes to the server, which knows better.

When a worker dies the front hands what it had under way there to the server, which ends it as a call of its own.

What both say to each other, in the frames of frames.py, `id` being a number of the sender's that the reply repeats:

    front   {"do": "ask", "id", "word", "args"}        a method of the service, or `locate`, `orphan`, `everyone`, …
            {"do": "cancel", "id", "target"}           nobody waits for that any more
            {"do": "ready", "id"}, {"do": "ending", "id"}
            {"do": "took", "id", "number"}             so many connections more, in the order in which they came
            {"do": "listeners", "id", "owner", "number"}    requests of an owner that listen to jobs here
    server  {"do": "forget", "id", "session"}          answered when nothing is remembered of it
            {"do": "gone", "id", "worker", "epoch"}    answered when all that was under way there was handed over
            {"do": "tally", "id"}                      answered with what the front counts
            {"do": "warn", "id", "known"}              fingerprints of programs that ended their worker
            {"do": "signal", "id", "number"}           of the operating system's
    reply   {"id", "ok"} or {"id", "error"}
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from engine import declare
from engine.errors import EngineError, Gone, NoSuchDevice, NoSuchSession
from engine.limits import Limits
from engine.workers.deadly import fingerprint
from engine.workers.doors import CONNECTION, take_sockets
from engine.workers.frames import raise_file_limit
from engine.workers.incoming import Incoming, Private
from engine.workers.lines import Line
from engine.workers.messages import BadMessage, CannotPack, Message, NotSent, Timing
from engine.workers.pages import Shared
from engine.workers.plans import WorkerSpec
from engine.workers.registry import DEFAULT
from engine.workers.seats import resident_bytes
from engine.workers.slots import Pending, Slot, Told, answered, end, not_sent

_REMEMBERED = 20_000  # references to sessions
_PUBLIC = re.compile(r"p-[0-9a-f]{32}")
_PATIENCE = 10.0  # how long a worker that hung up may live on before its calls are given up
_CANCELLABLE = ("run", "query")

log = logging.getLogger("curlgrad.front")

Once = tuple[str, str]


@dataclass(slots=True, frozen=True)
class Facts:
    """What a front is told of the server when it starts, and what does not change."""

    name: str
    workers: tuple[str, ...]
    limits: Limits
    simulated: bool
    durable: bool


@dataclass(eq=False, slots=True)
class _Seat:
    """Where a session is."""

    id: str
    worker: str
    epoch: int
    order: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while a message of the session is being sent


@dataclass(eq=False, slots=True)
class _Asked:
    """What the server was asked. `then` is told the answer before anything else that comes in is looked at."""

    call: Pending
    then: Callable[[Any], None] | None


class _Link:
    """The wire to one incarnation of a worker, and the calls under way on it."""

    def __init__(
        self, worker: str, epoch: int, sock: socket.socket, on_end: Callable[[_Link], None], busy_poll_s: float
    ) -> None:
        self.worker, self.epoch = worker, epoch
        self.pending: dict[int, Pending] = {}
        self.sending: set[int] = set()  # calls that the line has not taken yet: whoever sends them hears of its end
        self._end_told = on_end
        self.line = Line(sock, self._replied, self._ended, other="the worker", keeps=True, busy_poll_s=busy_poll_s)

    def _replied(self, message: Message) -> None:
        number = message.get("id")
        call = self.pending.pop(number, None) if type(number) is int else None
        if call is None:
            raise BadMessage(f"a reply to nothing: id={number!r}")
        if call.future is not None and not call.future.done():
            answered(call, f"worker {self.worker}", message)

    def _ended(self, problem: BadMessage | None) -> None:
        if problem is not None:
            log.error("worker %s sent what is no message: %s", self.worker, problem)
        self._end_told(self)

    def close(self) -> list[tuple[Pending, bool]]:
        """Hangs up; the calls that were under way, each with whether the worker has seen nothing of it."""
        unsent = self.line.unsent()
        self.line.close()
        pending = {number: call for number, call in self.pending.items() if number not in self.sending}
        self.pending = {}
        return [(call, number in unsent) for number, call in pending.items()]


class Front:
    """The service, for an application in a process of its own. Used in one event loop.

    `server` and `door`: its sockets to the server. Before `start` the application says in `on_connection` who takes
    HTTP connections, in `on_signal` who is told of the operator's wish to end, in `count` what is counted here, and in
    `on_orphaned` what to do when the server is gone.
    """

    def __init__(self, server: socket.socket, door: socket.socket, facts: Facts) -> None:
        self.facts, self.limits = facts, facts.limits
        self.simulated, self.durable = facts.simulated, facts.durable
        self.on_connection: Callable[[socket.socket], None] = socket.socket.close
        self.on_signal: Callable[[int], None] = lambda number: None
        self.on_orphaned: Callable[[], None] = lambda: None
        self.count: Callable[[], dict[str, Any]] = dict
        self._server, self._door = server, door
        self._line: Line | None = None
        self._ids = count(1)
        self._nonce = secrets.token_hex(8)
        self._asked: dict[int, _Asked] = {}
        self._links: dict[str, _Link] = {}
        self._broken: dict[tuple[str, int], _Link] = {}
        self._seats: OrderedDict[tuple[str, str], _Seat] = OrderedDict()
        self._references: dict[str, set[tuple[str, str]]] = {}  # by session
        self._deadly: frozenset[str] = frozenset()
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------ its life

    async def start(self) -> None:
        """Returns when the server can be asked."""
        raise_file_limit()
        self._line = Line(self._server, self._heard, self._orphaned, other="the server", bounded=False)
        self._door.setblocking(False)
        asyncio.get_running_loop().add_reader(self._door.fileno(), self._let_in)

    async def close(self) -> None:
        """Hangs up."""
        asyncio.get_running_loop().remove_reader(self._door.fileno())
        self._let_in(closing=True)
        for link in [*self._links.values(), *self._broken.values()]:
            link.close()
        if self._line is not None:
            self._line.close()

    def say(self, word: str) -> None:
        """Tells the server that this front is "ready", or "ending": then it is given no more connections."""
        self._post({"do": word})

    def _post(self, message: Message) -> None:
        with contextlib.suppress(NotSent):  # the server is gone, and this process ends
            self._open_line().send_now({**message, "id": message.get("id", next(self._ids))})

    def _open_line(self) -> Line:
        assert self._line is not None, "start() comes first"
        return self._line

    def _orphaned(self, problem: BadMessage | None) -> None:
        if problem is not None:
            log.error("the server sent what is no message: %s", problem)
        self.on_orphaned()

    def _let_in(self, *, closing: bool = False) -> None:
        passed, more = take_sockets(self._door)
        connections = sum(one.kind == CONNECTION for one in passed)
        if connections and not closing:  # said before anything is read of them: until then another front may have them
            self._post({"do": "took", "number": connections})
        for one in passed:
            if one.sock is None:
                continue
            if closing:
                one.sock.close()
            elif one.kind == CONNECTION:
                self.on_connection(one.sock)
            else:
                self._linked(self.facts.workers[one.number], one.epoch, one.sock)
        if not more and not closing:
            asyncio.get_running_loop().remove_reader(self._door.fileno())

    # ------------------------------------------------ what the server says

    def _heard(self, message: Message) -> None:
        word = message.get("do")
        if word is None:
            self._replied(message)
        elif word == "forget":
            self._forget(message["session"])
            self._post({"id": message["id"], "ok": None})
        elif word == "gone":
            self._spawn(self._hand_over(message["worker"], message["epoch"], message["id"]))
        elif word == "tally":
            self._post({"id": message["id"], "ok": self._tally()})
        elif word == "warn":
            self._deadly = frozenset(message["known"])
        elif word == "signal":
            self.on_signal(message["number"])
        else:
            raise BadMessage(f"no such message: do={word!r}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _replied(self, message: Message) -> None:
        asked = self._asked.pop(message["id"], None)
        if asked is None or asked.call.future is None or asked.call.future.done():
            return  # nobody waits any more
        if asked.then is not None and "ok" in message:
            asked.then(message["ok"])
        answered(asked.call, "the server", {"queue_ms": 0.0, "run_ms": 0.0, **message})

    def _tally(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": os.getpid(),
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "resident": resident_bytes(),
            "calls": {link.worker: len(link.pending) for link in self._links.values()},
            "counts": self.count(),
        }

    # ------------------------------------------------ asking the server

    async def _send(
        self, word: str, args: Sequence[Any], *, changes: bool = True, then: Callable[[Any], None] | None = None
    ) -> tuple[int, asyncio.Future[tuple[Any, Timing]]]:
        number = next(self._ids)
        future: asyncio.Future[tuple[Any, Timing]] = asyncio.get_running_loop().create_future()
        self._asked[number] = _Asked(Pending(future, changes), then)
        try:
            await self._open_line().send({"do": "ask", "id": number, "word": word, "args": list(args)})
        except BaseException as error:
            self._asked.pop(number, None)
            raise not_sent(error, "the server") from error
        return number, future

    async def _ask(self, word: str, *args: Any, changes: bool = True, then: Callable[[Any], None] | None = None) -> Any:
        """The server's answer. A cancelled wait cancels what may be cancelled. Raises what the server raises."""
        number, future = await self._send(word, args, changes=changes, then=then)
        try:
            answer, _ = await future
        except asyncio.CancelledError:
            self._post({"do": "cancel", "target": number})
            raise
        return answer

    # ------------------------------------------------ who has which session

    async def _locate(self, owner: str, ref: str) -> _Seat | None:
        """Where the session is, made on first use; None where the server is to be asked for all. Raises NoSuchSession,
        Gone, Unavailable."""
        found = await self._ask("locate", owner, ref, changes=False, then=partial(self._remember, owner, ref))
        if not found["lasting"]:
            return None
        # What came in with this answer may have taken it back already: then it is good for this call, which was sent
        # before that was acknowledged.
        return self._seats.get((owner, ref)) or _Seat(found["session"], found["worker"], found["epoch"])

    def _remember(self, owner: str, ref: str, found: Mapping[str, Any]) -> None:
        if not found["lasting"]:
            return
        known = self._seats.get((owner, ref))
        if known is not None and (known.id, known.epoch) == (found["session"], found["epoch"]):
            return
        if known is not None:
            self._drop((owner, ref))
        self._seats[owner, ref] = _Seat(found["session"], found["worker"], found["epoch"])
        self._references.setdefault(found["session"], set()).add((owner, ref))
        while len(self._seats) > _REMEMBERED:
            self._drop(next(iter(self._seats)))

    def _drop(self, reference: tuple[str, str]) -> None:
        seat = self._seats.pop(reference)
        left = self._references[seat.id]
        left.discard(reference)
        if not left:
            del self._references[seat.id]

    def _forget(self, session: str) -> None:
        for reference in list(self._references.get(session, ())):
            self._drop(reference)

    # ------------------------------------------------ workers

    def _linked(self, worker: str, epoch: int, sock: socket.socket) -> None:
        before = self._links.get(worker)
        if before is not None:  # its end is being noticed
            self._broken[worker, before.epoch] = before
        self._links[worker] = _Link(worker, epoch, sock, self._unlinked, self.limits.busy_poll_s)

    def _unlinked(self, link: _Link) -> None:
        """A worker has hung up: the server will say that it is gone, when it knows how."""
        if self._links.get(link.worker) is link:
            del self._links[link.worker]
        self._broken[link.worker, link.epoch] = link
        asyncio.get_running_loop().call_later(_PATIENCE, self._give_up, link)

    def _give_up(self, link: _Link) -> None:
        """A worker that hung up on this front alone: what it was asked may have been done."""
        if self._broken.get((link.worker, link.epoch)) is not link:
            return
        del self._broken[link.worker, link.epoch]
        for call, unsent in link.close():
            end(call, _slot(link.worker), "it hung up on its front", known=unsent or not call.changes)

    async def _hand_over(self, worker: str, epoch: int, number: int) -> None:
        """Gives the server what was under way on a worker that is gone."""
        link = self._links.get(worker)
        if link is None or link.epoch != epoch:
            link = self._broken.get((worker, epoch))
        if link is not None:
            link.line.drain()  # what it answered before it died
            if self._links.get(worker) is link:
                del self._links[worker]
            self._broken.pop((worker, epoch), None)
            for call, unsent in link.close():
                await self._pass_on(link, call, unsent)
        self._post({"id": number, "ok": None})

    async def _pass_on(self, link: _Link, call: Pending, unsent: bool) -> None:
        future = call.future
        if future is None or future.done() or call.message is None:
            return
        message = {name: value for name, value in call.message.items() if name != "id"}
        try:
            _, handed = await self._send("orphan", (link.worker, message, call.changes, unsent), changes=call.changes)
        except EngineError as error:
            log.warning("a call of worker %s cannot be handed over: %s", link.worker, error.detail)
            if not future.done():
                end(call, _slot(link.worker), "it died", known=unsent or not call.changes)
            return
        handed.add_done_callback(partial(_told, future))

    async def _direct(self, link: _Link, seat: _Seat, message: Message, changes: bool) -> tuple[Any, Timing]:
        number = next(self._ids)
        future: asyncio.Future[tuple[Any, Timing]] = asyncio.get_running_loop().create_future()
        sent = {
            **message,
            "id": number,
            "session": seat.id,
            "sent": time.monotonic(),
            "call": f"{self._nonce}-{number}",
        }
        async with seat.order:
            # Where nothing is on the disk a call cannot be sent again, and its arrays need not wait for its end.
            kept = sent if self.durable else {"do": message["do"], "session": seat.id}
            link.pending[number] = Pending(future, changes, number=number, message=kept)
            link.sending.add(number)
            sent["sent"] = time.monotonic()
            try:
                await link.line.send(sent, alone=self._is_alone())
            except BaseException as error:
                link.pending.pop(number, None)
                if isinstance(error, NotSent):
                    raise
                raise not_sent(error, f"worker {link.worker}") from error
            finally:
                link.sending.discard(number)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(link, number)
            raise

    def _cancel(self, link: _Link, number: int) -> None:
        with contextlib.suppress(NotSent):
            cancel = next(self._ids)
            link.pending[cancel] = Pending(None, changes=False)
            link.line.send_now({"do": "cancel", "id": cancel, "target": number})

    async def _call(
        self, owner: str, ref: str | None, message: Message, changes: bool, relay: tuple[Any, ...]
    ) -> tuple[Any, Timing]:
        """The answer of the session's worker, asked by the shortest way; `relay`: what the server is asked where that
        is not to be had."""
        ref = ref or DEFAULT
        seat = None
        if not _PUBLIC.fullmatch(ref):
            seat = self._seats.get((owner, ref))
            if seat is None or self._link(seat) is None:
                seat = await self._locate(owner, ref)
        link = None if seat is None else self._link(seat)
        if seat is not None and link is not None and not self._is_deadly(message):
            try:
                return await self._direct(link, seat, message, changes)
            except (NotSent, NoSuchDevice):
                pass  # the server waits for the next incarnation; or moves the session to a worker that has the device
            except NoSuchSession as error:
                if error.code != "moved":
                    raise
            except Gone as error:
                if error.code != "session-expired":
                    raise
            self._forget(seat.id)
        answer, queue_ms, run_ms = await self._ask(*relay, changes=changes)
        return answer, Timing(queue_ms, run_ms)

    def _link(self, seat: _Seat) -> _Link | None:
        link = self._links.get(seat.worker)
        return link if link is not None and link.epoch == seat.epoch else None

    def _is_deadly(self, message: Message) -> bool:
        return bool(self._deadly) and fingerprint(message) in self._deadly

    # ------------------------------------------------ engine.service.Service, for the app

    def take_data_dir(self) -> None:
        """It is the server's."""

    def catalogue(self) -> list[dict[str, Any]]:
        return declare.catalogue()

    def incoming(self, length: int, *, changed: bool = False) -> Incoming:
        return Private(length) if changed else Shared(length)

    async def up(self) -> bool:
        found: bool = await self._ask("up")
        return found

    async def told(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("told")
        return found

    async def devices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._ask("devices")
        return found

    async def numbers(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("numbers")
        return found

    async def everyone(self) -> dict[str, Any]:
        """{"counts": of all fronts together, "fronts": each as it is}."""
        found: dict[str, Any] = await self._ask("everyone")
        return found

    async def listening(self, owner: str) -> int:
        """How many requests of an owner listen to jobs, of all fronts together."""
        found: int = await self._ask("listening", owner)
        return found

    def listeners(self, owner: str, number: int) -> None:
        """Tells the server how many of these this front has."""
        self._post({"do": "listeners", "owner": owner, "number": number})

    async def create_session(
        self, owner: str, options: Mapping[str, Any] | None = None, once: Once | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("create_session", owner, options, once)
        return found

    async def list_sessions(self, owner: str, *, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("list_sessions", owner, {"limit": limit, "cursor": cursor})
        return found

    async def session_info(self, owner: str, ref: str | None) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("session_info", owner, ref)
        return found

    async def patch_session(
        self, owner: str, ref: str | None, changes: Mapping[str, Any], once: Once | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("patch_session", owner, ref, changes, once)
        return found

    async def delete_session(self, owner: str, ref: str | None, once: Once | None = None) -> None:
        await self._ask("delete_session", owner, ref, once)

    async def usage(self, owner: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("usage", owner)
        return found

    async def all_sessions(self, *, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("all_sessions", {"limit": limit, "cursor": cursor})
        return found

    async def delete_any_session(self, session_id: str) -> None:
        await self._ask("delete_any_session", session_id)

    async def session_memory(
        self, owner: str, ref: str | None, *, limit: int = 100, cursor: str | None = None
    ) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("session_memory", owner, ref, {"limit": limit, "cursor": cursor})
        return found

    async def session_history(self, owner: str, ref: str | None) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("session_history", owner, ref)
        return found

    async def run(
        self,
        owner: str,
        ref: str | None,
        program: dict[str, Any],
        values: str = "auto",
        dry_run: bool = False,
        explain: bool = False,
        once: Once | None = None,
    ) -> tuple[dict[str, Any], Timing]:
        message = {"do": "run", "program": program, "values": values, "dry_run": dry_run, "explain": explain}
        if once is not None:
            message.update(key=once[0], digest=once[1])
        relay = ("run", owner, ref, program, values, dry_run, explain, once)
        running = self._call(owner, ref, message, not dry_run, relay)
        return await (running if once is None else asyncio.shield(running))

    def start_run(
        self, owner: str, ref: str | None, program: dict[str, Any], values: str, told: Told
    ) -> Pending | None:
        seat = self._seats.get((owner, ref or DEFAULT))
        link = None if seat is None else self._link(seat)
        if seat is None or link is None or self._deadly or seat.order.locked():
            return None
        number = next(self._ids)
        message = {
            "do": "run",
            "program": program,
            "values": values,
            "dry_run": False,
            "explain": False,
            "id": number,
            "session": seat.id,
            "sent": time.monotonic(),
            "call": f"{self._nonce}-{number}",
        }
        kept = message if self.durable else {"do": "run", "session": seat.id}
        call = link.pending[number] = Pending(told, True, number=number, message=kept)
        link.sending.add(number)
        try:
            link.line.send_soon(message, alone=self._is_alone())
        except (NotSent, CannotPack, MemoryError):
            link.pending.pop(number, None)
            return None
        finally:
            link.sending.discard(number)
        return call

    def _is_alone(self) -> bool:
        """Whether the call that is being sent is the only one under way here."""
        return sum([len(link.pending) for link in self._links.values()]) == 1

    def withdraw(self, call: Pending) -> None:
        for link in self._links.values():
            if link.pending.get(call.number) is call:
                self._cancel(link, call.number)

    async def query(self, owner: str, ref: str | None, q: dict[str, Any], values: str = "auto") -> tuple[Any, Timing]:
        message = {"do": "query", "q": q, "values": values}
        return await self._call(owner, ref, message, False, ("query", owner, ref, q, values))

    async def submit(
        self,
        owner: str,
        ref: str | None,
        program: dict[str, Any],
        values: str = "auto",
        explain: bool = False,
        *,
        about: dict[str, Any],
        once: Once | None = None,
        wait: float = 0.0,
    ) -> tuple[dict[str, Any], tuple[dict[str, Any], Timing] | None]:
        how = {"about": about, "once": once, "wait": wait}
        taking = self._ask("submit", owner, ref, program, values, explain, how)
        job, reply = await asyncio.shield(taking)
        return job, None if reply is None else (reply[0], Timing(reply[1], reply[2]))

    async def job(self, owner: str, id: str, **how: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("job", owner, id, how)
        return found

    async def jobs(self, owner: str, *, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("jobs", owner, {"limit": limit, "cursor": cursor})
        return found

    async def cancel_job(self, owner: str, id: str) -> None:
        await self._ask("cancel_job", owner, id)


def _told(future: asyncio.Future[tuple[Any, Timing]] | Told, handed: asyncio.Future[tuple[Any, Timing]]) -> None:
    """Gives whoever waits what the server made of a call that was handed over."""
    if future.done():
        if not handed.cancelled():
            handed.exception()
        return
    error = handed.exception()
    if error is not None:
        future.set_exception(error)
        return
    answer, queue_ms, run_ms = handed.result()[0]
    future.set_result((answer, Timing(queue_ms, run_ms)))


def _slot(worker: str) -> Slot:
    return Slot(WorkerSpec(worker, ()))

"""The server's side of fronts in processes of their own (front.py): starts them, answers them, tells them what changes.

    listening socket ──> server ──connections, in turn──> fronts ──calls──> workers
                           └──── who has a session, and all that is seldom ────┘

Connections are accepted here and passed on in turn, so that every front gets its share. They are held until the front
says that it took them: those that it had not taken when it died are passed to another. The session map stays the
supervisor's. A front may remember an entry of it until it is told to `forget`; whoever changes an entry waits until all
that may remember it have said that they do not.

A front that dies is started again, after a pause that doubles with every quick death in a row. What it asked to run
without an idempotency key is cancelled, as when a caller hangs up; all else that it asked for goes on. One that does
not answer what it is told is killed: what it remembers cannot be relied on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from engine.errors import Bug, EngineError, Hint, OutOfMemory, Unavailable, let_go
from engine.workers.doors import CONNECTION, LINK, pass_socket
from engine.workers.frames import raise_file_limit
from engine.workers.lines import Line
from engine.workers.messages import BadMessage, CannotPack, Message, NotSent
from engine.workers.slots import Pending, Slot
from engine.workers.supervisor import Supervisor
from engine.workers.transports import THREAD_VARIABLES, ProcessTransport, describe_exit, wait_for

PATIENCE = 30.0  # how long a front may take to do what it is told; it may be reading a big body
_TALLY_S = 2.0
_START_S = 60.0
_GRACE = 10.0  # from the end of a front's line to the end of its process
_MANY = 50_000
_HEALTHY_S = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 30.0
_CANCELLABLE = ("run", "query", "orphan")

log = logging.getLogger("curlgrad.fronts")

Counts = dict[str, Any]


class _Front:
    """The place of one front, in which incarnations follow each other."""

    def __init__(self, number: int) -> None:
        self.name = f"front-{number}"
        self.state = "starting"  # ready, ending, restarting
        self.process: subprocess.Popen[bytes] | None = None
        self.line: Line | None = None
        self.door: socket.socket | None = None
        self.over: asyncio.Future[None] | None = None  # done when the incarnation is no more
        self.orders: dict[int, asyncio.Future[Any]] = {}  # what it was told and has not answered
        self.asks: dict[int, tuple[str, Any, asyncio.Task[None]]] = {}
        self.told: set[str] = set()  # sessions that it may remember
        self.links: set[tuple[str, int]] = set()
        self.handed: deque[socket.socket] = deque()  # connections that it has not said it took
        self.listeners: dict[str, int] = {}  # requests of each owner that listen to jobs
        self.tally: dict[str, Any] = {}
        self.restarts = self.failures = 0
        self.first: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None


class Fronts:
    """The fronts of a service (engine.service.Service, which stands above this). Used in its event loop: `start` after
    the service, `close` before it.

    `command`: what starts a front, behind which come `--fd`, `--door` and `--name`; its standard input has, as JSON,
    what `facts` says and what the front is told of the service. `inherited`: descriptors that it gets, too. `merge`
    adds up what fronts count, of which `now` is of the moment.
    """

    def __init__(
        self,
        service: Any,
        supervisor: Supervisor,
        number: int,
        command: Sequence[str],
        facts: Callable[[], Mapping[str, Any]],
        *,
        merge: Callable[[Sequence[Counts]], Counts],
        inherited: Sequence[int] = (),
    ) -> None:
        self._service, self._supervisor = service, supervisor
        self._command, self._facts, self._merge = list(command), facts, merge
        self._inherited = tuple(inherited)
        self._fronts = [_Front(i) for i in range(number)]
        self._turn = 0
        self._waiting: deque[socket.socket] = deque()  # connections of a front that died before it took them
        self._ids = count(1)
        self._past: Counts = {}  # what fronts counted that are no more
        self._deadly: list[str] = []
        self._closing = False
        self._changed = asyncio.Event()
        self._words: Mapping[str, Callable[..., Awaitable[Any]]] = {
            **{name: getattr(service, name) for name in _PLAIN},
            **{name: _spread(getattr(service, name)) for name in _NAMED},
            "run": _timed(service.run),
            "query": _timed(service.query),
            "submit": self._submit,
        }
        self._own: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "locate": self._locate,
            "told": self._told,
            "everyone": self._everyone,
            "listening": self._listening,
        }

    # ------------------------------------------------ their lives

    async def start(self) -> None:
        """Returns when every front takes connections. Raises RuntimeError with the reason when one does not."""
        raise_file_limit()
        loop = asyncio.get_running_loop()
        for front in self._fronts:
            front.first = loop.create_future()
            front.task = loop.create_task(self._keep(front), name=front.name)
        await asyncio.gather(*(front.first for front in self._fronts if front.first is not None))

    async def close(self) -> None:
        """Kills what fronts are left."""
        self._closing = True
        for front in self._fronts:
            if front.process is not None:
                front.process.kill()
        await self.ended(PATIENCE)
        for front in self._fronts:
            if front.task is not None:
                front.task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await front.task
            if front.first is not None and front.first.done() and not front.first.cancelled():
                front.first.exception()  # seen: otherwise asyncio reports it as forgotten

    def signal(self, number: int) -> None:
        """Tells all fronts what the operator wants; from now on none is started again."""
        self._closing = True
        for front in self._fronts:
            self._post(front, {"do": "signal", "number": number})

    async def ended(self, seconds: float) -> None:
        """Waits until no front is left, so long at most."""
        left = [front.over for front in self._fronts if front.over is not None]
        if left:
            await asyncio.wait(left, timeout=seconds)

    async def _keep(self, front: _Front) -> None:
        while True:
            began = time.monotonic()
            try:
                why = await self._live(front)
            except OSError as error:
                why = f"it did not start: {error}"
            if front.first is not None and not front.first.done():
                front.first.set_exception(RuntimeError(f"{front.name}: {why}"))
                return
            if self._closing:
                return
            front.restarts += 1
            front.failures = front.failures + 1 if time.monotonic() - began < _HEALTHY_S else 1
            pause = min(_FIRST_PAUSE * 2 ** (front.failures - 1), _LONGEST_PAUSE)
            front.state = "restarting"
            log.error("%s: %s; starting it again in %.2g s", front.name, why, pause)
            await asyncio.sleep(pause)
            if self._is_closing():
                return

    def _is_closing(self) -> bool:
        return self._closing

    async def _live(self, front: _Front) -> str:
        """One incarnation, from its start to its end; why it ended."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        door, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        front.state = "starting"
        front.over = loop.create_future()
        gone: asyncio.Future[BadMessage | None] = loop.create_future()

        def on_end(problem: BadMessage | None) -> None:
            gone.set_result(problem)

        try:
            front.process = await loop.run_in_executor(None, self._spawn, front.name, theirs, inside)
            door.setblocking(False)
            front.door = door
            heard = partial(self._heard, front)
            front.line = Line(ours, heard, on_end, other=front.name, bounded=False)
            starting = loop.call_later(_START_S, self._too_slow, front)
            problem = await gone
            starting.cancel()
            if problem is not None:
                log.error("%s sent what is no message, and is killed: %s", front.name, problem)
                front.process.kill()
            else:
                self._bury(front)  # it has hung up on the workers before
            status = await asyncio.to_thread(wait_for, front.process, _GRACE)
            return describe_exit(status)
        finally:
            self._bury(front)
            for end in (front.line or ours, door):
                end.close()
            front.line = front.door = None
            front.over.set_result(None)
            self._changed.set()

    def _spawn(self, name: str, theirs: socket.socket, inside: socket.socket) -> subprocess.Popen[bytes]:
        facts = {
            **self._facts(),
            "workers": [slot.name for slot in self._supervisor.slots],
            "limits": self._service.limits.to_data(),
            "simulated": self._service.simulated,
            "durable": self._service.durable,
            "server": os.getpid(),
        }
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}  # a front does no arithmetic
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
        with theirs, inside, tempfile.TemporaryFile() as said:
            said.write(json.dumps(facts).encode())
            said.seek(0)
            fds = (theirs.fileno(), inside.fileno())
            command = [*self._command, "--fd", str(fds[0]), "--door", str(fds[1]), "--name", name]
            return subprocess.Popen(command, pass_fds=(*fds, *self._inherited), stdin=said, env=environment)

    def _too_slow(self, front: _Front) -> None:
        if front.state == "starting" and front.process is not None:
            log.error("%s does not come up, and is killed", front.name)
            front.process.kill()

    def _bury(self, front: _Front) -> None:
        """Forgets what belonged to an incarnation that is no more."""
        front.state = "restarting"
        front.told.clear()
        front.links.clear()
        front.listeners.clear()
        if "counts" in front.tally:
            self._past = self._merge([self._past, {**front.tally["counts"], "now": 0}])
        front.tally = {}
        self._waiting.extend(front.handed)
        front.handed.clear()
        self._hand_waiting()
        orders, front.orders = front.orders, {}
        for future in orders.values():
            if not future.done():
                future.set_result(None)
        asks, front.asks = front.asks, {}
        for word, args, task in asks.values():
            if word in _CANCELLABLE and not _keyed(word, args):
                task.cancel()

    # ------------------------------------------------ connections

    def hand(self, connection: socket.socket) -> bool:
        """Gives an HTTP connection away, to the front whose turn it is. False where none can take it now."""
        for _ in self._fronts:
            front = self._fronts[self._turn % len(self._fronts)]
            self._turn += 1
            if front.state == "ready" and front.door is not None and pass_socket(front.door, connection, CONNECTION):
                front.handed.append(connection)
                return True
        return False

    def _hand_waiting(self) -> None:
        while self._waiting and (self._closing or self.hand(self._waiting[0])):
            connection = self._waiting.popleft()
            if self._closing:
                connection.close()

    def taking(self) -> bool:
        """Whether any front takes connections."""
        return any(front.state == "ready" for front in self._fronts)

    async def changed(self, seconds: float) -> None:
        """Waits until a front comes up or ends, so long at most."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    # ------------------------------------------------ what they are told

    def _post(self, front: _Front, message: Message) -> int | None:
        number = next(self._ids)
        if front.line is None:
            return None
        try:
            front.line.send_now({**message, "id": number})
        except NotSent:
            return None
        return number

    async def _order(self, front: _Front, message: Message) -> Any:
        """What a front answers; None where it ends instead. One that takes too long is ended."""
        number = self._post(front, message)
        over = front.over
        if number is None:  # it has hung up, or does not read what it is told
            if front.process is not None and over is not None and not over.done():
                front.process.kill()
                await asyncio.shield(over)
            return None
        future = front.orders[number] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(asyncio.shield(future), PATIENCE)
        except TimeoutError:
            log.error("%s did not answer for %g s, and is killed", front.name, PATIENCE)
            if front.process is not None:
                front.process.kill()
            if over is not None:
                await asyncio.shield(over)
            return None

    async def forget(self, session: str) -> None:
        """When this returns no front knows where the session is, or under which name it is found."""

        async def one(front: _Front) -> None:
            await self._order(front, {"do": "forget", "session": session})
            front.told.discard(session)

        await asyncio.gather(*(one(front) for front in self._fronts if session in front.told))

    async def hand_over(self, slot: Slot) -> None:
        """When this returns the fronts have handed over what they had under way on a worker that is gone."""
        link = (slot.name, slot.epoch)

        async def one(front: _Front) -> None:
            await self._order(front, {"do": "gone", "worker": slot.name, "epoch": slot.epoch})
            front.links.discard(link)

        await asyncio.gather(*(one(front) for front in self._fronts if link in front.links))

    def attach(self, slot: Slot) -> None:
        """A worker has come up: every front gets a wire to it."""
        for front in self._fronts:
            if front.state == "ready":
                self._join(front, slot)

    def _join(self, front: _Front, slot: Slot) -> None:
        """Where this fails, the front's calls go by the server."""
        if front.door is None or not isinstance(slot.transport, ProcessTransport):
            return
        outer, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with outer, inner:
            place = self._supervisor.slots.index(slot)
            if slot.transport.admit(inner) and pass_socket(front.door, outer, LINK, place, slot.epoch):
                front.links.add((slot.name, slot.epoch))

    def warn(self, known: list[str]) -> None:
        """Programs of these fingerprints have ended their worker: fronts leave it to the server to run them."""
        self._deadly = known
        for front in self._fronts:
            self._post(front, {"do": "warn", "known": known})

    # ------------------------------------------------ what they say

    def _heard(self, front: _Front, message: Message) -> None:
        word, number = message.get("do"), message.get("id")
        if type(number) is not int:
            raise BadMessage(f"no id: {number!r}")
        if word is None:
            future = front.orders.pop(number, None)
            if future is not None and not future.done():
                future.set_result(message.get("ok"))
        elif word == "ask":
            self._asked(front, number, message)
        elif word == "cancel":
            known = front.asks.get(message["target"])
            if known is not None and known[0] in _CANCELLABLE:
                known[2].cancel()
        elif word == "took":
            for _ in range(min(message["number"], len(front.handed))):
                front.handed.popleft().close()
        elif word == "listeners":
            front.listeners[message["owner"]] = message["number"]
            if not message["number"]:
                del front.listeners[message["owner"]]
        elif word == "ready":
            self._ready(front)
        elif word == "ending":
            front.state = "ending"
            self._changed.set()
        else:
            raise BadMessage(f"no such message: do={word!r}")

    def _ready(self, front: _Front) -> None:
        front.state = "ready"
        if self._deadly:
            self._post(front, {"do": "warn", "known": self._deadly})
        for slot in self._supervisor.slots:
            if slot.state == "ready":
                self._join(front, slot)
        if front.first is not None and not front.first.done():
            front.first.set_result(None)
        self._hand_waiting()
        self._changed.set()

    def _asked(self, front: _Front, number: int, message: Message) -> None:
        word, args = message.get("word"), message.get("args")
        if type(word) is not str or type(args) is not list:
            raise BadMessage(f"no such question: {word!r}")
        doing: Callable[[], Awaitable[Any]]
        if word == "orphan":
            doing = partial(_outcome, self._adopted(args, lost=bool(message.get("lost"))))
        elif message.get("lost"):
            doing = _refused
        elif word in self._own:
            doing = partial(self._own[word], front, *args)
        elif word in self._words:
            doing = partial(self._words[word], *args)
        else:
            raise BadMessage(f"no such question: {word!r}")
        task = asyncio.get_running_loop().create_task(self._answer(front.line, number, word, doing))
        asks = front.asks  # of this incarnation
        asks[number] = word, args, task
        task.add_done_callback(lambda _: asks.pop(number, None))

    async def _answer(self, line: Line | None, number: int, word: str, doing: Callable[[], Awaitable[Any]]) -> None:
        reply: Message
        try:
            reply = {"id": number, "ok": await doing()}
        except EngineError as error:
            reply = {"id": number, "error": error.to_data()}
            let_go(error)
        except Exception as error:
            log.exception("a bug in %s", word)
            let_go(error)
            bug = Bug("the server failed on this request; the reason is in its log")
            reply = {"id": number, "error": bug.to_data()}
        if line is None:
            return
        with contextlib.suppress(NotSent):  # nobody is there to be answered
            try:
                await line.send(reply)
            except (CannotPack, MemoryError) as problem:
                failure = OutOfMemory(f"no memory for the answer: {problem}")
                line.send_now({"id": number, "error": failure.to_data()})

    # ------------------------------------------------ their questions

    async def _locate(self, front: _Front, owner: str, ref: str) -> dict[str, Any]:
        """Where a session is; `lasting`: whether that may be remembered until `forget`."""
        record = await self._supervisor.find(owner, ref)
        while record.opened is not None:  # no call of a front may come before it is made
            await asyncio.shield(record.opened)
        lasting = not record.leaving and self._supervisor.registry.leads(owner, ref, record)
        if lasting:
            front.told.add(record.id)
            if len(front.told) > _MANY:  # those that ended by themselves need no `forget`
                names = [slot.name for slot in self._supervisor.slots]
                known = self._supervisor.registry.on
                front.told = {one for one in front.told if any(known(name, one) for name in names)}
        return {"session": record.id, "worker": record.worker, "epoch": record.epoch, "lasting": lasting}

    def _adopted(self, args: Sequence[Any], *, lost: bool) -> Pending:
        """A call of a worker that is gone, taken over at once: it is there when the next incarnation is asked."""
        worker, message, changes, unsent = args
        return self._supervisor.adopt(worker, message, changes=changes, unsent=unsent, lost=lost)

    async def _submit(self, owner: str, ref: str | None, *args: Any) -> Any:
        *plain, how = args
        job, answer = await self._service.submit(owner, ref, *plain, **how)
        return [job, None if answer is None else [answer[0], answer[1].queue_ms, answer[1].run_ms]]

    async def _told(self, front: _Front) -> dict[str, Any]:
        """Service.info, the calls of all fronts counted."""
        await self._tallies()
        info: dict[str, Any] = self._service.info()
        for worker in info["workers"]:
            worker["calls"] += sum(one.tally.get("calls", {}).get(worker["name"], 0) for one in self._fronts)
        return info

    async def _everyone(self, front: _Front) -> dict[str, Any]:
        await self._tallies()
        counts = [one.tally["counts"] for one in self._fronts if "counts" in one.tally]
        shown = [
            {
                "name": one.name,
                "up": one.state == "ready",
                "restarts": one.restarts,
                "cpu_s": one.tally.get("cpu_s"),
                "resident": one.tally.get("resident"),
            }
            for one in self._fronts
        ]
        return {"counts": self._merge([self._past, *counts]), "fronts": shown}

    async def _tallies(self) -> None:
        """Asks all fronts what they count; of one that does not say so soon what it said last stands."""

        async def one(front: _Front) -> None:
            number = self._post(front, {"do": "tally"})
            if number is None:
                return
            future = front.orders[number] = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                front.tally = await asyncio.wait_for(future, _TALLY_S) or front.tally
            front.orders.pop(number, None)

        await asyncio.gather(*(one(front) for front in self._fronts if front.state in ("ready", "ending")))

    async def _listening(self, front: _Front, owner: str) -> int:
        return sum(one.listeners.get(owner, 0) for one in self._fronts)


_PLAIN = (
    "up",
    "devices",
    "numbers",
    "create_session",
    "session_info",
    "patch_session",
    "delete_session",
    "usage",
    "delete_any_session",
    "session_history",
    "cancel_job",
)
_NAMED = ("list_sessions", "all_sessions", "session_memory", "job", "jobs")  # the last argument is the named ones


def _spread(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    def call(*args: Any) -> Awaitable[Any]:
        *plain, named = args
        return method(*plain, **named)

    return call


def _timed(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any) -> list[Any]:
        answer, timing = await method(*args)
        return [answer, timing.queue_ms, timing.run_ms]

    return call


async def _outcome(call: Pending) -> list[Any]:
    assert isinstance(call.future, asyncio.Future)
    answer, timing = await call.future
    return [answer, timing.queue_ms, timing.run_ms]


async def _refused() -> Any:
    raise Unavailable(
        "the server had no memory, or too many open files, to take this call's arrays; nothing was done",
        code="not-applied",
        hint=Hint("try-again"),
    )


def _keyed(word: str, args: Sequence[Any]) -> bool:
    """Whether a call that was asked for has an idempotency key: it is done once, whoever hears of it."""
    return (args[1].get("key") if word == "orphan" else args[-1] if word == "run" else None) is not None


def python(module: str) -> list[str]:
    """The command that runs a module of this code."""
    return [sys.executable, "-P", "-m", module]

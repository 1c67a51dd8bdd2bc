"""The one door: everything the app may ask of the engine, and the words it needs to ask.

Every method that touches sessions takes the owner first, and sees nothing but theirs. `ref` is a session's id or
name; None is `default`, made on first use. Errors are those of engine.errors; nothing here knows of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engine.ops  # noqa: F401 - declares the operations that the catalogue shows
from engine import declare
from engine.answer import ArrayData, TensorAnswer
from engine.dtypes import DTYPES, dtype
from engine.durability.files import Locked
from engine.durability.repair import repair as repair_data
from engine.durability.store import DataDir
from engine.errors import EngineError, Gone, Hint, Invalid, NoSuchSession, Unavailable, UnknownParameter, WrongType
from engine.limits import Limits
from engine.logs import configure as configure_logs
from engine.op import no_such_op
from engine.session import Session
from engine.workers.desk import Desk
from engine.workers.gpus import find_gpus
from engine.workers.incoming import Incoming, Private
from engine.workers.messages import Timing, version
from engine.workers.plans import WorkerSpec, plan_workers
from engine.workers.registry import Record
from engine.workers.seats import Seats
from engine.workers.slots import Pending, Told
from engine.workers.supervisor import Supervisor

if TYPE_CHECKING or sys.platform != "win32":  # which passes no sockets
    from engine.workers.front import Facts, Front
    from engine.workers.fronts import Fronts, python

__all__ = [
    "ArrayData",
    "Facts",
    "Front",
    "Fronts",
    "Incoming",
    "Limits",
    "Pending",
    "Service",
    "TensorAnswer",
    "Timing",
    "Told",
    "WorkerSpec",
    "configure_logs",
    "no_such_op",
    "plan_workers",
    "python",
    "repair",
    "version",
]

DURABILITY_NOTES = {
    "none": "Tensors live in memory only: they do not survive a restart of the server, or of their worker.",
    "always": "What was acknowledged survives the end of the server and the loss of power.",
    "everysec": "What was acknowledged survives the end of the server; the loss of power may take the last second.",
    "no": "What was acknowledged survives the end of the server; the loss of power may take what the system had not "
    "written yet.",
}

_CREATE = {"name": str, "device": str, "seed": int, "default_dtype": str, "lease_s": float, "fork": str}
_PATCH = {"name": str, "seed": int, "default_dtype": str, "lease_s": float, "public": bool}
_OF_SOURCE = ("device", "seed", "default_dtype")  # what a fork has of its source
_SEEDS = range(-(1 << 63), 1 << 64)
_LEASES = (1, 10 * 365 * 24 * 3600)

Once = tuple[str, str]  # an idempotency key with what it is for, and the digest of the request


def repair(data_dir: Path) -> list[str]:
    """Makes damaged data readable again, as far as they are there; what was found and done, in sentences."""
    limits = Limits(session_bytes=1 << 62, server_bytes=1 << 62)
    return repair_data(data_dir, Seats("repair", Session, limits).restore)


@cache
def build() -> dict[str, Any]:
    """What this code runs on: the interpreter, and the libraries that compute, null where they are not installed."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for library, names in {"numpy": ["numpy"], "numba": ["numba"], "cupy": ["cupy-cuda12x", "cupy-cuda13x"]}.items():
        found[library] = next(filter(None, map(_installed, names)), None)
    return found


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Service:
    """The engine behind its workers. Used in one event loop: `await start()` first, `await close()` at the end.

    `workers`: `--workers SPEC` (see plan_workers), or the workers themselves. `threads`: of BLAS in each worker.
    `factory`: the session class, for tests. `data_dir`: where sessions are kept, so that they outlive the server and
    its workers; None keeps them in memory alone. `sync`: when the disk is told to have it (engine.durability.log).
    `cache`: the folder in which compiled CUDA kernels are kept. `sync_steps`: wait for the device after every step of a
    program, so that an error of a kernel names the step that it belongs to.
    """

    def __init__(
        self,
        workers: str | Sequence[WorkerSpec] = "auto",
        *,
        limits: Limits | None = None,
        threads: int | None = None,
        factory: str = "engine.session:Session",
        data_dir: Path | None = None,
        sync: str = "everysec",
        cache: str | None = None,
        sync_steps: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        if isinstance(workers, str):
            specs = plan_workers(workers, find_gpus() if workers in ("auto", "inline") else ())
        else:
            specs = list(workers)
        self._supervisor = Supervisor(
            specs, self.limits, threads=threads, factory=factory, sync=sync, cache=cache, sync_steps=sync_steps
        )
        self._data_dir, self._sync = data_dir, sync
        self._desk = Desk(self._supervisor)

    def take_data_dir(self) -> None:
        """Locks the data directory, where there is one; `start` does it if it was not done before. Raises Unavailable
        with the reason where it cannot be had."""
        if self._data_dir is None or self._supervisor.data is not None:
            return
        try:
            self._supervisor.data = DataDir(self._data_dir.absolute())
        except Locked as owner:
            raise Unavailable(
                f"the data directory {self._data_dir} is in use by another server (process {owner}): end that one, or "
                "name another directory with --data-dir (none keeps nothing)"
            ) from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"the data directory {self._data_dir} cannot be used: {error}") from error

    async def start(self) -> None:
        """Returns when the workers are up. Raises RuntimeError with the reason when one does not come up."""
        try:
            self.take_data_dir()
        except Unavailable as error:
            raise RuntimeError(error.detail) from error
        try:
            await self._supervisor.start()
        except BaseException:
            self._let_go()
            raise

    async def close(self) -> None:
        """Ends the workers; what they hold in memory is gone."""
        await self._supervisor.close()
        self._let_go()

    def fronts(
        self,
        number: int,
        command: Sequence[str],
        facts: Callable[[], Mapping[str, Any]],
        *,
        merge: Callable[[Sequence[dict[str, Any]]], dict[str, Any]],
        inherited: Sequence[int] = (),
    ) -> Fronts:
        """Fronts in processes of their own, which share the workers: to be made before `start`, started after it.

        See Fronts. Raises Invalid where a worker is a thread of this process, which no other can reach.
        """
        if any(worker["inline"] for worker in self._supervisor.workers()):
            raise Invalid(
                "several fronts need workers in processes of their own: a worker in a thread of the server "
                "(--workers inline) is reached by that process alone",
                param="fronts",
            )
        made = Fronts(self, self._supervisor, number, command, facts, merge=merge, inherited=inherited)
        self._supervisor.fronts = made
        return made

    def _let_go(self) -> None:
        data, self._supervisor.data = self._supervisor.data, None
        if data is not None:
            data.close()

    def ready(self) -> bool:
        """Whether calls can be served; never waits."""
        return self._supervisor.ready()

    def info(self) -> dict[str, Any]:
        """Version, build, dtypes, devices, workers and limits of this server; never waits."""
        workers = self._supervisor.workers()
        devices = [
            {
                "name": device,
                "simulated": device != "cpu" and all(w["simulated"] for w in workers if device in w["devices"]),
                "workers": [w["name"] for w in workers if device in w["devices"]],
            }
            for device in self._supervisor.devices()
        ]
        return {
            "version": version(),
            "build": build(),
            "durability": (durability := "none" if self._data_dir is None else self._sync),
            "durability_note": DURABILITY_NOTES[durability],
            "dtypes": list(DTYPES),
            "devices": devices,
            "workers": workers,
            "limits": self.limits.to_data(),
        }

    async def up(self) -> bool:
        """As `ready`, for an app that may be another process than this."""
        return self.ready()

    async def told(self) -> dict[str, Any]:
        """As `info`, for an app that may be another process than this."""
        return self.info()

    @property
    def simulated(self) -> bool:
        """Whether a device of this server is a simulation, which every answer then says."""
        return self._supervisor.simulated()

    async def devices(self) -> list[dict[str, Any]]:
        """Every device: `name`, `model`, `simulated`, `worker`, and `memory`: bytes `used` by arrays, `held` by their
        allocator, `free`, in `total`, and the `limit`. Model and memory are null where a worker does not answer."""
        return await self._supervisor.device_facts()

    def catalogue(self) -> list[dict[str, Any]]:
        """Every operation: what GET /v1/ops shows of it, its JSON schema, and an example that works."""
        return declare.catalogue()

    def incoming(self, length: int, *, changed: bool = False) -> Incoming:
        """Memory for `length` bytes that are coming in, which reach a worker without being copied again.

        With `changed`, for what a program with steps may change in place, they are copied: a call may be sent a second
        time, and must then find what came in. Raises MemoryError.
        """
        return Private(length) if changed else self._supervisor.incoming(length)

    # ------------------------------------------------ sessions

    async def create_session(
        self, owner: str, options: Mapping[str, Any] | None = None, once: Once | None = None
    ) -> dict[str, Any]:
        """A new session, of `name?`, `device?`, `seed?`, `default_dtype?` and `lease_s?`; or, of `fork`, a copy of the
        session with this public id.

        Raises NameTaken, NoSuchDevice, NoSuchSession, LimitExceeded, Invalid, OutOfMemory, Unavailable.
        """
        given = _options(options or {}, _CREATE)
        if "fork" in given:
            return await self._fork(owner, given, once)
        record = await self._supervisor.open(
            owner,
            given.get("name"),
            given.get("device"),
            given.get("seed"),
            given.get("default_dtype") or "float32",
            given.get("lease_s"),
            once,
        )
        return await self._describe(record)

    async def _fork(self, owner: str, given: Mapping[str, Any], once: Once | None) -> dict[str, Any]:
        public = given["fork"]
        for name in _OF_SOURCE:
            if name in given:
                raise Invalid(f"a fork has the {name} of its source: change it afterwards", param=name)
        with _shared(public):
            source = self._supervisor.registry.published(public)
            if source is None and self._supervisor.registry.made_with(owner, once) is None:
                raise _nothing_public(public)
            record = await self._supervisor.open(
                owner, given.get("name"), None, None, "float32", given.get("lease_s"), once, source
            )
        return await self._describe(record)

    async def list_sessions(self, owner: str, *, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        """{"sessions": [...], "cursor": what to ask with for the next ones, or None}, in order of creation."""
        if not 1 <= limit <= 1000:
            raise Invalid(f"limit must be from 1 to 1000, not {limit}", param="limit")
        records, following = self._supervisor.registry.page(owner, limit, cursor)
        infos = await self._supervisor.infos(records)
        sessions = [_session(record, infos[record.id]) for record in records if record.id in infos]
        return {"sessions": sessions, "cursor": following}

    async def session_info(self, owner: str, ref: str | None) -> dict[str, Any]:
        """The session as the API shows it; waits for no program. Under its public id it is shown without what is its
        owner's alone. Raises NoSuchSession, Gone."""
        record = self._supervisor.registry.published(ref)
        if record is None or ref is None:
            return await self._describe(await self._supervisor.find(owner, ref))
        with _shared(ref):
            known = await self._describe(record)
        return {**{name: known[name] for name in _SHOWN}, "id": ref, "name": None, "public_id": ref}

    async def patch_session(
        self, owner: str, ref: str | None, changes: Mapping[str, Any], once: Once | None = None
    ) -> dict[str, Any]:
        """Changes `name` (None takes it away), `seed` (reseeds the generator), `default_dtype`, `lease_s` (None: for
        ever) and `public` (whether others may read it, under a public id).

        Waits for the calls before it. Raises as create_session does, and then nothing has changed.
        """
        given = _options(changes, _PATCH, nullable=("name", "lease_s"))
        record = await self._supervisor.find(owner, ref)
        if given.get("name") not in (None, record.name):
            self._supervisor.registry.check_name(owner, given["name"])
        steps: list[dict[str, Any]] = []
        if "seed" in given:
            steps.append({"op": "manual_seed", "args": {"seed": given["seed"]}})
        if "default_dtype" in given:
            steps.append({"op": "set_default_dtype", "args": {"d": given["default_dtype"]}})
        if steps:
            await self._run(record, {"steps": steps}, "none", dry_run=False, once=once)
        if "lease_s" in given:
            await self._supervisor.lease(record, given["lease_s"])
        if "public" in given:
            await self._supervisor.publish(record, given["public"])
        if "name" in given:
            await self._supervisor.rename(record, given["name"])
        return await self._describe(record)

    async def delete_session(self, owner: str, ref: str | None, once: Once | None = None) -> None:
        """Frees all it holds, after the calls before it. May be repeated; with a key it is done once, so that a repeat
        leaves alone what has been made under the same name since. Raises NoSuchSession for what never was."""
        registry = self._supervisor.registry
        if once is not None and registry.deleted_with(owner, once):
            return
        await self._supervisor.close_session(owner, ref or "default", once)
        if once is not None:
            registry.delete_with(owner, once, time.time())

    async def usage(self, owner: str) -> dict[str, Any]:
        """{"sessions": how many the owner has, "bytes": what they hold}; waits for no program."""
        infos = await self._supervisor.infos(self._supervisor.registry.owned(owner))
        known = [info["bytes"]["total"] for info in infos.values() if "bytes" in info]  # not of one that is set aside
        return {"sessions": len(infos), "bytes": sum(known)}

    async def all_sessions(self, *, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        """As `list_sessions`, of all owners, each session with its `owner`: for who runs the server."""
        records, following = self._supervisor.registry.page_of_all(limit, cursor)
        infos = await self._supervisor.infos(records)
        sessions = [{**_session(r, infos[r.id]), "owner": r.owner} for r in records if r.id in infos]
        return {"sessions": sessions, "cursor": following}

    async def delete_any_session(self, session_id: str) -> None:
        """Frees a session of any owner. Raises NoSuchSession."""
        record = self._supervisor.registry.by_id(session_id)
        await self._supervisor.close_session(record.owner, record.id)

    async def numbers(self) -> dict[str, Any]:
        """What /metrics tells: the workers as `info` has them, each with the numbers it counts. Never waits long."""
        counted = await self._supervisor.numbers()
        return {"workers": [{**worker, "numbers": counted[worker["name"]]} for worker in self._supervisor.workers()]}

    async def session_memory(
        self, owner: str, ref: str | None, *, limit: int = 100, cursor: str | None = None
    ) -> dict[str, Any]:
        """The ledger: every storage, its bytes and who keeps it alive, biggest first. Raises NoSuchSession, Gone."""
        record = await self._supervisor.find(owner, ref)
        question = {"do": "memory", "limit": limit, "cursor": cursor}
        message = {"do": "query", "q": question, "values": "none"}
        known, _ = await self._supervisor.call(record, message, changes=False)
        return {"session": record.id, "name": record.name, **known}

    async def session_history(self, owner: str, ref: str | None) -> dict[str, Any]:
        """What the session did, as data (engine.history). Raises NoSuchSession, Gone."""
        record = await self._supervisor.find(owner, ref)
        message = {"do": "query", "q": {"do": "history"}, "values": "none"}
        known, _ = await self._supervisor.call(record, message, changes=False)
        return {"session": record.id, "name": record.name, **known}

    # ------------------------------------------------ programs and reads

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
        """Runs a program: entirely, or, if this raises, not at all (unless it is Unavailable "outcome-unknown").

        `explain` adds `notes` to the reply: why each result is as it is, as data (engine.explain.Note.to_data).
        `once`: with the same key and digest it is done once, and answered as it was the first time; a cancelled wait
        then cancels nothing. Raises Invalid for the same key with another digest.
        A cancelled wait cancels the program. The program's arrays are given away. Arrays of the reply are read-only.
        """
        record = await self._supervisor.find(owner, ref)
        running = self._run(record, program, values, dry_run=dry_run, explain=explain, once=once)
        return await (running if once is None else asyncio.shield(running))

    def start_run(
        self, owner: str, ref: str | None, program: dict[str, Any], values: str, told: Told
    ) -> Pending | None:
        """As `run`, without a wait: `told` hears of the end. None, and nothing is done, where only `run` will do; and
        `told` is to turn to `run` where it is told NoSuchSession, NoSuchDevice or Gone: nothing was done then, either.
        """
        message = {"do": "run", "program": program, "values": values, "dry_run": False, "explain": False}
        return self._supervisor.start_call(owner, ref, message, told, changes=True)

    def withdraw(self, call: Pending) -> None:
        """Cancels the program that `start_run` began."""
        self._supervisor.withdraw(call)

    # ------------------------------------------------ jobs

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
        """Takes a program as a job, which stands in its session's line like any call; the job, and its answer where it
        ends within `wait` seconds. Nothing that happens to the caller cancels it.

        `about` is plain data of the caller's, which comes back with the job. `once`: as in `run`; a job with the same
        key that has not failed is that job. Raises what refuses a call, and what the program raises within `wait`.
        """
        record = await self._supervisor.find(owner, ref)
        taking = self._desk.submit(record, program, values=values, explain=explain, about=about, once=once, wait=wait)
        return await asyncio.shield(taking)

    async def job(self, owner: str, id: str, **how: Any) -> dict[str, Any]:
        """A job as it stands: `job` (its id), `session`, `state`, `created`, `ended`, `kept_until`, `position` (calls
        of its session that come before it), `steps_run` of `steps`, `rounds` of `of`, `seconds` that it ran, `about`,
        and `problem`, the data of the error that ended it.

        `seen=[counts]` adds `collected`: the values after those, the new counts as `seen`, and whether there is `more`.
        `result=True` adds `reply`, what `run` would have returned. Waits for no program. Raises NoSuchJob, Unavailable.
        """
        return await self._desk.look(owner, id, **how)

    async def jobs(self, owner: str, *, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
        """{"jobs": [...], "cursor": what to ask with for the next ones, or None}, in the order of their making."""
        found = [job for job in await self._desk.all(owner) if cursor is None or job["job"] > cursor]
        return {"jobs": found[:limit], "cursor": found[limit - 1]["job"] if len(found) > limit else None}

    async def cancel_job(self, owner: str, id: str) -> None:
        """Cancels a job; one that has ended stays as it is. Raises NoSuchJob, Unavailable."""
        await self._desk.cancel(owner, id)

    @property
    def durable(self) -> bool:
        """Whether what is acknowledged outlives the server."""
        return self._data_dir is not None

    async def query(self, owner: str, ref: str | None, q: dict[str, Any], values: str = "auto") -> tuple[Any, Timing]:
        """Reads from the session, after the calls before it ({"do": "info"} waits for none). `ref` may be the public id
        of another owner's session."""
        message = {"do": "query", "q": q, "values": values}
        record = self._supervisor.registry.published(ref)
        if record is None or ref is None:
            return await self._supervisor.call(await self._supervisor.find(owner, ref), message, changes=False)
        with _shared(ref):
            return await self._supervisor.call(record, {**message, "by": owner}, changes=False)

    async def _run(
        self,
        record: Record,
        program: dict[str, Any],
        values: str,
        *,
        dry_run: bool,
        explain: bool = False,
        once: Once | None = None,
    ) -> tuple[dict[str, Any], Timing]:
        message = {"do": "run", "program": program, "values": values, "dry_run": dry_run, "explain": explain}
        if once is not None:
            message.update(key=once[0], digest=once[1])
        return await self._supervisor.call(record, message, changes=not dry_run)

    async def _describe(self, record: Record) -> dict[str, Any]:
        message = {"do": "query", "q": {"do": "info"}, "values": "none"}
        known, _ = await self._supervisor.call(record, message, changes=False)
        return _session(record, known)


def _session(record: Record, known: Mapping[str, Any]) -> dict[str, Any]:
    """The session as the API shows it; of one that cannot be woken what is known without it, and why."""
    if "error" in known:
        error = EngineError.from_data(known["error"])
        return {
            "id": record.id,
            "name": record.name,
            "state": "damaged" if isinstance(error, Gone) else "unavailable",
            "why": error.detail,
            "worker": record.worker,
            "device": record.device,
            "created": record.created,
            "public_id": record.public,
        }
    return {
        "id": record.id,
        "name": record.name,
        "state": "ready",
        "tensors": known["tensors"],
        "bytes": known["bytes"],
        "seed": known["seed"],
        "worker": record.worker,
        "device": known["device"],
        "default_dtype": known["default_dtype"],
        "created": known["created"],
        "last_used": known["last_used"],
        "expires_at": known.get("expires_at"),
        "public_id": record.public,
    }


_SHOWN = (
    "state",
    "tensors",
    "bytes",
    "seed",
    "device",
    "default_dtype",
    "created",
)  # of a session to those it is shared with


def _nothing_public(ref: str) -> NoSuchSession:
    return NoSuchSession(f"there is no session {ref!r}", hint=Hint("list-sessions"), param="session")


@contextlib.contextmanager
def _shared(ref: str) -> Iterator[None]:
    """What has become of a session is its owner's business: to others it is not there."""
    try:
        yield
    except (NoSuchSession, Gone):
        raise _nothing_public(ref) from None


def _options(given: Mapping[str, Any], kinds: Mapping[str, type], nullable: Sequence[str] = ()) -> dict[str, Any]:
    """What was given, checked; a None that is not `nullable` counts as not given."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kinds:
            raise UnknownParameter(f"a session has no {name!r}: there are {', '.join(kinds)}", param=name)
        if value is None:
            if name in nullable:
                found[name] = None
            continue
        if kinds[name] is float and type(value) is int:
            value = float(value)
        if type(value) is not kinds[name]:
            raise WrongType(f"{name} must be of type {kinds[name].__name__}", param=name)
        found[name] = value
    if "seed" in found and found["seed"] not in _SEEDS:
        raise Invalid(f"seed must be from {_SEEDS.start} to {_SEEDS.stop - 1}", param="seed")
    if found.get("lease_s") is not None and not _LEASES[0] <= found["lease_s"] <= _LEASES[1]:
        raise Invalid(f"lease_s must be from {_LEASES[0]} to {_LEASES[1]} seconds", param="lease_s")
    if "default_dtype" in found:
        kind = dtype(found["default_dtype"])
        if not kind.is_floating:
            raise Invalid(
                f"only floating-point types are supported as the default type, not {kind.name}", param="default_dtype"
            )
        found["default_dtype"] = kind.name
    return found

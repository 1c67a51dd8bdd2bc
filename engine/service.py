"""The one door: everything the app may ask of the engine, and the words it needs to ask.

Every method that touches sessions takes the owner first, and sees nothing but theirs. `ref` is a session's id or
name; None is `default`, made on first use. Errors are those of engine.errors; nothing here knows of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import engine.ops  # noqa: F401 - declares the operations that the catalogue shows
from engine import declare
from engine.answer import ArrayData, TensorAnswer
from engine.dtypes import DTYPES, dtype
from engine.errors import Invalid, UnknownParameter, WrongType
from engine.limits import Limits
from engine.logs import configure as configure_logs
from engine.workers.messages import Timing, version
from engine.workers.registry import Record
from engine.workers.supervisor import Supervisor, WorkerSpec, plan_workers

__all__ = [
    "ArrayData",
    "Limits",
    "Service",
    "TensorAnswer",
    "Timing",
    "WorkerSpec",
    "configure_logs",
    "plan_workers",
    "version",
]

DURABILITY = "none"
DURABILITY_NOTE = "Tensors live in memory only: they do not survive a restart of the server, or of their worker, yet."

_CREATE = {"name": str, "device": str, "seed": int, "default_dtype": str}
_PATCH = {"name": str, "seed": int, "default_dtype": str}
_SEEDS = range(-(1 << 63), 1 << 64)


class Service:
    """The engine behind its workers. Used in one event loop: `await start()` first, `await close()` at the end.

    `workers`: `--workers SPEC` (see plan_workers), or the workers themselves. `threads`: of BLAS in each worker.
    `factory`: the session class, for tests.
    """

    def __init__(
        self,
        workers: str | Sequence[WorkerSpec] = "auto",
        *,
        limits: Limits | None = None,
        threads: int | None = None,
        factory: str = "engine.session:Session",
    ) -> None:
        self.limits = limits or Limits()
        specs = plan_workers(workers) if isinstance(workers, str) else list(workers)
        self._supervisor = Supervisor(specs, self.limits, threads=threads, factory=factory)

    async def start(self) -> None:
        """Returns when the workers are up. Raises RuntimeError with the reason when one does not come up."""
        await self._supervisor.start()

    async def close(self) -> None:
        """Ends the workers; what they hold is gone."""
        await self._supervisor.close()

    def ready(self) -> bool:
        """Whether calls can be served; never waits."""
        return self._supervisor.ready()

    def info(self) -> dict[str, Any]:
        """Version, dtypes, devices, workers and limits of this server; never waits."""
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
            "durability": DURABILITY,
            "durability_note": DURABILITY_NOTE,
            "dtypes": list(DTYPES),
            "devices": devices,
            "workers": workers,
            "limits": self.limits.to_data(),
        }

    def catalogue(self) -> list[dict[str, Any]]:
        """Every operation: what GET /v1/ops shows of it, its JSON schema, and an example that works."""
        return declare.catalogue()

    # ------------------------------------------------ sessions

    async def create_session(self, owner: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A new session, of `name?`, `device?`, `seed?` and `default_dtype?`.

        Raises NameTaken, NoSuchDevice, LimitExceeded, Invalid, Unavailable.
        """
        given = _options(options or {}, _CREATE)
        record = await self._supervisor.open(
            owner,
            given.get("name"),
            given.get("device"),
            given.get("seed"),
            given.get("default_dtype") or "float32",
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
        """The session as the API shows it; waits for no program. Raises NoSuchSession, Gone."""
        return await self._describe(await self._supervisor.find(owner, ref))

    async def patch_session(self, owner: str, ref: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes `name` (None takes it away), `seed` (reseeds the generator) and `default_dtype`.

        Waits for the calls before it. Raises as create_session does, and then nothing has changed.
        """
        given = _options(changes, _PATCH, nullable=("name",))
        record = await self._supervisor.find(owner, ref)
        if given.get("name") not in (None, record.name):
            self._supervisor.registry.check_name(owner, given["name"])
        steps: list[dict[str, Any]] = []
        if "seed" in given:
            steps.append({"op": "manual_seed", "args": {"seed": given["seed"]}})
        if "default_dtype" in given:
            steps.append({"op": "set_default_dtype", "args": {"d": given["default_dtype"]}})
        if steps:
            await self._run(record, {"steps": steps}, "none", dry_run=False)
        if "name" in given:
            await self._supervisor.rename(record, given["name"])
        return await self._describe(record)

    async def delete_session(self, owner: str, ref: str | None) -> None:
        """Frees all it holds, after the calls before it. May be repeated. Raises NoSuchSession for what never was."""
        await self._supervisor.close_session(owner, ref or "default")

    async def usage(self, owner: str) -> dict[str, Any]:
        """{"sessions": how many the owner has, "bytes": what they hold}; waits for no program."""
        infos = await self._supervisor.infos(self._supervisor.registry.owned(owner))
        return {"sessions": len(infos), "bytes": sum(info["bytes"]["total"] for info in infos.values())}

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
    ) -> tuple[dict[str, Any], Timing]:
        """Runs a program: entirely, or, if this raises, not at all (unless it is Unavailable "outcome-unknown").

        `explain` adds `notes` to the reply: why each result is as it is, as data (engine.explain.Note.to_data).
        A cancelled wait cancels the program. The program's arrays are given away. Arrays of the reply are read-only.
        """
        record = await self._supervisor.find(owner, ref)
        return await self._run(record, program, values, dry_run=dry_run, explain=explain)

    async def query(self, owner: str, ref: str | None, q: dict[str, Any], values: str = "auto") -> tuple[Any, Timing]:
        """Reads from the session, after the calls before it ({"do": "info"} waits for none)."""
        record = await self._supervisor.find(owner, ref)
        return await self._supervisor.call(record, {"do": "query", "q": q, "values": values}, changes=False)

    async def _run(
        self, record: Record, program: dict[str, Any], values: str, *, dry_run: bool, explain: bool = False
    ) -> tuple[dict[str, Any], Timing]:
        message = {"do": "run", "program": program, "values": values, "dry_run": dry_run, "explain": explain}
        return await self._supervisor.call(record, message, changes=not dry_run)

    async def _describe(self, record: Record) -> dict[str, Any]:
        message = {"do": "query", "q": {"do": "info"}, "values": "none"}
        known, _ = await self._supervisor.call(record, message, changes=False)
        return _session(record, known)


def _session(record: Record, known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "tensors": known["tensors"],
        "bytes": known["bytes"],
        "seed": known["seed"],
        "worker": record.worker,
        "device": known["device"],
        "default_dtype": known["default_dtype"],
        "created": known["created"],
        "last_used": known["last_used"],
        "expires_at": None,
    }


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
        if type(value) is not kinds[name]:
            raise WrongType(f"{name} must be of type {kinds[name].__name__}", param=name)
        found[name] = value
    if "seed" in found and found["seed"] not in _SEEDS:
        raise Invalid(f"seed must be from {_SEEDS.start} to {_SEEDS.stop - 1}", param="seed")
    if "default_dtype" in found:
        kind = dtype(found["default_dtype"])
        if not kind.is_floating:
            raise Invalid(
                f"only floating-point types are supported as the default type, not {kind.name}", param="default_dtype"
            )
        found["default_dtype"] = kind.name
    return found

"""A worker, made as the message that starts it says."""

from __future__ import annotations

import importlib
import os
from functools import partial
from pathlib import Path
from typing import Any

from engine import backend
from engine.durability.jobs import JobFiles
from engine.durability.store import Store
from engine.limits import Limits
from engine.replays import Plans
from engine.tensor import ServerLedger
from engine.workers.messages import Message
from engine.workers.worker import Worker


def make_worker(start: Message, factory: str) -> Worker:
    """The worker that a "start" message describes, its sessions of the class "module:Class".

    Raises EngineError for a device that cannot be had, and whatever the import raises.
    """
    module_name, _, class_name = factory.partition(":")
    module = importlib.import_module(module_name)
    backend.CPU.compile()  # before a child limits its memory: what the compiler needs is no session's
    limits = Limits(**start["limits"])
    if start.get("cache"):  # read by CuPy, which keeps compiled kernels there
        os.environ.setdefault("CUPY_CACHE_DIR", start["cache"])
    backends = [_device(name, practice=start["practice"]) for name in start["devices"]]
    for one in backends:
        one.begin(limits.device_bytes)
    # What all sessions of this worker hold together is counted in one ledger; GPUs add their memory to the host's, and
    # bound it by themselves.
    held = limits.server_bytes + sum((one.memory() or {}).get("limit", 0) for one in backends)
    server = ServerLedger(held, limits.owner_bytes)
    server.plans = Plans(limits.plan_bytes, server)
    options: dict[str, Any] = {"devices": tuple(start["devices"]), "server": server}
    if start.get("offered"):
        options["offered"] = tuple(start["offered"])
    if start.get("sync_steps"):
        options["sync"] = True
    make_session = partial(getattr(module, class_name), **options)
    worker = Worker(
        start["name"], start["devices"], limits, session_factory=make_session, server=server, backends=backends
    )
    data = start.get("data")
    if data is not None:
        folder, adopt = Path(data["folder"]), [Path(other) for other in data["adopt"]]
        worker.sessions.keep(store := Store(folder, make=worker.sessions.restore, sync=data["sync"], adopt=adopt))
        files = JobFiles(folder / "jobs", sync=data["sync"] != "no")
        worker.jobs.keep(files, store.ran_last, overdue=bool(start.get("overdue")))
    return worker


def _device(name: str, *, practice: bool) -> backend.Backend:
    if name == "cpu":
        return backend.CPU
    return backend.simulated_cuda(name) if practice else backend.real_cuda(name)

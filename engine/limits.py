"""What a server allows: each limit is a setting, and breaking one is a clear error."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


def machine_bytes() -> int:
    """Three quarters of the machine's memory, or of the container's if that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        total = 8 << 30
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return total * 3 // 4


@dataclass
class Limits:
    """Limits of a worker and its sessions. Bytes, counts; `max_run` counts steps with every round of a repeat.

    `device_bytes` is for the arrays on each GPU, 0 standing for nine tenths of what is free there at the start.

    `idle_s`: seconds without a call after which a session is written to the disk and leaves memory, where there is a
    data directory.

    `max_jobs` jobs that have ended are kept with their results, of each owner on each worker, for `jobs_s` seconds.
    """

    session_bytes: int = 2 << 30
    server_bytes: int = field(default_factory=machine_bytes)
    owner_bytes: int | None = None  # of all sessions of one owner, on each worker
    device_bytes: int = 0
    max_steps: int = 10_000
    max_rounds: int = 1_000_000
    max_run: int = 10_000_000
    max_nesting: int = 8
    max_sessions: int = 1_000
    max_queue: int = 1_000
    max_names: int = 1_000_000
    plan_from: int = 16  # rounds from which a repeat runs by a plan; 0: never
    plan_bytes: int = 256 << 20  # memory of the plans that a worker keeps from request to request; 0: it keeps none
    idle_s: float = 900.0
    max_unnamed: int = 100_000  # tensors without a name in a session: a client that never deletes
    tape_bytes: int = 1 << 30  # memory that only a session's tape keeps alive
    max_seconds: float = 600.0  # how long a program may run, the turns of others not counted; 0: no limit
    max_values: int = 20_000_000  # numbers that an answer in JSON may spell out
    history_bytes: int = 256 << 10  # what a session remembers of its programs, for scripts; 0: nothing
    op_times: bool = False  # whether steps are timed by operation
    busy_poll_s: float = 0.0  # how long a process looks for a message that is likely to come before it sleeps
    max_jobs: int = 100
    jobs_s: float = 24 * 3600.0

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

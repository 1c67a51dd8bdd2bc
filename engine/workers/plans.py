"""Which workers there are to be, and on what."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.backend import devices_hint
from engine.errors import Invalid, NoSuchDevice


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker to be: its devices, the CPU first; in a thread of this process, or in a process of its own.

    `practice`: its CUDA devices are simulated on the CPU.
    """

    name: str
    devices: tuple[str, ...]
    inline: bool = False
    practice: bool = False


def plan_workers(spec: str, gpus: Sequence[str] = ()) -> list[WorkerSpec]:
    """The workers of `--workers SPEC`: auto, inline, practice-cuda, or a list such as "cpu:2,cuda:0".

    `gpus`: the machine's, as "cuda:0". Raises Invalid for what is none of these.
    """
    if spec == "auto":
        found = [WorkerSpec(gpu.replace(":", "-"), ("cpu", gpu)) for gpu in gpus]
        return found or [WorkerSpec("cpu-0", ("cpu",))]
    if spec == "inline":
        return [WorkerSpec("inline", ("cpu", *gpus[:1]), inline=True)]
    if spec == "practice-cuda":
        return [WorkerSpec("practice-0", ("cpu", "cuda:0"), practice=True)]
    specs: list[WorkerSpec] = []
    for part in spec.split(","):
        kind, _, number = part.strip().partition(":")
        if kind not in ("cpu", "cuda") or not (number.isascii() and number.isdigit()) or len(number) > 4:
            raise Invalid(
                f"cannot read {part.strip()!r} in the workers {spec!r}: "
                'they are "auto", "inline", "practice-cuda", or a list such as "cpu:2,cuda:0"',
                param="workers",
            )
        if kind == "cpu":
            specs += [WorkerSpec(f"cpu-{i}", ("cpu",)) for i in range(int(number))]
        else:
            specs.append(WorkerSpec(f"cuda-{int(number)}", ("cpu", f"cuda:{int(number)}")))
    if not specs or len({one.name for one in specs}) < len(specs):
        raise Invalid(f"the workers {spec!r} are none, or name one twice", param="workers")
    return specs


def device_order(device: str) -> tuple[bool, str, int]:
    """What sorts devices: the CPU first, then by number."""
    kind, _, number = device.partition(":")
    return device != "cpu", kind, int(number or 0)


def cores() -> int:
    """How many cores this process may use, by affinity and by the quota of its control group; at least 1."""
    found = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            found = min(found, -(-int(quota) // int(period)))
    return max(1, found)


def no_such_device(device: str, have: list[str]) -> NoSuchDevice:
    """The refusal of a device that no worker has."""
    return NoSuchDevice(
        f"this server has no device {device!r}: it has {', '.join(have)}",
        hint=devices_hint(device, have),
        param="device",
    )

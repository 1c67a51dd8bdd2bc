"""Measuring beside a peer: each runs in a process of its own, they take turns, and medians of ratios are reported.

A peer is a Python file that is run with `--child NAME` and answers lines of JSON: {"task", "reps"} -> {"cpu", "wall"}
in seconds a repetition. CPU time of the process, one thread; both are asked in turn, round after round, so that what
else the machine does strikes both alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
ROOT = Path(__file__).resolve().parents[2]

Tasks = dict[str, Callable[[], Any]]


def serve_child(tasks: Tasks) -> None:
    """Answers measurements on standard input and output until the parent closes them."""
    for line in sys.stdin:
        ask = json.loads(line)
        run = tasks[ask["task"]]
        run()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(ask["reps"]):
            run()
        reps = ask["reps"]
        answer = {"cpu": (time.process_time() - cpu) / reps, "wall": (time.perf_counter() - wall) / reps}
        print(json.dumps(answer), flush=True)


class Peer:
    """A child process that measures."""

    def __init__(self, script: str, name: str, python: str = sys.executable) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [python, script, "--child", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        )

    def measure(self, task: str, reps: int) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"task": task, "reps": reps}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"peer {self.name} ended while measuring {task}")
        found: dict[str, float] = json.loads(line)
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def compare(ours: Peer, theirs: Peer, task: str, reps: int, rounds: int = 15) -> dict[str, float]:
    """Medians over rounds in which both ran in turn: our time, theirs, and the ratio, CPU and wall."""
    ratios: dict[str, list[float]] = {"cpu": [], "wall": []}
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for i in range(rounds):
        order = (ours, theirs) if i % 2 == 0 else (theirs, ours)
        found = {peer.name: peer.measure(task, reps) for peer in order}
        a, b = found[ours.name], found[theirs.name]
        for kind, found_ratios in ratios.items():
            found_ratios.append(a[kind] / b[kind])
        times["ours"].append(a["cpu"])
        times["theirs"].append(b["cpu"])
    return {
        "ratio": statistics.median(ratios["cpu"]),
        "wall_ratio": statistics.median(ratios["wall"]),
        "ours_us": statistics.median(times["ours"]) * 1e6,
        "theirs_us": statistics.median(times["theirs"]) * 1e6,
    }


def find_torch() -> str | None:
    """An interpreter that has PyTorch: this one, or the one CURLGRAD_BENCH_TORCH names."""
    for python in (os.environ.get("CURLGRAD_BENCH_TORCH"), sys.executable):
        if python and subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
            return python
    return None


def machine() -> str:
    """The machine in one line, for the record."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"


TORCH_MISSING = (
    "PyTorch is not installed here, so there is nothing to compare with. Install a CPU build in some environment "
    "(pip install torch, from PyTorch's index of CPU builds) and name its interpreter: "
    "CURLGRAD_BENCH_TORCH=/path/to/python make bench"
)

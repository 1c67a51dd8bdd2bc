"""`make test-soak`: 32 clients at full speed, hang-ups and slow readers among them: memory stays as it is.

    make test-soak                              the short form, as in CI
    make test-soak ARGS='--minutes 10'          the long one

The clients delete what they make, so the memory of the service's processes must not grow: over the last 80 % of the
time by less than 3 %, where there is time enough to tell that from the noise of allocators. Whatever is answered
otherwise than asked for fails the test. The times are printed beside those of a bare echo route, measured in the same
run by the same clients; a machine that is busy slows both, and no time decides the test.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import ROOT, serving
from tests.soak.clients import BASE

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
CLIENTS, PROCESSES = 32, 4
GROWTH = 0.03
LONG = 5.0  # minutes from which growth is told from noise
MEGA = 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """A process and those it started, by /proc."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def resident(pid: int) -> int:
    """Bytes in memory of a service's processes, shared pages counted once for each."""
    total = 0
    for one in tree(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * PAGE
        except OSError:  # it has ended
            continue
    return total


def quantile(buckets: dict[str, int], q: float) -> float:
    """The time in ms below which a share `q` of the calls was answered."""
    left = q * sum(buckets.values())
    for at in sorted(map(int, buckets)):
        left -= buckets[str(at)]
        if left <= 0:
            return BASE ** (at + 1) / 1e3
    return float("nan")


@contextmanager
def echoing() -> Iterator[int]:
    """The port of an echo service that runs meanwhile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("echo.py")), str(port)])
    try:
        until = time.monotonic() + 60
        while True:
            try:
                httpx.post(f"http://127.0.0.1:{port}/echo", json={})
                break
            except httpx.TransportError:
                assert time.monotonic() < until, "the echo service does not come up"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def loaded(port: int, echo: int, seconds: float) -> list[subprocess.Popen[str]]:
    script = Path(__file__).with_name("clients.py")
    return [
        subprocess.Popen(
            [sys.executable, str(script), str(port), str(echo), str(seconds), str(CLIENTS // PROCESSES), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for number in range(PROCESSES)
    ]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_as_it_is(tmp_path: Path, minutes: float) -> None:
    data = tmp_path / "data"
    with (
        serving(tmp_path, "--data-dir", str(data), "--workers", "cpu:1", "--log-level", "error") as served,
        echoing() as echo,
    ):
        samples: list[int] = []
        clients = loaded(served.port, echo, minutes * 60)
        begin = time.monotonic()
        while any(client.poll() is None for client in clients):
            if time.monotonic() - begin < minutes * 60:  # what comes after is the clients' leaving
                samples.append(resident(served.process.pid))
            time.sleep(0.5)
        told = [json.loads(client.communicate()[0]) for client in clients]
        left = httpx.get(f"{served.url}/v1/sessions", timeout=60).json()["sessions"]
        bugs = served.bugs
    settled = samples[len(samples) // 5 :]
    tenth = max(1, len(settled) // 10)
    first, last = statistics.median(settled[:tenth]), statistics.median(settled[-tenth:])
    growth = last / first - 1
    print(table(told, minutes, first, last))
    wrong = [text for one in told for text in one["wrong"]]
    assert not wrong, wrong[:5]
    assert not bugs, bugs[:5]
    assert not left, f"{len(left)} sessions were deleted and are still there"
    assert growth < GROWTH or minutes < LONG, f"memory grew by {growth:.1%}, from {first / MEGA:.0f} MiB"
    assert growth < 0.5, f"memory grew by {growth:.1%} within {minutes} minutes"


def table(told: list[dict[str, Any]], minutes: float, first: float, last: float) -> str:
    """What was measured, as it stands in docs/performance.md."""
    times: dict[str, dict[str, int]] = {}
    for one in told:
        for kind, buckets in one["times"].items():
            whole = times.setdefault(kind, {})
            for at, n in buckets.items():
                whole[at] = whole.get(at, 0) + n
    calls = sum(one["count"] for one in told)
    load = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    ups = sum(one["hung_up"] for one in told)
    grown = f"memory {first / MEGA:.0f} -> {last / MEGA:.0f} MiB over the last 80 % ({last / first - 1:+.1%})"
    lines = [
        f"\n{CLIENTS} clients, {minutes:g} minutes, {load}: {calls} calls ({calls / minutes / 60:.0f}/s),",
        f"{ups} hang-ups,",
        f"{grown}\n",
        "| call | count | p50 ms | p99 ms | p99 / echo's |",
        "| --- | --- | --- | --- | --- |",
    ]
    peer = quantile(times["echo"], 0.99)
    for kind, buckets in sorted(times.items(), key=lambda item: item[0] != "echo"):
        p50, p99 = quantile(buckets, 0.5), quantile(buckets, 0.99)
        lines.append(f"| {kind} | {sum(buckets.values())} | {p50:.1f} | {p99:.1f} | {p99 / peer:.1f} |")
    return "\n".join(lines)

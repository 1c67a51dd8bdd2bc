"""The service as a process of its own, for tests that need its workers, its sockets or its memory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 120.0


@dataclass
class Served:
    """Where it listens, its process, and the file of what it says."""

    port: int
    process: subprocess.Popen[bytes]
    said: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bugs(self) -> list[str]:
        """What it logged of bugs: the first line of each."""
        return [line for line in self.said.read_text().splitlines() if line.startswith(("ERROR", "Traceback"))]


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    """A service on a free port of loopback, without data unless `options` say so; ended as an operator ends it."""
    said = folder / "said"
    command = [sys.executable, "-m", "app", "--port", "0", "--data-dir", "none", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CURLGRAD_")}
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=file)
    try:
        yield Served(_port(process, said), process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], said: Path) -> int:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:(\d+);", said.read_text())
        if found:
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(f"it does not come up: {said.read_text()}")


def family(server: int) -> dict[str, list[int]]:
    """The processes under a server, by what they are: "front" and "worker"."""
    found: dict[str, list[int]] = {"front": [], "worker": []}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            head, _, rest = path.read_text().rpartition(")")
            if int(rest.split()[1]) != server or rest.split()[0] == "Z":
                continue
            command = (path.parent / "cmdline").read_text()
            for kind, module in (("front", "app.front"), ("worker", "engine.workers.child")):
                if module in command:
                    found[kind].append(int(head.split()[0]))
    return found

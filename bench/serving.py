"""What the benchmarks of whole servers share: a server in processes of its own, a client that is not the bottleneck,
and the page that figures are written to.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.peers import ONE_THREAD, ROOT, machine

PAGE = ROOT / "docs" / "performance.md"
TICK = os.sysconf("SC_CLK_TCK")
# The processes of our service, by the module that they run; those of others are all "server".
ROLES = {"server": b"\0no module", "fronts": b"app.front", "worker": b"engine.workers.child"}


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Running:
    """A server that was started, with the processes under it. `probe` is a path that answers 200 once it is up."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        probe: str,
        *,
        patience: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.keys: list[str] = []
        self.folder: str | None = None  # what it leaves, to be removed at its end
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT), **(env or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", probe)[0] == 200:
                    return
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.close()
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(0.05)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request(method, path, body, dict(headers or {"Content-Type": "application/json"}))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def must(self, method: str, path: str, value: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """The answer, read from JSON. Raises RuntimeError where it is none of success."""
        status, answer = self.ask(method, path, None if value is None else json.dumps(value).encode(), headers)
        if not 200 <= status < 300:
            raise RuntimeError(f"{method} {path}: {status}: {answer[:500].decode('utf-8', 'replace')}")
        return json.loads(answer) if answer else None

    def family(self) -> list[int]:
        """The ids of the server's processes."""
        rows = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # one that has just ended
                rows.append((int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])))
        found = {self.process.pid}
        while more := {pid for pid, parent in rows if parent in found and pid not in found}:
            found |= more
        return sorted(found)

    def cpu(self) -> float:
        """Seconds of CPU that the server's processes have used."""
        return sum(self.cpu_by().values())

    def cpu_by(self) -> dict[str, float]:
        """Seconds of CPU that the server's processes have used: of the one that was started, of fronts, of workers."""
        used = dict.fromkeys(ROLES, 0.0)
        for pid in self.family():
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                role = next((role for role, module in ROLES.items() if module in command), "server")
                used[role] += (int(fields[11]) + int(fields[12])) / TICK
        return used

    def memory(self, *, shared: bool = True) -> int:
        """Bytes that the server's processes hold of their own; with `shared`, and all shared memory of the machine.

        Memory behind a descriptor is in no process until it is touched, so it is read where the kernel counts it.
        """
        total = 0
        for line in Path("/proc/meminfo").read_text().splitlines() if shared else ():
            if line.startswith("Shmem:"):
                total += int(line.split()[1]) * 1024
        for pid in self.family():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss_Anon:"):
                        total += int(line.split()[1]) * 1024
        return total

    def close(self) -> None:
        """Ends it."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def ours(*options: str, workers: str = "cpu:1", keys: int = 0) -> Running:
    """Our service, as `python -m app` starts it, on a folder of its own; with `keys` callers of its own, too."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="curlgrad-bench-")
    made: list[str] = []
    if keys:
        command = [sys.executable, "-m", "app", "keys", "create", "--data-dir", folder, "--count", str(keys)]
        made = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split()
        options = (*options, "--max-rate", "0")
    command = [sys.executable, "-m", "app", "--port", str(port), "--workers", workers, "--data-dir", folder, *options]
    server = Running(command, port, "/readyz")
    server.keys, server.folder = made, folder
    return server


# ---------------------------------------------------------------- load


@dataclass
class Load:
    """What came of a load: how many requests, in how many seconds of wall time, and of CPU by what the server is."""

    requests: int
    wall: float
    cpu_by: dict[str, float]

    @property
    def cpu(self) -> float:
        """Seconds of CPU of the server's processes together."""
        return sum(self.cpu_by.values())

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.wall

    @property
    def cpu_us(self) -> float:
        """CPU time of the server for each request, in microseconds."""
        return self.cpu / self.requests * 1e6


def request(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST of JSON, as a client with a kept connection sends it."""
    told = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        **(headers or {}),
        "Content-Length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def load(server: Running, sent: bytes, connections: int, seconds: float, most: int = 1_000_000) -> Load:
    """Sends the same request over and over: one under way on each connection, for so long and at most so often.

    The client sends the next request as soon as an answer is whole, and looks at no more of the answer than its status
    and length, so that it takes a small part of the time. Raises RuntimeError for any status but 200.
    """
    selector = selectors.DefaultSelector()
    socks = []
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, bytearray())
        socks.append(sock)
    done, before = 0, server.cpu_by()
    start = time.perf_counter()
    end = start + seconds
    for sock in socks:
        sock.sendall(sent)
    waiting = connections
    try:
        while waiting:
            for key, _ in selector.select():
                sock: Any = key.fileobj
                got = sock.recv(262_144)
                if not got:
                    raise RuntimeError("the server hung up")
                held = key.data
                held += got
                if not _whole(held):
                    continue
                if not held.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(bytes(held[:600]).decode("utf-8", "replace"))
                held.clear()
                done += 1
                if time.perf_counter() < end and done + waiting <= most:
                    sock.sendall(sent)
                else:
                    waiting -= 1
        wall = time.perf_counter() - start
        after = server.cpu_by()
        return Load(done, wall, {role: after[role] - before[role] for role in after})
    finally:
        selector.close()
        for sock in socks:
            sock.close()


def _whole(held: bytearray) -> bool:
    """Whether an answer is there in whole, by its Content-Length or its last chunk."""
    head = held.find(b"\r\n\r\n")
    if head < 0:
        return False
    lower = bytes(held[:head]).lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        stop = lower.find(b"\r", at)
        length = int(lower[at + 15 : stop if stop >= 0 else None])
        return len(held) >= head + 4 + length
    return held.endswith(b"0\r\n\r\n")


# ---------------------------------------------------------------- the page


def heading(names: Sequence[str], rounds: int) -> str:
    """When and where it was measured, and beside what."""
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    today = dt.datetime.now(tz=dt.UTC).date()
    return (
        f"Measured on {today}: {machine()}, {versions}; medians of {rounds} rounds. "
        f"The machine's load was {os.getloadavg()[1]:.0f}, of which the measurement is 2 to 3."
    )


def version(name: str) -> str:
    """The version of a distribution that is installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def write(script: str, text: str) -> None:
    """Puts the text between the marks of `script` in docs/performance.md."""
    begin, end = f"<!-- {script} writes from here -->", f"<!-- {script}: to here -->"
    page = PAGE.read_text()
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise RuntimeError(f"docs/performance.md has no marks of {script}")
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")

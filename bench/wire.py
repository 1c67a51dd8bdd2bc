"""What big tensors cost on the wire: JSON beside orjson and simdjson, binary forms beside a bare socket.

    python bench/wire.py            prints the tables
    python bench/wire.py --write    and puts them into docs/performance.md

JSON: the codecs alone, in this process, one million float32; orjson on the bare array is what cannot be beaten out, and
np.array(orjson.loads(...)) what a hand-written service does in. Also in: the same numbers as Python's json writes them,
widened to float64, in a list of 1000 rows and in one of 1000000. With pysimdjson in the interpreter that
CURLGRAD_BENCH_SIMDJSON names (or this one), its reader is measured too.

Binary: 100 MB over loopback to and from the whole service, worker process included, beside the same bytes sent over a
plain socket by another process and received into fresh memory. "Computed" is a tensor that was not uploaded: its
download begins with a copy. Extra memory is what the server's processes hold at their highest above what they held
before, in tensors' sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import orjson

from app.wire import json_read, json_write, npy, safetensors
from bench.peers import ROOT, Peer, machine
from bench.serving import Running, heading, ours, write
from engine.answer import TensorAnswer
from engine.workers.pages import KEPT_SECONDS

SETTLED_S = 3.0  # in which the snapshot is written that uploads make due: what comes next would wait for it
GOALS = {"json out": 0.8, "json in": 0.8, "down": 0.85, "up": 0.28}
NUMBERS = 1_000_000


def numbers() -> Any:
    """A million float32 as a model has them."""
    return np.random.default_rng(0).standard_normal(NUMBERS).astype(np.float32)


def answer(values: Any) -> TensorAnswer:
    """The values as the engine answers them."""
    return TensorAnswer(
        "t1", None, values.shape, "float32", "cpu", values.size, values.nbytes, False, True, None, 0, "0", values
    )


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


# ---------------------------------------------------------------- JSON


def json_rows(rounds: int) -> list[tuple[str, float, float, float]]:
    """(what, our seconds, the peer's, the peer's over ours): medians over rounds in which all take turns."""
    values = numbers()
    shown = answer(values)
    bare = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    body = b'{"data": ' + bare + b"}"
    widened = values.astype(np.float64)
    bodies = {
        "in": body,
        "in, 17 digits": json.dumps({"data": widened.tolist()}).encode(),
        "in, 17 digits, 1000 rows": json.dumps({"data": widened.reshape(1000, 1000).tolist()}).encode(),
    }
    tasks: dict[str, Callable[[], Any]] = {
        "out": lambda: json_write.write(shown),
        "out, orjson": lambda: orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY),
    }
    for name, text in bodies.items():
        tasks[name] = partial(json_read.read, text)
        tasks[f"{name}, orjson"] = partial(read_by_hand, text)
    simdjson = find_simdjson()
    peer = None
    if simdjson:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(body)
        os.environ["CURLGRAD_BENCH_BODY"] = file.name
        peer = Peer(str(ROOT / "bench" / "peers" / "simdjson_read.py"), "simdjson", simdjson)
    found: dict[str, list[float]] = {name: [] for name in tasks}
    other: list[float] = []
    for run in tasks.values():
        run()
    for i in range(rounds):
        names = list(tasks)
        for name in names if i % 2 == 0 else reversed(names):
            found[name].append(timed(tasks[name])[0])
        if peer is not None:
            other.append(peer.measure("read", 1)["wall"])
    rows = []
    for ours_name in ("out", *bodies):
        theirs = f"{ours_name}, orjson"
        ratio = statistics.median(b / a for a, b in zip(found[ours_name], found[theirs], strict=True))
        rows.append((f"JSON {ours_name}", statistics.median(found[ours_name]), statistics.median(found[theirs]), ratio))
    if peer is not None:
        peer.close()
        Path(os.environ["CURLGRAD_BENCH_BODY"]).unlink()
        ratio = statistics.median(b / a for a, b in zip(found["in"], other, strict=True))
        rows.append(("JSON in, beside simdjson", statistics.median(found["in"]), statistics.median(other), ratio))
    return rows


def read_by_hand(body: bytes) -> Any:
    """The array in a body as a hand-written service reads it."""
    return np.array(orjson.loads(body)["data"])


def find_simdjson() -> str | None:
    """An interpreter that has pysimdjson and NumPy."""
    for python in (os.environ.get("CURLGRAD_BENCH_SIMDJSON"), sys.executable):
        if (
            python
            and not subprocess.run([python, "-c", "import simdjson"], capture_output=True, check=False).returncode
        ):
            return python
    return None


# ---------------------------------------------------------------- binary


def receive_all(sock: socket.socket, view: memoryview) -> None:
    """Fills the view."""
    while view:
        count = sock.recv_into(view)
        if not count:
            raise RuntimeError("the connection ended early")
        view = view[count:]


def raw_copy(data: memoryview) -> float:
    """Seconds in which another process sends `data` over loopback to this one, which receives into fresh memory."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if not child:
            with socket.create_connection(listener.getsockname()) as sock:
                sock.recv(1)
                sock.sendall(data)
            os._exit(0)
        sock, _ = listener.accept()
        with sock:
            start = time.perf_counter()
            sock.sendall(b"x")
            receive_all(sock, memoryview(np.empty(len(data), np.uint8)))
            taken = time.perf_counter() - start
        os.waitpid(child, 0)
    return taken


def head(sock: socket.socket) -> tuple[int, int, bytes]:
    """Status, Content-Length, and what of the body came with the head."""
    held = b""
    while b"\r\n\r\n" not in held:
        got = sock.recv(65536)
        if not got:
            raise RuntimeError("the connection ended early")
        held += got
    top, _, rest = held.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return int(top.split()[1]), length, rest


def download(server: Running, path: str) -> tuple[float, int]:
    """Seconds to fetch a path into fresh memory, and the bytes of its body."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        start = time.perf_counter()
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        status, length, rest = head(sock)
        memory = memoryview(np.empty(length, np.uint8))
        memory[: len(rest)] = rest
        receive_all(sock, memory[len(rest) :])
        taken = time.perf_counter() - start
    if status != 200:
        raise RuntimeError(f"GET {path}: {status}: {bytes(memory[:300])!r}")
    return taken, length


def read(server: Running, path: str) -> float:
    """Seconds to read a tensor."""
    return download(server, path)[0]


def upload(server: Running, path: str, kind: str, body: memoryview) -> float:
    """Seconds to send a tensor and have the answer."""
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        start = time.perf_counter()
        sock.sendall(
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        sock.sendall(body)
        status, length, rest = head(sock)
        receive_all(sock, memoryview(bytearray(length - len(rest))))
        taken = time.perf_counter() - start
    if status != 201:
        raise RuntimeError(f"POST {path}: {status}: {rest[:300]!r}")
    return taken


class Peak:
    """The highest memory of a server's processes while it is looked at, every few milliseconds."""

    def __init__(self, server: Running) -> None:
        self.server, self.highest = server, 0
        self._go = True
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self.before = self.server.memory()
        self._thread.start()
        return self

    def _look(self) -> None:
        while self._go:
            self.highest = max(self.highest, self.server.memory())
            time.sleep(0.004)

    def __exit__(self, *error: object) -> None:
        self._go = False
        self._thread.join()

    @property
    def extra(self) -> int:
        return self.highest - self.before


def binary_rows(megabytes: int, rounds: int) -> list[tuple[str, float, float, float, float]]:
    """(what, our seconds, the socket's, the socket's over ours, extra memory in tensors)."""
    values = np.random.default_rng(0).random(megabytes * 250_000, np.float32)
    shown = answer(values)
    raw = memoryview(values).cast("B")
    files = {
        "npy": ("application/x-npy", joined(npy.write(shown)[1]), "name=x"),
        "safetensors": ("application/x-safetensors", joined(safetensors.write({"x": shown})[1]), ""),
        "raw": ("application/octet-stream", raw, f"name=x&dtype=float32&shape={values.size}"),
    }
    server = ours("--max-body", "1GiB")
    rows = []
    try:
        for form, (kind, body, query) in files.items():
            path = f"/v1/tensors?values=none&{query}"
            upload(server, path, kind, body)
            up, beside_up = in_turns(raw, rounds, partial(upload, server, path, kind, body))
            time.sleep(SETTLED_S)
            down, beside_down = in_turns(raw, rounds, partial(read, server, f"/v1/tensors/x?as={form}"))
            server.must("DELETE", "/v1/tensors/x")
            time.sleep(2 * KEPT_SECONDS)  # pages that wait to be filled again are memory, too
            with Peak(server) as rising:
                upload(server, path, kind, body)
            with Peak(server) as falling:
                download(server, f"/v1/tensors/x?as={form}")
            found = [("up", up, beside_up, rising), ("down", down, beside_down, falling)]
            if form == "raw":
                found.append(("down, computed", *computed(server, raw, rounds)))
            server.must("DELETE", "/v1/tensors/x")
            for what, taken, socket_s, peak in found:
                ratio = statistics.median(b / a for a, b in zip(taken, socket_s, strict=True))
                rows.append(
                    (
                        f"{form} {what}",
                        statistics.median(taken),
                        statistics.median(socket_s),
                        ratio,
                        peak.extra / values.nbytes,
                    )
                )
    finally:
        server.close()
    return rows


def computed(server: Running, raw: memoryview, rounds: int) -> tuple[list[float], list[float], Peak]:
    """As in `binary_rows`, the downloads of a tensor that an operation made of x; it is removed."""
    server.must("POST", "/v1/ops/neg?values=none", {"input": "x", "out_name": "y"})
    path = "/v1/tensors/y?as=raw"
    with Peak(server) as falling:
        download(server, path)
    down, socket_s = in_turns(raw, rounds, partial(read, server, path))
    server.must("DELETE", "/v1/tensors/y")
    return down, socket_s, falling


def in_turns(raw: memoryview, rounds: int, ours: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Seconds of `ours`, and of the socket, in turn."""
    mine, theirs = [], []
    for i in range(rounds):
        for what in ("socket", "ours") if i % 2 == 0 else ("ours", "socket"):
            if what == "socket":
                theirs.append(raw_copy(raw))
            else:
                mine.append(ours())
    return mine, theirs


def joined(body: Any) -> memoryview:
    """A codec's body as one piece."""
    return memoryview(body if isinstance(body, bytes) else b"".join(body))


# ---------------------------------------------------------------- the table


def as_markdown(json_found: Any, binary: Any, megabytes: int, rounds: int) -> str:
    """Both tables, with where and when they were measured."""
    lines = [
        heading(("numpy", "orjson", "uvloop", "uvicorn"), rounds),
        "",
        "| one million float32 | curlgrad, ms | peer, ms | speed of the peer's | goal |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for what, mine, theirs, ratio in json_found:
        goal = 0.7 if "simdjson" in what else GOALS[what.lower().split(",")[0]]
        lines.append(f"| {what} | {mine * 1e3:.1f} | {theirs * 1e3:.1f} | {ratio:.2f}{missed(ratio, goal)} | {goal} |")
    lines += [
        "",
        f"| {megabytes} MB | curlgrad, ms | socket, ms | speed of the socket's | goal | extra memory, tensors |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for what, mine, theirs, ratio, extra in binary:
        goal = GOALS[what.split()[1].strip(",")]
        lines.append(
            f"| {what} | {mine * 1e3:.0f} | {theirs * 1e3:.0f} | {ratio:.2f}{missed(ratio, goal)} | {goal} "
            f"| {extra:.2f} |"
        )
    return "\n".join(lines)


def missed(found: float, goal: float) -> str:
    """A word beside what misses its goal."""
    return "" if found >= goal else " (below)"


def main() -> int:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    print(machine())
    table = as_markdown(
        json_rows(options.rounds), binary_rows(options.megabytes, options.rounds), options.megabytes, options.rounds
    )
    print(table)
    if options.write:
        write("bench/wire.py", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Big tensors on their way, on real sockets: values of one moment, and nothing left of what was broken off."""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.test_main import start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for files in memory in /proc"),
]

SIZE = 4_000_000  # float32: far more than what waits in sockets
RAW = {"content-type": "application/octet-stream"}
PATH = "/v1/tensors?name=x&dtype=float32&values=none"
ADD = {"input": "x", "other": 1}


@pytest.fixture(scope="module", params=["cpu:1", "cpu:1 --fronts 2"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    process = start("--data-dir", "none", "--workers", *request.param.split())
    try:
        assert process.stderr
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert found
        yield found[0], process.pid
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT)
        assert process.stderr
        process.stderr.close()


@pytest.fixture
def client(server: tuple[str, int]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server[0], timeout=60) as client:
        yield client
        client.delete("/v1/tensors/x")


def files(pid: int) -> int:
    """How many files in memory a process and its children have open or mapped; the same one counts twice."""
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += "memfd:curlgrad (" in str(path.readlink())
        except FileNotFoundError:  # that of the listing
            continue
    found += Path(f"/proc/{pid}/maps").read_text().count("memfd:curlgrad (")
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += sum(files(int(child)) for child in (task / "children").read_text().split())
    return found


def settles_at(pid: int, number: int) -> bool:
    until = time.monotonic() + 20
    while files(pid) != number and time.monotonic() < until:
        time.sleep(0.02)
    return files(pid) == number


def upload(client: httpx.Client) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    values = np.random.default_rng(0).random(SIZE, np.float32)
    assert client.post(PATH, content=values.tobytes(), headers=RAW).status_code == 201
    return values


def connect(client: httpx.Client) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.connect((client.base_url.host, client.base_url.port))
    return sock


def begun(sock: socket.socket, ref: str) -> bytes:
    """The start of a download that goes on as it is read."""
    sock.sendall(f"GET /v1/tensors/{ref}?as=raw HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    held = b""
    while b"\r\n\r\n" not in held or not held.partition(b"\r\n\r\n")[2]:
        held += sock.recv(1000)
    assert held.startswith(b"HTTP/1.1 200 ")
    return held.partition(b"\r\n\r\n")[2]


def rest(sock: socket.socket, held: bytes) -> bytes:
    parts = [held]
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("again", [False, True])
def test_a_slow_reader_gets_the_values_of_the_moment_it_asked(client: httpx.Client, again: bool) -> None:
    """The tensor is changed in place meanwhile, and deleted; with `again` it is one that was changed before."""
    values = upload(client)
    if again:
        assert client.post("/v1/ops/add_?values=none", json=ADD).status_code == 200
        values = values + 1
    with connect(client) as slow, connect(client) as slower:
        first, second = begun(slow, "x"), begun(slower, "x")
        assert client.post("/v1/ops/add_?values=none", json=ADD).status_code == 200
        assert client.get("/v1/tensors/x?as=raw").content == (values + 1).tobytes()
        assert rest(slow, first) == values.tobytes()
        assert client.delete("/v1/tensors/x").status_code == 204
        upload(client)
        assert rest(slower, second) == values.tobytes()


def test_who_leaves_a_download_leaves_nothing(client: httpx.Client, server: tuple[str, int]) -> None:
    assert settles_at(server[1], 0)
    upload(client)
    for _ in range(3):
        with connect(client) as sock:
            begun(sock, "x")
    assert client.post("/v1/ops/add_?values=none", json=ADD).status_code == 200
    assert client.delete("/v1/tensors/x").status_code == 204
    assert settles_at(server[1], 0)


def test_who_leaves_an_upload_leaves_nothing(client: httpx.Client, server: tuple[str, int]) -> None:
    assert settles_at(server[1], 0)
    values = upload(client)
    assert settles_at(server[1], 3)  # open and mapped by the worker, open in the front to be filled again
    body = (values + 1).tobytes()
    for part in (1 << 20, len(body) // 2, len(body) - 1):
        with connect(client) as sock:
            head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:part])
    assert settles_at(server[1], 3)
    assert client.get("/v1/tensors/x?as=raw").content == values.tobytes()

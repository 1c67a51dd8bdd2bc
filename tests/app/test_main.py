"""The server as it is started: a process, a socket, curl's ways of asking."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CURLGRAD_")}
    return subprocess.Popen(
        [sys.executable, "-m", "app", "--port", "0", *arguments],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    process = start("--workers", "inline", "--max-body", "1MiB", "--data-dir", "none")
    try:
        assert process.stderr
        said = [process.stderr.readline() for _ in range(3)]
        found = re.search(r"http://127\.0\.0\.1:(\d+);", said[0])
        assert found, said
        assert "no other" in said[1]
        assert "do not survive a restart" in said[2]
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT)
        assert process.stderr
        process.stderr.close()


def test_it_answers(server: str) -> None:
    with httpx.Client(base_url=server) as client:
        assert client.get("/readyz").status_code == 200
        answer = client.post("/v1/ops/add", content="input=[1,2]&other=1.5", headers={"Content-Type": FORM})
        assert answer.json()["result"]["values"] == [2.5, 3.5]
        assert client.get("/v1/devices", headers={"Host": "evil.example"}).status_code == 421
        assert client.head("/v1/info").content == b""
        assert "server" not in client.get("/healthz").headers


FORM = "application/x-www-form-urlencoded"


def exchange(server: str, text: bytes) -> bytes:
    """What comes back on a socket for these bytes, up to the end of the first answer's head."""
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65_536)
            if not part:
                break
            answer += part
        return answer


def test_a_body_over_the_limit_is_refused_before_it_is_sent(server: str) -> None:
    head = b"POST /v1/ops/add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
    assert exchange(server, head).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ],
)
def test_a_request_that_is_none_is_refused(server: str, request_line: bytes) -> None:
    answer = exchange(server, request_line)
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer), answer


def test_an_address_that_others_reach_needs_leave() -> None:
    process = start("--host", "0.0.0.0")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--allow-open" in said


def test_workers_that_make_no_sense_end_with_a_message() -> None:
    process = start("--workers", "gpus")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot read 'gpus'" in said
    assert "Traceback" not in said

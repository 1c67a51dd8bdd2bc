"""The server as it is started: a process, a socket, curl's ways of asking."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app import unix

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


@pytest.fixture(scope="module", params=["inline", "cpu:1 --fronts 2"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server in a process of its own."""
    process = start("--max-body", "1MiB", "--data-dir", "none", "--workers", *request.param.split())
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


def test_a_server_that_is_told_to_end_finishes_what_runs_and_keeps_it(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"), "--workers", "cpu:1")
    process = start(*data)
    assert process.stderr
    address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
    assert address
    program = {
        "inputs": {"x": {"data": 0.0}},
        "steps": [{"repeat": 100_000, "steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]}],
        "keep": {"x": "x"},
        "return": ["x"],
    }
    with httpx.Client(base_url=address[0], timeout=60) as client, ThreadPoolExecutor(1) as pool:
        client.get("/readyz")
        running = pool.submit(httpx.post, f"{address[0]}/v1/programs", json=program, timeout=60)
        while not client.get("/v1/info").json()["workers"][0]["calls"]:
            pass
        process.send_signal(signal.SIGTERM)
        refused = client.get("/v1/tensors")
        while refused.status_code == 200:
            refused = client.get("/v1/tensors")
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert running.result().json()["results"]["x"]["values"] == 100_000.0
    assert process.wait(40) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process = start(*data)
    assert process.stderr
    address = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
    assert address
    assert httpx.get(f"{address[0]}/v1/tensors/x").json()["values"] == 100_000.0
    second = start(*data)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"in use by another server (process {process.pid})" in said
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) in (0, -signal.SIGTERM)
    process.stderr.close()


def test_repair_says_what_it_found(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "repair", "--data-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds no data" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_a_unix_socket_serves_its_owner_under_any_host(tmp_path: Path) -> None:
    path = tmp_path / "s"
    left = unix.listen(path)
    left.close()  # what a server that was killed leaves: a file that nobody listens at
    process = start("--workers", "inline", "--uds", str(path), "--data-dir", "none")
    try:
        assert process.stderr
        said = [process.stderr.readline() for _ in range(3)]
        assert f"--unix-socket {path}" in said[0], said
        assert "its owner" in said[1]
        assert path.stat().st_mode & 0o777 == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as http:
            assert http.get("http://anything.example/v1/info").status_code == 200
            added = http.post("http://localhost/v1/ops/add", json={"input": 1, "other": 2})
            assert added.json()["result"]["values"] == 3
            foreign = {"Origin": "https://foreign.example"}
            assert http.get("http://localhost/v1/info", headers=foreign).status_code == 403
        with pytest.raises(OSError, match="another server"):
            unix.listen(path)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT)
        assert process.stderr
        process.stderr.close()
    assert not path.exists()

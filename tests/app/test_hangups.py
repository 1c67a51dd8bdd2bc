"""Clients that hang up, on real sockets: a server in a process of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.app.test_main import start

pytestmark = pytest.mark.slow

X = {"data": [0.0] * 10_000, "shape": [100, 100], "name": "x"}
FOREVER = {
    "steps": [
        {"op": "add_", "args": {"input": "x", "other": 1}},
        {"repeat": 1_000_000, "steps": [{"op": "mm", "args": {"input": "x", "mat2": "x"}, "out": "y"}]},
    ]
}
SHORT = {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}], "return": ["x"]}


@pytest.fixture(scope="module", params=["inline", "cpu:1", "cpu:1 --fronts 2"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    process = start("--data-dir", "none", "--workers", *request.param.split())
    try:
        assert process.stderr
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stderr.readline())
        assert found
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, -signal.SIGINT)
        assert process.stderr
        process.stderr.close()


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        session = client.post("/v1/sessions", json={}).json()["id"]
        client.headers["Curlgrad-Session"] = session
        assert client.post("/v1/tensors", json=X).status_code == 201
        yield client
        assert client.delete(f"/v1/sessions/{session}").status_code == 204


def hang_up(client: httpx.Client, program: Any, **headers: str) -> None:
    """Sends a program on a connection of its own, sees that it has begun, and closes."""
    body = json.dumps(program).encode()
    told = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Curlgrad-Session": client.headers["Curlgrad-Session"],
        **headers,
    }
    head = "POST /v1/programs HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in told.items()) + "\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(head.encode() + body)
        while client.get("/v1/info").json()["workers"][0]["calls"] == 0:
            pass


def x(client: httpx.Client) -> Any:
    """An element of x, read behind all that was sent before: it hangs where a program goes on for ever."""
    return client.get("/v1/tensors/x?index=0,0").json()["values"]


def test_who_hangs_up_cancels(client: httpx.Client) -> None:
    hang_up(client, FOREVER)
    assert x(client) == 0.0
    assert client.post("/v1/programs?values=none", json=SHORT).status_code == 200
    assert x(client) == 1.0


def test_not_so_with_an_idempotency_key(client: httpx.Client) -> None:
    long = {**FOREVER, "steps": [FOREVER["steps"][0], {**FOREVER["steps"][1], "repeat": 5_000}]}
    hang_up(client, long, **{"Idempotency-Key": "k"})
    assert x(client) == 1.0
    told = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    again = client.post("/v1/programs", content=json.dumps(long), headers=told)  # byte for byte the same
    assert again.json()["steps_run"] == 5_001
    assert x(client) == 1.0


def test_nor_where_a_job_is_asked_for(client: httpx.Client) -> None:
    hang_up_job = {**FOREVER, "steps": [FOREVER["steps"][0], {**FOREVER["steps"][1], "repeat": 5_000}]}
    before = {job["id"] for job in client.get("/v1/jobs").json()["jobs"]}
    hang_up(client, hang_up_job, Prefer="respond-async, wait=60")
    assert x(client) == 1.0
    (job,) = [job for job in client.get("/v1/jobs").json()["jobs"] if job["id"] not in before]
    assert job["state"] == "done"


def test_who_leaves_the_events_cancels_nothing(client: httpx.Client) -> None:
    job = client.post("/v1/programs", json=FOREVER, headers={"Prefer": "respond-async"}).json()["id"]
    for _ in range(2):
        with client.stream("GET", f"/v1/jobs/{job}/events") as response:
            lines = response.iter_lines()
            while not next(lines).startswith("event: progress"):
                pass
    assert client.get(f"/v1/jobs/{job}").json()["state"] in ("queued", "running")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert x(client) == 0.0


def test_a_listener_that_does_not_read_holds_up_nobody(client: httpx.Client) -> None:
    job = client.post("/v1/programs", json=FOREVER, headers={"Prefer": "respond-async"}).json()["id"]
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as raw:
        raw.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert [one["id"] for one in client.get("/v1/jobs").json()["jobs"] if one["state"] == "running"] in ([], [job])
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert x(client) == 0.0

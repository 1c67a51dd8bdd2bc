"""Scripts that make a session's calls again: run for what they are, against a server, they make the same session."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.scripts.history import jsonable, request_of
from app.settings import Settings

ROUND = {
    "inputs": {"x": {"data": [[1.0, 2.0], [3.0, 4.0]]}, "w": "weights"},
    "steps": [
        {
            "repeat": 12,
            "collect": {"loss": 4},
            "steps": [
                {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "y"},
                {"op": "mean", "args": {"input": "y"}, "out": "loss"},
                {"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["w"]}, "out": ["g"]},
                {"op": "sub_", "args": {"input": "w", "other": "g", "alpha": 0.5}, "no_grad": True},
            ],
        }
    ],
    "return": ["loss"],
    "keep": {"y": "y"},
}


def work(client: httpx.Client, headers: dict[str, str]) -> None:
    """Something of every kind of call, with quotes, negative zeros, infinities, long and longest data."""

    def call(method: str, path: str, body: Any = None, **more: Any) -> None:
        response = client.request(method, path, headers={**headers, **more.pop("headers", {})}, json=body, **more)
        assert response.is_success, response.text

    call("POST", "/v1/tensors", {"data": [[0.5], [-1.0]], "requires_grad": True, "name": "weights"})
    call(
        "POST",
        "/v1/tensors",
        {"data": [float(i) / 3 for i in range(2000)], "name": "long"},
        params={"values": "none"},
    )
    # more than a shell hands over as one argument
    call("POST", "/v1/tensors", {"data": [float(i) / 7 for i in range(9000)], "dtype": "float64", "name": "longest"})
    call("POST", "/v1/tensors", {"data": ["NaN", "-Infinity", -0.0], "dtype": "float64"})
    call("POST", "/v1/tensors", {"data": [[1.0, 2.0]], "dtype": "complex64", "name": "z"})
    call("POST", "/v1/ops/randn", {"size": [3], "out_name": "noise"})
    call("POST", "/v1/ops/topk", {"input": "noise", "k": 2, "out_names": ["best", "where"]})
    call("POST", "/v1/ops/einsum", {"equation": "i,i -> i", "operands": ["best", "best"], "out_name": "squares"})
    call("POST", "/v1/ops/nn.functional.pad", {"input": [[1.0]], "pad": [1, 0], "mode": "constant", "value": -0.0})
    call("POST", "/v1/ops/add", {"input": "noise", "other": 1, "keep": False})
    call("POST", "/v1/ops/mul", {"input": "weights", "other": "weights", "no_grad": True})
    call("POST", "/v1/programs", ROUND)
    call("POST", "/v1/ops/sum", {"input": "weights", "out_name": "total"})
    call("POST", "/v1/tensors/total/backward", {"retain_graph": True})
    call("PATCH", "/v1/tensors/noise", {"requires_grad": True, "name": "renamed"})
    call("POST", "/v1/ops/setitem_", {"input": "best", "index": [0], "value": 9})
    call("DELETE", "/v1/tensors/where")
    call("POST", "/v1/ops/manual_seed", {"seed": 5})
    call("POST", "/v1/ops/rand", {"size": [2], "out_name": "again"})


def content(client: httpx.Client, session: str) -> dict[str, Any]:
    """All tensors of a session with their values, without what differs from one session to the next."""
    headers = {"Curlgrad-Session": session}
    listed = client.get("/v1/tensors", headers=headers).json()["tensors"]
    found = {}
    for one in listed:
        whole = client.get(f"/v1/tensors/{one['id']}", params={"values": "all"}, headers=headers).json()
        found[one["id"]] = _without_tags(whole)
    return found


def _without_tags(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_tags(item) for key, item in value.items() if key != "etag"}
    return value


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The real application at a socket; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(Settings(workers="inline")), log_level="warning", ws="none")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join()


@pytest.mark.parametrize("language, program", [("python", sys.executable), ("curl", "sh")])
def test_a_script_makes_the_same_session_again(server: str, language: str, program: str, tmp_path: Path) -> None:
    if language == "curl" and not (shutil.which("curl") and shutil.which("sh")):
        pytest.skip("needs curl and sh")
    with httpx.Client(base_url=server, timeout=60) as client:
        session = client.post("/v1/sessions", json={"seed": 11}).json()["id"]
        work(client, {"Curlgrad-Session": session})
        script = client.get(f"/v1/sessions/{session}/script", params={"language": language})
        assert script.headers["content-type"] == "text/plain; charset=utf-8"
        path = tmp_path / "script"
        path.write_text(script.text, encoding="utf-8")
        done = subprocess.run(
            [program, str(path)],
            env={**os.environ, "CURLGRAD_URL": server},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (again,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("session ")]
        assert content(client, again) == content(client, session)
        assert len(content(client, session)) > 8


def test_a_script_says_which_call_failed(server: str, tmp_path: Path) -> None:
    with httpx.Client(base_url=server) as client:
        session = client.post("/v1/sessions", json={}).json()["id"]
        client.post("/v1/ops/ones", json={"size": [2]}, headers={"Curlgrad-Session": session})
        text = client.get(f"/v1/sessions/{session}/script?language=python").text
    path = tmp_path / "script.py"
    path.write_text(
        text.replace('"size": [2]', '"size": "two"').replace("'size': [2]", "'size': 'two'"), encoding="utf-8"
    )
    environment = {**os.environ, "CURLGRAD_URL": server}
    done = subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("POST /v1/ops/ones: ")


def test_what_was_not_sent_by_a_call_of_its_own_is_a_program() -> None:
    steps = [{"op": "add", "args": {"input": "x", "other": {"data": [1], "dtype": None}}, "out": "y"}]
    request = request_of({"steps": steps, "return": ["y"], "strict": True, "keep": {"y": "y"}})
    assert (request.method, request.path) == ("POST", "/v1/programs")
    assert request.body == {
        "steps": [{"op": "add", "args": {"input": "x", "other": {"data": [1]}}, "out": "y"}],
        "return": ["y"],
        "strict": True,
        "keep": {"y": "y"},
    }


def test_values_that_json_lacks() -> None:
    assert jsonable([float("nan"), float("inf"), -float("inf"), 1 + 2j]) == [
        "NaN",
        "Infinity",
        "-Infinity",
        {"re": 1.0, "im": 2.0},
    ]


@pytest.mark.parametrize("language, program", [("python", sys.executable), ("curl", "sh")])
def test_the_script_of_a_fork_forks_again(server: str, language: str, program: str, tmp_path: Path) -> None:
    if language == "curl" and not (shutil.which("curl") and shutil.which("sh")):
        pytest.skip("needs curl and sh")
    with httpx.Client(base_url=server, timeout=60) as client:
        lesson = client.post("/v1/sessions", json={"seed": 3}).json()["id"]
        client.post("/v1/tensors", json={"data": [1.0, 2.0], "name": "x"}, headers={"Curlgrad-Session": lesson})
        public = client.patch(f"/v1/sessions/{lesson}", json={"public": True}).json()["public_id"]
        fork = client.post("/v1/sessions", json={"fork": public}).json()["id"]
        headers = {"Curlgrad-Session": fork}
        client.post("/v1/ops/add_", json={"input": "x", "other": 1}, headers=headers)
        client.post("/v1/ops/rand", json={"size": [2], "out_name": "r"}, headers=headers)
        script = client.get(f"/v1/sessions/{fork}/script", params={"language": language}).text
        assert f"It begins as a fork of {public}" in script
        assert "no longer remembered" not in script
        path = tmp_path / "script"
        path.write_text(script, encoding="utf-8")
        done = subprocess.run(
            [program, str(path)],
            env={**os.environ, "CURLGRAD_URL": server},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (again,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("session ")]
        assert content(client, again) == content(client, fork)
        torch = client.get(f"/v1/sessions/{fork}/script").text
        assert f"x: of the public session {public}; put its values here" in torch
        for session in (fork, again, lesson):
            assert client.delete(f"/v1/sessions/{session}").status_code == 204

"""A practice server says in every answer, and on every page, that its CUDA device is a simulation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from app.main import create_app
from app.pages import PRACTICE
from app.settings import Settings
from engine.service import Service, WorkerSpec
from engine.simulated import raw
from tests.app.conftest import served


@pytest.fixture(scope="module")
def practice() -> Iterator[httpx.Client]:
    service = Service([WorkerSpec("inline", ("cpu", "cuda:0"), inline=True, practice=True)])
    with served(create_app(Settings(), service)) as client:
        body = {"name": "x", "data": [1.0, 2.0], "device": "cuda"}
        assert client.post("/v1/tensors", json=body).status_code == 201
        yield client


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx.Client]:
    with served(create_app(Settings(), Service([WorkerSpec("inline", ("cpu",), inline=True)]))) as client:
        assert client.post("/v1/tensors", json={"name": "x", "data": [1.0, 2.0]}).status_code == 201
        yield client


OBJECTS = [
    ("GET", "/v1/info", None),
    ("GET", "/v1/devices", None),
    ("GET", "/v1/sessions", None),
    ("GET", "/v1/sessions/default", None),
    ("GET", "/v1/tensors", None),
    ("GET", "/v1/tensors/x", None),
    ("GET", "/v1/ops/add", None),
    ("GET", "/v1/nothing", None),
    ("GET", "/v1/tensors/nothing", None),
    ("POST", "/v1/tensors", {"data": [1]}),
    ("POST", "/v1/ops/mul", {"input": "x", "other": 2}),
    ("POST", "/v1/ops/mul?explain=true", {"input": "x", "other": 2}),
    ("POST", "/v1/ops/mul", {"input": "x", "other": [[[1]]], "oops": 1}),
    ("POST", "/v1/ops/cuda.is_available", {}),
    ("POST", "/v1/programs", {"steps": [{"op": "exp", "args": {"input": "x"}, "out": "y"}], "return": ["y"]}),
]
OTHERS = ["/v1/tensors/x?as=text", "/v1/tensors/x?as=npy", "/v1/tensors/x?as=csv", "/v1/tensors/x/describe", "/healthz"]


@pytest.mark.parametrize("method, path, body", OBJECTS)
def test_every_object_says_so(practice: httpx.Client, plain: httpx.Client, method: str, path: str, body: Any) -> None:
    answer = practice.request(method, path, json=body)
    assert answer.json()["simulated"] is True
    assert answer.headers["curlgrad-simulated"] == "true"
    answer = plain.request(method, path, json=body)
    assert "simulated" not in answer.json()
    assert "curlgrad-simulated" not in answer.headers


@pytest.mark.parametrize("path", [*OTHERS, "/docs", "/redoc", "/openapi.json"])
def test_what_is_no_object_says_so_in_a_header(practice: httpx.Client, plain: httpx.Client, path: str) -> None:
    assert practice.get(path).headers["curlgrad-simulated"] == "true"
    answer = plain.get(path)
    assert answer.is_success
    assert "curlgrad-simulated" not in answer.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_every_page_says_so(practice: httpx.Client, plain: httpx.Client, path: str) -> None:
    assert PRACTICE in practice.get(path).text
    page = plain.get(path).text
    assert "practice" not in page
    assert "{note}" not in page


def test_devices(practice: httpx.Client) -> None:
    cpu, cuda = practice.get("/v1/devices").json()["devices"]
    assert (cpu["name"], cpu["simulated"]) == ("cpu", False)
    assert (cuda["name"], cuda["simulated"], cuda["worker"]) == ("cuda:0", True, "inline")
    assert cuda["model"].startswith("a simulation of CUDA on ")
    assert cuda["memory"]["used"] >= 8
    assert cuda["memory"]["used"] + cuda["memory"]["free"] <= cuda["memory"]["limit"]


@pytest.mark.parametrize("name, body", [("npy", None), ("raw", b"\0\0\x80?")])
def test_uploads_go_straight_onto_the_device(practice: httpx.Client, name: str, body: bytes | None) -> None:
    if name == "npy":
        body, kind, query = practice.get("/v1/tensors/x?as=npy").content, "application/x-npy", ""
    else:
        kind, query = "application/octet-stream", "&dtype=float32&shape=1"
    answer = practice.post(f"/v1/tensors?device=cuda{query}", content=body, headers={"Content-Type": kind})
    assert answer.json()["device"] == "cuda:0"


def test_a_training_loop_runs_by_fused_kernels(practice: httpx.Client) -> None:
    """A plan on the device says how many kernels a round is; without a C++ compiler it says why there are none."""
    x = {"data": [[0.5, -1.0, 2.0], [0.25, 0.0, -0.5]], "requires_grad": True, "device": "cuda"}
    steps = [
        {"op": "nn.functional.gelu", "args": {"input": "x"}, "out": "y"},
        {"op": "mul", "args": {"input": "y", "other": "row"}, "out": "y"},
        {"op": "mean", "args": {"input": "y"}, "out": "loss"},
        {"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["x"]}, "out": ["g"]},
        {"op": "optim.adamw_", "args": {"params": ["x"], "grads": ["g"], "state": "state", "lr": 0.01}},
    ]
    told = []
    for times in (1, 100):
        program = {
            "inputs": {"x": x, "row": {"data": [1.0, 2.0, 3.0], "device": "cuda"}},
            "steps": [
                {"op": "optim.adam_state", "args": {"params": ["x"]}, "out": "state"},
                *([{"repeat": times, "steps": steps}] if times > 1 else steps * 100),
            ],
            "return": ["x", "loss"],
        }
        answer = practice.post("/v1/programs", json=program)
        assert answer.status_code == 200, answer.text
        told.append(answer.json())
    (report,) = told[1]["plans"]
    assert (report["step"], report["rounds"], report["why_not"]) == ([1], 98, None)
    if raw.compiler() is None:
        assert (report["kernels"], report["why_not_fused"].partition(",")[0]) == (0, "there is no C++ compiler here")
    else:
        assert report["kernels"] >= 2
        assert report["why_not_fused"] is None
    for name in ("x", "loss"):
        one, other = (np.asarray(t["results"][name]["values"]) for t in told)
        np.testing.assert_allclose(one, other, 1e-5)

"""Every limit over HTTP: its status, its code, what to do about it in English and Korean, and that nothing changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from engine.service import Limits, Service
from tests.app.conftest import served

MIB = 1 << 20
LIMITS = Limits(
    session_bytes=4 * MIB,
    server_bytes=16 * MIB,
    max_steps=20,
    max_rounds=100_000,
    max_run=1_000_000,
    max_nesting=3,
    max_sessions=3,
    max_unnamed=4,
    tape_bytes=20_000,
    max_seconds=0.05,
    max_values=2000,
)


@pytest.fixture(scope="module")
def limited() -> Iterator[httpx.Client]:
    settings = Settings(workers="inline", max_body=100_000)
    with served(create_app(settings, Service("inline", limits=LIMITS))) as client:
        yield client


@pytest.fixture
def http(limited: httpx.Client) -> httpx.Client:
    """A session with a tensor `x` of 1 MiB, and a leaf `w`."""
    limited.delete("/v1/sessions/default")
    limited.post("/v1/ops/ones", json={"size": [MIB // 4], "out_name": "x"})
    limited.post("/v1/ops/ones", json={"size": [1000], "out_name": "w", "requires_grad": True})
    return limited


def step(op: str, out: str | None = None, /, **args: Any) -> dict[str, Any]:
    return {"op": op, "args": args, **({} if out is None else {"out": out})}


def nested(depth: int) -> dict[str, Any]:
    return step("ones", size=[1]) if not depth else {"repeat": 1, "steps": [nested(depth - 1)]}


def repeated(times: int, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"steps": [{"repeat": times, "steps": list(steps)}]}


TAPE = [step("mul", f"h{i}", input="w", other="w") for i in range(8)] + [
    step("cat", "h", tensors=[f"h{i}" for i in range(8)]),
    step("mul", "h", input="h", other="h"),
    step("sum", "l", input="h"),
]
OVER = [
    ("body", "/v1/tensors", {"data": [1.25] * 50_000}, 413, "body-too-large", "--max-body"),
    ("steps", "/v1/programs", {"steps": [step("ones", size=[1])] * 21}, 422, "limit-exceeded", "max_steps"),
    ("rounds", "/v1/programs", repeated(100_001, step("ones", size=[1])), 422, "limit-exceeded", "max_rounds"),
    ("run", "/v1/programs", repeated(100_000, *[step("ones", size=[1])] * 11), 422, "limit-exceeded", "max_run"),
    ("nesting", "/v1/programs", {"steps": [nested(4)]}, 422, "limit-exceeded", "max_nesting"),
    ("memory", "/v1/ops/ones", {"size": [MIB]}, 507, "out-of-memory", "DELETE /v1/tensors/x"),
    ("size in values", "/v1/ops/bincount", {"input": [10**6]}, 507, "out-of-memory", "DELETE /v1/tensors/x"),
    ("tape", "/v1/programs", {"steps": TAPE, "keep": {"l": "loss"}}, 507, "tape-memory", "DELETE /v1/tensors/loss"),
    ("answer", "/v1/programs?values=all", {"return": ["x"]}, 422, "answer-too-large", "?as=npy"),
    ("time", "/v1/programs", repeated(100_000, step("sort", input="w")), 504, "time-limit", "--max-seconds"),
]  # fmt: skip


@pytest.mark.parametrize("path, body, status, code, said", [row[1:] for row in OVER], ids=[row[0] for row in OVER])
def test_what_is_over_a_limit_is_refused_and_changes_nothing(
    http: httpx.Client, path: str, body: Any, status: int, code: str, said: str
) -> None:
    before = http.get("/v1/tensors").json(), http.get("/v1/sessions/default").json()["bytes"]
    response = http.post(path, json=body)
    problem = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), problem
    assert said in problem["hint"]
    korean = http.post(path, json=body, headers={"Accept-Language": "ko"}).json()
    assert said in korean["hint"]
    assert re.search("[가-힣]", korean["hint"])
    after = http.get("/v1/tensors").json(), http.get("/v1/sessions/default").json()["bytes"]
    assert after == before


def test_over_memory_it_is_said_what_was_asked_held_and_free_and_what_holds_it(http: httpx.Client) -> None:
    problem = http.post("/v1/ops/ones", json={"size": [MIB]}).json()
    assert problem["detail"] == (
        "this needs 4194304 bytes, but of the session's 4194304 bytes 1052576 are held and 3141728 free"
    )
    assert "x (t1) (1048576 bytes), w (t2) (4000 bytes)" in problem["hint"]
    assert http.delete("/v1/tensors/x").status_code == 204
    assert http.post("/v1/ops/ones", json={"size": [MIB // 2]}).status_code == 200


def test_tensors_without_a_name(http: httpx.Client) -> None:
    for _ in range(4):
        assert http.post("/v1/tensors", json={"data": 1}).status_code == 201
    response = http.post("/v1/tensors", json={"data": 1})
    assert (response.status_code, response.json()["code"]) == (507, "too-many-unnamed")
    assert "DELETE /v1/tensors?unnamed=true" in response.json()["hint"]
    assert http.delete("/v1/tensors?unnamed=true").status_code == 204
    assert http.post("/v1/tensors", json={"data": 1}).status_code == 201


def test_sessions(http: httpx.Client) -> None:
    made = [http.post("/v1/sessions", json={}) for _ in range(3)]
    assert [response.status_code for response in made] == [201, 201, 422]
    assert made[2].json()["code"] == "too-many-sessions"
    for response in made[:2]:
        http.delete(f"/v1/sessions/{response.json()['id']}")


def test_many_numbers_are_read_in_parts_or_as_bytes(http: httpx.Client) -> None:
    for query in ("values=all", "as=csv"):
        response = http.get(f"/v1/tensors/x?{query}")
        assert (response.status_code, response.json()["code"]) == (422, "answer-too-large"), query
    assert http.get("/v1/tensors/x").json()["values"] is None
    assert len(http.get("/v1/tensors/x?index=0:2000&values=all").json()["values"]) == 2000
    for form in ("npy", "raw", "safetensors"):
        assert len(http.get(f"/v1/tensors/x?as={form}").content) >= MIB


def test_the_limits_are_told(http: httpx.Client) -> None:
    told = http.get("/v1/info").json()["limits"]
    for name in ("max_seconds", "max_unnamed", "tape_bytes", "max_values", "history_bytes", "session_bytes"):
        assert told[name] == getattr(LIMITS, name)


# ---------------------------------------------------------------- the ledger


def test_the_ledger_of_a_session(http: httpx.Client) -> None:
    http.post("/v1/ops/mul", json={"input": "w", "other": "w", "out_name": "y"})
    http.post("/v1/ops/view", json={"input": "x", "size": [2, -1], "out_name": "v"})
    whole = http.get("/v1/sessions/default/memory").json()
    assert whole["name"] == "default"
    assert whole["limits"] == {"total": 4 * MIB, "tape": 20_000, "unnamed": 4}
    assert whole["storages"][0]["held_by"] == [
        {"kind": "tensor", "id": "t1", "name": "x"},
        {"kind": "view", "id": "t4", "name": "v", "of": "x"},
    ]
    assert sum(row["bytes"] for row in whole["storages"]) == whole["bytes"]["total"]
    first = http.get("/v1/sessions/default/memory?limit=1").json()
    rest = http.get(f"/v1/sessions/default/memory?cursor={first['cursor']}").json()
    assert first["storages"] + rest["storages"] == whole["storages"]
    assert http.get("/v1/sessions/default/memory?cursor=x").json()["code"] == "bad-cursor"
    assert http.get("/v1/sessions/none/memory").status_code == 404


def test_scripts_are_of_the_languages_that_there_are(http: httpx.Client) -> None:
    assert http.get("/v1/sessions/default/script").text.startswith('"""What the session default did.')
    assert http.get("/v1/sessions/default/script?language=curl").text.startswith("#!/bin/sh")
    refused = http.get("/v1/sessions/default/script?language=perl")
    assert (refused.status_code, refused.json()["param"]) == (422, "language")
    assert http.get("/v1/sessions/none/script").status_code == 404

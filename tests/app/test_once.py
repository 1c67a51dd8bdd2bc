"""Idempotency keys as they go in, and a server that takes nothing new."""

from __future__ import annotations

import httpx

from tests.app.conftest import FakeService, tensor


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_an_idempotency_key_goes_with_what_was_asked(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {"r": tensor()}}
    digests = set()
    for path, body, key in [
        ("/v1/ops/add", {"input": [1]}, "k"),
        ("/v1/ops/add", {"input": [2]}, "k"),
        ("/v1/ops/add?values=none", {"input": [1]}, "k"),
    ]:
        assert client.post(path, json=body, headers={"Idempotency-Key": key}).status_code == 200
        kept, digest = fake.last[-1]
        assert kept == "POST /v1/ops/add k"
        digests.add(digest)
    assert len(digests) == 3
    client.post("/v1/ops/add", json={"input": [1]}, headers={"Idempotency-Key": "other"})
    assert fake.last[-1][0] == "POST /v1/ops/add other"
    assert fake.last[-1][1] in digests
    for key in ("", "a b", "x" * 256):
        response = client.post("/v1/ops/add", json={}, headers={"Idempotency-Key": key})
        assert code(response) == (422, "bad-idempotency-key")


def test_a_server_that_ends_takes_nothing_new(client: httpx.Client, fake: FakeService) -> None:
    gate = client._transport.inner.app.state.house.gate  # type: ignore[attr-defined]
    gate.closed = True
    response = client.post("/v1/ops/add", json={})
    assert code(response) == (503, "not-applied")
    assert int(response.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    assert gate.inside == 0
    assert fake.asked == [("start",)]

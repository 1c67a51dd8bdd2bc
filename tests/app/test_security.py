"""Who may send a request, and what every answer carries."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import FakeService

Make = Callable[..., httpx.Client]


def is_problem(response: Any, status: int, code: str) -> bool:
    body = response.json()
    return (
        response.status_code == status
        and response.headers["content-type"] == "application/problem+json"
        and (body["status"], body["code"]) == (status, code)
        and body["request_id"] == response.headers["x-request-id"]
    )


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost:9", "LOCALHOST", "localhost.", "[::1]:8000", "127.1.2.3"]
)
def test_loopback_hosts_are_this_servers(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/devices", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "10.0.0.1", "", "a, localhost"]
)
@pytest.mark.parametrize("path", ["/v1/devices", "/", "/docs", "/v1/nothing"])
def test_an_unknown_host_is_421(client: httpx.Client, host: str, path: str) -> None:
    response = client.get(path, headers={"Host": host})
    assert is_problem(response, 421, "unknown-host")
    assert "--allowed-host" in response.json()["hint"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_come_under_any_host(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200


def test_hosts_can_be_allowed(make_client: Make) -> None:
    client = make_client(allowed_host=("tensors.example",), host="192.168.7.7", allow_open=True)
    for host in ("tensors.example:443", "Tensors.Example", "192.168.7.7:8000"):
        assert client.get("/v1/devices", headers={"Host": host}).status_code == 200
    assert client.get("/v1/devices", headers={"Host": "other.example"}).status_code == 421


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize(
    "method, path", [("GET", "/v1/devices"), ("POST", "/v1/ops/add"), ("DELETE", "/v1/tensors/t1")]
)
def test_a_foreign_page_is_403(client: httpx.Client, fake: FakeService, headers: Any, method: str, path: str) -> None:
    response = client.request(method, path, headers=headers)
    assert is_problem(response, 403, "foreign-origin")
    assert "--cors-origin" in response.json()["hint"]
    assert fake.asked == [("start",)]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_our_own_pages_are_not_foreign(client: httpx.Client, headers: Any) -> None:
    assert client.get("/v1/devices", headers=headers).status_code == 200


def test_a_link_may_be_followed_to_a_page_and_to_nothing_else(client: httpx.Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=link).status_code == 307
    assert client.get("/v1/devices", headers=link).status_code == 403
    assert client.post("/", headers=link).status_code == 403


ORIGIN = "https://notebook.example"


def test_an_allowed_origin_may_read_and_write(make_client: Make) -> None:
    client = make_client(cors_origin=(ORIGIN,))
    response = client.get("/v1/devices", headers={"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    exposed = response.headers["access-control-expose-headers"]
    assert {"Location", "ETag", "Retry-After", "X-Request-Id", "Server-Timing"} <= set(exposed.split(", "))
    assert "Origin" in response.headers["vary"]
    assert client.get("/v1/devices", headers={"Origin": "https://other.example"}).status_code == 403


def test_a_preflight_is_answered_for_an_allowed_origin_alone(make_client: Make) -> None:
    client = make_client(cors_origin=(ORIGIN,))
    asks = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
    response = client.options("/v1/tensors/t1", headers={"Origin": ORIGIN, **asks})
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "PATCH" in response.headers["access-control-allow-methods"]
    assert "Content-Type" in response.headers["access-control-allow-headers"]
    refused = client.options("/v1/tensors/t1", headers={"Origin": "https://other.example", **asks})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_a_problem_can_be_read_by_an_allowed_origin(make_client: Make) -> None:
    client = make_client(cors_origin=(ORIGIN,))
    response = client.get("/v1/nothing", headers={"Origin": ORIGIN})
    assert response.status_code == 404
    assert response.headers["access-control-allow-origin"] == ORIGIN


# ---------------------------------------------------------------- bodies


def test_a_body_over_the_limit_is_413(make_client: Make, fake: FakeService) -> None:
    client = make_client(max_body=100)
    response = client.post("/v1/ops/add", content=b"x" * 101)
    assert is_problem(response, 413, "body-too-large")
    assert "100 bytes" in response.json()["detail"]
    assert fake.asked == [("start",)]


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield b" " * 60


def test_a_chunked_body_over_the_limit_is_413(make_client: Make) -> None:
    client = make_client(max_body=100)
    assert is_problem(client.post("/v1/ops/add", content=chunks(2)), 413, "body-too-large")
    assert is_problem(client.post("/v1/programs", content=chunks(1)), 400, "not-json")


def test_a_length_that_is_no_number_is_400(client: httpx.Client) -> None:
    assert is_problem(client.post("/v1/ops/add", headers={"Content-Length": "-1"}), 400, "malformed")


# ---------------------------------------------------------------- what every answer carries


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/healthz"),
        ("GET", "/v1/info"),
        ("GET", "/"),
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/ops"),
        ("OPTIONS", "/v1/ops"),
    ],
)
def test_every_answer_has_id_timing_and_caching_rules(client: httpx.Client, method: str, path: str) -> None:
    headers = client.request(method, path).headers
    assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])
    assert re.fullmatch(r"queue;dur=[\d.]+, run;dur=[\d.]+, encode;dur=[\d.]+", headers["server-timing"])
    assert headers["cache-control"] == "private, no-cache"
    assert headers["vary"] == "Authorization, Curlgrad-Session, Accept, Accept-Encoding, Accept-Language"
    assert headers["x-content-type-options"] == "nosniff"


def test_each_answer_has_an_id_of_its_own(client: httpx.Client) -> None:
    assert len({client.get("/healthz").headers["x-request-id"] for _ in range(20)}) == 20


def test_the_phases_of_a_call_are_told(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"results": {"r": None}}
    assert client.post("/v1/ops/add", json={}).headers["server-timing"].startswith("queue;dur=1.500, run;dur=2.500, ")


def test_a_caller_who_hangs_up_is_no_bug(fake: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is done, nothing is answered, and the log stays empty."""
    application = create_app(Settings(), fake)  # type: ignore[arg-type]
    heard = [{"type": "http.request", "body": b'{"steps"', "more_body": True}, {"type": "http.disconnect"}]
    said: list[Any] = []

    async def receive() -> Any:
        return heard.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/v1/programs", "query_string": b"", "headers": headers}
    scope |= {"http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000)}
    with caplog.at_level(logging.WARNING):
        anyio.run(application, scope, receive, send)
    assert (heard, said, fake.asked, caplog.records) == ([], [], [], [])

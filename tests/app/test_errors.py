"""Every failing path answers with a problem, of the status that its error has, with a hint that says what to do."""

from __future__ import annotations

import ast
import logging
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app import errors, hints
from engine import errors as engine_errors
from engine.errors import CLASSES, Call, EngineError, Hint
from tests.app.conftest import FakeService

ROOT = Path(__file__).parents[2]
FIELDS = ["type", "title", "status", "detail", "instance", "code"]

STATUSES = {
    "Malformed": 400,
    "NotFound": 404,
    "NoSuchTensor": 404,
    "NoSuchOp": 404,
    "NoSuchSession": 404,
    "NoSuchJob": 404,
    "NoGrad": 404,
    "NotAcceptable": 406,
    "Conflict": 409,
    "TapeFreed": 409,
    "SavedChanged": 409,
    "LeafInPlace": 409,
    "NameTaken": 409,
    "Gone": 410,
    "PreconditionFailed": 412,
    "TooLarge": 413,
    "Unsupported": 415,
    "Unavailable": 503,
    "DeviceLost": 503,
    "QueueFull": 429,
    "OutOfTime": 504,
    "OutOfMemory": 507,
    "Bug": 500,
    "EngineError": 500,
}


@pytest.mark.parametrize("name", CLASSES)
def test_each_engine_error_has_its_status(client: httpx.Client, fake: FakeService, name: str) -> None:
    fake.answer = CLASSES[name]("what went wrong", hint=Hint("list-ops"), op="add", param="other")
    response = client.post("/v1/ops/add", json={"input": 1})
    expected = STATUSES.get(name, 422)
    if expected == 422:
        assert issubclass(CLASSES[name], engine_errors.Invalid)
    body = response.json()
    assert (response.status_code, body["status"]) == (expected, expected)
    assert response.headers["content-type"] == "application/problem+json"
    assert [key for key in body if key in FIELDS] == FIELDS
    assert body["instance"] == "/v1/ops/add"
    assert body["type"] == f"urn:curlgrad:problem:{body['code']}"
    assert (body["op"], body["param"], body["detail"]) == ("add", "other", "what went wrong")
    assert body["hint"] == "GET /v1/ops lists every operation"
    assert body["request_id"] == response.headers["x-request-id"]
    assert ("retry-after" in response.headers) == (expected in (429, 503))


def test_a_programs_problem_has_the_path_to_its_step(client: httpx.Client, fake: FakeService) -> None:
    error = engine_errors.ShapeMismatch("no")
    error.step, error.round = [5, 0], [3]
    fake.answer = error
    body = client.post("/v1/programs", json={"steps": []}).json()
    assert (body["step"], body["round"]) == ([5, 0], [3])
    for method, path in [("POST", "ops/add"), ("DELETE", "tensors/x")]:
        error.step, error.round = [0], None
        assert "step" not in client.request(method, f"/v1/{path}").json()


def test_an_exception_that_nothing_foresaw_is_a_500_that_tells_the_log_alone(
    client: httpx.Client, fake: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    fake.answer = ZeroDivisionError("secret")
    with caplog.at_level(logging.ERROR, "curlgrad"):
        response = client.post("/v1/ops/add", json={})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert "ZeroDivisionError" not in response.text
    assert "server-timing" in response.headers
    (record,) = [r for r in caplog.records if r.name == "curlgrad"]
    assert response.json()["request_id"] in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_a_problem_does_not_repeat_all_that_was_sent(client: httpx.Client) -> None:
    response = client.post("/v1/sessions", json={"x" * 1_000_000: 1})
    assert response.status_code == 422
    assert len(response.content) < 5000


def test_the_instance_is_a_uri(client: httpx.Client) -> None:
    assert client.get("/v1/a b/한").json()["instance"] == "/v1/a%20b/%ED%95%9C"


def test_the_service_goes_on_after_a_bug(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = RuntimeError()
    assert client.post("/v1/ops/add", json={}).status_code == 500
    fake.answer = {"results": {"r": None}}
    assert client.post("/v1/ops/add", json={}).json() == {"op": "add", "result": None}


# ---------------------------------------------------------------- the router's own refusals


@pytest.mark.parametrize(
    "path, hint",
    [
        ("/ops/add", "did you mean POST /v1/ops/add?"),
        ("/v1/tensors/", "did you mean GET /v1/tensors?"),
        ("/tensors", "did you mean GET /v1/tensors?"),
        ("/v1/nothing", "the calls are described at /docs, the operations listed at /v1/ops"),
        ("/v1/nowhere/1", "the calls are described at /docs, the operations listed at /v1/ops"),
    ],
)
def test_a_path_that_is_none_is_404_with_the_nearest(client: httpx.Client, path: str, hint: str) -> None:
    response = client.post(path) if "ops" in path else client.get(path)
    body = response.json()
    assert (response.status_code, body["code"], body["hint"]) == (404, "no-such-route", hint)
    assert body["detail"] == f"there is nothing at {path}"


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("PUT", "/v1/tensors", {"GET", "HEAD", "POST", "DELETE"}),
        ("POST", "/v1/tensors/t1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", "/v1/programs", {"POST"}),
        ("GET", "/v1/tensors/t1/backward", {"POST"}),
        ("OPTIONS", "/v1/ops/add", {"GET", "HEAD", "POST"}),
        ("TRACE", "/v1/info", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_is_none_is_405_with_those_that_are(
    client: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == allowed


def test_head_is_get_without_a_body(client: httpx.Client) -> None:
    response = client.head("/v1/info")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) > 0


# ---------------------------------------------------------------- hints


def hints_in_source() -> Iterator[tuple[str, str, set[str] | None, int]]:
    """(where, key, facts or None where they are not written out, calls) of each `Hint(...)` in the source."""
    for path in sorted([*ROOT.glob("engine/**/*.py"), *ROOT.glob("app/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Hint" and node.args:
                key = node.args[0]
                if not isinstance(key, ast.Constant):
                    continue
                names = [keyword.arg for keyword in node.keywords]
                facts = None if None in names else {name for name in names if name}
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield where, str(key.value), facts, len(node.args) - 1


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_every_hint_has_a_sentence_whose_facts_it_gives() -> None:
    found = list(hints_in_source())
    assert len(found) > 20
    assert [f"{where}: {key}" for where, key, _, _ in found if key not in hints.SENTENCES] == []
    wrong = []
    for where, key, facts, calls in found:
        template = hints.SENTENCES[key]
        needed = placeholders(template)
        if facts is not None and needed - {"call", "calls"} - facts:
            wrong.append(f"{where}: {key} lacks {needed - facts}")
        if not calls and {"call", "calls"} & placeholders(template.partition(" :: ")[0]) and " :: " not in template:
            wrong.append(f"{where}: {key} has no call")
    assert wrong == []


def test_no_sentence_is_for_no_hint() -> None:
    used = {key for _, key, _, _ in hints_in_source()}
    source = "".join(path.read_text() for path in [*ROOT.glob("engine/**/*.py"), *ROOT.glob("app/**/*.py")])
    assert [key for key in hints.SENTENCES if key not in used and source.count(f'"{key}"') < 2] == []


def test_a_call_is_spoken_as_it_is_sent() -> None:
    call = Call("to", {"input": "x1", "dtype": "float32", "k": 1.0, "none": None, "index": ["1:", [True]]})
    assert hints.spoken(call) == (
        'POST /v1/ops/to {"input": "x1", "dtype": "float32", "k": 1.0, "none": null, "index": ["1:", [true]]}'
    )
    assert hints.spoken(Call("sum", {"input": [[1.5] * 100] * 100})) == 'POST /v1/ops/sum {"input": ...}'
    assert hints.spoken(Call("sum", {"input": {"data": object()}})) == 'POST /v1/ops/sum {"input": {"data": ...}}'


def test_braces_in_facts_do_no_harm() -> None:
    assert hints.sentence(Hint("near-names", near=["{x}", "{0.__class__}"])) == "did you mean {x}, {0.__class__}?"


def test_statuses_are_complete() -> None:
    own = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, EngineError)]
    assert {errors.status_of(cls("x"))[0] for cls in own if cls is not EngineError} <= {
        400,
        401,
        403,
        404,
        405,
        421,
        422,
        429,
        500,
    }


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x>', "\r\nSet-Cookie: a=b"])
def test_nothing_is_reflected_as_anything_but_json(client: httpx.Client, text: str) -> None:
    responses: list[Any] = [
        client.get(f"/v1/{quote(text)}"),
        client.get("/v1/info", params={text: text}),
        client.get("/v1/info", params={"as": text}),
        client.post("/v1/ops/add", data={text: text}),
    ]
    for response in responses:
        assert response.headers["content-type"] in ("application/problem+json", "application/json")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in response.headers

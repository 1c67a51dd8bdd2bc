"""The OpenAPI documents: complete, valid, small in parts, true to the routes, and served as bytes that are cached."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app import openapi
from app.main import create_app
from app.openapi import core
from app.openapi.components import SCHEMAS
from app.openapi.documents import PART, Documents
from app.openapi.operations import signature
from app.openapi.served import Served
from engine.errors import Bug, NotFound
from tests.app.conftest import FakeService
from tests.fixtures.catalogue import SIZE, generated_catalogue

Json = dict[str, Any]
METHODS = ("get", "put", "post", "patch", "delete")


@pytest.fixture(scope="module")
def documents() -> Documents:
    return Documents(generated_catalogue, "curlgrad", "0.1.0")


@pytest.fixture(scope="module")
def whole(documents: Documents) -> Json:
    return read(documents.whole())


def read(served: Served) -> Json:
    found: Json = json.loads(served.body)
    return found


def calls(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, call in item.items():
            assert method in METHODS
            yield method, path, call


def entry(**changes: Any) -> Json:
    """The entry of `add`, with changes."""
    found = next(e for e in generated_catalogue() if e["name"] == "add")
    return {**found, **changes}


# ---------------------------------------------------------------- what they hold


def test_every_operation_has_its_own_path_schema_example_and_identifier(whole: Json) -> None:
    assert len(generated_catalogue()) == SIZE == 650
    for op in generated_catalogue():
        call = whole["paths"][f"/v1/ops/{op['name']}"]["post"]
        body = call["requestBody"]["content"]["application/json"]
        assert call["operationId"] == op["operation_id"]
        assert call["operationId"].isidentifier()
        assert call["tags"] == [op["family"]]
        assert op["doc"] in call["description"]
        assert signature(op) in call["description"]
        assert body["example"] == op["example"]
        assert set(body["schema"]["properties"]) == {p["name"] for p in op["params"]} | {
            "out_name",
            "out_names",
            "keep",
            "no_grad",
        }
        assert set(body["schema"].get("required", ())) == {p["name"] for p in op["params"] if p["required"]}
        assert set(op["example"]) >= set(body["schema"]["required"])
        assert body["schema"]["additionalProperties"] is False
    identifiers = [call["operationId"] for _, _, call in calls(whole)]
    assert len(identifiers) == len(set(identifiers))


def test_an_operation_says_what_its_parameters_are() -> None:
    documents = Documents(lambda: [entry()], "curlgrad", "0.1.0")
    call = read(documents.family("pointwise"))["paths"]["/v1/ops/add"]["post"]
    alpha = call["requestBody"]["content"]["application/json"]["schema"]["properties"]["alpha"]
    assert alpha == {
        "$ref": "#/components/schemas/ScalarArg",
        "description": "the multiplier for `other`",
        "default": 1,
    }
    assert "`add(input, other, alpha=1) -> Tensor`" in call["description"]
    assert call["summary"] == "Add of input."  # plain text: it is no Markdown
    assert call["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/TensorResult")


def test_only_operations_that_change_a_tensor_take_if_match() -> None:
    documents = Documents(lambda: [entry(), entry(name="add_", operation_id="b", inplace=True)], "t", "1")
    document = read(documents.family("pointwise"))
    takes = {
        path: {"$ref": "#/components/parameters/Unchanged"} in item["post"]["parameters"]
        for path, item in document["paths"].items()
    }
    assert takes == {"/v1/ops/add": False, "/v1/ops/add_": True}


def test_a_schema_of_the_catalogue_goes_before_what_is_said_of_single_parameters() -> None:
    schema = {"properties": {"input": {"type": "null"}}, "anyOf": [{"required": ["input"]}]}
    documents = Documents(lambda: [entry(schema=schema)], "t", "1")
    call = read(documents.family("pointwise"))["paths"]["/v1/ops/add"]["post"]
    found = call["requestBody"]["content"]["application/json"]["schema"]
    assert found["properties"]["input"] == {"type": "null"}
    assert found["anyOf"] == [{"required": ["input"]}]
    assert "alpha" not in found["properties"]


def test_every_call_can_answer_with_problems_of_the_documented_statuses(whole: Json) -> None:
    for _, path, call in calls(whole):
        statuses = {int(status) for status in call["responses"]}
        assert statuses & {200, 201, 204}
        if path.startswith("/v1/"):
            assert statuses >= {401, 403, 406, 421, 422, 429}
        if path.startswith("/v1/ops/") and "requestBody" in call:
            assert statuses == {
                *(200, 202, 400, 401, 403, 404, 406, 409, 410, 412, 413, 415, 421, 422, 429),
                *(503, 504, 507),
            }
    for response in whole["components"]["responses"].values():
        assert response["content"] == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_a_document_holds_the_components_that_it_needs_and_no_others(documents: Documents) -> None:
    for name in ("core", *documents.parts):
        document = read(documents.family(name))
        held = {f"#/components/{kind}/{key}" for kind, of in document["components"].items() for key in of}
        assert {key for asked in document["security"] for key in asked} == {"key"}
        assert {*references(document), "#/components/securitySchemes/key"} == held


NO_VALIDATOR = "openapi-spec-validator is in no locked set, since what it needs lacks wheels: install it to check this"


def test_documents_are_valid_openapi(documents: Documents) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason=NO_VALIDATOR).OpenAPIV31SpecValidator
    for name in ("core", "pointwise-1", "optim", "linalg"):
        validator(read(documents.family(name))).validate()


@pytest.mark.slow
def test_the_whole_document_is_valid_openapi(whole: Json) -> None:
    pytest.importorskip("openapi_spec_validator", reason=NO_VALIDATOR).OpenAPIV31SpecValidator(whole).validate()


def test_examples_are_what_their_schemas_say(whole: Json) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    for _, path, call in calls(whole):
        for media in call.get("requestBody", {}).get("content", {}).values():
            if "example" in media:
                schema = {**media["schema"], "components": whole["components"]}
                assert [error.message for error in validator(schema).iter_errors(media["example"])] == [], path
    for name, schema in whole["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            validator({**schema, "components": whole["components"]}).validate(example)
            assert name


# ---------------------------------------------------------------- examples, as JavaScript reads them


def lost_in_javascript(value: object) -> Iterator[object]:
    """What `JSON.stringify(JSON.parse(text))` changes: 1.0, which becomes 1, and what 53 bits cannot hold."""
    if isinstance(value, dict):
        for item in value.values():
            yield from lost_in_javascript(item)
    elif isinstance(value, list):
        for item in value:
            yield from lost_in_javascript(item)
    elif isinstance(value, float):
        if value.is_integer() or value != value or value in (float("inf"), float("-inf")):
            yield value
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        yield value


def examples(value: object, key: str = "") -> Iterator[object]:
    if key == "example":
        yield value
    elif key == "examples":
        yield from value if isinstance(value, list) else ()
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from examples(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from examples(item)


def test_what_javascript_loses_is_found() -> None:
    assert list(lost_in_javascript([1.5, 1, True, {"a": 2.0}, [2**53]])) == [2.0, 2**53]


def test_examples_survive_javascript(whole: Json) -> None:
    found = list(examples(whole))
    assert len(found) > SIZE
    assert list(lost_in_javascript(found)) == []


def test_the_examples_of_the_declared_operations_survive_javascript() -> None:
    documents = Documents(declared, "curlgrad", "0.1.0")
    found = list(examples(read(documents.whole())))
    assert len(found) > len(declared())
    assert list(lost_in_javascript(found)) == []


def declared() -> list[Json]:
    """The catalogue of the operations that there are."""
    from engine.service import Service

    return Service("inline").catalogue()


# ---------------------------------------------------------------- parts and index


def test_parts_are_small_and_hold_every_operation_once(documents: Documents) -> None:
    held: list[str] = []
    for name, entries in documents.parts.items():
        document = read(documents.family(name))
        assert 0 < len(document["paths"]) == len(entries) <= PART <= 100
        held += document["paths"]
    assert sorted(held) == sorted(f"/v1/ops/{op['name']}" for op in generated_catalogue())


def test_a_large_family_is_there_whole_and_in_parts(documents: Documents) -> None:
    parts = [name for name in documents.parts if re.fullmatch(r"pointwise-\d", name)]
    assert len(parts) > 1
    together = [path for part in parts for path in read(documents.family(part))["paths"]]
    assert list(read(documents.family("pointwise"))["paths"]) == together


def test_the_index_says_where_every_call_is(documents: Documents) -> None:
    index = read(documents.index())
    assert index["documents"][0]["name"] == "core"
    counts: dict[str, int] = {}
    for operation in index["operations"]:
        document = operation["document"]
        counts[document] = counts.get(document, 0) + 1
        found = {(c["operationId"], c["tags"][0]) for _, _, c in calls(read(documents.family(document)))}
        assert (operation["id"], operation["tag"]) in found
    assert {one["name"]: one["count"] for one in index["documents"]} == counts
    assert sum(counts.values()) == SIZE + len(list(calls({"paths": core.paths()})))


# ---------------------------------------------------------------- true to the routes


def test_the_fixed_routes_are_those_of_the_application() -> None:
    application = create_app(service=FakeService())  # type: ignore[arg-type]
    routed = {
        (method.lower(), re.sub(r"\{\w+\}", "{}", route.path))
        for route in application.routes
        if hasattr(route, "methods") and hasattr(route, "path")
        for method in route.methods - {"HEAD"}
        if route.path.startswith("/v1/") or route.path in ("/healthz", "/readyz", "/metrics")
    }
    described = {(m, re.sub(r"\{\w+\}", "{}", path)) for m, path, _ in calls({"paths": core.paths()})}
    assert described | {("post", "/v1/ops/{}")} == routed


def test_no_route_of_the_pages_or_documents_is_in_fastapis_own_document() -> None:
    application = FastAPI(openapi_url=None)
    openapi.install(application, generated_catalogue)
    assert all(not r.include_in_schema for r in application.routes if isinstance(r, APIRoute))


# What is asked of the real application, in this order: method, path, body (or the example of the documented path).
_ASKED: list[tuple[str, str, Any]] = [
    ("post", "/v1/tensors", ...),
    ("get", "/v1/tensors", None),
    ("get", "/v1/tensors/x", None),
    ("patch", "/v1/tensors/x", ...),
    ("post", "/v1/ops/mul", {"input": "x", "other": 3, "out_name": "y"}),
    ("post", "/v1/ops/mul?dry_run=true", {"input": "x", "other": 3}),
    ("post", "/v1/ops/mul?explain=true", {"input": "x", "other": 3}),
    ("get", "/v1/tensors/x?explain=true", None),
    ("post", "/v1/programs?explain=true", ...),
    ("post", "/v1/ops/add", {"input": "x", "other": {"data": [1, 2, 3]}}),
    ("post", "/v1/ops/sum", {"input": "y", "out_name": "loss"}),
    ("get", "/v1/tensors/y/graph", None),
    ("post", "/v1/tensors/loss/backward", ...),
    ("get", "/v1/tensors/x/grad", None),
    ("get", "/v1/tensors/y/grad", None),
    ("get", "/v1/tensors/x?int64=string&values=none", None),
    ("get", "/v1/tensors/none", None),
    ("post", "/v1/tensors", {"data": [[1, 2], [3]]}),
    ("post", "/v1/programs", ...),
    ("post", "/v1/programs?dry_run=true", ...),
    ("get", "/v1/sessions", None),
    ("get", "/v1/sessions/default", None),
    ("get", "/v1/sessions/none", None),
    ("get", "/v1/sessions/default/memory", None),
    ("get", "/v1/sessions/default/memory?limit=1", None),
    ("get", "/v1/sessions/default/memory?cursor=nothing", None),
    ("get", "/v1/sessions/default/script", None),
    ("get", "/v1/sessions/default/script?language=curl", None),
    ("get", "/v1/sessions/default/script?language=python", None),
    ("get", "/v1/sessions/default/script?language=perl", None),
    ("get", "/v1/sessions/none/script", None),
    ("get", "/metrics", None),
    ("get", "/v1/ops", None),
    ("get", "/v1/ops/add", None),
    ("get", "/v1/ops/none", None),
    ("get", "/v1/info", None),
    ("get", "/v1/devices", None),
    ("get", "/healthz", None),
    ("get", "/readyz", None),
    ("delete", "/v1/tensors/x", None),
    ("delete", "/v1/tensors?unnamed=true", None),
]


def test_examples_work_and_answers_are_what_the_document_says(http: httpx.Client) -> None:
    document = read(Documents(declared, "curlgrad", "0.1.0").whole())
    for method, path, body in _ASKED:
        call = called(document, method, path)
        if body is ...:
            body = call["requestBody"]["content"]["application/json"]["example"]
        response = http.request(method, path, json=body)
        assert response.status_code < 500
        if body is not None and "ragged" not in response.text:
            assert response.status_code < 300 or path == "/v1/ops/add", (path, response.text)
        follows(document, call, response)


def test_what_is_told_of_jobs_is_what_the_document_says(http: httpx.Client) -> None:
    document = read(Documents(declared, "curlgrad", "0.1.0").whole())
    failing = {"steps": [{"op": "mm", "args": {"input": [1.0], "mat2": [1.0]}}]}
    for path, body in (("/v1/programs", ...), ("/v1/programs", failing), ("/v1/ops/mul", {"input": [1.5], "other": 3})):
        call = called(document, "post", path)
        if body is ...:
            body = call["requestBody"]["content"]["application/json"]["example"]
        response = http.post(path, json=body, headers={"Prefer": "respond-async"})
        assert response.status_code == 202
        follows(document, call, response)
        where = response.headers["location"]
        listened = http.get(f"{where}/events")
        assert "event: done" in listened.text
        assert (
            listened.headers["content-type"].partition(";")[0]
            in (called(document, "get", f"{where}/events")["responses"]["200"]["content"])
        )
        read_again = http.get(where)
        assert ("problem" in read_again.json()) == (body is failing)
        for method, asked in (("get", where), ("get", "/v1/jobs"), ("delete", where), ("get", "/v1/jobs/none")):
            follows(document, called(document, method, asked), http.request(method, asked))


def test_the_example_of_a_session_works(http: httpx.Client) -> None:
    document = read(Documents(declared, "curlgrad", "0.1.0").whole())
    for method, path in (
        ("post", "/v1/sessions"),
        ("patch", "/v1/sessions/lesson-1"),
        ("delete", "/v1/sessions/lesson-1"),
    ):
        call = called(document, method, path)
        body = call["requestBody"]["content"]["application/json"]["example"] if method != "delete" else None
        response = http.request(method, path, json=body)
        assert response.is_success, response.text
        follows(document, call, response)


def called(document: Json, method: str, path: str) -> Json:
    """The call that the document describes at `path`, literal paths before those with a parameter."""
    path = path.partition("?")[0]
    described = sorted(document["paths"], key=lambda known: known.count("{"))
    for known in described:
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path) and method in document["paths"][known]:
            found: Json = document["paths"][known][method]
            return found
    raise AssertionError(f"{method} {path} is not described")


def follows(document: Json, call: Json, response: httpx.Response) -> None:
    """Assert that the status, the media type, the headers and the body of the answer are described."""
    described = call["responses"][str(response.status_code)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    assert set(response.headers) >= {name.lower() for name in ("X-Request-Id", "Server-Timing")}
    assert set(described["headers"]) >= {"X-Request-Id", "Server-Timing"}
    for name in ("ETag", "Location", "Retry-After"):
        assert name in described["headers"] or name not in response.headers, (name, response.request.url)
    if not response.content:
        assert "content" not in described
        return
    media = response.headers["content-type"].partition(";")[0]
    schema = {**described["content"][media]["schema"], "components": document["components"]}
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    body = response.text if media == "text/plain" else response.json()
    assert [error.message for error in validator(schema).iter_errors(body)] == [], response.request.url


# ---------------------------------------------------------------- a catalogue that cannot be described


@pytest.mark.parametrize(
    "broken, said",
    [
        ([entry(family="core")], "families cannot be called core"),
        ([entry(family="tensors")], "families cannot be called tensors"),
        ([entry(), entry(name="plus")], "/v1/ops/plus: the operationId 'add' is taken"),
        ([entry(operation_id="nn.add")], "'nn.add' is taken or no identifier"),
        ([entry(params=[{**entry()["params"][0], "schema": {"$ref": "#/components/schemas/Nothing"}}])], "Nothing"),
    ],
)
def test_a_catalogue_that_cannot_be_described_is_a_bug(broken: list[Json], said: str) -> None:
    with pytest.raises(Bug, match=re.escape(said)):
        Documents(lambda: broken, "t", "1").whole()


def test_an_operation_may_not_be_called_as_a_fixed_route_is() -> None:
    with pytest.raises(Bug, match="run_program"):
        Documents(lambda: [entry(operation_id="run_program")], "t", "1").whole()


def test_what_the_engine_refers_to_is_there() -> None:
    arguments = ("Tensor", "TensorList", "Scalar", "Float", "DType", "Device", "Index", "State", "Data")
    assert {f"{name}Arg" for name in arguments} <= set(SCHEMAS)


# ---------------------------------------------------------------- served


class Generated(FakeService):
    def catalogue(self) -> list[Json]:
        return generated_catalogue()


class Client:
    """Asks an application without a server: each request in a loop of its own. Bodies come decoded, headers as sent."""

    def __init__(self, application: FastAPI) -> None:
        self.application = application

    def __call__(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        return asyncio.run(self._send(method, path, {name.replace("_", "-"): text for name, text in headers.items()}))

    async def _send(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.request(method, path, headers=headers)


@pytest.fixture(scope="module")
def ask() -> Client:
    return Client(create_app(service=Generated()))  # type: ignore[arg-type]


def test_documents_are_served(ask: Client) -> None:
    for path in ("/openapi.json", "/openapi/index.json", "/openapi/core.json", "/openapi/fft.json"):
        response = ask(path)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert response.headers["cache-control"] == "no-cache"
    assert ask("/openapi.json").json()["info"]["title"] == "curlgrad"


def test_an_unknown_family_is_a_problem(ask: Client) -> None:
    response = ask("/openapi/nothing.json")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "no-such-document"
    assert "core, autograd" in response.json()["detail"]


def test_who_has_a_document_is_not_sent_it_again(ask: Client) -> None:
    for coding in ("identity", "gzip"):
        first = ask("/openapi/fft.json", Accept_Encoding=coding)
        again = ask("/openapi/fft.json", Accept_Encoding=coding, If_None_Match=first.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        other = ask("/openapi/fft.json", If_None_Match='"other"')
        assert other.status_code == 200


def test_a_document_is_compressed_for_those_who_accept_it(ask: Client) -> None:
    plain = ask("/openapi.json", Accept_Encoding="identity")
    zipped = ask("/openapi.json", Accept_Encoding="gzip")
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert int(zipped.headers["content-length"]) < len(plain.content) / 10
    assert zipped.content == plain.content
    assert zipped.headers["etag"] != plain.headers["etag"]
    assert "Accept-Encoding" in zipped.headers["vary"]
    refused = ask("/openapi.json", Accept_Encoding="gzip;q=0, identity")
    assert "content-encoding" not in refused.headers


def test_head_is_answered_without_a_body(ask: Client) -> None:
    response = ask("/openapi.json", "HEAD")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["etag"]


def test_the_catalogue_is_asked_once_however_many_ask() -> None:
    asked: list[int] = []

    def catalogue() -> list[Json]:
        asked.append(1)
        return generated_catalogue()

    documents = Documents(catalogue, "t", "1")
    builds = [documents.whole, documents.index, lambda: documents.family("fft"), documents.whole] * 4
    with ThreadPoolExecutor(8) as threads:
        found = [future.result() for future in [threads.submit(build) for build in builds]]
    assert len(asked) == 1
    assert found[0] is found[3]


def test_a_document_that_is_not_there_is_not_found(documents: Documents) -> None:
    for name in ("", "pointwise-9", "../core", "Core"):
        with pytest.raises(NotFound):
            documents.family(name)

"""What a key opens and what stays shut: on every route of the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.numpy

from app import keys
from app.main import create_app
from app.settings import Settings
from engine.errors import Invalid
from tests.app.conftest import FakeService, scattered, served
from tests.app.test_security import is_problem
from tests.processes import serving

SCOPES: dict[str, tuple[str, ...]] = {
    "ann": ("read", "write"),
    "bob": ("read", "write"),
    "reader": ("read",),
    "monitor": ("metrics",),
    "admin": ("admin",),
    "lapsed": ("read", "write"),
}


EMPTY = safetensors.numpy.save({}, {"curlgrad": "{}"})  # as far as a file gets without a session


class Server:
    """The real application with a key for each name of `SCOPES`."""

    def __init__(self, client: httpx.Client, texts: dict[str, str]) -> None:
        self.client, self.texts = client, texts

    def ask(self, who: str | None, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {})}
        if who is not None:
            headers["Authorization"] = f"Bearer {self.texts[who]}"
        return self.client.request(method, path, headers=headers, **options)


SLOWLY = [pytest.param(one, marks=pytest.mark.slow) for one in ("processes", "fronts")]


@pytest.fixture(scope="module", params=["inline", *SLOWLY])
def started(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """In this process; as a service with two worker processes, over a socket; and with three fronts as well, another of
    which meets each request."""
    folder = tmp_path_factory.mktemp("access")
    path = folder / "keys.json"
    texts = {}
    for name, scopes in SCOPES.items():
        ((_, texts[name]),) = keys.create(path, [name], scopes, expires=1.0 if name == "lapsed" else None)
    if request.param == "inline":
        with served(create_app(Settings(workers="inline", keys_file=path, max_rate=0))) as client:
            yield Server(client, texts)
        return
    options = ("--workers", "cpu:2", "--keys-file", str(path), "--max-rate", "0", "--log-level", "error")
    if request.param == "fronts":
        options = (*options, "--fronts", "3")
    with serving(folder, *options) as service, scattered(service.url) as client:
        yield Server(client, texts)
        assert not service.bugs


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    """The server, without sessions when the test is over."""
    yield started
    for session in started.ask("admin", "GET", "/v1/admin/sessions").json()["sessions"]:
        assert started.ask("admin", "DELETE", f"/v1/admin/sessions/{session['id']}").status_code == 204


def calls(server: Server) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, call) of every route in the document; of the operations one of each kind is enough."""
    paths = server.client.get("/openapi/core.json").json()["paths"]
    family = server.client.get("/openapi/pointwise.json").json()["paths"]
    paths |= {path: family[path] for path in ("/v1/ops/add", "/v1/ops/add_")}
    return [
        (method.upper(), path, call)
        for path, item in paths.items()
        for method, call in item.items()
        if method in ("get", "put", "post", "patch", "delete")
    ]


def test_every_route_but_the_probes_asks_for_a_key(server: Server) -> None:
    walked = 0
    for method, path, call in calls(server):
        if call.get("security") == [{}]:
            assert server.ask(None, method, path).status_code == 200
            continue
        where = path.replace("{op}", "add").replace("{id}", "t1")
        for headers in (
            {},
            {"Authorization": "Basic YTpi"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer x"},
        ):
            response = server.ask(None, method, where, headers=headers)
            assert response.status_code == 401, (method, path)
            assert response.headers["www-authenticate"] == "Bearer"
            assert "python -m app keys create" in response.json()["hint"]
        assert is_problem(server.ask("lapsed", method, where), 401, "key-expired")
        walked += 1
    assert walked > 15


def test_unknown_paths_say_nothing_without_a_key(server: Server) -> None:
    assert is_problem(server.ask(None, "GET", "/v1/nothing"), 401, "no-key")
    assert is_problem(server.ask("ann", "GET", "/v1/nothing"), 404, "no-such-route")


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/redoc", "/openapi.json", "/openapi/index.json", "/"]
)
def test_probes_and_documentation_are_open(server: Server, path: str) -> None:
    assert server.ask(None, "GET", path).status_code in (200, 307)


@pytest.mark.parametrize("path", ["/docsx", "/openapix", "/v1", "/docs/../v1/info", "/healthz/x"])
def test_what_only_looks_open_is_not(server: Server, path: str) -> None:
    assert server.ask(None, "GET", path).status_code in (401, 404)
    assert "version" not in server.ask(None, "GET", path).text


def test_scopes_are_kept_on_every_route(server: Server) -> None:
    for method, path, call in calls(server):
        if call.get("security") == [{}] or path == "/v1/me":
            continue
        where = path.replace("{op}", "add").replace("{id}", "none-of-these")
        for who in ("reader", "monitor"):
            reads = method == "GET" and not path.startswith("/v1/admin")
            allowed = who == ("monitor" if path == "/metrics" else "reader") and reads
            response = server.ask(who, method, where)
            assert (response.status_code == 403) == (not allowed), (who, method, path, response.text)
            if not allowed:
                assert response.json()["code"] == "missing-scope"


# ---------------------------------------------------------------- foreign pages and names

FOREIGN_PAGES = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
)
# What a form of a foreign page can send without asking first.
FORMS = (
    ("application/x-www-form-urlencoded", b"data=%5B1%5D&name=mine"),
    ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n1\r\n--x--\r\n'),
    ("text/plain", b'{"data": [1], "name": "mine"}'),
)


def test_foreign_pages_and_names_are_refused_on_every_route(server: Server) -> None:
    """With a key that may do everything, so that it is the page or the name that is refused."""
    mine = _of_ann(server)
    walked = 0
    for method, path, _ in calls(server):
        if path in ("/healthz", "/readyz"):
            continue
        kind = "session" if "/sessions" in path else "tensor"
        where = path.replace("{op}", "add").replace("{id}", mine[kind])
        inside = {"Curlgrad-Session": mine["session"]}
        who = "admin" if "/admin/" in path else "ann"
        for page in FOREIGN_PAGES:
            response = server.ask(who, method, where, headers={**inside, **page})
            assert response.status_code == 403, (method, path, page, response.text)
            assert "access-control-allow-origin" not in response.headers
            for form, body in FORMS if method != "GET" else ():
                headers = {**inside, **page, "Content-Type": form}
                response = server.ask(who, method, where, headers=headers, content=body)
                assert response.status_code == 403, (method, path, page, form, response.text)
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "0x7f000001"):
            response = server.ask(who, method, where, headers={**inside, "Host": host})
            assert (response.status_code, response.json()["code"]) == (421, "unknown-host"), (method, path, host)
        walked += 1
    assert walked > 15
    names = server.ask("ann", "GET", "/v1/tensors", headers={"Curlgrad-Session": mine["session"]}).json()["tensors"]
    assert sorted(entry["name"] for entry in names) == ["secret", "w"]


# ---------------------------------------------------------------- two keys


def _of_ann(server: Server) -> dict[str, str]:
    made = server.ask("ann", "POST", "/v1/sessions", json={"name": "lesson"}).json()
    where = {"Curlgrad-Session": made["id"]}
    for body in ({"data": [1.5, 2.5], "name": "w", "requires_grad": True}, {"data": [7.0], "name": "secret"}):
        assert server.ask("ann", "POST", "/v1/tensors", json=body, headers=where).status_code == 201
    told = {**where, "Prefer": "respond-async"}
    job = server.ask(
        "ann", "POST", "/v1/ops/add", json={"input": [7.0], "other": 0, "keep": False}, headers=told
    ).json()["id"]
    return {"session": made["id"], "name": "lesson", "tensor": "secret", "job": job}


def _answers(server: Server, who: str, path_values: dict[str, str], session: str) -> list[tuple[str, str, int, Any]]:
    found = []
    for method, path, call in calls(server):
        if (
            call.get("security") == [{}]
            or path in ("/v1/info", "/v1/devices", "/v1/me", "/metrics")
            or path.startswith("/v1/ops/{")
        ):
            continue
        if "/admin/" in path:
            continue
        kind = next((kind for kind in ("session", "job") if path.startswith(f"/v1/{kind}s")), "tensor")
        where = path.replace("{id}", path_values[kind])
        bodies = {"POST": {}, "PATCH": {"name": "mine"}, "PUT": {}}
        if path.startswith("/v1/ops/"):
            body: Any = {"input": path_values["tensor"], "other": 1}
        elif path == "/v1/programs":
            body = {"steps": [], "return": [path_values["tensor"]]}
        elif path == "/v1/tensors":
            body = {"data": [1]}
        elif path == "/v1/sessions":
            continue
        else:
            body = bodies.get(method)
        query = "?unnamed=true" if (method, path) == ("DELETE", "/v1/tensors") else ""
        headers = {"Curlgrad-Session": session} if kind == "tensor" else {}
        if path.endswith("/snapshot") and method == "PUT":
            sent: dict[str, Any] = {"content": EMPTY}
            headers["Content-Type"] = "application/x-safetensors"
        else:
            sent = {"json": body} if body is not None else {}
        response = server.ask(who, method, where + query, headers=headers, **sent)
        told = re.sub(r"s-[0-9a-f]{32}|j-[0-9a-f]{46}|[0-9a-f]{16}", "*", response.text)
        found.append((method, path, response.status_code, told))
    return found


def test_one_key_neither_sees_nor_changes_what_another_made(server: Server) -> None:
    """On every route the answer is the one that a session that never was would have got, word for word."""
    mine = _of_ann(server)
    never = "s-" + "0" * 32
    with_hers = _answers(server, "bob", mine, mine["session"])
    with_none = _answers(server, "bob", {**mine, "session": never, "job": "j-" + "0" * 46}, never)
    assert with_hers == with_none
    assert {status for _, path, status, _ in with_hers if path not in ("/v1/ops", "/v1/jobs")} == {404}
    assert [told for _, path, _, told in with_hers if path == "/v1/jobs"] == ['{"jobs":[],"cursor":null}\n']
    for text in (told for _, _, _, told in with_hers):
        assert "7.0" not in text
        assert "lesson" not in text
    where = {"Curlgrad-Session": mine["session"]}
    assert server.ask("ann", "GET", "/v1/tensors/secret", headers=where).json()["values"] == [7.0]
    assert server.ask("bob", "GET", "/v1/sessions").json()["sessions"] == []
    assert len(server.ask("ann", "GET", "/v1/sessions").json()["sessions"]) == 1


def test_default_sessions_are_apart(server: Server) -> None:
    for who, value in (("ann", 1.0), ("bob", 2.0)):
        assert server.ask(who, "POST", "/v1/tensors", json={"data": value, "name": "x"}).status_code == 201
    assert server.ask("ann", "GET", "/v1/tensors/x").json()["values"] == 1.0
    assert server.ask("bob", "GET", "/v1/tensors/x").json()["values"] == 2.0


def test_admins_see_and_free_everyones_sessions(server: Server) -> None:
    mine = _of_ann(server)
    listed = server.ask("admin", "GET", "/v1/admin/sessions", params={"limit": 1}).json()
    assert [session["id"] for session in listed["sessions"]] == [mine["session"]]
    assert listed["sessions"][0]["owner"] == server.ask("ann", "GET", "/v1/me").json()["owner"]
    assert server.ask("admin", "DELETE", f"/v1/admin/sessions/{mine['session']}").status_code == 204
    assert server.ask("admin", "DELETE", f"/v1/admin/sessions/{mine['session']}").status_code == 404
    assert server.ask("ann", "GET", f"/v1/sessions/{mine['session']}").status_code == 404


def test_pages_of_everyones_sessions(server: Server) -> None:
    made = {
        server.ask(who, "POST", "/v1/sessions", json={}).json()["id"] for who in ("ann", "bob", "ann", "bob", "ann")
    }
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = server.ask("admin", "GET", "/v1/admin/sessions", params={"limit": 2, **cursor}).json()
        found += [session["id"] for session in page["sessions"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert len(found) == 5
    assert set(found) == made
    assert is_problem(server.ask("admin", "GET", "/v1/admin/sessions?cursor=x"), 422, "bad-cursor")


def test_me_says_what_is_mine(server: Server) -> None:
    _of_ann(server)
    found = server.ask("ann", "GET", "/v1/me").json()
    assert found["key"]["name"] == "ann"
    assert found["scopes"] == ["read", "write"]
    assert found["use"] == {"sessions": 1, "bytes": 12}
    assert "sha256" not in found["key"]
    assert server.texts["ann"] not in str(found)
    assert server.ask("monitor", "GET", "/v1/me").json()["scopes"] == ["metrics"]


def test_without_keys_all_are_one(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = {"sessions": 0, "bytes": 0}
    found = client.get("/v1/me").json()
    assert (found["owner"], found["key"], found["scopes"]) == ("anyone", None, ["read", "write", "metrics", "admin"])


# ---------------------------------------------------------------- how much


def test_a_key_that_sends_too_often_waits(tmp_path: Path, fake: FakeService) -> None:
    path = tmp_path / "keys.json"
    ((_, text), (_, other)) = keys.create(path, ["a", "b"], ["read"])
    with served(create_app(Settings(keys_file=path, max_rate=1), fake)) as client:
        answers = [client.get("/v1/info", headers={"Authorization": f"Bearer {text}"}) for _ in range(4)]
        assert [response.status_code for response in answers[:2]] == [200, 200]
        assert is_problem(answers[3], 429, "rate-limit")
        assert answers[3].headers["retry-after"] == "1"
        assert client.get("/v1/info", headers={"Authorization": f"Bearer {other}"}).status_code == 200


def test_a_key_has_its_own_bound_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ((_, ann), (_, bob)) = keys.create(path, ["ann", "bob"], ["read", "write"])
    size = 2 << 20
    with served(create_app(Settings(workers="inline", keys_file=path, key_bytes=3 * size))) as client:

        def make(text: str, session: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {text}", "Curlgrad-Session": session}
            client.post("/v1/sessions", json={"name": session}, headers={"Authorization": f"Bearer {text}"})
            return client.post("/v1/ops/zeros", json={"size": [size // 4]}, headers=headers)

        assert [make(ann, name).status_code for name in ("a", "b", "c")] == [200, 200, 200]
        refused = make(ann, "d")
        assert is_problem(refused, 507, "out-of-memory")
        assert "of the owner's" in refused.json()["detail"]
        assert make(bob, "a").status_code == 200


def test_a_file_that_is_no_file_of_keys_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("nonsense")
    with pytest.raises(Invalid, match=r"keys\.json"):
        create_app(Settings(workers="inline", data_dir=tmp_path))

"""Sessions that others may read and fork: who may do what with a public id, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import keys
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import served
from tests.app.test_access import Server, calls
from tests.app.test_security import is_problem

PUBLIC = re.compile(r"p-[0-9a-f]{32}")
NEVER = "p-" + "0" * 32


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("sharing") / "keys.json"
    texts = {}
    for name, scopes in {
        "ann": ("read", "write"),
        "bob": ("read", "write"),
        "eve": ("read",),
        "admin": ("admin",),
    }.items():
        ((_, texts[name]),) = keys.create(path, [name], scopes)
    with served(create_app(Settings(workers="inline", keys_file=path, max_rate=0))) as client:
        yield Server(client, texts)


@pytest.fixture
def server(started: Server) -> Iterator[Server]:
    yield started
    for session in started.ask("admin", "GET", "/v1/admin/sessions").json()["sessions"]:
        assert started.ask("admin", "DELETE", f"/v1/admin/sessions/{session['id']}").status_code == 204


def lesson(server: Server, name: str = "lesson") -> dict[str, Any]:
    """Ann's session with a model in it, and another that is nobody's business."""
    server.ask("ann", "POST", "/v1/sessions", json={"name": "private"})
    hidden = {"data": [7.0], "name": "hidden"}
    server.ask("ann", "POST", "/v1/tensors", json=hidden, headers={"Curlgrad-Session": "private"})
    made: dict[str, Any] = server.ask("ann", "POST", "/v1/sessions", json={"name": name, "seed": 4}).json()
    for body in ({"data": [1.5, 2.5], "name": "w", "requires_grad": True}, {"data": [3.0, 4.0], "name": "x"}):
        server.ask("ann", "POST", "/v1/tensors", json=body, headers={"Curlgrad-Session": name})
    return made


def publish(server: Server, name: str = "lesson", public: bool = True) -> Any:
    answer = server.ask("ann", "PATCH", f"/v1/sessions/{name}", json={"public": public})
    assert answer.status_code == 200, answer.text
    return answer.json()["public_id"]


def test_a_public_id_is_random_and_stays(server: Server) -> None:
    made = lesson(server)
    assert made["public_id"] is None
    public = publish(server)
    assert PUBLIC.fullmatch(public)
    assert public[2:] not in made["id"]
    assert publish(server) == public
    assert server.ask("ann", "GET", "/v1/sessions/lesson").json()["public_id"] == public
    assert publish(server, public=False) is None
    assert publish(server) != public  # who had the old one does not have the new one


def test_others_read_what_is_public(server: Server) -> None:
    made = lesson(server)
    public = publish(server)
    where = {"Curlgrad-Session": public}
    for who in ("bob", "eve", "ann"):
        assert server.ask(who, "GET", "/v1/tensors/w", headers=where).json()["values"] == [1.5, 2.5]
        assert len(server.ask(who, "GET", f"/v1/tensors?session={public}").json()["tensors"]) == 2
        shown = server.ask(who, "GET", f"/v1/sessions/{public}").json()
        assert (shown["id"], shown["name"], shown["tensors"], shown["public_id"]) == (public, None, 2, public)
        assert made["id"] not in str(shown)
        assert server.ask(who, "GET", f"/v1/sessions/{public}/snapshot").status_code == 200
    assert server.ask("bob", "GET", "/v1/sessions").json()["sessions"] == []


# What a session holds beside its tensors, and what was done in it; jobs have owners of their own.
OWNERS_ALONE = ("/v1/sessions/{id}/memory", "/v1/sessions/{id}/script", "/v1/jobs/{id}", "/v1/jobs/{id}/events")


def test_every_get_route_of_a_session_can_be_read_and_none_changes_it(server: Server) -> None:
    """Of every route of the document: GET answers as its owner is answered, anything else as if nothing were there."""
    lesson(server)
    public = publish(server)
    before = server.ask("ann", "GET", "/v1/sessions/lesson/snapshot").content
    walked = set()
    for method, path, call in calls(server):
        if call.get("security") == [{}] or path.startswith(
            ("/metrics", "/v1/admin", "/v1/me", "/v1/info", "/v1/devices")
        ):
            continue
        if path in ("/v1/sessions", "/v1/ops") or path.startswith("/v1/ops/{"):
            continue
        if path == "/v1/tensors/{id}/grad":
            continue
        session = path.startswith("/v1/sessions/")
        where = path.replace("{id}", public if session else "w")
        options: dict[str, Any] = {} if session else {"headers": {"Curlgrad-Session": public}}
        if method == "GET":
            mine = {} if session else {"headers": {"Curlgrad-Session": "lesson"}}
            theirs = server.ask("bob", method, where, **options)
            if path in OWNERS_ALONE:
                assert theirs.status_code == 404, (path, theirs.text)
                continue
            assert theirs.status_code == 200, (path, theirs.text)
            if path != "/v1/sessions/{id}":
                assert (
                    theirs.content
                    == server.ask("ann", method, path.replace("{id}", "lesson" if session else "w"), **mine).content
                )
            continue
        if path.endswith("/snapshot"):
            options = {"content": before, "headers": {"Content-Type": "application/x-safetensors"}}
        elif path == "/v1/tensors" and method == "DELETE":
            where += "?unnamed=true"
        elif path.startswith("/v1/ops/"):
            options["json"] = {"input": "w", "other": 1}
        elif path == "/v1/programs":
            options["json"] = {"steps": [{"op": "relu", "args": {"input": "w"}}]}
        elif method in ("POST", "PATCH"):
            options["json"] = {"data": [1]} if path == "/v1/tensors" else {"name": "mine"} if method == "PATCH" else {}
        for who in ("bob", "ann"):
            refused = server.ask(who, method, where, **options)
            assert refused.status_code == 404, (who, method, path, refused.text)
        walked.add((method, path))
    assert len(walked) > 8
    assert server.ask("ann", "GET", "/v1/sessions/lesson/snapshot").content == before


def test_nothing_but_the_published_session_is_seen(server: Server) -> None:
    lesson(server)
    public = publish(server)
    for path in ("/v1/tensors/hidden", "/v1/tensors/private"):
        answer = server.ask("bob", "GET", path, headers={"Curlgrad-Session": public})
        assert is_problem(answer, 404, "no-such-tensor")
        assert "7.0" not in answer.text
    for ref in ("lesson", "private", NEVER):
        answer = server.ask("bob", "GET", f"/v1/sessions/{ref}")
        assert is_problem(answer, 404, "no-such-session")
    snapshot = server.ask("bob", "GET", f"/v1/sessions/{public}/snapshot").content
    assert b"hidden" not in snapshot
    assert b"lesson" not in snapshot


def test_what_is_no_longer_public_is_as_if_it_never_was(server: Server) -> None:
    lesson(server)
    public = publish(server)
    fork = server.ask("bob", "POST", "/v1/sessions", json={"fork": public, "name": "mine"}).json()
    publish(server, public=False)
    for ref in (public, NEVER):
        for path in (f"/v1/sessions/{ref}", f"/v1/sessions/{ref}/snapshot", f"/v1/tensors/w?session={ref}"):
            answer = server.ask("bob", "GET", path)
            assert is_problem(answer, 404, "no-such-session")
            assert answer.json()["hint"] == "GET /v1/sessions lists yours"
        assert is_problem(server.ask("bob", "POST", "/v1/sessions", json={"fork": ref}), 404, "no-such-session")
    assert server.ask("bob", "GET", "/v1/tensors/w?session=mine").json()["values"] == [1.5, 2.5]
    assert fork["public_id"] is None


@pytest.mark.parametrize("how", ["deleted", "reset"])
def test_a_session_that_is_gone_is_public_no_more(server: Server, how: str) -> None:
    name = "lesson" if how == "deleted" else "default"
    lesson(server) if how == "deleted" else server.ask("ann", "POST", "/v1/tensors", json={"data": 1, "name": "w"})
    public = publish(server, name)
    assert server.ask("ann", "DELETE", f"/v1/sessions/{name}").status_code == 204
    assert is_problem(server.ask("bob", "GET", f"/v1/sessions/{public}"), 404, "no-such-session")


def test_a_fork_is_ones_own(server: Server) -> None:
    lesson(server)
    public = publish(server)
    made = server.ask("bob", "POST", "/v1/sessions", json={"fork": public, "name": "mine"})
    assert made.status_code == 201
    assert made.headers["location"] == f"/v1/sessions/{made.json()['id']}"
    assert (made.json()["name"], made.json()["seed"], made.json()["tensors"]) == ("mine", 4, 2)
    drawn = []
    for who, session, value in (("bob", "mine", 9.0), ("ann", "lesson", 5.0)):
        where = {"Curlgrad-Session": session}
        body = {"input": "x", "value": value}
        assert server.ask(who, "POST", "/v1/ops/fill_", json=body, headers=where).status_code == 200
        drawn.append(
            server.ask(who, "POST", "/v1/ops/rand", json={"size": [2]}, headers=where).json()["result"]["values"]
        )
    assert drawn[0] == drawn[1]
    assert server.ask("bob", "GET", "/v1/tensors/x?session=mine").json()["values"] == [9.0, 9.0]
    assert server.ask("bob", "GET", f"/v1/tensors/x?session={public}").json()["values"] == [5.0, 5.0]
    assert is_problem(server.ask("ann", "GET", "/v1/sessions/" + made.json()["id"]), 404, "no-such-session")
    assert server.ask("bob", "GET", "/v1/me").json()["use"] == {"sessions": 1, "bytes": 16 + 8}


def test_a_fork_with_its_key_is_made_once(server: Server) -> None:
    lesson(server)
    public = publish(server)
    key = {"Idempotency-Key": "fork-1"}
    first = server.ask("bob", "POST", "/v1/sessions", json={"fork": public}, headers=key).json()
    publish(server, public=False)
    assert server.ask("bob", "POST", "/v1/sessions", json={"fork": public}, headers=key).json()["id"] == first["id"]
    assert len(server.ask("bob", "GET", "/v1/sessions").json()["sessions"]) == 1


@pytest.mark.parametrize("field", [{"seed": 1}, {"device": "cpu"}, {"default_dtype": "float64"}])
def test_a_fork_has_what_its_source_has(server: Server, field: dict[str, Any]) -> None:
    lesson(server)
    answer = server.ask("bob", "POST", "/v1/sessions", json={"fork": publish(server), **field})
    assert is_problem(answer, 422, "invalid")
    assert server.ask("bob", "GET", "/v1/sessions").json()["sessions"] == []


@pytest.mark.parametrize("body", [{"public": 1}, {"public": "true"}, {"fork": "x"}])
def test_what_is_no_change_of_sharing(server: Server, body: dict[str, Any]) -> None:
    lesson(server)
    assert server.ask("ann", "PATCH", "/v1/sessions/lesson", json=body).status_code == 422
    assert server.ask("ann", "GET", "/v1/sessions/lesson").json()["public_id"] is None


def test_public_ids_are_no_names(server: Server) -> None:
    assert is_problem(server.ask("bob", "POST", "/v1/sessions", json={"name": NEVER}), 422, "bad-name")


def test_who_would_write_is_told_to_fork(server: Server) -> None:
    lesson(server)
    public = publish(server)
    hint = server.ask("bob", "POST", "/v1/ops/relu", json={"input": "w"}, headers={"Curlgrad-Session": public})
    assert is_problem(hint, 404, "no-such-session")
    assert public in hint.json()["hint"]


def test_sharing_outlives_the_server(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    texts = {name: keys.create(path, [name], ["read", "write"])[0][1] for name in ("ann", "bob")}
    settings = Settings(workers="inline", keys_file=path, max_rate=0, data_dir=tmp_path / "data")
    with served(create_app(settings)) as client:
        server = Server(client, texts)
        lesson(server)
        public = publish(server)
        assert server.ask("bob", "POST", "/v1/sessions", json={"fork": public, "name": "mine"}).status_code == 201
        server.ask(
            "bob", "POST", "/v1/ops/fill_", json={"input": "x", "value": 9}, headers={"Curlgrad-Session": "mine"}
        )
    with served(create_app(settings)) as client:
        server = Server(client, texts)
        assert server.ask("bob", "GET", f"/v1/tensors/x?session={public}").json()["values"] == [3.0, 4.0]
        assert server.ask("bob", "GET", "/v1/tensors/x?session=mine").json()["values"] == [9.0, 9.0]
        assert server.ask("bob", "POST", "/v1/sessions", json={"fork": public}).status_code == 201
        assert server.ask("ann", "GET", "/v1/sessions/lesson").json()["public_id"] == public
        publish(server, public=False)
    with served(create_app(settings)) as client:
        assert is_problem(Server(client, texts).ask("bob", "GET", f"/v1/sessions/{public}"), 404, "no-such-session")

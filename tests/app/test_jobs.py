"""Jobs over HTTP: the real engine, its worker in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app import prefer
from app.keys import create
from app.main import create_app
from app.routes import jobs
from app.settings import Settings
from tests.app.conftest import FakeService, served
from tests.app.test_real import ok, op, refused

ASYNC = {"Prefer": "respond-async"}
ADD = {"steps": [{"op": "add", "args": {"input": [1, 2], "other": 1}, "out": "y"}], "return": ["y"]}
FOREVER = {
    "inputs": {"x": {"data": [0.0] * 10_000, "shape": [100, 100]}},
    "steps": [{"repeat": 1_000_000, "steps": [{"op": "mm", "args": {"input": "x", "mat2": "x"}, "out": "x"}]}],
}
TRAIN = {
    "inputs": {"x": {"data": [8.0, 8.0]}},
    "steps": [
        {
            "repeat": 40,
            "steps": [
                {"op": "mul", "args": {"input": "x", "other": 0.5}, "out": "x"},
                {"op": "sum", "args": {"input": "x"}, "out": "loss"},
            ],
            "collect": {"loss": 10},
        }
    ],
    "return": ["loss"],
}


def submit(http: httpx.Client, program: Any = ADD, status: int = 202, **headers: str) -> Any:
    response = http.post("/v1/programs", json=program, headers={**ASYNC, **headers})
    job = ok(response, status)
    if status == 202:
        assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    return job


def ended(http: httpx.Client, job: Any) -> Any:
    """The job when it has ended, which listening to it waits for."""
    assert b"event: done" in http.get(f"/v1/jobs/{job['id']}/events").content
    return ok(http.get(f"/v1/jobs/{job['id']}"))


Events = list[tuple[str, str, Any]]


def events(response: httpx.Response) -> Events:
    """(event, id, data) of each."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found = re.findall(r"event: (.*)\nid: (.*)\ndata: (.*)\n\n", response.text)
    return [(name, id, json.loads(data)) for name, id, data in found]


# ---------------------------------------------------------------- from 202 to the result


def test_a_program_as_a_job(http: httpx.Client) -> None:
    direct = ok(http.post("/v1/programs", json=ADD))
    response = http.post("/v1/programs", json=ADD, headers=ASYNC)
    assert response.headers["preference-applied"] == "respond-async"
    job = ok(response, 202)
    assert (job["state"], job["survives_restart"], job["ended"], "result" in job) == ("queued", False, None, False)
    found = ended(http, job)
    assert (found["state"], found["result"]) == ("done", direct)
    assert found["progress"] == {
        "steps_run": 1,
        "steps": 1,
        "rounds": [],
        "of": [],
        "seconds": found["progress"]["seconds"],
    }
    assert found["kept_until"] == found["ended"] + 86400


def test_an_operation_as_a_job(http: httpx.Client) -> None:
    body = {"input": [[1, 2], [3, 4]], "out_name": "x", "other": 2**53}
    job = ok(http.post("/v1/ops/add?explain=true&int64=string", json=body, headers=ASYNC), 202)
    found = http.get(f"/v1/jobs/{job['id']}", headers={"Accept-Language": "ko"})
    while found.json()["state"] != "done":
        found = http.get(f"/v1/jobs/{job['id']}", headers={"Accept-Language": "ko"})
    result = found.json()["result"]
    assert result["op"] == "add"
    assert result["result"]["values"][0] == ["9007199254740993", "9007199254740994"]
    assert any(re.search("[가-힣]", note["text"]) for note in result["notes"])
    assert all("step" not in note for note in result["notes"])
    assert ok(http.get("/v1/tensors/x?values=none"))["name"] == "x"


def test_backward_as_a_job_is_an_operation(http: httpx.Client) -> None:
    ok(http.post("/v1/tensors", json={"data": [1.0, 2.0], "requires_grad": True, "name": "w"}), 201)
    op(http, "sum", input="w", out_name="loss")
    job = ok(http.post("/v1/ops/backward", json={"input": "loss"}, headers=ASYNC), 202)
    assert ended(http, job)["result"] == {"op": "backward", "result": None}
    assert ok(http.get("/v1/tensors/w/grad"))["values"] == [1.0, 1.0]


def test_a_job_that_fails_has_the_problem_that_the_call_would_have_answered(http: httpx.Client) -> None:
    program = {"steps": [*ADD["steps"], {"op": "mm", "args": {"input": "y", "mat2": "y"}}]}
    direct = refused(http.post("/v1/programs", json=program), 422, "shape-mismatch")
    found = ended(http, submit(http, program))
    assert (found["state"], "result" in found) == ("failed", False)
    assert {**found["problem"], "request_id": ""} == {**direct, "request_id": ""}
    assert found["problem"]["step"] == [1]
    job = ok(http.post("/v1/ops/mm", json={"input": [1.0], "mat2": [1.0]}, headers=ASYNC), 202)
    problem = ended(http, job)["problem"]
    assert (problem["instance"], "step" in problem) == ("/v1/ops/mm", False)


def test_an_answer_that_comes_in_time_is_the_answer(http: httpx.Client) -> None:
    response = http.post("/v1/programs", json=ADD, headers={"Prefer": "respond-async, wait=20"})
    assert response.headers["preference-applied"] == "wait=20"
    assert ok(response) == ok(http.post("/v1/programs", json=ADD))
    big = {"steps": [{"op": "ones", "args": {"size": [300_000]}, "out": "y"}], "return": ["y"]}
    response = http.post("/v1/programs?values=all", json=big, headers={"Prefer": "respond-async, wait=20"})
    assert len(ok(response)["results"]["y"]["values"]) == 300_000
    failing = http.post(
        "/v1/ops/mm", json={"input": [1.0], "mat2": [1.0]}, headers={"Prefer": "wait=20, respond-async"}
    )
    assert "step" not in refused(failing, 422, "shape-mismatch")


def test_one_that_does_not_is_a_job(http: httpx.Client) -> None:
    response = http.post("/v1/programs", json=FOREVER, headers={"Prefer": "respond-async, wait=0"})
    assert response.headers["preference-applied"] == "respond-async, wait=0"
    job = ok(response, 202)
    assert http.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert ended(http, job)["state"] == "cancelled"


def test_a_dry_run_is_no_job(http: httpx.Client) -> None:
    response = http.post("/v1/programs?dry_run=true", json=ADD, headers=ASYNC)
    assert "peak_bytes" in ok(response)
    assert "preference-applied" not in response.headers


def test_values_over_a_mebibyte_are_read_from_the_session_while_they_are_there(http: httpx.Client) -> None:
    ones = {"steps": [{"op": "ones", "args": {"size": [300_000]}, "out": "y"}], "return": ["y"], "keep": {"y": "y"}}
    job = ok(http.post("/v1/programs?values=all", json=ones, headers=ASYNC), 202)
    assert len(ended(http, job)["result"]["results"]["y"]["values"]) == 300_000
    op(http, "add_", input="y", other=1)
    assert ended(http, job)["result"]["results"]["y"]["values"] is None


# ---------------------------------------------------------------- the line, and cancelling


def test_jobs_stand_in_the_line_of_their_session(http: httpx.Client) -> None:
    first = submit(http, FOREVER)
    second = submit(http)
    third = submit(http)
    assert (second["position"], third["position"]) == (1, 2)
    listed = ok(http.get("/v1/jobs?limit=1000"))["jobs"]
    assert [job["id"] for job in listed][-3:] == [first["id"], second["id"], third["id"]]
    assert all("result" not in job for job in listed)
    for _ in range(2):  # may be repeated
        assert http.delete(f"/v1/jobs/{second['id']}").status_code == 204
    assert ok(http.get(f"/v1/jobs/{second['id']}"))["state"] == "cancelled"
    assert ok(http.get(f"/v1/jobs/{third['id']}"))["position"] == 1
    http.delete(f"/v1/jobs/{first['id']}")
    assert ended(http, third)["state"] == "done"


def test_a_list_has_pages(http: httpx.Client) -> None:
    made = [submit(http)["id"] for _ in range(3)]
    first = ok(http.get("/v1/jobs?limit=1"))
    seen, cursor = [first["jobs"][0]["id"]], first["cursor"]
    while cursor is not None:
        page = ok(http.get(f"/v1/jobs?limit=1&cursor={cursor}"))
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["cursor"]
    assert seen[-3:] == made
    assert seen == sorted(seen)
    refused(http.get("/v1/jobs?cursor=x"), 422, "bad-cursor")


def test_an_idempotency_key_makes_one_job(http: httpx.Client) -> None:
    program = {**ADD, "keep": {"y": "y"}}
    job = submit(http, program, **{"Idempotency-Key": "k"})
    assert submit(http, program, **{"Idempotency-Key": "k"})["id"] == job["id"]
    direct = ok(http.post("/v1/programs", json=program, headers={"Idempotency-Key": "k"}))
    assert ended(http, job)["result"] == direct
    response = http.post("/v1/programs", json=ADD, headers={**ASYNC, "Idempotency-Key": "k"})
    refused(response, 422, "idempotency-key-reused")


@pytest.mark.parametrize("path", ["", "/events"])
def test_what_is_no_job_is_404(http: httpx.Client, path: str) -> None:
    for id in ("j-1", "j-" + "0" * 46, "x" * 5000):
        body = refused(http.get(f"/v1/jobs/{id}{path}"), 404, "no-such-job")
        assert "GET /v1/jobs" in body["hint"]
    refused(http.delete("/v1/jobs/j-1"), 404, "no-such-job")


def test_another_owners_job_is_not_there(tmp_path: Any) -> None:
    path = tmp_path / "keys.json"
    keys = create(path, ["ann", "bob"], ("read", "write"))
    ann, bob = ({"Authorization": f"Bearer {text}"} for _, text in keys)
    with served(create_app(Settings(workers="inline", keys_file=path))) as http:
        job = ok(http.post("/v1/programs", json=ADD, headers={**ann, **ASYNC}), 202)
        for method, rest in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
            refused(http.request(method, f"/v1/jobs/{job['id']}{rest}", headers=bob), 404, "no-such-job")
        assert ok(http.get("/v1/jobs", headers=bob))["jobs"] == []
        assert [one["id"] for one in ok(http.get("/v1/jobs", headers=ann))["jobs"]] == [job["id"]]


# ---------------------------------------------------------------- events


def test_the_events_of_a_job(http: httpx.Client) -> None:
    job = submit(http, TRAIN)
    told = events(http.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}))
    values = [value for name, _, data in told if name == "collected" for value in data["loss"]]
    assert values == [16 * 0.5**n for n in (10, 20, 30, 40)]
    assert told[-1][:2] == ("done", "4-end")
    assert told[-1][2]["state"] == "done"
    assert told[-2][0] == "progress"
    assert (told[-2][2]["state"], told[-2][2]["steps_run"], told[-2][2]["steps"]) == ("done", 80, 80)


def test_listening_goes_on_after_the_last_event_that_came(http: httpx.Client) -> None:
    job = submit(http, TRAIN)
    ended(http, job)
    path = f"/v1/jobs/{job['id']}/events"
    told = events(http.get(path, headers={"Last-Event-ID": "3"}))
    assert told[0] == ("collected", "4", {"loss": [16 * 0.5**40]})
    told = events(http.get(path, headers={"Last-Event-ID": "4"}))
    assert [name for name, _, _ in told] == ["progress", "done"]
    assert http.get(path, headers={"Last-Event-ID": "4-end"}).status_code == 204
    for wrong in ("x", "4-", "1..2", "-1", "9" * 13):
        assert refused(http.get(path, headers={"Last-Event-ID": wrong}), 422, "invalid")["param"] == "Last-Event-ID"
    refused(http.get(path, headers={"Accept": "application/json"}), 406, "not-acceptable")


class Told(FakeService):
    """A service with one job, which stands as a test says, look by look."""

    durable = True

    def __init__(self, *stands: Any) -> None:
        super().__init__()
        self.stands = iter(stands)
        self.looks: list[Any] = []

    async def job(self, owner: str, id: str, **how: Any) -> Any:
        self.looks.append(how)
        stand = next(self.stands)
        if isinstance(stand, Exception):
            raise stand
        return {**_STAND, **stand}


_STAND: dict[str, Any] = {
    "job": "j-1",
    "session": "s-1",
    "state": "running",
    "created": 1.5,
    "ended": None,
    "kept_until": None,
    "position": None,
    "steps_run": 0,
    "steps": 10,
    "rounds": [],
    "of": [],
    "seconds": 0.5,
    "about": {"op": None, "path": "/v1/programs", "request_id": "r", "int64": "number"},
    "problem": None,
    "collected": {},
    "seen": [],
    "more": False,
}


def listen(*stands: Any) -> tuple[httpx.Response, Told]:
    service = Told(*stands)
    with served(create_app(Settings(), service)) as client:  # type: ignore[arg-type]
        return client.get("/v1/jobs/j-1/events"), service


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ASK_S", 0.0)
    monkeypatch.setattr(jobs, "ASKS", 1e9)


@pytest.mark.usefixtures("fast")
def test_nothing_new_is_told_but_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    response, _ = listen({}, {}, {}, {"state": "done"})
    assert [name for name, _, _ in events(response)] == ["progress", "progress", "done"]
    assert ": still here" not in response.text
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.0)
    response, _ = listen({}, {}, {}, {"state": "done"})
    assert response.text.count(": still here\n\n") == 3


@pytest.mark.usefixtures("fast")
def test_a_worker_that_starts_anew_does_not_end_the_listening() -> None:
    from engine.errors import NoSuchJob, Unavailable

    seen = {"seen": [2], "collected": {"loss": [1.0, 2.0]}}
    response, service = listen(seen, Unavailable("it restarts"), {"seen": [2]}, NoSuchJob("it is forgotten"))
    told = events(response)
    assert [name for name, _, _ in told] == ["collected", "progress", "problem"]
    assert told[-1][1] == "2-end"
    assert told[-1][2]["code"] == "no-such-job"
    assert service.looks[1:] == [{"seen": [2]}] * 3


@pytest.mark.usefixtures("fast")
def test_what_is_much_comes_in_parts_without_waiting() -> None:
    part = {"collected": {"loss": [1.0]}, "more": True}
    response, _ = listen({**part, "seen": [1]}, {**part, "seen": [2], "state": "done"}, {"seen": [2], "state": "done"})
    assert [(name, id) for name, id, _ in events(response)] == [
        ("collected", "1"), ("collected", "2"), ("progress", "2"), ("done", "2-end"),
    ]  # fmt: skip


@pytest.mark.usefixtures("fast")
def test_a_server_that_ends_lets_listeners_go() -> None:
    service = Told({}, {}, {})
    application = create_app(Settings(), service)  # type: ignore[arg-type]
    gate = application.state.house.gate

    class Ending(Told):
        async def job(self, owner: str, id: str, **how: Any) -> Any:
            gate.closed = bool(self.looks)
            return await super().job(owner, id, **how)

    service.__class__ = Ending
    with served(application) as client:
        assert [name for name, _, _ in events(client.get("/v1/jobs/j-1/events"))] == ["progress"]
    assert application.state.house.listeners == {}


def test_so_many_may_listen(make_client: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_LISTENERS", 0)
    response, _ = listen({})
    assert int(response.headers["retry-after"]) > 0
    refused(response, 429, "too-many-listeners")


# ---------------------------------------------------------------- the header


@pytest.mark.parametrize(
    "headers, asked",
    [
        ([], None),
        (["wait=20"], None),
        (["return=minimal"], None),
        (["respond-async"], prefer.Async()),
        (["Respond-Async; x=1"], prefer.Async()),
        (["respond-async, wait=20"], prefer.Async(20)),
        (["wait = 5 , handling=lenient, respond-async"], prefer.Async(5)),
        (["respond-async", 'wait="7"'], prefer.Async(7)),
        (["respond-async, wait=1, wait=2"], prefer.Async(1)),
        (["respond-async, wait=-1"], prefer.Async()),
        (["respond-async, wait=soon"], prefer.Async()),
        (["respond-async, wait=999999"], prefer.Async(prefer.MAX_WAIT_S)),
    ],
)
def test_preferences(headers: list[str], asked: prefer.Async | None) -> None:
    assert prefer.read(headers) == asked

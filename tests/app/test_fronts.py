"""Several fronts that share the workers: what one has answered holds on all, and none takes anything with it."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import keys, metrics
from app.rates import SharedRates, shared_table
from app.settings import Settings
from engine import service as door
from tests.app.conftest import scattered
from tests.processes import ROOT, Served, family, serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

FRONTS = 3
LONG = {
    "steps": [{"repeat": 200_000, "steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]}],
    "return": ["x"],
}
STEP = {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}], "return": ["x"]}


def until(true: Any, what: str, seconds: float = 60) -> Any:
    """What `true` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def ok(response: httpx.Response, *statuses: int) -> Any:
    assert response.status_code in (statuses or (200, 201, 204)), response.text
    return response.json() if response.content else None


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers with a data directory, three fronts."""
    folder = tmp_path_factory.mktemp("fronts")
    data = ("--data-dir", str(folder / "data"), "--workers", "cpu:2", "--max-jobs", "5")
    with serving(folder, "--fronts", str(FRONTS), *data) as served:
        assert len(family(served.process.pid)["front"]) == FRONTS
        yield served


@pytest.fixture
def http(service: Served) -> Iterator[httpx.Client]:
    """A client that meets another front with each request."""
    with scattered(service.url) as client:
        until(lambda: all_up(client), "a front is missing")
        yield client


def all_up(client: httpx.Client) -> bool:
    try:
        text = client.get("/metrics").text
    except httpx.HTTPError:  # a front that had taken the connection when it was killed
        return False
    return len(re.findall(r"^curlgrad_front_up\{[^}]*\} 1", text, re.MULTILINE)) == FRONTS


numbers = count()


@pytest.fixture
def session(http: httpx.Client) -> Iterator[str]:
    """A session of the test's own, with x = 0 in it."""
    name = f"own-{next(numbers)}"
    ok(http.post("/v1/sessions", json={"name": name}))
    ok(http.post("/v1/tensors", json={"data": 0, "dtype": "int64", "name": "x"}, headers={"Curlgrad-Session": name}))
    yield name
    ok(http.delete(f"/v1/sessions/{name}"))


def of(name: str, **more: str) -> dict[str, str]:
    return {"Curlgrad-Session": name, **more}


def value(http: httpx.Client, name: str) -> Any:
    return ok(http.get("/v1/tensors/x", headers=of(name)))["values"]


# ---------------------------------------------------------------- one map of sessions


def test_every_request_of_a_new_connection_meets_another_front(http: httpx.Client) -> None:
    def served() -> list[float]:
        text = ok_text(http.get("/metrics"))
        return [float(found) for found in re.findall(r"curlgrad_front_cpu_seconds\{[^}]*\} (\S+)", text)]

    before = served()
    for _ in range(300):
        ok(http.get("/v1/ops/add"))
    after = served()
    assert len(before) == FRONTS
    assert all(b > a for a, b in zip(before, after, strict=True))


def ok_text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.text


def test_what_was_answered_is_read_by_whoever_comes_next(service: Served) -> None:
    """Several clients, each with a session of its own, and all with one: no connection sees less than was answered."""
    seen: list[int] = []

    def work(number: int) -> None:
        name = f"stress-{number}"
        with scattered(service.url) as client:
            for _ in range(8):
                ok(client.post("/v1/sessions", json={"name": name}))
                made = {"data": 0, "dtype": "int64", "name": "x"}
                ok(client.post("/v1/tensors", json=made, headers=of(name)))
                for step in range(1, 6):
                    assert (
                        ok(client.post("/v1/programs", json=STEP, headers=of(name)))["results"]["x"]["values"] == step
                    )
                    assert value(client, name) == step
                ok(client.patch(f"/v1/sessions/{name}", json={"name": f"{name}-b"}))
                assert client.get("/v1/tensors/x", headers=of(name)).status_code == 404
                assert value(client, f"{name}-b") == 5
                ok(client.post("/v1/sessions", json={"name": name}))
                assert client.get("/v1/tensors/x", headers=of(name)).status_code == 404
                for one in (name, f"{name}-b"):
                    ok(client.delete(f"/v1/sessions/{one}"))
                    assert client.get("/v1/tensors", headers=of(one)).status_code == 404
                seen.append(ok(client.post("/v1/programs", json=STEP, headers=of("all")))["results"]["x"]["values"])

    with scattered(service.url) as client:
        ok(client.post("/v1/sessions", json={"name": "all"}))
        ok(client.post("/v1/tensors", json={"data": 0, "dtype": "int64", "name": "x"}, headers=of("all")))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert sorted(seen) == list(range(1, 33))
        assert value(client, "all") == 32
        ok(client.delete("/v1/sessions/all"))


@pytest.mark.slow
def test_one_default_session_is_made(tmp_path: Path) -> None:
    """By whichever front comes first, of many at once."""
    text = {}
    for name in ("ann", "bob"):
        ((_, text[name]),) = keys.create(tmp_path / "keys.json", [name], ("read", "write"))
    options = ("--fronts", "3", "--keys-file", str(tmp_path / "keys.json"), "--max-rate", "0", "--workers", "cpu:2")
    with serving(tmp_path, *options) as served, ThreadPoolExecutor(8) as pool:

        def make(name: str) -> None:
            with scattered(served.url) as client:
                ok(client.post("/v1/tensors", json={"data": [1]}, headers={"Authorization": f"Bearer {text[name]}"}))

        list(pool.map(make, ["ann", "bob"] * 12))
        for key in text.values():
            with scattered(served.url) as client:
                headers = {"Authorization": f"Bearer {key}"}
                assert len(ok(client.get("/v1/sessions", headers=headers))["sessions"]) == 1
                assert len(ok(client.get("/v1/tensors", headers=headers))["tensors"]) == 12
        # A key that is revoked counts on no front any more.
        keys.revoke(tmp_path / "keys.json", [text["bob"].split("_")[1]])
        with scattered(served.url) as client:
            time.sleep(2 * keys.LOOK_AGAIN_S)
            asked = [
                client.get("/v1/me", headers={"Authorization": f"Bearer {text[name]}"}).status_code
                for name in ["ann"] * 6 + ["bob"] * 6
            ]
            assert asked == [200] * 6 + [401] * 6
            # Nor does a front that is started when the file is gone open the door.
            (tmp_path / "keys.json").unlink()
            before = family(served.process.pid)["front"]
            os.kill(before[0], signal.SIGKILL)
            until(lambda: set(family(served.process.pid)["front"]) - set(before), "no new front")
            for _ in range(12):
                assert client.get("/v1/sessions").status_code == 401
                ok(client.get("/v1/sessions", headers={"Authorization": f"Bearer {text['ann']}"}))


def test_a_name_that_is_given_again_leads_to_the_new_session(http: httpx.Client, service: Served) -> None:
    """While the old session, which all fronts know, still waits to be closed behind a long program."""
    ok(http.post("/v1/sessions", json={"name": "again"}))
    ok(http.post("/v1/tensors", json={"data": 0, "dtype": "int64", "name": "x"}, headers=of("again")))
    for _ in range(2 * FRONTS):
        assert value(http, "again") == 0
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(httpx.post, f"{service.url}/v1/programs", json=LONG, headers=of("again"), timeout=60)
        until(lambda: any(w["calls"] for w in ok(http.get("/v1/info"))["workers"]), "it does not run")
        closing = pool.submit(httpx.delete, f"{service.url}/v1/sessions/again", timeout=60)
        until(lambda: http.post("/v1/sessions", json={"name": "again"}).status_code == 201, "the name is never free")
        unfinished = not closing.done()
        for _ in range(2 * FRONTS):
            assert ok(http.get("/v1/tensors", headers=of("again")))["tensors"] == []
        assert running.result().json()["results"]["x"]["values"] == 200_000
        ok(closing.result())
    assert unfinished, "the program was over too soon to try this"
    ok(http.delete("/v1/sessions/again"))


def test_calls_go_to_the_worker_by_the_shortest_way(service: Served, session: str) -> None:
    """They are answered while the server, which knows all sessions, stands still; and go by it where they must."""
    with httpx.Client(base_url=service.url, timeout=20) as client:
        assert value(client, session) == 0
        os.kill(service.process.pid, signal.SIGSTOP)
        try:
            for step in range(1, 4):
                assert ok(client.post("/v1/programs", json=STEP, headers=of(session)))["results"]["x"]["values"] == step
            with pytest.raises(httpx.ReadTimeout):
                client.get("/v1/sessions", timeout=0.5)
        finally:
            os.kill(service.process.pid, signal.SIGCONT)
    with scattered(service.url) as client:
        assert value(client, session) == 3


def test_a_key_is_done_once_on_whichever_front(http: httpx.Client, session: str) -> None:
    for _ in range(2 * FRONTS):
        answer = ok(http.post("/v1/programs", json=STEP, headers=of(session, **{"Idempotency-Key": "one"})))
        assert answer["results"]["x"]["values"] == 1
    made = {ok(http.post("/v1/sessions", json={}, headers={"Idempotency-Key": "s"}))["id"] for _ in range(2 * FRONTS)}
    assert len(made) == 1
    ok(http.delete(f"/v1/sessions/{made.pop()}"))
    tag = ok(http.get("/v1/tensors/x", headers=of(session)))["etag"]
    change = {"input": "x", "other": 1}
    statuses = [
        http.post("/v1/ops/add_", json=change, headers=of(session, **{"If-Match": f'"{tag}"'})).status_code
        for _ in range(FRONTS)
    ]
    assert statuses == [200, 412, 412]


def test_a_job_is_told_of_and_cancelled_by_any_front(http: httpx.Client, session: str) -> None:
    forever = {"steps": [{"repeat": 1_000_000, "steps": [{"op": "cos", "args": {"input": "x"}, "out": "x"}]}] * 9}
    headers = of(session, Prefer="respond-async")
    first, second = (ok(http.post("/v1/programs", json=forever, headers=headers), 202)["id"] for _ in range(2))
    until(lambda: ok(http.get(f"/v1/jobs/{first}"))["state"] == "running", "it does not run")
    for _ in range(FRONTS):
        assert ok(http.get(f"/v1/jobs/{second}"))["position"] == 1
        assert {job["id"] for job in ok(http.get("/v1/jobs"))["jobs"]} >= {first, second}
    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(http.get, f"/v1/jobs/{first}/events")
        time.sleep(0.3)
        ok(http.delete(f"/v1/jobs/{first}"))
        assert "event: done" in listening.result(30).text
    ok(http.delete(f"/v1/jobs/{second}"))
    assert ok(http.get(f"/v1/jobs/{second}"))["state"] == "cancelled"


def test_a_public_session_is_read_and_forked_by_any_front(http: httpx.Client, session: str) -> None:
    public = ok(http.patch(f"/v1/sessions/{session}", json={"public": True}))["public_id"]
    for _ in range(FRONTS):
        assert value(http, public) == 0
    fork = ok(http.post("/v1/sessions", json={"fork": public}))["id"]
    for step in range(1, FRONTS + 1):
        assert ok(http.post("/v1/programs", json=STEP, headers=of(fork)))["results"]["x"]["values"] == step
    assert value(http, public) == 0
    ok(http.delete(f"/v1/sessions/{fork}"))
    ok(http.patch(f"/v1/sessions/{session}", json={"public": False}))
    assert [http.get("/v1/tensors", headers=of(public)).status_code for _ in range(FRONTS)] == [404] * FRONTS


def test_big_tensors_go_both_ways(http: httpx.Client, session: str) -> None:
    data = bytes(range(256)) * (1 << 14)
    raw = {"Content-Type": "application/octet-stream"}
    for _ in range(FRONTS):
        path = "/v1/tensors?name=big&dtype=uint8&shape=4194304"
        ok(http.post(path, content=data, headers=of(session, **raw)))
        assert http.get("/v1/tensors/big?as=raw", headers=of(session)).content == data
        ok(http.delete("/v1/tensors/big", headers=of(session)))
    snapshot = http.get(f"/v1/sessions/{session}/snapshot").content
    ok(http.put(f"/v1/sessions/{session}/snapshot", content=snapshot, headers={"Content-Type": SAFETENSORS}))
    assert value(http, session) == 0


SAFETENSORS = "application/x-safetensors"


# ---------------------------------------------------------------- counted together


def test_numbers_are_those_of_all_fronts_also_of_one_that_died(http: httpx.Client, service: Served) -> None:
    def listed() -> float:
        text = ok_text(http.get("/metrics"))
        found = re.search(r'curlgrad_requests_total\{method="GET",route="/v1/devices",status="200"\} (\S+)', text)
        return float(found[1]) if found else 0.0

    before = listed()
    for _ in range(10):
        ok(http.get("/v1/devices"))
    assert [listed() for _ in range(FRONTS)] == [before + 10] * FRONTS
    os.kill(family(service.process.pid)["front"][0], signal.SIGKILL)
    until(lambda: all_up(http), "no new front")
    assert [listed() for _ in range(FRONTS)] == [before + 10] * FRONTS
    for _ in range(FRONTS):
        ok(http.get("/v1/devices"))
    assert listed() == before + 10 + FRONTS
    assert re.search(r"curlgrad_front_restarts_total\{[^}]*\} [1-9]", http.get("/metrics").text)


@pytest.mark.slow
def test_a_rate_is_that_of_all_fronts(tmp_path: Path) -> None:
    ((_, text),) = keys.create(tmp_path / "keys.json", ["ann"], ("read", "write"))
    options = ("--fronts", "3", "--keys-file", str(tmp_path / "keys.json"), "--max-rate", "1", "--workers", "cpu:1")
    with serving(tmp_path, *options) as served, scattered(served.url) as client:
        begin = time.monotonic()
        asked = [client.get("/v1/ops/add", headers={"Authorization": f"Bearer {text}"}).status_code for _ in range(12)]
        passed = asked.count(200)
        assert asked[:2] == [200, 200]
        assert passed <= 2 + int(time.monotonic() - begin) + 1
        assert set(asked) == {200, 429}


def test_buckets_in_shared_memory_are_those_of_one_process() -> None:
    now = [100.0]
    fd = shared_table()
    fronts = [SharedRates(2, fd, clock=lambda: now[0]) for _ in range(3)]
    assert [front.wait("ann") for front in fronts] == [0.0] * 3
    assert fronts[0].wait("ann") == 0.0
    assert fronts[1].wait("ann") == 0.5
    assert fronts[2].wait("bob") == 0.0
    now[0] += 0.5
    assert fronts[2].wait("ann") == 0.0
    assert fronts[0].wait("ann") == 0.5
    now[0] += 100
    assert [fronts[i % 3].wait("ann") for i in range(5)] == [0.0] * 4 + [0.5]
    for i in range(10_000):  # more callers than there are buckets: none is refused wrongly
        assert fronts[i % 3].wait(f"caller {i}") == 0.0
    assert SharedRates(0, fd).wait("ann") == 0.0
    os.close(fd)


def test_counts_are_added_up() -> None:
    one, other = metrics.Metrics(), metrics.Metrics()
    assert metrics.merged([one.counts(), other.counts()]) == one.counts()
    a = {"requests": [["GET", "/a", 200, 2]], "seconds": {"/a": [[1, 1], 0.5]}, "now": 1}
    b = {"requests": [["GET", "/a", 200, 3], ["GET", "/b", 404, 1]], "seconds": {"/a": [[0, 3], 1.5]}, "now": 0}
    assert metrics.merged([a, {}, b]) == {
        "requests": [["GET", "/a", 200, 5], ["GET", "/b", 404, 1]],
        "seconds": {"/a": [[1, 4], 2.0]},
        "now": 1,
    }


def test_a_front_has_all_that_a_service_has() -> None:
    """But for what the server alone does."""
    servers = {"ready", "info", "fronts"}
    for name, method in vars(door.Service).items():
        if name.startswith("_") or name in servers or not inspect.isfunction(method):
            continue
        assert list(inspect.signature(method).parameters) == list(
            inspect.signature(getattr(door.Front, name)).parameters
        )


def test_settings_cross_to_another_process(tmp_path: Path) -> None:
    settings = Settings(uds=tmp_path / "s", cors_origin=("https://a.example", "https://b.example"), fronts=3)
    assert Settings.from_data(json.loads(json.dumps(settings.to_data()))) == settings


# ---------------------------------------------------------------- deaths


def test_a_front_that_is_killed_takes_nothing_with_it(service: Served, http: httpx.Client, session: str) -> None:
    """What it was asked without a key is undone, as when a caller hangs up; what is acknowledged stays."""
    with scattered(service.url) as client:
        for step in range(1, 4):
            assert ok(client.post("/v1/programs", json=STEP, headers=of(session)))["results"]["x"]["values"] == step
    before = family(service.process.pid)["front"]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        clients = [stack.enter_context(httpx.Client(base_url=service.url, timeout=60)) for _ in range(FRONTS)]
        for client in clients:  # a connection to each
            ok(client.get("/healthz"))
        calls = [pool.submit(client.post, "/v1/programs", json=LONG, headers=of(session)) for client in clients]
        until(lambda: sum(w["calls"] for w in ok(http.get("/v1/info"))["workers"]) >= FRONTS, "they do not wait")
        os.kill(before[1], signal.SIGKILL)
        outcomes: list[Any] = []
        for call in calls:
            try:
                outcomes.append(ok(call.result())["results"]["x"]["values"])
            except httpx.HTTPError:
                outcomes.append(None)
    assert outcomes.count(None) == 1
    assert sorted(one for one in outcomes if one) == [200_003, 400_003]
    assert value(http, session) == 400_003
    until(lambda: len(set(family(service.process.pid)["front"]) - set(before)) == 1, "no new front")
    for _ in range(2 * FRONTS):
        assert value(http, session) == 400_003


def test_a_connection_that_a_front_had_not_taken_is_given_to_another(service: Served, http: httpx.Client) -> None:
    front = family(service.process.pid)["front"][0]
    os.kill(front, signal.SIGSTOP)
    with ThreadPoolExecutor(FRONTS) as pool:
        asked = [pool.submit(httpx.get, f"{service.url}/healthz", timeout=60) for _ in range(FRONTS)]
        until(lambda: sum(one.done() for one in asked) == FRONTS - 1, "others do not answer")
        time.sleep(0.2)
        assert sum(one.done() for one in asked) == FRONTS - 1
        os.kill(front, signal.SIGKILL)
        assert [one.result().status_code for one in asked] == [200] * FRONTS
    ok(http.get("/v1/info"))


def test_a_worker_that_is_killed_comes_back_and_calls_are_told_the_truth(
    service: Served, http: httpx.Client, session: str
) -> None:
    """Each call was done and is answered, or 503 says that it was not: on every front."""
    place = ok(http.get(f"/v1/sessions/{session}"))["worker"]
    pid = next(w["pid"] for w in ok(http.get("/v1/info"))["workers"] if w["name"] == place)
    answers: list[int] = []
    stopping = threading.Event()

    def work(number: int) -> int:
        done = 0
        with scattered(service.url) as client:
            while not stopping.is_set():
                answer = client.post("/v1/programs", json=STEP, headers=of(session))
                if answer.status_code == 200:
                    answers.append(answer.json()["results"]["x"]["values"])
                    done += 1
                else:
                    assert (answer.status_code, answer.json()["code"]) == (503, "not-applied"), answer.text
        return done

    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(work, i) for i in range(6)]
        until(lambda: len(answers) > 20, "nothing is done")
        os.kill(pid, signal.SIGKILL)
        seen = len(answers)
        until(lambda: len(answers) > seen + 40, "it does not go on")
        stopping.set()
        done = sum(one.result() for one in working)
    # Every change that was answered was made, once, and no other.
    assert sorted(answers) == list(range(1, done + 1))
    assert value(http, session) == done


def test_a_program_that_kills_its_worker_twice_is_refused_by_every_front(service: Served, http: httpx.Client) -> None:
    """Also by fronts that were not the ones it came in by."""
    ok(http.post("/v1/sessions", json={"name": "deadly"}))
    ok(http.post("/v1/tensors", json={"data": 0, "dtype": "int64", "name": "x"}, headers=of("deadly")))
    place = ok(http.get("/v1/sessions/deadly"))["worker"]
    for _ in range(2):
        worker = next(w for w in ok(http.get("/v1/info"))["workers"] if w["name"] == place)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(httpx.post, f"{service.url}/v1/programs", json=LONG, headers=of("deadly"), timeout=90)
            until(lambda: any(w["calls"] for w in ok(http.get("/v1/info"))["workers"]), "it does not run")
            time.sleep(0.1)
            os.kill(worker["pid"], signal.SIGKILL)
            answer = running.result()
        assert (answer.status_code, answer.json()["code"]) == (503, "not-applied"), answer.text
    for _ in range(FRONTS):
        refused = http.post("/v1/programs", json=LONG, headers=of("deadly"))
        assert (refused.status_code, refused.json()["code"]) == (422, "killed-worker"), refused.text
    assert value(http, "deadly") == 0
    ok(http.delete("/v1/sessions/deadly"))


@pytest.mark.slow
@pytest.mark.parametrize("data", [False, True])
def test_when_the_server_dies_nothing_is_left(tmp_path: Path, data: bool) -> None:
    folder = str(tmp_path / "data") if data else "none"
    with serving(tmp_path, "--fronts", "2", "--workers", "cpu:2", "--data-dir", folder) as served:
        left = [pid for pids in family(served.process.pid).values() for pid in pids]
        assert len(left) == 4
        with scattered(served.url) as client:
            ok(client.post("/v1/tensors", json={"data": 7, "name": "x"}))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(httpx.post, f"{served.url}/v1/programs", json=LONG, timeout=60)
            time.sleep(0.1)
            served.process.kill()
            served.process.wait()
            with contextlib.suppress(httpx.HTTPError):
                running.result()
        until(lambda: not [pid for pid in left if Path(f"/proc/{pid}").exists()], "orphans are left")
    if data:
        with (
            serving(tmp_path, "--fronts", "2", "--workers", "cpu:2", "--data-dir", folder) as served,
            scattered(served.url) as client,
        ):
            assert ok(client.get("/v1/tensors/x"))["values"] in (7, 200_007)


# ---------------------------------------------------------------- its beginning and end


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["the server is told", "all processes are told"])
def test_told_to_end_it_finishes_what_runs_and_keeps_it(tmp_path: Path, alone: bool) -> None:
    data = ("--fronts", "2", "--data-dir", str(tmp_path / "data"), "--workers", "cpu:1")
    with serving(tmp_path, *data) as served, httpx.Client(base_url=served.url, timeout=60) as client:
        ok(client.post("/v1/tensors", json={"data": 0, "dtype": "int64", "name": "x"}))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(httpx.post, f"{served.url}/v1/programs", json=LONG, timeout=60)
            until(lambda: ok(client.get("/v1/info"))["workers"][0]["calls"], "it does not run")
            left = [pid for pids in family(served.process.pid).values() for pid in pids]
            for pid in (*left, served.process.pid) if alone else (served.process.pid,):
                os.kill(pid, signal.SIGTERM)
            until(lambda: client.get("/v1/tensors").status_code == 503, "it takes requests")
            assert ok(running.result())["results"]["x"]["values"] == 200_000
        assert served.process.wait(40) in (0, -signal.SIGTERM)
        assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
        assert not served.bugs
    with serving(tmp_path, *data) as served, scattered(served.url) as client:
        assert ok(client.get("/v1/tensors/x"))["values"] == 200_000


@pytest.mark.slow
def test_a_unix_socket_and_a_simulated_device(tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = [sys.executable, "-m", "app", "--uds", str(path), "--fronts", "2", "--workers", "practice-cuda"]
    with subprocess.Popen([*command, "--data-dir", "none"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert str(path) in process.stderr.readline()
            assert path.stat().st_mode & 0o777 == 0o600
            for name in ("a", "b"):
                with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any") as client:
                    answer = client.post("/v1/tensors", json={"data": [1.0], "name": name, "device": "cuda:0"})
                    assert ok(answer)["device"] == "cuda:0"
                    assert answer.headers["Curlgrad-Simulated"] == "true"
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(40) == 0
            process.communicate()
    assert not path.exists()


def test_fronts_for_a_worker_in_the_server_are_refused() -> None:
    command = [sys.executable, "-m", "app", "--port", "0", "--fronts", "2", "--workers", "inline", "--data-dir", "none"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--workers inline" in done.stderr
    assert "Traceback" not in done.stderr

"""`make test-kill`: kill -9 of workers and of the whole service under load, again and again: nothing is lost.

    make test-kill                              the short form, as in CI
    make test-kill ARGS='--kills 200'           the long one

Each of 8 clients trains a model of its own in place, one program after the other, each with a number: a program that
is done has that number in the tensor `n`. At random moments the worker, or the whole service, is killed. Then every
session must be where its client was answered it is, or where the one call that was not answered leads to; and it must
be so in every bit: a twin session of the same seed, in a service that nobody kills, went the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from tests.processes import family

pytestmark = [pytest.mark.kill, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
CLIENTS = 8
TLS = ssl.create_default_context()  # no call uses it, but each client makes one if it is given none: that takes longer
SETUP = {
    "steps": [
        {"op": "randn", "args": {"size": [16, 4]}, "out": "x"},
        {"op": "randn", "args": {"size": [4, 3], "requires_grad": True}, "out": "w"},
        {"op": "zeros", "args": {"size": [], "dtype": "int64"}, "out": "n"},
        {"op": "optim.adam_state", "args": {"params": ["w"]}, "out": "st"},
    ],
    "keep": {"x": "x", "w": "w", "n": "n", "st": "adam"},
}


def training(number: int) -> dict[str, Any]:
    """One change, in place, of everything that a session can hold: values, gradients, tape, generator, state."""
    step = [
        {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "h"},
        {"op": "nn.functional.dropout", "args": {"input": "h", "p": 0.25}, "out": "h"},
        {"op": "mul", "args": {"input": "h", "other": "h"}, "out": "h"},
        {"op": "mean", "args": {"input": "h"}, "out": "loss"},
        {"op": "backward", "args": {"input": "loss"}},
        {"op": "optim.adam_", "args": {"params": ["w"], "grads": ["w.grad"], "state": "adam"}},
    ]
    return {
        "steps": [
            {"repeat": 3 + number % 5, "steps": step},
            {"op": "fill_", "args": {"input": "n", "value": number}},
        ],
        "keep": {"loss": "loss"},
        "return": ["n", "w", "w.grad", "loss"],
    }


class Server:
    """The service as a process of its own, which can be killed and started again on the same data and port."""

    def __init__(self, folder: Path, data: str, sync: str, fronts: int = 1) -> None:
        self.data, self.sync, self.fronts, self.said = data, sync, fronts, folder / "said"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self) -> None:
        """Starts it, and returns when it listens."""
        options = ["--port", str(self.port), "--data-dir", self.data, "--sync", self.sync, "--fronts", str(self.fronts)]
        command = [sys.executable, "-m", "app", *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CURLGRAD_")}
        until = time.monotonic() + 120
        while True:
            with self.said.open("w") as said:
                self.process = subprocess.Popen(
                    [*command, "--workers", "cpu:1"], cwd=ROOT, env=environment, stderr=said
                )
            while self.process.poll() is None:
                found = re.search(r"http://127\.0\.0\.1:(\d+);", self.said.read_text())
                if found:
                    self.port = int(found[1])
                    return
                time.sleep(0.05)
                assert time.monotonic() < until, "it does not come up"
            # The old port may be held for a moment longer.
            assert time.monotonic() < until, self.said.read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(40) in (0, -signal.SIGTERM)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def front(self) -> int | None:
        """One of several fronts."""
        assert self.process is not None
        found = family(self.process.pid)["front"]
        return found[0] if found else None

    def worker(self) -> int | None:
        with contextlib.suppress(httpx.HTTPError):
            told = httpx.get(f"{self.url}/v1/info", timeout=60, verify=TLS).json()
            found: int | None = told["workers"][0]["pid"]
            return found
        return None


def connected(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=60, verify=TLS)


def digest(client: httpx.Client, session: str) -> tuple[int, str]:
    """The number of a session's last change, and a digest of all its bits that a client can see."""
    headers = {"Curlgrad-Session": session}
    listed = _when_up(client, "GET", "/v1/tensors?limit=1000", headers=headers)
    ids = [entry["id"] for entry in listed.json()["tensors"]]
    read = _when_up(client, "POST", "/v1/programs?values=all", json={"steps": [], "return": ids}, headers=headers)
    tensors = read.json()["results"]
    for tensor in tensors.values():
        tensor.pop("etag")
        (tensor["grad"] or {}).pop("etag", None)
    number = next(tensor["values"] for tensor in tensors.values() if tensor["name"] == "n")
    return number, hashlib.sha256(json.dumps(tensors, sort_keys=True).encode()).hexdigest()


def _when_up(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer, once the worker is up again: on a busy machine that may take longer than a call waits for it."""
    until = time.monotonic() + 60
    while True:
        answer = client.request(method, path, **options)
        if answer.status_code != 503 or answer.json()["code"] != "not-applied" or time.monotonic() > until:
            assert answer.status_code == 200, answer.text
            return answer
        time.sleep(0.1)


class Client(threading.Thread):
    """Trains until told to stop; knows what it was answered."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        self.server, self.session = server, f"client-{number}"
        self.number = number
        self.acknowledged = 0  # the last number that was answered
        self.asked = 0  # the last number that was sent
        self.stopping = threading.Event()
        self.problem: str | None = None
        self.resent = 0

    def run(self) -> None:
        try:
            with connected(self.server) as client:
                while not self.stopping.is_set():
                    self.step(client)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self.problem = f"{type(error).__name__}: {error}"

    def step(self, client: httpx.Client) -> None:
        """Sends the next program until it is answered; with a key, so that it is done once however often it is sent."""
        self.asked = self.acknowledged + 1
        headers = {"Curlgrad-Session": self.session, "Idempotency-Key": f"step-{self.asked}"}
        while True:
            try:
                answer = client.post("/v1/programs", json=training(self.asked), headers=headers)
            except httpx.HTTPError:
                if self.stopping.wait(0.05):
                    return
                self.resent += 1
                continue
            if answer.status_code == 503:
                self.resent += 1
                if self.stopping.wait(0.05):
                    return
                continue
            if answer.status_code != 200:
                raise AssertionError(answer.text)
            if answer.json()["results"]["n"]["values"] != self.asked:
                raise AssertionError(f"asked for {self.asked}, answered {answer.text[:300]}")
            self.acknowledged = self.asked
            return


class Twins:
    """What each client's session is after each number, from a service in memory that nobody kills."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.reached: dict[str, tuple[int, str]] = {}  # of each session, its number and its digest there

    def make(self, client: httpx.Client, session: str, seed: int) -> None:
        made = client.post("/v1/sessions", json={"name": session, "seed": seed})
        assert made.status_code == 201, made.text
        assert client.post("/v1/programs", json=SETUP, headers={"Curlgrad-Session": session}).status_code == 200

    def after(self, session: str, number: int) -> str:
        at, _ = self.reached.get(session, (0, ""))
        assert number >= at, f"{session} has gone back from {at}"
        if number > at or session not in self.reached:
            for step in range(at + 1, number + 1):
                headers = {"Curlgrad-Session": session}
                assert self.client.post("/v1/programs", json=training(step), headers=headers).status_code == 200
            self.reached[session] = digest(self.client, session)
        assert self.reached[session][0] == number
        return self.reached[session][1]


@pytest.fixture
def twins(tmp_path: Path) -> Any:
    with Server(tmp_path, "none", "always") as server, connected(server) as client:
        yield Twins(client)


@pytest.mark.parametrize("sync", ["always", "everysec", "no"])
def test_nothing_acknowledged_is_lost(sync: str, tmp_path: Path, twins: Twins, kills: int) -> None:
    lose_nothing(sync, tmp_path, twins, kills)


def test_nothing_acknowledged_is_lost_by_several_fronts(tmp_path: Path, twins: Twins, kills: int) -> None:
    lose_nothing("everysec", tmp_path, twins, 2 * kills, fronts=3)


def lose_nothing(sync: str, tmp_path: Path, twins: Twins, kills: int, fronts: int = 1) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    with Server(folder, str(folder / "data"), sync, fronts) as server:
        told = kill_again_and_again(server, twins, random.Random(f"{sync} {kills} {fronts}"), kills)
        server.stop()
    print(f"{sync}, fronts {fronts}: {told}")


def kill_again_and_again(server: Server, twins: Twins, chance: random.Random, kills: int) -> str:
    """Kills `kills` times under load, and looks at everything after each; what was done, in words."""
    with connected(server) as client:
        for number in range(CLIENTS):
            for where in (client, twins.client):
                twins.make(where, f"client-{number}", seed=number)
    acknowledged = [0] * CLIENTS
    resent = services = 0
    for round in range(kills):
        clients = [Client(server, number) for number in range(CLIENTS)]
        for one in clients:
            one.acknowledged = one.asked = acknowledged[one.number]
            one.start()
        time.sleep(0.1 + chance.random() * 0.9)
        whole = chance.random() < 0.5
        pid = None if whole else server.front() if server.fronts > 1 and chance.random() < 0.5 else server.worker()
        if pid is None:
            services += 1
            server.kill()
        else:
            os.kill(pid, signal.SIGKILL)
            time.sleep(chance.random() * 0.5)
        for one in clients:
            one.stopping.set()
        if pid is None:
            server.start()
        for one in clients:
            one.join(60)
            assert not one.is_alive()
            assert one.problem is None, one.problem
            resent += one.resent
        with connected(server) as client:
            for one in clients:
                number, bits = digest(client, one.session)
                context = f"kill {round} of {kills}, {one.session}: at {number}, acknowledged {one.acknowledged}"
                assert one.acknowledged <= number <= one.asked, context
                assert bits == twins.after(one.session, number), context
                acknowledged[one.number] = number
    assert sum(acknowledged) > kills, "nothing was done at all"
    done = f"{sum(acknowledged)} changes, {resent} calls sent again"
    return f"{kills} kills, {services} of them of the whole service, {done}"

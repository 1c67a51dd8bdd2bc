"""Clients that load the service: each makes a session, works in it, deletes it, and so again until told to stop.

    python clients.py PORT ECHO_PORT SECONDS CLIENTS SEED    -> a line of JSON with times and counts

Run as processes of their own, so that neither their memory nor their turns are the test's. http.client, because it
costs the least: what is measured should be the server. Before one call in eight the echo route is asked too.
"""

from __future__ import annotations

import http.client
import io
import json
import random
import socket
import sys
import threading
import time
from typing import Any

import numpy as np

BASE = 1.05  # each bucket of a histogram of times is 5 % wider than the one before; the first is 1 µs


class Times:
    """A histogram of times, which stays small however many there are."""

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        at = int(np.log(max(seconds * 1e6, 1.0)) / np.log(BASE))
        self.buckets[at] = self.buckets.get(at, 0) + 1


class Connection(http.client.HTTPConnection):
    """A connection that is made anew after a pause: servers close those that say nothing for 5 seconds."""

    used = 0.0

    def answer(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[Any, bytes]:
        if time.monotonic() - self.used > 2:
            self.close()
        self.request(method, path, body, headers)
        response = self.getresponse()
        content = response.read()
        self.used = time.monotonic()
        return response, content


class Client(threading.Thread):
    """One client. `wrong` holds what was answered otherwise than it should have been."""

    def __init__(self, port: int, echo: int, until: float, seed: str) -> None:
        super().__init__(daemon=True)
        self.port, self.until, self.chance = port, until, random.Random(seed)
        self.echo = Connection("127.0.0.1", echo, timeout=120)
        self.http = Connection("127.0.0.1", port, timeout=120)
        self.session = ""
        self.times: dict[str, Times] = {}
        self.count = 0
        self.hung_up = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                self.lesson()
        except Exception as error:  # noqa: BLE001 - told by the test
            self.wrong.append(f"{type(error).__name__}: {error}")

    # ------------------------------------------------------------ calls

    def ask(self, kind: str, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> Any:
        """One call; the answer's JSON. An answer of another status is noted."""
        if self.chance.random() < 0.125:
            self.ask_echo()
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        if self.session:
            given["Curlgrad-Session"] = self.session
        begin = time.perf_counter()
        response, content = self.http.answer(method, path, sent, given)
        self.times.setdefault(kind, Times()).add(time.perf_counter() - begin)
        self.count += 1
        if response.status != status:
            self.wrong.append(f"{kind} {method} {path}: {response.status} instead of {status}: {content[:300]!r}")
        return json.loads(content) if content and response.getheader("content-type", "").endswith("json") else content

    def ask_echo(self) -> None:
        begin = time.perf_counter()
        self.echo.answer("POST", "/echo", b'{"input": "x", "other": 2.5}', {"Content-Type": "application/json"})
        self.times.setdefault("echo", Times()).add(time.perf_counter() - begin)

    def lesson(self) -> None:
        """A session from its making to its end."""
        self.session = ""
        self.session = self.ask("session", "POST", "/v1/sessions", {"seed": self.chance.randrange(1 << 30)}, 201)["id"]
        self.ask("upload", "POST", "/v1/tensors", {"data": [[0.5] * 8] * 16, "name": "x"}, 201)
        weights = {"data": [[0.1] * 4] * 8, "name": "w", "requires_grad": True}
        self.ask("upload", "POST", "/v1/tensors", weights, 201)
        for _ in range(self.chance.randrange(5, 25)):
            self.chance.choices(*self.WORK, k=1)[0](self)
        self.ask("session", "DELETE", f"/v1/sessions/{self.session}", status=204)

    # ------------------------------------------------------------ kinds of work

    def small(self) -> None:
        made = self.ask("op", "POST", "/v1/ops/mul", {"input": "x", "other": self.chance.random()})
        self.ask("op", "DELETE", f"/v1/tensors/{made['result']['id']}", status=204)

    def named(self) -> None:
        self.ask("op", "POST", "/v1/ops/mm", {"input": "x", "mat2": "w", "out_name": "y"})
        self.ask("op", "POST", "/v1/ops/sum", {"input": "y", "out_name": "loss"})
        self.ask("backward", "POST", "/v1/tensors/loss/backward", {})
        self.ask("op", "PATCH", "/v1/tensors/w", {"grad": None})

    def training(self) -> None:
        step = [
            {"op": "mm", "args": {"input": "x", "mat2": "w"}, "out": "p"},
            {"op": "square", "args": {"input": "p"}, "out": "p"},
            {"op": "mean", "args": {"input": "p"}, "out": "loss"},
            {"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["w"]}, "out": ["g"]},
            {"op": "sub_", "args": {"input": "w", "other": "g", "alpha": 0.01}, "no_grad": True},
        ]
        program = {"steps": [{"repeat": self.chance.choice((3, 20)), "steps": step}], "return": ["loss"]}
        self.ask("program", "POST", "/v1/programs", program)

    def reading(self) -> None:
        self.ask("read", "GET", "/v1/tensors/x")
        self.ask("read", "GET", "/v1/tensors/w/describe", Accept="text/plain")
        self.ask("read", "GET", "/v1/tensors")

    def binary(self) -> None:
        file = io.BytesIO()
        np.save(file, np.ones(self.chance.choice((1_000, 100_000)), np.float32))
        self.ask(
            "binary", "POST", "/v1/tensors?name=big", file.getvalue(), 201, **{"Content-Type": "application/x-npy"}
        )
        self.ask("binary", "GET", "/v1/tensors/big?as=npy")
        self.ask("op", "DELETE", "/v1/tensors/big", status=204)

    def mistakes(self) -> None:
        self.ask("refused", "POST", "/v1/ops/mm", {"input": "x", "mat2": "x"}, 422)
        self.ask("refused", "GET", "/v1/tensors/nothing", status=404)
        self.ask("refused", "POST", "/v1/programs", b'{"steps": [', 400)
        self.ask("refused", "POST", "/v1/ops/ones", {"size": [1 << 40]}, 507)

    def hang_up(self) -> None:
        """A request whose client goes before it is sent, or before it is answered."""
        body = json.dumps(
            {"steps": [{"op": "randn", "args": {"size": [300, 300]}, "out": "r"}], "return": ["r"]}
        ).encode()
        head = f"POST /v1/programs?values=all HTTP/1.1\r\nHost: 127.0.0.1\r\nCurlgrad-Session: {self.session}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as raw:
            sent = head.encode() + body
            raw.sendall(sent[: self.chance.choice((20, len(head) + 10, len(sent)))])
            if self.chance.random() < 0.5:
                time.sleep(0.01)
        self.hung_up += 1

    def slow_reader(self) -> None:
        """Reads a large answer in small parts with pauses, and at times not to its end."""
        self.ask("op", "POST", "/v1/ops/zeros", {"size": [300_000], "out_name": "wide"})
        head = "GET /v1/tensors/wide?as=npy HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += f"Curlgrad-Session: {self.session}\r\n\r\n"
        left = self.chance.choice((10, 200))
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            raw.sendall(head.encode())
            for _ in range(left):
                if not raw.recv(8192):
                    break
                time.sleep(0.002)
        self.hung_up += 1
        self.ask("op", "DELETE", "/v1/tensors/wide", status=204)

    WORK = (
        [small, named, training, reading, binary, mistakes, hang_up, slow_reader],
        [6, 3, 3, 4, 1, 2, 1, 1],
    )


def main(port: int, echo: int, seconds: float, count: int, seed: str) -> None:
    until = time.monotonic() + seconds
    clients = [Client(port, echo, until, f"{seed} {number}") for number in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    times: dict[str, dict[int, int]] = {}
    for client in clients:
        for kind, found in client.times.items():
            whole = times.setdefault(kind, {})
            for at, n in found.buckets.items():
                whole[at] = whole.get(at, 0) + n
    print(
        json.dumps(
            {
                "times": times,
                "count": sum(client.count for client in clients),
                "hung_up": sum(client.hung_up for client in clients),
                "wrong": [text for client in clients for text in client.wrong][:20],
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5])

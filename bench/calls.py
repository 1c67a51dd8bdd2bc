"""Small calls over HTTP: requests a second beside a FastAPI route that only echoes, and beside other servers.

    python bench/calls.py            prints the tables
    python bench/calls.py --write    and puts them into docs/performance.md

Every server runs by itself on loopback, with the same client: one request under way on each connection, the next sent
as soon as an answer is whole. They take turns, round after round. A bare relay between two processes, without FastAPI,
is what our way would cost if there were nothing to do. The other servers are scripts in bench/peers/, each
with the same small addition; one is measured where its interpreter is named, as in
CURLGRAD_BENCH_LITSERVE=/path/to/python. CPU time is that of all of a server's processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.peers import ROOT, machine
from bench.serving import Load, Running, free_port, heading, load, ours, request, write

ADD = {"input": [1.0, 2.0, 3.0], "other": [4.0, 5.0, 6.0], "out_name": "z"}
ECHO_GOAL = 0.8
PEERS_GOAL = 2.0
WITH_FRONTS = "curlgrad --fronts 2"
ECHO = "FastAPI, echo"
RELAY = "bare relay, two processes"
PROGRAM_OPS = 100
PROGRAM_GOAL_US = 20.0


@dataclass(frozen=True)
class Peer:
    """Another server: its script, the path that answers once it is up, and the request for the same addition."""

    script: str
    ready: str
    path: str
    body: Mapping[str, Any]
    patience: float = 120


PEERS = {
    "litserve": Peer("litserve_add.py", "/health", "/predict", {"input": ADD["input"], "other": ADD["other"]}),
    "bentoml": Peer("bentoml_add.py", "/readyz", "/add", {"input": ADD["input"], "other": ADD["other"]}),
    "ray": Peer("ray_add.py", "/-/healthz", "/add", {"input": ADD["input"], "other": ADD["other"]}, 180),
    "mlserver": Peer(
        "mlserver_add.py",
        "/v2/health/ready",
        "/v2/models/add/infer",
        {
            "inputs": [
                {"name": "input", "shape": [3], "datatype": "FP32", "data": ADD["input"]},
                {"name": "other", "shape": [3], "datatype": "FP32", "data": ADD["other"]},
            ]
        },
    ),
}


def start_script(name: str, python: str, ready: str, patience: float = 60) -> Running:
    """A script of bench/peers/ on a free port."""
    port = free_port()
    return Running([python, str(ROOT / "bench" / "peers" / name), str(port)], port, ready, patience=patience)


def interpreter(name: str) -> str | None:
    """The interpreter that has a peer, as the environment names it."""
    return os.environ.get(f"CURLGRAD_BENCH_{name.upper()}")


@dataclass
class Side:
    """A server that is measured, and what it is sent."""

    name: str
    server: Running
    sent: bytes


def take_turns(sides: list[Side], connections: int, seconds: float, rounds: int) -> dict[str, list[Load]]:
    """Loads of every side, in turn, in both directions."""
    found: dict[str, list[Load]] = {side.name: [] for side in sides}
    for side in sides:
        load(side.server, side.sent, connections, min(seconds, 0.5))
    for i in range(rounds):
        for side in sides if i % 2 == 0 else reversed(sides):
            found[side.name].append(load(side.server, side.sent, connections, seconds))
    return found


def small_calls(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row for each server and number of connections."""
    started: list[Running] = []
    rows = []
    try:
        sides = []
        for name, server, sent in (
            ("curlgrad", ours(), request("/v1/ops/add", json.dumps(ADD).encode())),
            (WITH_FRONTS, ours("--fronts", "2"), request("/v1/ops/add", json.dumps(ADD).encode())),
            (
                ECHO,
                start_script("echo.py", sys.executable, "/ready"),
                request("/v1/ops/add", json.dumps(ADD).encode()),
            ),
            (
                RELAY,
                start_script("relay.py", sys.executable, "/ready"),
                request("/v1/ops/add", json.dumps(ADD).encode()),
            ),
        ):
            started.append(server)
            sides.append(Side(name, server, sent))
        for name, peer in PEERS.items():
            python = interpreter(name)
            if python is None:
                continue
            try:
                server = start_script(peer.script, python, peer.ready, peer.patience)
            except RuntimeError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            started.append(server)
            sides.append(Side(name, server, request(peer.path, json.dumps(peer.body).encode())))
        for connections in (1, 32):
            found = take_turns(sides, connections, seconds, rounds)
            mine = found["curlgrad"]
            for name, loads in found.items():
                ratio = statistics.median(a.rate / b.rate for a, b in zip(mine, loads, strict=True))
                rows.append(
                    {
                        "server": name,
                        "connections": connections,
                        "rate": statistics.median(one.rate for one in loads),
                        "cpu_us": statistics.median(one.cpu_us for one in loads),
                        "by": {
                            role: statistics.median(one.cpu_by[role] / one.requests * 1e6 for one in loads)
                            for role in loads[0].cpu_by
                        },
                        "ratio": ratio,
                    }
                )
    finally:
        for server in started:
            server.close()
    return rows


def program(rounds: int) -> dict[str, float]:
    """Microseconds an operation of a program of many tiny ones, in the whole request: wall and CPU."""
    names = ["add", "mul", "sub", "tanh"]
    steps = []
    for i in range(PROGRAM_OPS):
        op = names[i % len(names)]
        args: dict[str, Any] = {"input": "x"} if op == "tanh" else {"input": "x", "other": "y"}
        steps.append({"op": op, "args": args, "out": "x"})
    body = {"inputs": {"x": "a", "y": "b"}, "steps": steps, "return": ["x"], "no_grad": True}
    server = ours()
    try:
        for name in "ab":
            server.must("POST", "/v1/tensors", {"data": [0.5] * 8, "name": name})
        sent = request("/v1/programs", json.dumps(body).encode())
        load(server, sent, 1, 0.5)
        loads = [load(server, sent, 1, 1.0) for _ in range(rounds)]
    finally:
        server.close()
    return {
        "wall": statistics.median(one.wall / one.requests for one in loads) / PROGRAM_OPS * 1e6,
        "cpu": statistics.median(one.cpu / one.requests for one in loads) / PROGRAM_OPS * 1e6,
    }


def as_markdown(rows: list[dict[str, Any]], tiny: dict[str, float], rounds: int) -> str:
    """The tables, with where and when they were measured."""
    lines = [
        heading(("fastapi", "uvicorn", "uvloop", "httptools", "pydantic"), rounds),
        "",
        "| server | connections | requests/s | CPU, µs a request | curlgrad's rate over its | goal |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    goal: float | str
    for row in rows:
        own = row["server"] == "curlgrad"
        if row["server"] in (WITH_FRONTS, RELAY):
            goal = ""
        else:
            goal = ECHO_GOAL if row["server"] == ECHO else PEERS_GOAL
        below = "" if own or not goal or row["ratio"] >= goal else " (below)"
        parts = ", ".join(f"{role} {used:.0f}" for role, used in row["by"].items() if used >= 0.5)
        shown = f"{row['cpu_us']:.0f}" + (f" ({parts})" if "," in parts else "")
        lines.append(
            f"| {row['server']} | {row['connections']} | {row['rate']:.0f} | {shown} | "
            + ("| |" if own else f"{row['ratio']:.2f}{below} | {goal} |")
        )
    below = "" if tiny["wall"] <= PROGRAM_GOAL_US else " (above)"
    told = (
        f"A program of {PROGRAM_OPS} tiny operations, whole request: {tiny['wall']:.1f} µs an operation{below}, "
        f"{tiny['cpu']:.1f} of CPU time; the goal is {PROGRAM_GOAL_US:.0f}."
    )
    return "\n".join([*lines, "", told])


def main() -> int:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each load lasts")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    print(machine())
    table = as_markdown(small_calls(options.seconds, options.rounds), program(options.rounds), options.rounds)
    print(table)
    if options.write:
        write("bench/calls.py", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

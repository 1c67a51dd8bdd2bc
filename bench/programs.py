"""Whole training programs over HTTP beside PyTorch eager and hand-written NumPy: CPU time a step, in turns.

    python bench/programs.py            prints the table
    python bench/programs.py --write    and puts it into docs/performance.md
    python bench/programs.py --json F   and writes it to F
    python bench/programs.py --plain    leaves the compiled kernels out

Two servers of ours, where this interpreter has the extra of compiled kernels: one that has them, and one from which
they are hidden, as in the plain installation. A server runs each program in one request, `repeat` rounds of it, or, as
"again", one round in each of many requests; what counts is the CPU time of the server's processes, reading requests and
writing answers included, once it has seen the program twice. PyTorch and NumPy run the same steps in a process of their
own. One thread each; medians of the ratios of interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.peers import ONE_THREAD, ROOT, TORCH_MISSING, Peer, Tasks, find_torch, machine, serve_child
from bench.serving import heading, write

ROUNDS = {"step": 200, "step again": 100, "small": 20_000, "small again": 500, "forward": 12, "chain": 12}
ROUNDS |= {"transformer": 20, "cnn": 20}
# The largest wanted ratios to the peer's CPU time: of the plain installation, and where another is wanted of the one
# with compiled kernels.
GOALS: dict[str, dict[str, float | None]] = {
    "step": {"numpy": 1.10, "torch": 0.80},
    "step again": {"numpy": None, "torch": None},
    "small": {"numpy": 1.0, "torch": 0.20},
    "small again": {"torch": None},
    "forward": {"torch": 0.72},
    "chain": {"torch": 0.60},
    "transformer": {"torch": 1.5},
    "cnn": {"torch": 1.4},
}
COMPILED_GOALS: dict[str, dict[str, float | None]] = {"transformer": {"torch": 1.1}, "cnn": {"torch": 1.1}}
WHAT = {
    "step": "training step, 64x784-256-256-10, linear, relu, cross_entropy, SGD",
    "step again": "the same, one step in each request",
    "small": "mul, add, tanh, sum of 8 numbers, backward, and a step down",
    "small again": "the same, one step in each request",
    "forward": "8 element-wise operations over 4M float32, and their sum",
    "chain": "the same, forward and backward, and a step down",
    "transformer": "transformer block (batch 8, sequence 64, width 128, 4 heads), forward, backward, SGD",
    "cnn": "CNN on 64 images of 28x28 (two conv, two pool, two linear), forward, backward, SGD",
}
PEER = {"numpy": "NumPy by hand", "torch": "PyTorch"}
# What a server is started with from which the compiled kernels are hidden.
HIDING = "import runpy, sys; sys.modules['numba'] = None; runpy.run_module('app', run_name='__main__', alter_sys=True)"


def data(name: str) -> str:
    """The task whose tensors a task has."""
    return "chain" if name == "forward" else name.removesuffix(" again")


SIZES = (784, 256, 256, 10)
CHAIN = 4 << 20


# ---------------------------------------------------------------- ours


def step(op: str, out: Any = None, /, **args: Any) -> dict[str, Any]:
    """A step of a program."""
    made = {"op": op, "args": args}
    return made if out is None else {**made, "out": out}


def setup(name: str) -> list[dict[str, Any]]:
    """Steps that make a task's tensors, kept in the session."""
    normal = lambda out, *size, scale=1.0: [  # noqa: E731
        step("randn", out, size=list(size)),
        step("mul", out, input=out, other={"float": scale}),
    ]
    made: list[dict[str, Any]] = []
    for out, size, scale in TENSORS[name]:
        made += normal(out, *size, scale=scale)
    if name in ("step", "cnn"):
        made.append(step("randint", "target", low=0, high=10, size=[64]))
    made += [step("requires_grad_", None, input=p) for p in PARAMETERS[name]]
    return made


TENSORS: dict[str, list[tuple[str, tuple[int, ...], float]]] = {
    "step": [
        ("x", (64, 784), 1.0),
        *[(f"w{i}", (m, n), n**-0.5) for i, (n, m) in enumerate(pairwise(SIZES))],
        *[(f"b{i}", (n,), 0.1) for i, n in enumerate(SIZES[1:])],
    ],
    "small": [("a", (8,), 1.0), ("b", (8,), 1.0)],
    "chain": [("leaf", (CHAIN,), 1.0), ("scale", (CHAIN,), 1.0)],
    "transformer": [
        ("x", (8, 64, 128), 1.0),
        ("n1w", (128,), 1.0), ("n1b", (128,), 0.1), ("wqkv", (384, 128), 0.09), ("bqkv", (384,), 0.1),
        ("wo", (128, 128), 0.09), ("bo", (128,), 0.1), ("n2w", (128,), 1.0), ("n2b", (128,), 0.1),
        ("wf", (512, 128), 0.09), ("bf", (512,), 0.1), ("wg", (128, 512), 0.05), ("bg", (128,), 0.1),
    ],
    "cnn": [
        ("x", (64, 1, 28, 28), 1.0),
        ("k1", (16, 1, 3, 3), 0.3), ("c1", (16,), 0.1), ("k2", (32, 16, 3, 3), 0.08), ("c2", (32,), 0.1),
        ("w1", (128, 1568), 0.03), ("d1", (128,), 0.1), ("w2", (10, 128), 0.09), ("d2", (10,), 0.1),
    ],
}  # fmt: skip
PARAMETERS = {
    "step": ["w0", "b0", "w1", "b1", "w2", "b2"],
    "small": ["a", "b"],
    "chain": ["leaf"],
    "transformer": [name for name, _, _ in TENSORS["transformer"][1:]],
    "cnn": [name for name, _, _ in TENSORS["cnn"][1:]],
}


def body(name: str) -> list[dict[str, Any]]:
    """The steps of one round."""
    if name == "forward":
        return [{**one, "no_grad": True} for one in body("chain")[:-2]]
    name = data(name)
    f = "nn.functional."
    params = PARAMETERS[name]
    grads = [f"g{i}" for i in range(len(params))]
    if name == "step":
        forward = []
        for i in range(3):
            forward.append(step(f + "linear", "h", input="h" if i else "x", weight=f"w{i}", bias=f"b{i}"))
            if i < 2:
                forward.append(step("relu", "h", input="h"))
        forward.append(step(f + "cross_entropy", "loss", input="h", target="target"))
    elif name == "small":
        forward = [
            step("mul", "h", input="a", other="b"),
            step("add", "h", input="h", other="b"),
            step("tanh", "h", input="h"),
            step("sum", "loss", input="h"),
        ]
    elif name == "chain":
        forward = [
            step("mul", "h", input="leaf", other="scale"),
            step("add", "h", input="h", other={"float": 0.5}),
            step("tanh", "h", input="h"),
            step("mul", "h", input="h", other="h"),
            step("sub", "h", input="h", other="scale"),
            step("exp", "h", input="h"),
            step("relu", "h", input="h"),
            step("neg", "h", input="h"),
            step("sum", "loss", input="h"),
        ]
    elif name == "transformer":
        forward = [
            step(f + "layer_norm", "h", input="x", normalized_shape=[128], weight="n1w", bias="n1b"),
            step(f + "linear", "h", input="h", weight="wqkv", bias="bqkv"),
            step("reshape", "h", input="h", shape=[8, 64, 3, 4, 32]),
            step("permute", "h", input="h", dims=[2, 0, 3, 1, 4]),
            step("unbind", ["q", "k", "v"], input="h"),
            step(f + "scaled_dot_product_attention", "h", query="q", key="k", value="v"),
            step("transpose", "h", input="h", dim0=1, dim1=2),
            step("reshape", "h", input="h", shape=[8, 64, 128]),
            step(f + "linear", "h", input="h", weight="wo", bias="bo"),
            step("add", "r", input="x", other="h"),
            step(f + "layer_norm", "h", input="r", normalized_shape=[128], weight="n2w", bias="n2b"),
            step(f + "linear", "h", input="h", weight="wf", bias="bf"),
            step(f + "gelu", "h", input="h"),
            step(f + "linear", "h", input="h", weight="wg", bias="bg"),
            step("add", "h", input="r", other="h"),
            step("square", "h", input="h"),
            step("mean", "loss", input="h"),
        ]
    else:
        forward = []
        for i in (1, 2):
            h = "h" if i > 1 else "x"
            forward += [
                step(f + "conv2d", "h", input=h, weight=f"k{i}", bias=f"c{i}", padding=1),
                step("relu", "h", input="h"),
                step(f + "max_pool2d", "h", input="h", kernel_size=2),
            ]
        forward += [
            step("flatten", "h", input="h", start_dim=1),
            step(f + "linear", "h", input="h", weight="w1", bias="d1"),
            step("relu", "h", input="h"),
            step(f + "linear", "h", input="h", weight="w2", bias="d2"),
            step(f + "cross_entropy", "loss", input="h", target="target"),
        ]
    return [
        *forward,
        step("autograd.grad", grads, outputs=["loss"], inputs=params),
        step("optim.sgd_", None, params=params, grads=grads, lr={"float": 0.001}),
    ]


class Server:
    """Our service in a process of its own; its CPU time is read from the kernel."""

    def __init__(self, side: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(["-m", "app"] if side == "compiled" else ["-c", HIDING]),
                "--port",
                str(self.port),
                "--workers",
                "inline",
                "--data-dir",
                self.folder.name,
            ],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                if self.ask("GET", "/readyz")[0] == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("the server did not start")
            time.sleep(0.05)
        self.plans: dict[str, Any] = {}
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        for name in TENSORS:
            made = setup(name)
            kept = {out: f"{name}.{out}" for out in {s["out"] for s in made if "out" in s}}
            self.run({"steps": made, "keep": kept})

    def ask(self, method: str, path: str, value: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            return self.asked(connection, method, path, None if value is None else json.dumps(value).encode())
        finally:
            connection.close()

    def asked(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, Any]:
        """A request on a connection that stays open."""
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def run(self, program: dict[str, Any]) -> Any:
        status, answer = self.ask("POST", "/v1/programs?values=none", program)
        if status != 200:
            raise RuntimeError(f"{status}: {answer}")
        return answer

    def measure(self, name: str, rounds: int) -> dict[str, float]:
        task = data(name)
        inputs = {out: f"{task}.{out}" for out, _, _ in TENSORS[task]}
        if task in ("step", "cnn"):
            inputs["target"] = f"{task}.target"
        again = name.endswith(" again")
        collect = {"loss": 1} if name == "forward" else {}  # else nobody would need it
        steps = body(name) if again else [{"repeat": rounds, "steps": body(name), "collect": collect}]
        sent = json.dumps({"inputs": inputs, "steps": steps, "return": ["loss"]}).encode()
        times = rounds if again else 1
        cpu, wall = self.cpu(), time.perf_counter()
        for _ in range(times):
            status, answer = self.asked(self.connection, "POST", "/v1/programs?values=none", sent)
            if status != 200:
                raise RuntimeError(f"{status}: {answer}")
        found = {"cpu": (self.cpu() - cpu) / rounds, "wall": (time.perf_counter() - wall) / rounds}
        self.plans[name] = answer.get("plans")
        return found

    def cpu(self) -> float:
        """Seconds of CPU that the server's processes have used, front and worker: of their threads that still run."""
        family = {self.process.pid}
        rows = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # one that has just ended
                rows.append((int(path.parent.name), path.read_text().rpartition(")")[2].split()))
        used = 0
        for pid, fields in sorted(rows):  # a child's number is higher than its parent's, but for the rare wrap
            if pid in family or int(fields[1]) in family:
                family.add(pid)
                for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):  # in nanoseconds, where ticks are 10 ms
                    with contextlib.suppress(OSError):
                        used += int(path.read_text().split()[0])
        return used / 1e9

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait(timeout=30)
        self.folder.cleanup()


# ---------------------------------------------------------------- the peers


def torch_tasks() -> Tasks:
    """The same in PyTorch eager."""
    import torch

    torch.set_num_threads(1)
    nn = torch.nn.functional
    tensors: dict[str, dict[str, Any]] = {}
    for name, rows in TENSORS.items():
        made = tensors[name] = {out: torch.randn(*size) * scale for out, size, scale in rows}
        for p in PARAMETERS[name]:
            made[p].requires_grad_()
        made["target"] = torch.randint(0, 10, (64,))

    def forward(name: str) -> Any:
        t = tensors[name]
        if name == "step":
            h = t["x"]
            for i in range(3):
                h = nn.linear(h, t[f"w{i}"], t[f"b{i}"])
                if i < 2:
                    h = nn.relu(h)
            return nn.cross_entropy(h, t["target"])
        if name == "small":
            return torch.tanh(t["a"] * t["b"] + t["b"]).sum()
        if name == "chain":
            h = torch.tanh(t["leaf"] * t["scale"] + 0.5)
            return (-torch.relu(torch.exp(h * h - t["scale"]))).sum()
        if name == "transformer":
            x = t["x"]
            h = nn.layer_norm(x, [128], t["n1w"], t["n1b"])
            h = nn.linear(h, t["wqkv"], t["bqkv"]).reshape(8, 64, 3, 4, 32).permute(2, 0, 3, 1, 4)
            q, k, v = h.unbind()
            h = nn.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(8, 64, 128)
            r = x + nn.linear(h, t["wo"], t["bo"])
            h = nn.layer_norm(r, [128], t["n2w"], t["n2b"])
            h = r + nn.linear(nn.gelu(nn.linear(h, t["wf"], t["bf"])), t["wg"], t["bg"])
            return h.square().mean()
        h = t["x"]
        for i in (1, 2):
            h = nn.max_pool2d(nn.relu(nn.conv2d(h, t[f"k{i}"], t[f"c{i}"], padding=1)), 2)
        h = nn.relu(nn.linear(h.flatten(1), t["w1"], t["d1"]))
        return nn.cross_entropy(nn.linear(h, t["w2"], t["d2"]), t["target"])

    def task(name: str) -> Any:
        if name == "forward":
            with_grad = forward

            def without() -> None:
                with torch.no_grad():
                    with_grad("chain")

            return without
        name = data(name)
        params = [tensors[name][p] for p in PARAMETERS[name]]
        optimizer = torch.optim.SGD(params, lr=0.001)

        def run() -> None:
            forward(name).backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    return {name: task(name) for name in ROUNDS}


def numpy_tasks() -> Tasks:
    """Two of them as one would write them by hand in NumPy, gradients included."""
    import numpy as np

    rng = np.random.default_rng(0)
    f32 = np.float32
    t = {out: (rng.standard_normal(size) * scale).astype(f32) for out, size, scale in TENSORS["step"]}
    target = rng.integers(0, 10, 64)
    rows = np.arange(64)

    def training() -> None:
        h0 = t["x"]
        a1 = h0 @ t["w0"].T + t["b0"]
        h1 = np.maximum(a1, 0)
        a2 = h1 @ t["w1"].T + t["b1"]
        h2 = np.maximum(a2, 0)
        out = h2 @ t["w2"].T + t["b2"]
        e = np.exp(out - out.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        -np.log(p[rows, target]).mean()
        p[rows, target] -= 1
        g = p / f32(64)
        gw2, gb2 = g.T @ h2, g.sum(0)
        g = (g @ t["w2"]) * (a2 > 0)
        gw1, gb1 = g.T @ h1, g.sum(0)
        g = (g @ t["w1"]) * (a1 > 0)
        gw0, gb0 = g.T @ h0, g.sum(0)
        for name, gradient in (("w0", gw0), ("b0", gb0), ("w1", gw1), ("b1", gb1), ("w2", gw2), ("b2", gb2)):
            t[name] -= f32(0.001) * gradient

    a, b = (rng.standard_normal(8).astype(f32) for _ in range(2))

    def small() -> None:
        nonlocal a, b
        y = np.tanh(a * b + b)
        y.sum()
        g = 1 - y * y
        ga, gb = g * b, g * a + g
        a -= f32(0.001) * ga
        b -= f32(0.001) * gb

    return {"step": training, "step again": training, "small": small}


# ---------------------------------------------------------------- the table


def compare(ours: dict[str, Server], theirs: Peer, name: str, rounds: int, times: int) -> dict[str, Any]:
    """Medians over turns: by installation the ratios and microseconds of CPU a step, and those of the peer."""
    for server in ours.values():  # programs that were there before have their plans
        for _ in range(2):
            server.measure(name, rounds)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in (*ours, "theirs")}
    order = list(found)
    for i in range(times):
        for side in order[i % len(order) :] + order[: i % len(order)]:
            found[side].append(ours[side].measure(name, rounds) if side in ours else theirs.measure(name, rounds))

    def ratio(side: str, kind: str) -> float:
        return statistics.median(a[kind] / b[kind] for a, b in zip(found[side], found["theirs"], strict=True))

    def us(side: str) -> float:
        return statistics.median(x["cpu"] for x in found[side]) * 1e6

    made: dict[str, Any] = {
        side: {"ratio": ratio(side, "cpu"), "wall_ratio": ratio(side, "wall"), "us": us(side)} for side in ours
    }
    return {**made, "theirs_us": us("theirs")}


def goal_of(name: str, peer: str, side: str) -> float | None:
    """The largest wanted ratio."""
    plain = GOALS[name][peer]
    return COMPILED_GOALS.get(name, {}).get(peer, plain) if side == "compiled" else plain


def _ratio(row: dict[str, float], goal: float | None) -> str:
    return f"{row['ratio']:.2f}" + (" (above)" if goal is not None and round(row["ratio"], 2) > goal else "")


def as_markdown(found: dict[str, Any], rounds: int) -> str:
    """The table, with where and when it was measured."""
    torch = subprocess.run(
        [find_torch() or sys.executable, "-c", "import torch; print(torch.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    peer = f"PyTorch {torch.stdout.strip() or 'not installed'}"
    packages = ("numpy", "numba") if any("compiled" in row for row in found.values()) else ("numpy",)
    lines = [
        heading(packages, rounds).replace("; medians", f", {peer}; medians", 1),
        "",
        "| a round of | peer | plain | goal | wall | compiled | goal | wall | plain, µs | compiled, µs | peer, µs |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, row in found.items():
        name, _, peer = key.partition("/")
        cells = [WHAT[name], PEER[peer]]
        for side in ("plain", "compiled"):
            goal = goal_of(name, peer, side)
            there = row.get(side)
            cells.append("" if there is None else _ratio(there, goal))
            cells.append("" if goal is None else f"{goal:.2f}")
            cells.append("" if there is None else f"{there['wall_ratio']:.2f}")
        cells += [f"{row[side]['us']:.0f}" if side in row else "" for side in ("plain", "compiled")]
        lines.append("| " + " | ".join([*cells, f"{row['theirs_us']:.0f}"]) + " |")
    return "\n".join(lines)


def has_compiled() -> bool:
    """Whether this interpreter has the extra of compiled kernels."""
    return find_spec("numba") is not None


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each pair takes turns")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", action="append", help="a task; all of them where none is named")
    parser.add_argument("--plain", action="store_true", help="leave the compiled kernels out")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--child", choices=("torch", "numpy"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve_child(torch_tasks() if options.child == "torch" else numpy_tasks())
        return 0
    torch = find_torch()
    ours: dict[str, Server] = {}
    peers: dict[str, Peer] = {}
    found: dict[str, Any] = {}
    try:
        for side in ("plain", "compiled") if has_compiled() and not options.plain else ("plain",):
            ours[side] = Server(side)
        peers["numpy"] = Peer(__file__, "numpy")
        if torch is None:
            print(TORCH_MISSING)
        else:
            peers["torch"] = Peer(__file__, "torch", torch)
        print(machine())
        head = "".join(f"{side:>10}{'goal':>7}{'wall':>7}{'us':>10}" for side in ours)
        print(f"{'':14}{'peer':8}{head}{'peer us':>10}")
        for name, rounds in ROUNDS.items():
            for peer in GOALS[name]:
                if peer in peers and name in (options.only or ROUNDS):
                    row = found[f"{name}/{peer}"] = compare(ours, peers[peer], name, rounds, options.rounds)
                    told = "".join(
                        f"{row[side]['ratio']:10.2f}{goal_of(name, peer, side) or '':>7}{row[side]['wall_ratio']:7.2f}"
                        f"{row[side]['us']:10.1f}"
                        for side in ours
                    )
                    print(f"{name:14}{peer:8}{told}{row['theirs_us']:10.1f}", flush=True)
        for side, server in ours.items():
            for name, plans in server.plans.items():
                print(f"{side}: {name}: {plans}")
    finally:
        for server in ours.values():
            server.close()
        for child in peers.values():
            child.close()
    if options.json:
        options.json.write_text(
            json.dumps({"machine": machine(), "date": time.strftime("%Y-%m-%d"), "found": found}, indent=1)
        )
    if options.write:
        write("bench/programs.py", as_markdown(found, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The engine beside PyTorch eager on the CPU: CPU time of one thread, the two taking turns.

    python bench/engine.py            prints the table
    python bench/engine.py --json F   and writes it to F

Goals (first light): four small operations forward and backward 0.45 of torch's time, a training step
64x784-256-256-10 0.95, a 1024x1024 matmul 1.1, an 8-operation chain over 4M float32 1.0 forward and 0.85 forward and
backward; a hundred thousand chained nodes backward in linear time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.peers import TORCH_MISSING, Peer, Tasks, compare, find_torch, machine, serve_child

GOALS = {"small": 0.45, "step": 0.95, "matmul": 1.1, "chain": 1.0, "chain+backward": 0.85}
REPS = {"small": 500, "step": 10, "matmul": 3, "chain": 2, "chain+backward": 1}
N = 4 * 1024 * 1024


def engine_tasks() -> Tasks:
    """The tasks, as a program's executor would call the engine."""
    import engine.ops  # noqa: F401, I001  before NumPy, as in a server: it says which of its kernels BLAS takes
    import numpy as np

    from engine.autograd import run_backward
    from engine.backend import CPU, tune_allocator
    from engine.context import HERE, Context
    from engine.dtypes import from_numpy
    from engine.op import REGISTRY, Spec
    from engine.record import REC as F
    from engine.tensor import Ledger, Tensor, fresh

    tune_allocator()
    np.seterr(all="ignore")
    ctx = HERE.ctx = Context(ledger=Ledger(1 << 40))
    rng = np.random.default_rng(0)

    def tensor(array: Any, grad: bool = False) -> Tensor:
        d = from_numpy(array.dtype)
        assert d is not None
        t = fresh(array, Spec(array.shape, d), CPU, ctx.ledger)
        t.requires_grad = grad
        return t

    def normal(*shape: int, grad: bool = False, scale: float = 1.0) -> Tensor:
        return tensor(rng.standard_normal(shape, dtype=np.float32) * np.float32(scale), grad)

    run = {name: REGISTRY[name].run for name in ("mul", "add", "tanh", "sum")}
    a, b = normal(8, grad=True), normal(8, grad=True)

    def small() -> None:
        y = run["sum"]((run["tanh"]((run["add"]((run["mul"]((a, b)), b, 1)),)), None, False, None))
        run_backward([y], [None])
        a.grad = b.grad = None

    sizes = (784, 256, 256, 10)
    weights = [normal(m, n, grad=True, scale=n**-0.5) for n, m in pairwise(sizes)]
    biases = [tensor(np.zeros(n, np.float32), True) for n in sizes[1:]]
    x, target = normal(64, 784), tensor(rng.integers(0, 10, 64))
    params = [p for pair in zip(weights, biases, strict=True) for p in pair]

    def step() -> None:
        h = x
        for i, (w, c) in enumerate(zip(weights, biases, strict=True)):
            h = F.linear(h, w, c)
            if i < 2:
                h = F.relu(h)
        run_backward([F.cross_entropy(h, target)], [None])
        ctx.grad_enabled = False
        getattr(F, "optim.sgd_")(params, [p.grad for p in params], lr=0.01)
        ctx.grad_enabled = True
        for p in params:
            p.grad = None

    m1, m2 = normal(1024, 1024), normal(1024, 1024)
    big = normal(N)
    leaf = normal(N, grad=True)
    scale = normal(N)

    def chain(t: Tensor) -> Tensor:
        t = F.mul(t, scale)
        t = F.add(t, 0.5)
        t = F.tanh(t)
        t = F.mul(t, t)
        t = F.sub(t, scale)
        t = F.exp(t)
        t = F.relu(t)
        return F.neg(t)

    def chain_backward() -> None:
        run_backward([F.sum(chain(leaf))], [None])
        leaf.grad = None

    return {
        "small": small,
        "step": step,
        "matmul": lambda: F.mm(m1, m2),
        "chain": lambda: chain(big),
        "chain+backward": chain_backward,
    }


def torch_tasks() -> Tasks:
    """The same tasks in PyTorch eager."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)

    def small() -> None:
        torch.tanh(a * b + b).sum().backward()
        a.grad = b.grad = None

    sizes = (784, 256, 256, 10)
    pairs = list(pairwise(sizes))
    weights = [(torch.randn(m, n) * n**-0.5).requires_grad_() for n, m in pairs]
    biases = [torch.zeros(n, requires_grad=True) for n in sizes[1:]]
    x, target = torch.randn(64, 784), torch.randint(0, 10, (64,))
    params = [p for pair in zip(weights, biases, strict=True) for p in pair]
    optimizer = torch.optim.SGD(params, lr=0.01)
    nn = torch.nn.functional

    def step() -> None:
        h = x
        for i, (w, c) in enumerate(zip(weights, biases, strict=True)):
            h = nn.linear(h, w, c)
            if i < 2:
                h = nn.relu(h)
        nn.cross_entropy(h, target).backward()
        optimizer.step()
        optimizer.zero_grad()

    m1, m2 = torch.randn(1024, 1024), torch.randn(1024, 1024)
    big, leaf, scale = torch.randn(N), torch.randn(N, requires_grad=True), torch.randn(N)

    def chain(t: Any) -> Any:
        t = t * scale
        t = t + 0.5
        t = torch.tanh(t)
        t = t * t
        t = t - scale
        t = torch.exp(t)
        t = torch.relu(t)
        return -t

    def chain_backward() -> None:
        chain(leaf).sum().backward()
        leaf.grad = None

    return {
        "small": small,
        "step": step,
        "matmul": lambda: torch.mm(m1, m2),
        "chain": lambda: chain(big),
        "chain+backward": chain_backward,
    }


def deep(nodes: int) -> float:
    """Seconds of CPU for a backward pass through so many chained nodes."""
    import numpy as np

    import engine.ops  # noqa: F401
    from engine.autograd import run_backward
    from engine.backend import CPU
    from engine.context import Context, active
    from engine.dtypes import float32
    from engine.op import REGISTRY, Spec
    from engine.tensor import Ledger, fresh

    ctx = Context(ledger=Ledger(1 << 40))
    with active(ctx):
        t = leaf = fresh(np.ones((), np.float32), Spec((), float32), CPU, ctx.ledger)
        leaf.requires_grad = True
        add = REGISTRY["add"].run
        assert add is not None
        for _ in range(nodes):
            t = add((t, 0.5, 1))
        start = time.process_time()
        run_backward([t], [None])
        return time.process_time() - start


def program(steps: int = 100) -> float:
    """Seconds of CPU a step: a program of so many operations on eight numbers, compiled and run; the best of many."""
    from engine.session import Session

    session = Session("bench", seed=0)

    def run(data: dict[str, Any]) -> None:
        for _ in session.run(data, values="none"):
            pass

    b = {"data": [0.2] * 8}
    run({"inputs": {"a": {**b, "requires_grad": True}, "b": b}, "keep": {"a": "a", "b": "b"}})
    names = ["a", *(f"x{i}" for i in range(steps))]
    ops = ({"op": "mul"}, {"op": "add"}, {"op": "tanh"}, {"op": "sub"})
    made = []
    for i in range(steps):
        operands = {"input": names[i]} if i % 4 == 2 else {"input": names[i], "other": "b"}
        made.append({**ops[i % 4], "args": operands, "out": names[i + 1]})
    best = float("inf")
    for _ in range(200):
        start = time.process_time()
        run({"steps": made, "return": names[-1:]})
        best = min(best, time.process_time() - start)
    return best / steps


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=("engine", "torch"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", nargs="*", choices=sorted(GOALS))
    options = parser.parse_args()
    if options.child:
        serve_child(engine_tasks() if options.child == "engine" else torch_tasks())
        return 0
    table: dict[str, Any] = {"machine": machine(), "rows": {}}
    python = find_torch()
    print(f"{machine()}\n")
    if python is None:
        print(TORCH_MISSING)
    else:
        ours, theirs = Peer(__file__, "engine"), Peer(__file__, "torch", python)
        print(f"{'task':18}{'curlgrad us':>14}{'torch us':>14}{'ratio (CPU)':>14}{'wall':>8}{'goal':>8}")
        for task, goal in GOALS.items():
            if options.only and task not in options.only:
                continue
            row = table["rows"][task] = compare(ours, theirs, task, REPS[task], options.rounds)
            print(
                f"{task:18}{row['ours_us']:14.1f}{row['theirs_us']:14.1f}{row['ratio']:14.2f}{row['wall_ratio']:8.2f}"
                f"{goal:8.2f}"
            )
        ours.close()
        theirs.close()
    for n in (25_000, 50_000, 100_000):
        table["rows"][f"deep {n}"] = seconds = min(deep(n) for _ in range(3))
        print(f"backward through {n:7} chained nodes: {seconds * 1e3:7.1f} ms, {seconds / n * 1e6:.2f} us a node")
    table["rows"]["program"] = seconds = program()
    print(f"a program of 100 small operations: {seconds * 1e6:.2f} us an operation")
    if options.json:
        Path(options.json).write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Holds a real GPU to what this project promises of `cuda`, and writes docs/gpu.md. `make test-gpu` runs it.

    python scripts/gpu.py                     everything, on cuda:0
    python scripts/gpu.py --device cuda:1     on another GPU
    python scripts/gpu.py --rehearse          on the stand-in: shows that this script works, and writes nothing

1. The suites that run on the stand-in run on the GPU: the laws of every operation, gradients of both orders, views,
   changes in place, undo, random numbers. (CURLGRAD_TEST_GPU tells them; see tests/devices.py.)
2. Every sample of every operation on CPU and GPU: values and gradients agree within tolerance.
3. Random programs on both: the same results and gradients.
4. Fused kernels: every function in each of its loops and random chains beside CuPy's own calls, on what the kernel gave
   each; training loops with and without them.
5. Out of memory: refused with what is held, and the session goes on.
6. A benchmark table: CPU, GPU, and PyTorch on the GPU where it is installed; of a loop, with and without fused kernels.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from engine.backend import Backend, ModuleBackend, real_cuda, simulated_cuda  # noqa: E402
from engine.errors import EngineError, NoSuchDevice, OutOfMemory  # noqa: E402
from engine.limits import Limits  # noqa: E402
from engine.session import Session  # noqa: E402

PAGE = ROOT / "docs" / "gpu.md"
START, END = "<!-- written by scripts/gpu.py -->", "<!-- end -->"
SUITES = ("tests/laws", "tests/engine/test_undo.py", "tests/engine/test_dtypes.py", "tests/engine/test_philox.py")
WANTED = ("float64", "float32", "float16", "bfloat16", "complex64", "int64")
Program = dict[str, Any]


class Failed(Exception):
    """A part did not hold; the message says what."""


# ---------------------------------------------------------------- 1. the suites


def suites(device: str, processes: int, *, rehearse: bool) -> str:
    """The tests of the stand-in, on the device."""
    from tests.devices import VARIABLE

    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if not rehearse:
        environment[VARIABLE] = device
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(processes), "-k", "cuda", *SUITES]
    if rehearse:  # they run in `make test`; here only that they are found
        command += ["--collect-only"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()
    if done.returncode:
        raise Failed(f"the suites: {last}\n{done.stdout[-4000:]}")
    return last


# ---------------------------------------------------------------- 2. samples on both


# What need not be the same on two devices; random numbers have a stream on each.
DIFFERENT: dict[Any, str] = {
    **dict.fromkeys(("empty", "empty_like", "new_empty", "empty_strided"), "memory that nobody has written"),
    "get_device": "it answers which one",
    ("topk", "int64"): "of equal elements any may be taken",
}


def samples() -> str:
    """Every sample of every operation, values and gradients, on both devices."""
    from tests.laws import harness
    from tests.laws.harness import Broken, Case, all_same, gradients, operations, samples_of

    compared, wrong = 0, []
    for name in operations():
        if harness.REGISTRY[name].random or name in DIFFERENT:
            continue
        for number in range(len(samples_of(name))):
            for wanted in WANTED:
                if (name, wanted) in DIFFERENT:
                    continue
                try:
                    cases = [Case(name, number, where, wanted) for where in harness.DEVICES]
                    have = []
                    for case in cases:
                        with np.errstate(all="ignore"), case.here():
                            made = case.run(case.tensors(case.floats))
                            have.append((made, gradients(case, case.floats) if case.op.differentiable else []))
                    if cases[0].ctx.rng.get_device_state() != cases[1].ctx.rng.get_device_state():
                        continue  # a composite that draws
                    all_same(have[1][0], have[0][0], f"{cases[1]}", factor=8.0)
                    all_same(have[1][1], have[0][1], f"gradients of {cases[1]}", factor=32.0)
                    compared += 1
                except EngineError:
                    continue  # not for this dtype: the suites look after how that is refused
                except Broken as error:
                    wrong.append(str(error))
    if wrong:
        raise Failed(f"{len(wrong)} of {compared + len(wrong)} samples differ:\n" + "\n".join(wrong[:20]))
    return f"{compared} samples of {len(operations())} operations agree"


# ---------------------------------------------------------------- 3. random programs on both

UNARY = ("sin", "tanh", "exp", "neg", "sigmoid", "nn.functional.relu", "abs", "square", "cos", "atan")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "atan2", "hypot")


def random_program(seed: int) -> Program:
    """A program of up to a dozen steps on matrices: arithmetic, reductions, views, writes, indices, and backward."""
    rng = random.Random(seed)
    n, m = rng.randint(1, 5), rng.randint(1, 5)
    values = np.random.default_rng(seed).uniform(-1.5, 1.5, (2, n, m)).round(3).tolist()
    dtype = rng.choice(("float32", "float64"))
    inputs = {
        name: {"data": data, "dtype": dtype, "requires_grad": True} for name, data in zip("ab", values, strict=True)
    }
    steps: list[dict[str, Any]] = []
    known = ["a", "b"]  # of shape (n, m), each

    def step(op: str, **args: Any) -> str:
        name = f"v{len(steps)}"
        steps.append({"op": op, "args": args, "out": name})
        return name

    for _ in range(rng.randint(2, 12)):
        x, y = rng.choice(known), rng.choice(known)
        kind = rng.randrange(8)
        if kind == 0:
            known.append(step(rng.choice(UNARY), input=x))
        elif kind == 1:
            known.append(step(rng.choice(BINARY), input=x, other=y))
        elif kind == 2:
            product = step("matmul", input=x, other=step("t", input=y))
            known.append(step("matmul", input=product, other=rng.choice(known)))
        elif kind == 3:
            reduced = step("sum" if rng.random() < 0.5 else "mean", input=x, dim=rng.choice((0, 1)), keepdim=True)
            known.append(step("add", input=y, other=reduced))
        elif kind == 4:
            known.append(step(rng.choice(("softmax", "cumsum")), input=x, dim=rng.choice((0, 1))))
        elif kind == 5:
            row = step("getitem", input=x, index=[rng.randrange(n)])
            known.append(step("mul", input=y, other=row))
        elif kind == 6:
            copy = step("clone", input=x)
            view = step("select", input=copy, dim=0, index=rng.randrange(n))
            steps.append({"op": "mul_", "args": {"input": view, "other": round(rng.uniform(-1, 1), 3)}})
            known.append(copy)
        else:
            index = {"data": [[rng.randrange(n) for _ in range(m)]], "dtype": "int64"}
            known.append(step("add", input=y, other=step("gather", input=x, dim=0, index=index)))
    loss = step("sum", input=step("tanh", input=known[-1]))
    steps.append({"op": "backward", "args": {"input": loss}})
    wanted = [*dict.fromkeys([known[-1], loss])]
    return {"inputs": inputs, "steps": steps, "return": [*wanted, "a.grad", "b.grad"]}


def ended(session: Session, program: Program, values: str = "none") -> Any:
    """Runs a program to its end; the reply."""
    running = session.run(program, values=values)
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


def outcome(program: Program, device: str) -> dict[str, Any]:
    """A program's results by name, its inputs being on the device."""
    session = Session("s", seed=1, devices=("cpu", device), device=device)
    results = ended(session, program, "all")["results"]
    return {name: None if found is None else found.values for name, found in results.items()}


def programs(device: str, count: int) -> str:
    """The same random programs on the CPU and on the device."""
    wrong = []
    for seed in range(count):
        program = random_program(seed)
        want, have = (outcome(program, where) for where in ("cpu", device))
        for name, values in want.items():
            other = have[name]
            if (values is None) != (other is None):
                wrong.append(f"program {seed}: {name} is {values} on the CPU and {other} on {device}")
            elif values is not None:
                tolerance = 1e-9 if values.dtype == np.float64 else 2e-4
                scale = max(1.0, float(np.abs(values).max(initial=0.0)))
                if not np.allclose(values, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
                    wrong.append(
                        f"program {seed}: {name} is {values.tolist()} on the CPU, {other.tolist()} on {device}"
                    )
    if wrong:
        raise Failed(f"{len(wrong)} results differ:\n" + "\n".join(wrong[:10]))
    return f"{count} random programs give the same on both"


# ---------------------------------------------------------------- 4. fused kernels


def fused(device: str, backend: ModuleBackend, count: int) -> str:
    """Kernels beside CuPy's own calls, and loops that run by them."""
    from engine.fused.source import NAME, OPTIONS, PRELUDE, source
    from tests.engine.chains import distances, every_function, operands_of, random_chain

    rows = [(chain, *operands_of(chain, 1)) for chain in every_function()]
    rows += [random_chain(seed) for seed in range(count)]
    far: dict[str, int] = {}
    wrong = []
    for chain, shape, arrays, scalars in rows:
        kernel = backend.xp.RawKernel(PRELUDE + source(chain), NAME, OPTIONS)
        try:
            found = distances(chain, shape, arrays, scalars, kernel, backend.xp, backend.sp)
        except AssertionError as error:
            wrong.append(str(error))
            continue
        for (name, _), ulps in found.items():
            far[name] = max(far.get(name, 0), ulps)
    if wrong:
        raise Failed(f"{len(wrong)} of {len(rows)} kernels differ from CuPy's calls:\n" + "\n".join(wrong[:5]))
    kernels = sum(_loop_agrees(device, name) for name in LOOPS)
    apart = ", ".join(f"{name} by {n}" for name, n in sorted(far.items()) if n) or "none"
    return f"{len(rows)} kernels and {len(LOOPS)} loops ({kernels} kernels a round); ulps apart: {apart}"


LOOPS: dict[str, list[dict[str, Any]]] = {
    "gelu": [{"op": "nn.functional.gelu", "args": {"input": "x"}, "out": "y"}],
    "six steps": [
        {"op": "mul", "args": {"input": "x", "other": "w"}, "out": "y"},
        {"op": "tanh", "args": {"input": "y"}, "out": "y"},
        {"op": "add", "args": {"input": "y", "other": 0.5}, "out": "y"},
        {"op": "sigmoid", "args": {"input": "y"}, "out": "y"},
        {"op": "sub", "args": {"input": "y", "other": "w"}, "out": "y"},
        {"op": "square", "args": {"input": "y"}, "out": "y"},
    ],
}


def loop(name: str, times: int) -> Program:
    """A program of a chain, its gradient and a step of AdamW, so many times."""
    steps = [
        *LOOPS[name],
        {"op": "sum", "args": {"input": "y"}, "out": "l"},
        {"op": "autograd.grad", "args": {"outputs": ["l"], "inputs": ["x"]}, "out": ["g"]},
        {"op": "optim.adamw_", "args": {"params": ["x"], "grads": ["g"], "state": "s", "lr": 0.001}},
    ]
    before = {"op": "optim.adam_state", "args": {"params": ["x"]}, "out": "s"}
    return {"steps": [before, {"repeat": times, "steps": steps}]}


def _looping(device: str, shape: list[int], plan_from: int) -> Session:
    """A session with what a loop needs."""
    limits = Limits(session_bytes=1 << 40, plan_from=plan_from)
    session = Session("s", seed=1, devices=("cpu", device), device=device, limits=limits)
    make = [
        {"op": "rand", "args": {"size": shape, "requires_grad": True}, "out": "x"},
        {"op": "rand", "args": {"size": shape[-1:]}, "out": "w"},
    ]
    ended(session, {"steps": make, "keep": {"x": "x", "w": "w"}})
    return session


def _loop_agrees(device: str, name: str) -> int:
    """How many kernels a round of the loop is. Raises Failed where it is none, or gives something else."""
    told = []
    for plan_from in (0, 2):
        reply = ended(_looping(device, [64, 100], plan_from), {**loop(name, 20), "return": ["x"]}, "all")
        told.append(reply["results"]["x"].values)
    (report,) = reply["plans"]
    if report["why_not"] or report["why_not_fused"] or not report["kernels"]:
        raise Failed(f"the loop {name!r} does not run by fused kernels: {report}")
    if not np.allclose(*told, rtol=1e-4, atol=1e-5):
        raise Failed(f"the loop {name!r} gives something else by fused kernels")
    return int(report["kernels"])


# ---------------------------------------------------------------- 5. out of memory


def exhausted(device: str, backend: Backend) -> str:
    """More is asked for than there is: refused, said, and afterwards the session computes."""
    memory = backend.memory()
    room = memory["limit"] if memory else 64 << 20
    limits = Limits(session_bytes=room * 4 if memory else room, server_bytes=room * 8)
    session = Session("s", seed=1, devices=("cpu", device), device=device, limits=limits)
    quarter = room // 4 // 4

    def keep(name: str, elements: int) -> None:
        step = {"op": "ones", "args": {"size": [elements]}, "out": "x"}
        ended(session, {"steps": [step], "keep": {"x": name}})

    keep("held", quarter)
    try:
        keep("more", quarter * 8)
    except OutOfMemory as error:
        facts = error.facts
        if not {"asked", "held", "free", "limit"} <= set(facts):
            raise Failed(f"out of memory says only {facts}") from error
    else:
        raise Failed(f"{quarter * 32} bytes were to be had on a device that may take {room}")
    keep("again", quarter)
    keep("held", 1)
    if session.names["held"].numel != 1 or session.names["again"].numel != quarter:
        raise Failed("after out of memory the session is not what it was")
    return f"{facts['asked']} bytes refused with {facts['held']} held; the same session went on"


# ---------------------------------------------------------------- 6. benchmarks

# Name, shape of x and y, the operation with its arguments, and the same in PyTorch.
Task = tuple[str, list[int], dict[str, Any], Callable[[Any, Any], Any]]


def tasks(short: bool) -> list[Task]:
    """What is measured."""
    n, side = (1 << 16, 128) if short else (1 << 24, 4096)
    line, square = [n], [side, side]
    return [
        (f"add, {n} float32", line, {"op": "add", "other": "y"}, lambda x, y: x + y),
        (f"exp, {n} float32", line, {"op": "exp"}, lambda x, y: x.exp()),
        (f"sum, {n} float32", line, {"op": "sum"}, lambda x, y: x.sum()),
        (f"softmax, {side} x {side}", square, {"op": "softmax", "dim": 1}, lambda x, y: x.softmax(1)),
        (f"matmul, {side} x {side}", square, {"op": "matmul", "other": "y"}, lambda x, y: x @ y),
        (f"sort, {n} float32", line, {"op": "sort"}, lambda x, y: x.sort()),
    ]


def seconds(work: Callable[[], Any], wait: Callable[[], Any], least: float) -> float:
    """The best time of one call, of as many as take `least` seconds, each waited for."""
    work()
    wait()
    best, until = float("inf"), time.perf_counter() + least
    while time.perf_counter() < until or best == float("inf"):
        begin = time.perf_counter()
        work()
        wait()
        best = min(best, time.perf_counter() - begin)
    return best


def benchmarks(device: str, backend: Backend, *, short: bool) -> str:
    """A table: milliseconds of one call."""
    try:
        import torch

        peer = torch if torch.cuda.is_available() else None
    except ImportError:
        peer = None
    least = 0.05 if short else 1.0
    rows = [f"| one call, ms | CPU | {device} | PyTorch {'on the GPU' if peer else '(not installed there)'} |"]
    rows.append("| --- | --- | --- | --- |")
    for name, shape, call, theirs in tasks(short):
        times = []
        given = {key: value for key, value in call.items() if key != "op"}
        steps = [{"op": call["op"], "args": {"input": "x", **given}}]
        for where in ("cpu", device):
            session = Session("s", seed=1, devices=("cpu", device), device=where, limits=Limits(session_bytes=1 << 40))
            make = [{"op": "rand", "args": {"size": shape}, "out": n} for n in "xy"]
            ended(session, {"steps": make, "keep": {"x": "x", "y": "y"}})
            times.append(seconds(partial(ended, session, {"steps": steps}), backend.synchronize, least))
        if peer is not None:
            x, y = (peer.rand(*shape, device="cuda") for _ in range(2))
            times.append(seconds(partial(theirs, x, y), peer.cuda.synchronize, least))
        rows.append(f"| {name} | " + " | ".join(f"{t * 1e3:.3f}" for t in times) + (" |" if peer else " | |"))
    return "\n".join([*rows, *_loops(device, backend, peer, least, short=short)])


def _loops(device: str, backend: Backend, peer: Any, least: float, *, short: bool) -> list[str]:
    """Rows of the table: a round of each loop, interpreted and by a plan, whose chains are fused on the device."""
    shape, times = ([64, 128], 20) if short else ([4096, 4096], 50)
    rows = []
    for name in LOOPS:
        program = loop(name, times)
        theirs = "" if peer is None else f"{_torch_round(peer, name, shape, least) * 1e3:.3f} "
        for how, plan_from in (("interpreted", 0), ("by a plan", 2)):
            spent = [
                seconds(partial(ended, _looping(where, shape, plan_from), program), backend.synchronize, least) / times
                for where in ("cpu", device)
            ]
            figures = " | ".join(f"{t * 1e3:.3f}" for t in spent)
            rows.append(
                f"| a round of {name}, backward and AdamW, {shape[0]} x {shape[1]}, {how} | {figures} | {theirs}|"
            )
    return rows


def _torch_round(torch: Any, name: str, shape: list[int], least: float) -> float:
    """Seconds of a round of a loop in PyTorch, as it runs without compiling."""
    x = torch.rand(*shape, device="cuda", requires_grad=True)
    w = torch.rand(shape[-1], device="cuda")
    optimizer = torch.optim.AdamW([x], lr=0.001, fused=True)

    def once() -> None:
        if name == "gelu":
            y = torch.nn.functional.gelu(x)
        else:
            y = torch.square(torch.sigmoid(torch.tanh(x * w) + 0.5) - w)
        (x.grad,) = torch.autograd.grad([y.sum()], [x])
        optimizer.step()

    return seconds(once, torch.cuda.synchronize, least)


# ---------------------------------------------------------------- the page


def record(backend: Backend, results: dict[str, str], table: str) -> str:
    """What was run, when and on what, as Markdown."""
    import cupy

    memory = backend.memory() or {}
    driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    what = f"{backend.model}, {memory.get('total', 0) >> 30} GiB, CUDA driver {driver}, runtime {runtime}"
    software = f"CuPy {cupy.__version__}, Python {platform.python_version()}"
    lines = [f"Run on {datetime.now(UTC).date()}: {what}, {software}.", ""]
    lines += [f"- {name}: {text}" for name, text in results.items()]
    lines += ["", table]
    return "\n".join(lines)


def write(text: str) -> None:
    """Puts the record between the page's marks."""
    page = PAGE.read_text("utf-8")
    head, _, rest = page.partition(START)
    PAGE.write_text(f"{head}{START}\n{text}\n{END}{rest.partition(END)[2]}", "utf-8")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--device", default="cuda:0", help="the GPU (default cuda:0)")
    parser.add_argument("--programs", type=int, default=1000, help="how many random programs (default 1000)")
    parser.add_argument("--processes", type=int, default=4, help="test processes that share the GPU (default 4)")
    parser.add_argument("--short", action="store_true", help="small benchmarks, for a look whether they run")
    parser.add_argument("--rehearse", action="store_true", help="on the stand-in, without a GPU; writes nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """0 when all holds; 1 when a part does not; 2 when there is no such GPU."""
    options = parse(arguments)
    try:
        backend: Backend = simulated_cuda() if options.rehearse else real_cuda(options.device)
        backend.begin()
    except NoSuchDevice as error:
        print(f"make test-gpu: {error.detail}", file=sys.stderr)
        print("Nothing was run. `python scripts/gpu.py --rehearse` goes through it on the stand-in.", file=sys.stderr)
        return 2
    assert isinstance(backend, ModuleBackend)
    device = backend.name
    if not options.rehearse:
        os.environ["CURLGRAD_TEST_GPU"] = device  # for the harness, in this process too
    parts: dict[str, Callable[[], str]] = {
        "suites": lambda: suites(device, options.processes, rehearse=options.rehearse),
        "samples": samples,
        "programs": lambda: programs(device, options.programs),
        "fused kernels": lambda: fused(device, backend, min(options.programs, 300)),
        "out of memory": lambda: exhausted(device, backend),
    }
    results, failed = {}, []
    for name, part in parts.items():
        print(f"== {name}", flush=True)
        try:
            results[name] = part()
        except Failed as error:
            results[name] = f"**failed**: {str(error).splitlines()[0]}"
            failed.append(name)
            print(error, file=sys.stderr)
        print(results[name], flush=True)
    print("== benchmarks", flush=True)
    table = benchmarks(device, backend, short=options.short or options.rehearse)
    print(table)
    if not options.rehearse:
        write(record(backend, results, table))
        print(f"{PAGE.relative_to(ROOT)} is written: commit it")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

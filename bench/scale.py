"""Whether the service stays linear: many tensors, sessions, steps, and operations that leave nothing behind.

    python bench/scale.py            prints the table (about ten minutes)
    python bench/scale.py --short    a small part of each, to see that it runs
    python bench/scale.py --write    and puts the table into docs/performance.md

Each measure runs on a server of its own, at a tenth of its size and then at its size: linear is a ratio of 10. Memory
and CPU time are those of all processes of the server; growth is that of CPU time, which other work on the machine does
not lengthen much.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.peers import machine
from bench.serving import TICK, Running, heading, ours, write

BYTES_GOAL = 1536
BATCH = 1000
IDLE_S = 12.0  # after which an idle worker has given back what was freed


def tensors(server: Running, count: int) -> dict[str, float]:
    """So many live tensors of 8 float32, kept by programs of a thousand each."""
    before = server.memory(shared=False)
    start = time.perf_counter()
    for first in range(0, count, BATCH):
        steps = [{"op": "ones", "args": {"size": [8]}, "out": f"x{i}"} for i in range(first, min(first + BATCH, count))]
        keep = {step["out"]: step["out"] for step in steps}
        server.must("POST", "/v1/programs", {"steps": steps, "return": [], "keep": keep})
    taken = time.perf_counter() - start
    held = server.memory(shared=False) - before
    found = server.must("GET", "/v1/sessions/default")["tensors"]
    if found != count:
        raise RuntimeError(f"{found} tensors are there, and {count} were made")
    server.must("DELETE", "/v1/sessions/default")
    time.sleep(IDLE_S)
    return {"seconds": taken, "bytes": held / count - 32, "left": (server.memory(shared=False) - before) / count}


def sessions(server: Running, count: int) -> dict[str, float]:
    """So many sessions, each with a tensor, of as many callers as it takes: one may have a thousand."""
    callers = [{"Authorization": f"Bearer {key}", "Content-Type": "application/json"} for key in server.keys]
    before = server.memory(shared=False)
    start = time.perf_counter()
    for i in range(count):
        caller = callers[i % len(callers)]
        server.must("POST", "/v1/sessions", {"name": f"s{i}", "seed": i}, caller)
        server.must("POST", f"/v1/ops/ones?session=s{i}", {"size": [8], "out_name": "x"}, caller)
    return {"seconds": time.perf_counter() - start, "bytes": (server.memory(shared=False) - before) / count}


def steps(server: Running, count: int) -> dict[str, float]:
    """One program of so many steps."""
    server.must("POST", "/v1/tensors", {"data": [0.5] * 8, "name": "x"})
    made = [{"op": "tanh", "args": {"input": "y"}, "out": "y"} for _ in range(count)]
    program = {"inputs": {"y": "x"}, "steps": made, "return": ["y"], "no_grad": True}
    start = time.perf_counter()
    server.must("POST", "/v1/programs", program)
    return {"seconds": time.perf_counter() - start}


def operations(server: Running, count: int) -> dict[str, float]:
    """So many operations in one session that keeps nothing of them: a thousand kept and released at a time."""
    rounds = count // (2 * BATCH)
    server.must("POST", "/v1/tensors", {"data": [0.5] * 8, "name": "x"})
    made = [{"op": "mul", "args": {"input": "x", "other": 2}, "out": f"y{i}"} for i in range(BATCH)]
    keep = {step["out"]: step["out"] for step in made}
    again = [{"op": "add", "args": {"input": step["out"], "other": 1}, "out": step["out"]} for step in made]
    program = {"steps": [*made, *again], "return": [], "keep": keep, "no_grad": True}
    server.must("POST", "/v1/programs", program)
    before = server.memory(shared=False)
    start = time.perf_counter()
    for _ in range(rounds):
        server.must("POST", "/v1/programs", program)
        server.must("DELETE", "/v1/tensors/y0")
    taken = time.perf_counter() - start
    return {"seconds": taken, "left": (server.memory(shared=False) - before) / count}


MEASURES: dict[str, tuple[str, int, Callable[[Running, int], dict[str, float]]]] = {
    "tensors": ("live tensors of 8 float32", 100_000, tensors),
    "sessions": ("sessions, each with a tensor", 10_000, sessions),
    "steps": ("steps in one program", 10_000, steps),
    "operations": ("operations in a session that keeps 1000 tensors and rebinds them", 1_000_000, operations),
}


def measure(name: str, size: int) -> dict[str, Any]:
    """The measure at a tenth of a size and at the size."""
    what, _, run = MEASURES[name]
    found: dict[str, Any] = {"what": what, "size": size}
    for key, count in (("tenth", size // 10), ("whole", size)):
        server = ours("--max-body", "1GiB", "--max-steps", "100000", keys=20 if name == "sessions" else 0)
        try:
            before = server.cpu()
            found[key] = run(server, count)
            found[key]["cpu"] = max(server.cpu() - before, 1 / TICK)  # the kernel counts in ticks
        finally:
            server.close()
    found["growth"] = found["whole"]["cpu"] / found["tenth"]["cpu"]
    return found


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, with where and when it was measured."""
    lines = [
        heading(("fastapi", "uvicorn", "numpy"), 1),
        "",
        "| what | seconds | of CPU time | over that of a tenth | bytes each, beside values | left at the end |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        whole = row["whole"]
        each = f"{whole['bytes']:.0f}" if "bytes" in whole else ""
        if row["what"].startswith("live") and whole["bytes"] > BYTES_GOAL:
            each += f" (above {BYTES_GOAL})"
        left = f"{whole['left']:.1f}" if "left" in whole else ""
        lines.append(
            f"| {row['size']:,} {row['what']} | {whole['seconds']:.1f} | {whole['cpu']:.1f} "
            f"| {row['growth']:.1f} | {each} | {left} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(MEASURES), default=[])
    parser.add_argument("--short", action="store_true", help="a small part of each size")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    print(machine())
    rows = []
    for name, (_, size, _) in MEASURES.items():
        if not options.only or name in options.only:
            smaller = 20 if name == "operations" else 100
            rows.append(measure(name, size // smaller if options.short else size))
            print(f"{name}: {rows[-1]}", flush=True)
    table = as_markdown(rows)
    print(table)
    if options.write:
        write("bench/scale.py", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())

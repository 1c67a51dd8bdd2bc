"""What durability costs: `python bench/durability.py` (`--short` for a quick look that checks that it still runs).

small operations    two services, one that keeps nothing and one that does (everysec), asked in turn over HTTP by the
                    same 8 clients; requests a second, and the median of the ratios of the rounds
uploads             of 100 MB as raw bytes, with each of the ways to sync and without a log
recovery            how fast a start reads a log of 1 MB changes, and of 1 kB changes, and how fast a session is
                    rebuilt from it: of changes in place, of which the last says all; of changes that each make a
                    tensor anew and let go of the one before; and of changes that each make one more. CPU time, which
                    other work on the machine does not lengthen
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.peers import ONE_THREAD, machine  # noqa: E402
from engine.durability.files import Files  # noqa: E402
from engine.durability.recovery import recover  # noqa: E402
from engine.durability.store import Change, Store  # noqa: E402
from engine.session import Session  # noqa: E402

GOAL, RECOVERY_GOAL = 0.85, 200.0
CLIENTS = 8


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """The address of a service in a process of its own."""
    said = folder / "said"
    command = [sys.executable, "-m", "app", "--port", "0", "--workers", "cpu:1", *options]
    with said.open("w") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stderr=stderr)
    try:
        while "listens on " not in said.read_text():
            if process.poll() is not None:
                raise RuntimeError(said.read_text())
            time.sleep(0.05)
        yield said.read_text().split("listens on ")[1].split(";")[0]
    finally:
        process.terminate()
        process.wait(40)


def small(address: str, seconds: float) -> float:
    """Requests a second of `add_` on a small tensor: 8 clients, each in a session of its own."""
    counts = [0] * CLIENTS
    start, end = threading.Barrier(CLIENTS + 1), [0.0]

    def client(number: int) -> None:
        with httpx.Client(base_url=address, timeout=60, headers={"Curlgrad-Session": f"s{number}"}) as http:
            http.post("/v1/sessions", json={"name": f"s{number}"})
            http.post("/v1/tensors", json={"data": [1.0] * 8, "name": "x"}).raise_for_status()
            start.wait()
            while time.perf_counter() < end[0]:
                http.post("/v1/ops/add_", json={"input": "x", "other": 1}).raise_for_status()
                counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    end[0] = time.perf_counter() + seconds + 1000
    start.wait()
    begin = time.perf_counter()
    end[0] = begin + seconds
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def compare_small(folder: Path, rounds: int, seconds: float) -> None:
    """The two services in turn."""
    with ExitStack() as stack:
        addresses = {}
        for name, data in (("none", "none"), ("everysec", str(folder / "everysec-data"))):
            (folder / name).mkdir()
            addresses[name] = stack.enter_context(served(folder / name, "--data-dir", data))
        ratios, rates = [], {"none": [], "everysec": []}
        for i in range(rounds):
            order = list(addresses) if i % 2 == 0 else list(addresses)[::-1]
            found = {name: small(addresses[name], seconds) for name in order}
            for name, rate in found.items():
                rates[name].append(rate)
            ratios.append(found["everysec"] / found["none"])
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(
        f"small operations: {medians['everysec']:.0f} requests/s with everysec, {medians['none']:.0f} without a log; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), goal {GOAL}"
    )


def uploads(folder: Path, rounds: int, megabytes: int) -> None:
    """Uploads with each of the ways to sync."""
    body = np.random.default_rng(0).bytes(megabytes * 1_000_000)
    for name in ("none", "no", "everysec", "always"):
        here = folder / f"upload-{name}"
        here.mkdir()
        options = ["--data-dir", "none"] if name == "none" else ["--data-dir", str(here / "data"), "--sync", name]
        with served(here, *options) as address, httpx.Client(base_url=address, timeout=300) as http:
            times = []
            for _ in range(rounds):
                begin = time.perf_counter()
                answer = http.post(
                    f"/v1/tensors?dtype=uint8&shape={len(body)}&name=x&values=none",
                    content=body,
                    headers={"Content-Type": "application/octet-stream"},
                )
                answer.raise_for_status()
                times.append(time.perf_counter() - begin)
        rate = megabytes / statistics.median(times)
        print(f"upload of {megabytes} MB, {'no log' if name == 'none' else name}: {rate:.0f} MB/s")
        shutil.rmtree(here)


def recovery(folder: Path, megabytes: int) -> None:
    """Starts on logs of big and of small changes."""

    def in_place(count: int) -> dict[str, object]:
        return {"steps": [{"op": "add_", "args": {"input": "x", "other": 1}}]}

    def anew(count: int) -> dict[str, object]:
        return {"steps": [{"op": "add", "args": {"input": "x", "other": 1}, "out": "y"}], "keep": {"y": "x"}}

    def more(count: int) -> dict[str, object]:
        return {**anew(count), "keep": {"y": f"y{count}"}}

    kinds = [
        ("1 MB in place", 250_000, in_place),
        ("1 kB in place", 250, in_place),
        ("1 MB anew, the one before let go of", 250_000, anew),
        ("1 kB anew, the one before let go of", 250, anew),
        ("1 MB anew, all of them kept", 250_000, more),
        ("1 kB anew, all of them kept", 250, more),
    ]
    for what, numbers, change in kinds:
        data = folder / "log"
        commits: list[object] = []
        session = Session("s", seed=1, on_commit=commits.append)

        def make(id: str, opened: dict[str, object]) -> Session:
            return Session(id, seed=1)

        store = Store(data, make=make, sync="no")
        opened = {"owner": "", "name": None, "device": "cpu", "seed": 1, "default_dtype": "float32", "created": 0.0}
        store.write([Change("open", "s", {"open": {**opened, "number": 1, "incarnation": "0", "lease_s": None}})])
        head = {"call": None, "key": None, "reply": b"", "short": None}
        program = {"steps": [{"op": "ones", "args": {"size": [numbers]}, "out": "x"}], "keep": {"x": "x"}}
        written = count = 0
        while written < megabytes * 1_000_000:
            for _ in session.run(change(count) if count else program, values="none"):
                pass
            store.write([Change("commit", "s", head, commits.pop())])
            written, count = store.kept["s"].bytes, count + 1
        store.close()
        size = sum(path.stat().st_size for path in data.glob("*.log")) / 1e6
        count = len(recover(data, Files()).kept["s"].places)
        reads, rebuilds = [], []
        for _ in range(3):
            begin = time.process_time()
            recover(data, Files())
            reads.append(time.process_time() - begin)
            store = Store(data, make=make)
            begin = time.process_time()
            store.load("s")
            rebuilds.append(time.process_time() - begin)
            store.close()
        read, rebuilt = statistics.median(reads), statistics.median(rebuilds)
        print(
            f"recovery, {size:.0f} MB in {count} changes of {what}: read {read / count * 1e6:.1f} us a change, rebuilt "
            f"{rebuilt / count * 1e6:.1f} us a change, together {size / (read + rebuilt):.0f} MB/s of CPU time, "
            f"goal {RECOVERY_GOAL:.0f}"
        )
        shutil.rmtree(data)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a quick look")
    parser.add_argument("--recovery", action="store_true", help="recovery alone")
    given = parser.parse_args()
    short = given.short
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.recovery:
            compare_small(folder, rounds=1 if short else 7, seconds=1.0 if short else 3.0)
            uploads(folder, rounds=1 if short else 5, megabytes=10 if short else 100)
        recovery(folder, megabytes=20 if short else 200)


if __name__ == "__main__":
    main()

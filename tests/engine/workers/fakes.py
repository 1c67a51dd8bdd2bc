"""A session without tensors: what the workers' tests run programs on, in this process or in a child."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from engine.answer import ArrayData, TensorAnswer
from engine.errors import Conflict, DeviceLost, Hint, NoSuchDevice, NoSuchTensor, OutOfMemory
from engine.limits import Limits

TRACE: list[tuple[str, str]] = []  # (session name, step) in the order in which a worker of this process ran them
FACTORY = "tests.engine.workers.fakes:FakeSession"
# A file whose existence keeps this module from being loaded, and so a worker from starting.
if Path(os.environ.get("FAKES_BROKEN", "/nonexistent")).exists():
    raise ImportError("broken on purpose")

LIMITS = Limits(session_bytes=1 << 30, server_bytes=4 << 30, max_sessions=50, max_queue=100)


def answer(name: str | None, values: np.ndarray[Any, Any], dtype: str | None = None) -> TensorAnswer:
    """A tensor object of these values."""
    return TensorAnswer(
        id="t1",
        name=name,
        shape=values.shape,
        dtype=dtype or str(values.dtype),
        device="cpu",
        numel=values.size,
        nbytes=values.nbytes,
        requires_grad=False,
        is_leaf=True,
        grad_fn=None,
        version=0,
        etag="e",
        values=values,
        strides=tuple(s // values.itemsize for s in values.strides),
    )


class FakeSession:
    """Variables instead of tensors; a program that does not end well is undone."""

    def __init__(
        self,
        session_id: str,
        *,
        owner: str,
        name: str | None,
        device: str,
        seed: int | None,
        default_dtype: str,
        limits: Limits,
        devices: tuple[str, ...] = (),
        offered: tuple[str, ...] = (),
        sync: bool = False,
        server: Any = None,
    ) -> None:
        self.devices, self.offered, self.sync = devices, offered, sync
        if seed == 666:
            raise Conflict("this session cannot be made")
        self.id, self.owner, self.name, self.device = session_id, owner, name, device
        self.seed, self.default_dtype, self.limits = seed, default_dtype, limits
        self.variables: dict[str, Any] = {}
        self.closed = False
        self.count: int | None = None
        self.on_commit = None

    def run(
        self, program: dict[str, Any], *, values: str, dry_run: bool = False, explain: bool = False
    ) -> Generator[None, None, dict[str, Any]]:
        before = dict(self.variables)
        results: dict[str, Any] = {}
        count = 0
        try:
            for step in program["steps"]:
                for _ in range(step.get("times", 1)):
                    count += 1
                    self.count = count
                    TRACE.append((self.name or self.id, step["op"]))
                    self._step(step["op"], step.get("args", {}), results)
                    yield
        except BaseException:
            TRACE.append((self.name or self.id, "undone"))
            self.variables = before
            raise
        if dry_run:
            self.variables = before
        return {"results": results, "steps_run": count}

    def _step(self, op: str, args: dict[str, Any], results: dict[str, Any]) -> None:
        match op:
            case "noop":
                pass
            case "add":
                self.variables["n"] = self.variables.get("n", 0) + 1
            case "sleep":
                time.sleep(args["s"])
            case "spin":
                end = time.perf_counter() + args["s"]
                while time.perf_counter() < end:
                    pass
            case "keep":
                given = args["data"]
                assert isinstance(given, ArrayData)
                self.variables[args["name"]] = given.array
                results["writable"] = given.array.flags.writeable
            case "scale":
                self.variables[args["name"]] *= 2
            case "free":
                self.variables.pop(args["name"], None)
            case "return":
                results[args["name"]] = answer(args["name"], self.variables[args["name"]])
            case "device":
                if args["device"] not in self.devices:
                    raise NoSuchDevice(f"no {args['device']}", device=args["device"])
                results["device"] = args["device"]
            case "lose":
                raise DeviceLost("cuda:0 failed (CUDARuntimeError)", hint=Hint("device-lost", device="cuda:0"))
            case "seed":
                results["seed"] = self.seed
            case "number":
                results["n"] = self.variables.get("n", 0)
            case "refuse":
                raise NoSuchTensor("there is no tensor 'x'", param="input")
            case "bug":
                raise ZeroDivisionError("a kernel's mistake")
            case "hungry":
                raise MemoryError("Unable to allocate 1 TiB")
            case "unsendable":
                results["bad"] = object()
            case "die":
                os.kill(os.getpid(), args.get("signal", signal.SIGKILL))
            case "exit":
                os._exit(args["status"])
            case "babble":
                os.write(int(sys.argv[sys.argv.index("--fd") + 1]), b"what is no message")
            case "allocate":
                self.variables["big"] = np.ones(args["bytes"], np.uint8)
            case "manual_seed":
                self.seed = args["seed"]
            case "set_default_dtype":
                self.default_dtype = args["d"]
            case _:
                raise AssertionError(op)

    def progress(self) -> dict[str, Any] | None:
        return (
            None
            if self.count is None
            else {"steps_run": self.count, "steps": 0, "rounds": [], "of": [], "collected": {}}
        )

    def query(self, q: dict[str, Any], values: str = "auto") -> Any:
        match q["do"]:
            case "info":
                return {
                    "tensors": len(self.variables),
                    "bytes": {"tensors": 0, "tape": 0, "grads": 0},
                    "seed": self.seed,
                    "device": self.device,
                    "default_dtype": self.default_dtype,
                }
            case "read":
                TRACE.append((self.name or self.id, "read"))
                value = self.variables.get(q["ref"])
                return answer(q["ref"], value) if isinstance(value, np.ndarray) else value
            case "many":
                return [answer(str(i), np.full(q["numel"], i, np.float64)) for i in range(q["count"])]
            case "process":
                return process_facts()
            case "environment":
                return {key: os.environ.get(key) for key in q["keys"]}
            case "slow":
                time.sleep(q["s"])
                return None
            case _:
                raise AssertionError(q)

    def bytes_by_device(self) -> dict[str, dict[str, int]]:
        return {"cpu": {"tensors": 8}}

    def pack(self) -> dict[str, Any] | None:
        return None if self.variables else {"seed": self.seed}

    def unpack(self, packed: Mapping[str, Any]) -> None:
        self.seed = packed["seed"]

    def close(self) -> None:
        TRACE.append((self.name or self.id, "close"))
        self.variables.clear()
        self.closed = True


class RefusingSession(FakeSession):
    """Cannot be made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OutOfMemory("no room for a session")


Test = TypeVar("Test", bound=Callable[..., Any])


def asynchronous(test: Test) -> Test:
    """Runs an `async def` test in an event loop of its own, and sees that it leaves no task behind."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            await asyncio.wait_for(test(*args, **kwargs), 60)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

        asyncio.run(main())

    return cast(Test, wrapper)


def process_facts() -> dict[str, Any]:
    """Open descriptors, mapped curlgrad memory and resident bytes of this process. Linux."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "pid": os.getpid(),
        "fds": len(list(Path("/proc/self/fd").iterdir())),
        "maps": Path("/proc/self/maps").read_text().count("memfd:curlgrad"),
        "rss": int(status["VmRSS"].split()[0]) * 1024,
        "anonymous": int(status["RssAnon"].split()[0]) * 1024,
        "threads": threading.active_count(),
    }

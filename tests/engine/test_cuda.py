"""CUDA as a session sees it: torch.cuda's questions, what is held where, steps that wait for the device."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from engine.answer import ArrayData
from engine.backend import simulated_cuda
from engine.context import Context
from engine.errors import DeviceLost, DeviceMismatch, EngineError, NoSuchDevice, OutOfMemory
from engine.limits import Limits
from engine.session import Session

CUDA = simulated_cuda()


def ended(running: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


def ask(session: Session, op: str, **args: Any) -> Any:
    step = {"op": op, "args": args, "out": "y"}
    return ended(session.run({"steps": [step], "return": ["y"]}))["results"]["y"]


@pytest.fixture
def session() -> Session:
    return Session("s", seed=1, devices=("cpu", "cuda:0"), limits=Limits(session_bytes=1 << 20))


@pytest.fixture
def without() -> Session:
    return Session("s", seed=1)


def test_where_there_is_a_device(session: Session) -> None:
    assert ask(session, "cuda.is_available") is True
    assert ask(session, "cuda.device_count") == 1
    assert ask(session, "cuda.current_device") == 0
    assert ask(session, "cuda.get_device_name").startswith("a simulation of CUDA on ")
    assert ask(session, "cuda.mem_get_info") == [1 << 20, 1 << 20]
    assert ask(session, "cuda.synchronize") is None
    assert ask(session, "cuda.empty_cache") is None


def test_where_there_is_none(without: Session) -> None:
    assert ask(without, "cuda.is_available") is False
    assert ask(without, "cuda.device_count") == 0
    assert ask(without, "cuda.memory_allocated") == ask(without, "cuda.memory_reserved") == 0
    assert ask(without, "cuda.empty_cache") is None
    for op in ("current_device", "get_device_name", "mem_get_info", "synchronize"):
        with pytest.raises(NoSuchDevice, match="Torch not compiled with CUDA enabled"):
            ask(without, f"cuda.{op}")


def test_a_worker_without_the_device_that_another_one_has() -> None:
    session = Session("s", seed=1, devices=("cpu", "cuda:0"), offered=("cpu", "cuda:0", "cuda:1"))
    assert ask(session, "cuda.device_count") == 2
    with pytest.raises(
        NoSuchDevice, match=r"the session is on a worker without cuda:1: that has cpu, cuda:0"
    ) as caught:
        ask(session, "ones", size=[2], device="cuda:1")
    assert caught.value.hint is not None
    assert (caught.value.hint.key, caught.value.facts["device"]) == ("device-elsewhere", "cuda:1")
    with pytest.raises(NoSuchDevice, match=r"this server has no device 'cuda:2': it has cpu, cuda:0, cuda:1"):
        ask(session, "ones", size=[2], device="cuda:2")


def test_allocated_memory_is_the_session_s_on_that_device(session: Session) -> None:
    def allocated(device: Any = None) -> int:
        return int(ask(session, "cuda.memory_allocated", device=device))

    def keep(name: str, device: str) -> None:
        step = {"op": "ones", "args": {"size": [256], "device": device}, "out": "x"}
        ended(session.run({"steps": [step], "keep": {"x": name}}))

    assert allocated() == 0
    keep("a", "cuda")
    keep("b", "cpu")
    assert allocated() == allocated(0) == allocated("cuda:0") == ask(session, "cuda.memory_reserved") == 1024
    keep("a", "cpu")  # the name moves, and with it the only thing that held the tensor
    assert allocated() == 0
    with pytest.raises(NoSuchDevice, match="Expected a cuda device, but got: cpu"):
        allocated("cpu")


def test_uploads_and_factories_go_straight_onto_a_device(session: Session) -> None:
    data = ArrayData(np.arange(3, dtype=np.float32), "float32")
    program = {"inputs": {"x": {"data": data, "device": "cuda"}}, "steps": [], "return": ["x"]}
    made = ended(session.run(program))["results"]["x"]
    assert (made.device, made.values.tolist()) == ("cuda:0", [0, 1, 2])
    for op, args in (("zeros", {"size": [2]}), ("tensor", {"data": [1, 2]}), ("arange", {"end": 2}), ("eye", {"n": 2})):
        assert ask(session, op, **args, device="cuda:0").device == "cuda:0"
    with pytest.raises(DeviceMismatch, match="at least two devices, cuda:0 and cpu"):
        ask(session, "add", input={"data": [1.0, 2.0], "device": "cuda"}, other=[1.0, 2.0])
    assert ask(session, "add", input={"data": [1.0, 2.0], "device": "cuda"}, other=1).device == "cuda:0"


def test_moving_is_differentiable(session: Session) -> None:
    steps = [
        {"op": "to", "args": {"input": "x", "device": "cuda"}, "out": "y"},
        {"op": "mul", "args": {"input": "y", "other": "y"}, "out": "z"},
        {"op": "cpu", "args": {"input": "z"}, "out": "z"},
        {"op": "sum", "args": {"input": "z"}, "out": "loss"},
        {"op": "backward", "args": {"input": "loss"}},
    ]
    given = {"data": [1.0, 2.0, 3.0], "requires_grad": True}
    reply = ended(session.run({"inputs": {"x": given}, "steps": steps, "return": ["x.grad", "loss"]}))["results"]
    assert (reply["x.grad"].device, reply["x.grad"].values.tolist()) == ("cpu", [2, 4, 6])
    assert reply["loss"].device == "cpu"


# ---------------------------------------------------------------- a session without tensors can be made anew elsewhere


def test_an_empty_session_can_be_packed(session: Session) -> None:
    ask(session, "manual_seed", seed=7)
    ask(session, "rand", size=[3])
    ask(session, "rand", size=[3], device="cuda")
    ask(session, "set_default_dtype", d="float64")
    ask(session, "set_printoptions", precision=2)
    other = Session("s", seed=99, devices=("cpu", "cuda:0"))
    packed = session.pack()
    assert packed is not None
    other.unpack(packed)
    for device in ("cpu", "cuda"):
        want, have = (ask(s, "rand", size=[4], device=device) for s in (session, other))
        assert have.values.tolist() == want.values.tolist()
        assert have.dtype == want.dtype == "float64"
    assert other.ctx.print_options == session.ctx.print_options != {}
    ended(session.run({"steps": [{"op": "ones", "args": {"size": [2]}, "out": "x"}], "keep": {"x": "x"}}))
    assert session.pack() is None


# ---------------------------------------------------------------- what the device raises


class Late(RuntimeError):
    """An error that a device raises when it is next waited for."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The device fails after `cumsum`, noticed when somebody waits; the log says who waited."""
    waited: list[str] = []
    broken: dict[str, bool] = {}
    cumsum = CUDA.xp.cumsum

    def break_it(*args: Any, **kwargs: Any) -> Any:
        broken["now"] = True
        return cumsum(*args, **kwargs)

    def wait() -> None:
        waited.append("waited")
        if broken.pop("now", False):
            raise Late("cudaErrorIllegalAddress")

    def get(array: Any) -> Any:
        wait()
        return array.get()

    def fault(problem: BaseException) -> EngineError | None:
        return DeviceLost("cuda:0 failed", hint=None) if isinstance(problem, Late) else None

    monkeypatch.setattr(CUDA.xp, "cumsum", break_it)
    monkeypatch.setattr(CUDA, "synchronize", wait)
    monkeypatch.setattr(CUDA, "to_host", get)
    monkeypatch.setattr(CUDA, "fault", fault)
    return waited


STEPS = [
    {"op": "ones", "args": {"size": [3], "device": "cuda"}, "out": "x"},
    {"op": "cumsum", "args": {"input": "x", "dim": 0}, "out": "y"},
    {"op": "add", "args": {"input": "y", "other": 1}, "out": "y"},
    {"op": "tolist", "args": {"input": "y"}, "out": "values"},
]


def test_an_error_comes_late_unless_steps_wait(failing: list[str]) -> None:
    with pytest.raises(DeviceLost) as caught:
        ended(Session("s", seed=1, devices=("cpu", "cuda:0")).run({"steps": STEPS}))
    assert (caught.value.step, caught.value.op) == ([3], "tolist")
    with pytest.raises(DeviceLost) as caught:
        ended(Session("s", seed=1, devices=("cpu", "cuda:0"), sync=True).run({"steps": STEPS}))
    assert (caught.value.step, caught.value.op) == ([1], "cumsum")
    assert len(failing) == 1 + 2  # the read; the two steps up to the error


def test_what_runs_out_of_device_memory_names_its_step(monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OutOfMemory("this needs 8 bytes", asked=8, held=4, free=2, limit=6)

    with monkeypatch.context() as patched:
        patched.setattr(CUDA.xp, "cumsum", refuse)
        try:
            ended(session.run({"steps": STEPS, "keep": {"x": "x"}}))
        except OutOfMemory as error:  # and no pytest.raises: the frames that it keeps hold what the program had
            step = error.step
    assert step == [1]
    assert not session.tensors
    assert session.ctx.ledger.held == 0
    made = ended(session.run({"steps": STEPS, "return": ["values"]}))
    assert made["results"]["values"] == [2, 3, 4]


def test_contexts_wait_for_the_devices_that_they_have_used() -> None:
    from engine.tensor import Ledger

    ctx = Context(ledger=Ledger(1 << 20), devices=("cpu", "cuda:0"))
    ctx.k(CUDA)
    ctx.synchronize()
    assert ctx.fault(ValueError("no device's")) is None
    assert [b.name for b in ctx.backends] == ["cpu", "cuda:0"]

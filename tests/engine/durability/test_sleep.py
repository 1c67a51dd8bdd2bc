"""What was computed before a session slept, or its server ended, can be gone back through afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.devices import cuda
from tests.engine.durability.houses import House, QuickFiles, bits, kill
from tests.engine.durability.test_service import everywhere, killed, served, until, values
from tests.engine.programs import floats, step
from tests.engine.test_commit import replay
from tests.engine.workers.fakes import asynchronous

FORWARD: dict[str, Any] = {
    "inputs": {"x": floats(4, 3), "w": {**floats(3, 2, seed=1), "requires_grad": True}},
    "steps": [
        step("mm", "h", input="x", mat2="w"),
        step("nn.functional.dropout", "d", input="h", p=0.5),
        step("select", "part", input="d", dim=0, index=1),
        step("mul", "y", input="part", other="part"),
        step("sum", "loss", input="y"),
        step("exp", "e", input="h"),
    ],
    "keep": {name: name for name in ("x", "w", "h", "part", "loss", "e")},
}
BACKWARD: dict[str, Any] = {"steps": [step("backward", input="loss", retain_graph=True)]}
FREEING: dict[str, Any] = {"steps": [step("backward", input="loss")]}
GRAD: dict[str, Any] = {
    "steps": [step("sum", "s", input="e"), step("autograd.grad", ["g"], outputs=["s"], inputs=["w"])],
    "return": ["g"],
}
OVERWRITING: dict[str, Any] = {"steps": [step("mul_", input="e", other=2)]}
FAILING: dict[str, Any] = {
    "steps": [
        step("add_", input="x", other=1),
        step("backward", input="loss"),
        step("randn", "n", size=[2]),
        step("mm", input="x", mat2="x"),
    ]
}


def refusal(session: Session, program: dict[str, Any]) -> str:
    with pytest.raises(EngineError) as caught:
        replay(session, program)
    return caught.value.detail


def slept(house: House, how: str) -> tuple[House, Session]:
    """The house and its session after a sleep, or after an end and a start."""
    session = house.sessions["s"]
    if how != "killed":
        house.store.save("s", session)
        house.store.asleep("s")
    if how in ("killed", "asleep and killed"):
        kill(house.store)
        house = House(house.store.folder, files=QuickFiles())
    return house, house.store.load("s")


@pytest.mark.parametrize("how", ["asleep", "killed", "asleep and killed"])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_tape_goes_on(tmp_path: Path, how: str, device: str) -> None:
    """One session sleeps before every program, the other never: they stay the same, and are refused the same."""
    cuda()
    house = House(tmp_path / "a", files=QuickFiles())
    never = Session("s", owner="ann", device=device, devices=("cpu", "cuda:0"), seed=5, incarnation="0badcafe")
    house.open("s", device=device)
    for program in (FORWARD, BACKWARD, BACKWARD, OVERWRITING, FREEING):
        house.change("s", program)
        replay(never, program)
        house, house.sessions["s"] = slept(house, how)
        house.states["s"] = []
        assert bits(house.sessions["s"]) == bits(never)
        assert refusal(house.sessions["s"], FAILING) == refusal(never, FAILING)
        assert bits(house.sessions["s"]) == bits(never), "a program that fails leaves it as it was when it woke"
    assert never.names["w"].grad is not None
    assert "modified by an inplace operation" in refusal(never, GRAD)
    assert refusal(house.sessions["s"], GRAD) == refusal(never, GRAD)
    assert "second time" in refusal(never, FREEING)
    assert refusal(house.sessions["s"], FREEING) == refusal(never, FREEING)
    kill(house.store)


@everywhere
@asynchronous
async def test_backward_after_a_sleep_a_death_and_a_start(tmp_path: Path, workers: str) -> None:
    lesson = {
        "inputs": {"w": {"data": [1.5, -2.0], "requires_grad": True}},
        "steps": [step("mul", "y", input="w", other="w"), step("sum", "loss", input="y")],
        "keep": {"w": "w", "loss": "loss"},
    }
    back = {"steps": [step("backward", input="loss", retain_graph=True)]}
    folder = tmp_path / ("inline" if workers == "inline" else "cpu-0") / "snapshots"
    async with served(tmp_path, workers, limits={"idle_s": 0.0}) as service:
        await service.run("ann", None, lesson)
        for times in (1, 2):
            written = {path.name for path in folder.glob("*.safetensors")}
            await until(lambda before=written: {p.name for p in folder.glob("*.safetensors")} - before != set())
            await service.run("ann", None, dict(back))
            assert await values(service, "w.grad") == [3.0 * times, -4.0 * times]
        if workers != "inline":
            await killed(service)
            await service.run("ann", None, dict(back))
            times += 1
    async with served(tmp_path, workers) as service:
        await service.run("ann", None, dict(back))
        assert await values(service, "w.grad") == [3.0 * (times + 1), -4.0 * (times + 1)]

"""A dry run says what the run then gives: shapes, dtypes, flags and plain values, of operations and of programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engine.answer import TensorAnswer
from engine.errors import EngineError, Invalid
from engine.op import REGISTRY, SPECIAL
from engine.samples import T
from engine.session import Session
from tests.engine.programs import step
from tests.laws.harness import draw, operations, samples_of, walk

# Nobody knows before the run what these say of values, or of what is only there when it runs.
VALUES = {
    *("allclose", "autograd.grad", "autograd.gradcheck", "autograd.gradgradcheck", "equal", "is_nonzero", "item"),
    *("is_same_size", "tolist", "stride", "storage_offset", "is_contiguous", "dim_order", "is_set_to", "grad_fn"),
    *("is_leaf", "retains_grad", "get_device", "device", "layout", "is_cpu", "is_cuda", "is_sparse", "is_quantized"),
    *("is_nested", "is_meta", "is_conj", "is_neg", "cuda.memory_allocated", "cuda.mem_get_info", "seed"),
}

UNTOLD = {"retain_grad"}  # its sample requires no grad, which is refused


def answered(session: Session, program: Mapping[str, Any], *, dry: bool) -> dict[str, Any]:
    running = session.run(program, dry_run=dry)
    try:
        while True:
            next(running)
    except StopIteration as end:
        found: dict[str, Any] = end.value
        return found


def shown(found: Any) -> Any:
    if isinstance(found, TensorAnswer):
        return (tuple(found.shape), found.dtype, found.requires_grad, found.device)
    if isinstance(found, list | tuple):
        return [shown(x) for x in found]
    return {name: shown(x) for name, x in found.items()} if isinstance(found, dict) else found


def program_of(name: str, number: int) -> dict[str, Any] | None:
    """A sample as a program; None where JSON cannot say it."""
    op = REGISTRY[name]
    inputs: dict[str, Any] = {}
    rng = np.random.default_rng(number)

    def visit(value: Any) -> Any:
        if not isinstance(value, T):
            return value
        host, d = draw(value, "float32", rng)
        if d.is_complex or d.name == "bfloat16":
            raise ValueError
        inputs[f"x{len(inputs)}"] = {"data": host.tolist(), "dtype": d.name, "shape": list(host.shape)}
        return f"x{len(inputs) - 1}"

    sample = samples_of(name)[number]
    try:
        args = dict(zip((p.name for p in op.params), walk(list(sample.args), visit), strict=False))
        args.update(walk(dict(sample.kwargs), visit))
    except ValueError:
        return None
    return {"inputs": inputs, "steps": [{"op": name, "args": args, "out": {"whole": "r"}}], "return": ["r"]}


SPECIALS = [name for name in operations() if REGISTRY[name].kind == SPECIAL and not name.startswith("_")]


@pytest.mark.parametrize("name", SPECIALS)
def test_operations_without_a_meta(name: str) -> None:
    told = 0
    for number in range(len(samples_of(name))):
        program = program_of(name, number)
        if program is None:
            continue
        try:
            real = answered(Session("s"), program, dry=False)["results"]["r"]
        except (EngineError, TypeError):
            continue
        session = Session("s")
        before = session.ctx.rng.get_state(), session.counter, session.ctx.seq
        dry = answered(session, program, dry=True)["results"]["r"]
        assert (session.ctx.rng.get_state(), session.counter, session.ctx.seq) == before
        assert not session.tensors
        assert session.ctx.ledger.held == 0
        if name in VALUES:
            continue
        assert shown(dry) == shown(real), (program["steps"], name)
        told += 1
    assert told or name in VALUES or not samples_of(name) or name in UNTOLD, name


def test_tensors_made_of_data_have_their_shapes() -> None:
    steps = [
        step("tensor", "a", data=[[1, 2], [3, 4]]),
        step("LongTensor", "b", data=[1, 0, 1]),
        step("to", "c", input="a", dtype="float64"),
        step("t_", "c", input="c"),
        step("unsqueeze_", "d", input="c", dim=0),
        step("optim.adam_state", "s", params=["d"]),
    ]
    session = Session("s")
    reply = answered(session, {"steps": steps, "return": ["a", "b", "d", "s"]}, dry=True)
    found = shown(reply["results"])
    assert found["a"] == ((2, 2), "int64", False, "cpu")
    assert found["b"] == ((3,), "int64", False, "cpu")
    assert found["d"] == ((1, 2, 2), "float64", False, "cpu")
    assert found["s"]["exp_avg"] == [((1, 2, 2), "float64", False, "cpu")]
    assert reply["peak_bytes"] >= 4 * 8 + 3 * 8 + 4 * 8 + 2 * 4 * 8


def test_a_dry_run_changes_nothing_but_its_own_steps_see_what_came_before() -> None:
    session = Session("s")
    steps = [step("set_default_dtype", d="float64"), step("tensor", "a", data=[1.5]), step("manual_seed", seed=3)]
    seed = session.ctx.rng.initial_seed
    reply = answered(session, {"steps": steps, "return": ["a"]}, dry=True)
    assert shown(reply["results"]["a"]) == ((1,), "float64", False, "cpu")
    assert session.ctx.default_dtype.name == "float32"
    assert session.ctx.rng.initial_seed == seed


def test_values_that_are_known_are_used_and_others_are_said_to_be_missing() -> None:
    session = Session("s")
    packed = step("nn.utils.rnn.pack_padded_sequence", "p", input="x", lengths="n")
    inputs = {"x": [[[1.0], [2.0]], [[3.0], [4.0]]], "n": [2, 1]}
    reply = answered(session, {"inputs": inputs, "steps": [packed], "return": ["p"]}, dry=True)
    assert shown(reply["results"]["p"])["data"][0] == (3, 1)
    late = [step("add", "n", input="n", other=0), packed]
    with pytest.raises(Invalid, match="a dry run has zeros") as caught:
        answered(session, {"inputs": inputs, "steps": late, "return": ["p"]}, dry=True)
    assert caught.value.code == "dry-run-values"

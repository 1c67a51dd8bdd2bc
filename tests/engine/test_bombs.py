"""Small requests that ask for much: refused before anything is allocated or computed, and nothing changes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.errors import EngineError, Invalid, OutOfMemory
from engine.limits import Limits
from engine.session import Session
from tests.engine.programs import run, state, step


@pytest.mark.parametrize(
    "asked",
    [
        step("tril_indices", row=10**6, col=10**6, offset=-(10**6) + 2),
        step("triu_indices", row=10**12, col=3),
        step("tril_indices", row=10**12, col=0),
        step("nn.functional.local_response_norm", input=[[[1.5], [2.5]]], size=10**12),
        step("round", input=[1.5], decimals=10**6),
    ],
    ids=lambda asked: asked["op"],
)
def test_large_numbers_that_ask_for_little_are_cheap(asked: dict[str, Any]) -> None:
    """The result is small, and so are the memory and the work on the way to it."""
    run(Session("s", seed=0, limits=Limits(session_bytes=1 << 20)), asked, values="none")


@pytest.mark.parametrize(
    "steps",
    [
        [step("ones", size=[10**11])],
        [step("ones", size=[10**9, 10**9, 10**9])],
        [step("ones", "a", size=[10**5, 1]), step("ones", "b", size=[1, 10**5]), step("add", input="a", other="b")],
        [step("ones", "a", size=[1]), step("expand", "b", input="a", size=[10**12]), step("sum", input="b")],
        [step("ones", "a", size=[1]), step("as_strided", "b", input="a", size=[10**12], stride=[0])],
        [step("repeat", input=[1.5, 2.5], repeats=[10**9])],
        [step("arange", end=10**15)],
        [step("eye", n=10**9)],
        [step("nn.functional.pad", input=[[1.5, 2.5]], pad=[10**9, 10**9])],
        [step("ones", "a", size=[10**4]), step("outer", "b", input="a", vec2="a"), step("kron", input="b", other="b")],
        [step("randn", size=[10**10])],
        [step("tile", input=[1.5], dims=[10**10])],
        [step("nn.functional.interpolate", input=[[[[1.5]]]], size=[10**5, 10**5])],
        [step("nn.functional.one_hot", input=[3], num_classes=10**12)],
        # Results that are many rather than large, and work that grows with a number.
        [step("tensor_split", input=[1.5], sections=2**62)],
        [step("chunk", input={"data": [], "dtype": "float32"}, chunks=10**12)],
        [step("ones", "a", size=[1]), step("expand", "b", input="a", size=[10**9]), step("unbind", input="b")],
        [
            step("ones", "a", size=[1]),
            step("expand", "b", input="a", size=[10**9]),
            step("split", tensor="b", split_size_or_sections=1),
        ],
        [step("ones", "a", size=[1]), step("expand", "b", input="a", size=[10**9]), step("tolist", input="b")],
        [step("tril_indices", row=10**12, col=3)],
        [step("triu_indices", row=10**6, col=10**6)],
        [step("bincount", input=[1], minlength=10**12)],
        [step("linalg.multi_dot", tensors=[[[1.5]]] * 1000)],
        [step("histc", input=[1.5, 2.5], bins=10**12)],
        [step("ones", "a", size=[10**6]), step("combinations", input="a", r=500_000)],
        [step("ones", "a", size=[300]), step("combinations", input="a", r=5)],
        [step("ones", "a", size=[3000]), step("cartesian_prod", tensors=["a", "a", "a", "a"])],
        [step("ones", "a", size=[1000]), step("vander", x="a", N=10**9)],
        [
            step("ones", "x", size=[1, 16, 1000, 1000]),
            step("ones", "w", size=[1, 16, 11, 11]),
            step("nn.functional.conv2d", input="x", weight="w"),  # 6 GB of windows for a result of 4 MB
        ],
        [step("nn.functional.one_hot", input=[10**12])],
        [step("repeat_interleave", input=[1.5, 2.5], repeats={"data": [10**12, 1]})],
        [step("svd_lowrank", A=[[1.5, 2.5], [3.5, 4.5]], q=1, niter=10**9)],
    ],
    ids=lambda steps: steps[-1]["op"],
)
def test_a_bomb_is_refused(steps: list[dict[str, Any]]) -> None:
    session = Session("s", seed=0)
    run(session, inputs={"x": [1.5]}, keep={"x": "x"})
    before = state(session)
    start = time.process_time()
    refused: type[EngineError] | None = None
    try:
        run(session, *steps, values="none")
    except (OutOfMemory, Invalid) as e:
        refused = type(e)
    assert refused is not None
    assert time.process_time() - start < 30, "it was worked on before it was refused"
    assert state(session) == before

"""Sequences of several lengths: packed and padded again, and recurrent networks over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step, values

RNN = "nn.utils.rnn."
LENGTHS = [2, 4, 1]
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@pytest.fixture
def session() -> Session:
    made = Session("s", seed=0)
    run(
        made,
        *[step("randn", f"s{i}", size=[n, 3]) for i, n in enumerate(LENGTHS)],
        keep={f"s{i}": f"s{i}" for i in range(3)},
    )
    for i in range(3):
        run(made, step("requires_grad_", input=f"s{i}"))
    return made


def arrays(session: Session, *steps: dict[str, Any], back: list[str]) -> list[Any]:
    results = run(session, *steps, return_=back)["results"]
    return [np.array(values(results[name])) for name in back]


SEQUENCES = ["s0", "s1", "s2"]


def test_packing_is_step_by_step_and_unpacking_undoes_it(session: Session) -> None:
    results = run(
        session,
        step(RNN + "pack_sequence", "packed", sequences=SEQUENCES, enforce_sorted=False),
        step(RNN + "unpack_sequence", ["a", "b", "c"], packed_sequences="packed"),
        step(RNN + "pad_packed_sequence", ["padded", "lengths"], sequence="packed", batch_first=True, total_length=5),
        step(RNN + "pad_sequence", "again", sequences=SEQUENCES, batch_first=True),
        return_=["packed", "a", "b", "c", "padded", "lengths", "again", *SEQUENCES],
    )["results"]
    packed = {name: values(part) for name, part in results["packed"].items()}
    assert packed["batch_sizes"] == [3, 2, 1, 1]
    assert packed["sorted_indices"] == [1, 0, 2]
    assert packed["unsorted_indices"] == [1, 0, 2]
    assert packed["data"][:2] == [values(results["s1"])[0], values(results["s0"])[0]]
    for name, back in zip(SEQUENCES, "abc", strict=True):
        assert values(results[back]) == values(results[name])
    assert values(results["lengths"]) == LENGTHS
    padded = np.array(values(results["padded"]))
    assert padded.shape == (3, 5, 3)
    assert (padded[:, :4] == np.array(values(results["again"]))).all()
    assert not padded[:, 4].any()


def test_sorted_sequences_need_no_order(session: Session) -> None:
    results = run(
        session,
        step(RNN + "pack_sequence", ["data", "sizes", None, None], sequences=["s1", "s0", "s2"]),
        step(RNN + "pad_packed_sequence", ["padded", "lengths"], sequence=["data", "sizes"], padding_value=-1.0),
        return_=["sizes", "padded", "lengths"],
    )["results"]
    assert values(results["sizes"]) == [3, 2, 1, 1]
    assert values(results["lengths"]) == [4, 2, 1]
    assert values(results["padded"])[3][1:] == [[-1.0] * 3] * 2


def test_the_gradient_comes_back_through_packing_and_padding(session: Session) -> None:
    found = arrays(
        session,
        step(RNN + "pack_sequence", "packed", sequences=SEQUENCES, enforce_sorted=False),
        step(RNN + "pad_packed_sequence", ["padded", "lengths"], sequence="packed"),
        step("mul", "l", input="padded", other="padded"),
        step("sum", "l", input="l"),
        step("backward", input="l"),
        back=["s0.grad", "s1.grad", "s2.grad", *SEQUENCES],
    )
    for g, s in zip(found[:3], found[3:], strict=True):
        assert np.allclose(g, 2 * s)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("layers, both", [(1, False), (1, True), (2, True)])
def test_a_network_over_packed_sequences_is_the_network_over_each(
    session: Session, kind: str, layers: int, both: bool
) -> None:
    gates, directions, hidden = GATES[kind], 1 + both, 2
    steps: list[dict[str, Any]] = [step("manual_seed", seed=5)]
    params = []
    for layer in range(layers):
        for direction in range(directions):
            wide = 3 if layer == 0 else directions * hidden
            for name, size in (
                ("wi", [gates * hidden, wide]),
                ("wh", [gates * hidden, hidden]),
                ("bi", [gates * hidden]),
                ("bh", [gates * hidden]),
            ):
                params.append(f"{name}{layer}{direction}")
                steps += [step("randn", params[-1], size=size), step("requires_grad_", input=params[-1])]
    states = ["h", "c"] if kind == "lstm" else ["h"]
    for state in states:
        steps.append(step("randn", state, size=[layers * directions, 3, hidden]))
    fixed: dict[str, Any] = {
        "params": params,
        "has_biases": True,
        "num_layers": layers,
        "dropout": 0.0,
        "train": False,
        "bidirectional": both,
    }
    order = [1, 0, 2]  # of the lengths 4, 2, 1
    ordered = []
    for state in states:
        steps.append(step("index_select", f"{state}o", input=state, dim=1, index=order))
        ordered.append(f"{state}o")
    steps += [
        step(RNN + "pack_sequence", ["data", "sizes", "so", "uo"], sequences=SEQUENCES, enforce_sorted=False),
        step(
            kind,
            ["out", *(f"e{s}" for s in states)],
            data="data",
            batch_sizes="sizes",
            hx=ordered if kind == "lstm" else ordered[0],
            **fixed,
        ),
        step(RNN + "unpack_sequence", ["o0", "o1", "o2"], packed_sequences=["out", "sizes", "so", "uo"]),
        step("cat", "all", tensors=["o0", "o1", "o2"]),
        step("mul", "l", input="all", other="all"),
        step("sum", "l", input="l"),
        step("autograd.grad", "g", outputs=["l"], inputs=[*SEQUENCES, *params], retain_graph=True),
    ]
    alone = []
    for i, sequence in enumerate(SEQUENCES):
        given = []
        for state in states:
            steps.append(step("narrow", f"{state}{i}", input=state, dim=1, start=i, length=1))
            given.append(f"{state}{i}")
        steps += [
            step("unsqueeze", "x", input=sequence, dim=1),
            step(
                kind,
                [f"a{i}", *(f"end{s}{i}" for s in states)],
                input="x",
                hx=given if kind == "lstm" else given[0],
                batch_first=False,
                **fixed,
            ),
            step("squeeze", f"a{i}", input=f"a{i}", dim=1),
        ]
        alone.append(f"a{i}")
    steps += [
        step("cat", "alone", tensors=alone),
        step("mul", "m", input="alone", other="alone"),
        step("sum", "m", input="m"),
        step("autograd.grad", "n", outputs=["m"], inputs=[*SEQUENCES, *params]),
        *(step("cat", f"t{s}", tensors=[f"end{s}{i}" for i in order], dim=1) for s in states),
    ]
    back = ["all", "alone", "g", "n", *(f"e{s}" for s in states), *(f"t{s}" for s in states)]
    results = run(session, *steps, return_=back)["results"]
    assert np.allclose(values(results["all"]), values(results["alone"]), atol=1e-6)
    for packed, single in zip(results["g"], results["n"], strict=True):
        assert np.allclose(values(packed), values(single), atol=1e-4)
    for state in states:
        assert np.allclose(values(results[f"e{state}"]), values(results[f"t{state}"]), atol=1e-6)


@pytest.mark.parametrize(
    "asked, words",
    [
        (step(RNN + "pack_sequence", sequences=SEQUENCES), "must be sorted in decreasing order"),
        (step(RNN + "pack_padded_sequence", input=[[1.0], [2.0]], lengths=[3]), "does not fit the 2 steps"),
        (step(RNN + "pack_padded_sequence", input=[[1.0], [2.0]], lengths=[0]), "has to be greater than 0"),
        (step(RNN + "pack_padded_sequence", input=[[1.0], [2.0]], lengths=[1, 1]), "equal to batch_size"),
        (step(RNN + "pad_packed_sequence", sequence=[[1.0, 2.0], [1]]), "add up to 1, and data has 2 rows"),
        (step(RNN + "pad_packed_sequence", sequence=[[1.0, 2.0, 3.0], [1, 2]]), "never grow"),
        (step(RNN + "pad_packed_sequence", sequence=[[1.0, 2.0], [2]], total_length=0), "total_length=0"),
        (step(RNN + "pad_packed_sequence", sequence=[[1.0, 2.0]]), "a packed sequence is a list"),
        (step(RNN + "pad_sequence", sequences=[[1.0], [[2.0]]]), "may differ in their first dimension alone"),
        (step(RNN + "pad_sequence", sequences=[[1.0]], padding_side="up"), "left or right"),
        (
            step(RNN + "unpad_sequence", padded_sequences=[[1.0]], lengths={"data": [[1, 0]], "dtype": "complex64"}),
            "whole numbers",
        ),
        (step(RNN + "pack_padded_sequence", input=[[1.0]], lengths={"data": [[1, 0]], "dtype": "complex64"}), "whole"),
        (step(RNN + "pack_padded_sequence", input=[[1.0]], lengths=["NaN"]), "greater than 0"),
        (step(RNN + "invert_permutation", permutation=[0, 2]), "each once"),
    ],
)
def test_what_is_refused(session: Session, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        run(session, asked)

"""Recurrent networks, sampling, optimizers and initial values give torch's numbers (tests/data/networks.json, written
by make_networks.py with torch); clipping does what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.context import Context
from engine.errors import Invalid
from engine.tensor import Tensor
from tests.engine.tensors import call, context, host, tensor  # noqa: F401  a fixture

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "networks.json").read_text(encoding="utf-8"))


def _named(cases: list[dict[str, Any]], key: str) -> Any:
    return [pytest.param(c, id=f"{c[key]}-{i}") for i, c in enumerate(cases)]


def _given(value: Any, found: list[Tensor]) -> Any:
    """Arguments as the engine takes them; tensors that are differentiated are collected."""
    if isinstance(value, dict):
        made = tensor(np.array(value["$"], dtype=value["dtype"]))
        made.requires_grad = value["grad"]
        if value["grad"]:
            found.append(made)
        return made
    return [_given(v, found) for v in value] if isinstance(value, list) else value


def _close(have: Tensor | np.ndarray[Any, Any], want: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(
        host(have) if isinstance(have, Tensor) else have, np.array(want), rtol=tolerance, atol=tolerance
    )


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("case", _named(GOLDEN["calls"], "op"))
def test_results_and_gradients_are_torchs(case: dict[str, Any]) -> None:
    inputs: list[Tensor] = []
    made = call(case["op"], *_given(case["args"], inputs))
    results = made if isinstance(made, list) else [made]
    assert len(results) == len(case["want"])
    for have, want in zip(results, case["want"], strict=True):
        _close(have, want)
    cotangents = [tensor(np.arange(1.0, r.numel + 1).reshape(r.shape)) for r in results]
    for have, want in zip(call("autograd.grad", results, inputs, cotangents), case["grads"], strict=True):
        _close(have, want)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("dims", [2, 3])
def test_fractional_pooling_says_where_its_maxima_were(dims: int) -> None:
    name = f"nn.functional.fractional_max_pool{dims}d"
    case = next(c for c in GOLDEN["calls"] if c["op"] == name)
    values, indices = call(f"{name}_with_indices", *_given(case["args"], []))
    _close(values, case["want"][0])
    assert host(indices).tolist() == case["indices"]


# ---------------------------------------------------------------- optimizers


def _parts(value: Any, is_complex: bool) -> Tensor | None:
    if value is None:
        return None
    array = np.array(value)
    return tensor(array.view(np.complex128)[..., 0] if is_complex else array)


def _shown(t: Tensor) -> np.ndarray[Any, Any]:
    array = host(t)
    return np.stack([array.real, array.imag], -1) if array.dtype.kind == "c" else array


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("case", _named(GOLDEN["optimizers"], "optimizer"))
def test_five_steps_of_an_optimizer_are_torchs(case: dict[str, Any]) -> None:
    name, options = case["optimizer"], case["options"]
    params = [_parts(p, case["complex"]) for p in case["params"]]
    state = call(f"optim.{name}_state", params, **{o: options[o] for o in case["of_state"]})
    taken = {o: v for o, v in options.items() if o != "initial_accumulator_value"}
    if name == "rprop":
        taken.pop("lr", None)
    for grads, after in zip(case["grads"], case["after"], strict=True):
        call(f"optim.{name}_", params, [_parts(g, case["complex"]) for g in grads], state, **taken)
        for have, want in zip(params, after, strict=True):
            assert have is not None
            _close(_shown(have), want, 1e-7)  # counters are float32, there as here


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("case", _named(GOLDEN["matrices"], "optimizer"))
def test_five_steps_of_an_optimizer_of_matrices_are_torchs(case: dict[str, Any]) -> None:
    name = case["optimizer"]
    tolerance = 1e-4 if name == "muon" else 1e-7  # a sum in another order may round to the next bfloat16
    params = [tensor(np.array(p)) for p in case["params"]]
    state = call(f"optim.{name}_state", params)
    for grads, after in zip(case["grads"], case["after"], strict=True):
        given = [None if g is None else tensor(np.array(g)) for g in grads]
        call(f"optim.{name}_", params, given, state, **case["options"])
        for have, want in zip(params, after, strict=True):
            _close(have, want, tolerance)
    for i, held in enumerate(case["state"]):
        for field in state:
            have = host(state[field][i])
            if field in held:
                _close(have, held[field], 1e-7)
            else:
                assert have.size == 0


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize(
    "name, options, words",
    [
        ("adafactor", {"lr": -1.0}, "Learning rate should be >= 0 but is: -1.0"),
        ("adafactor", {"beta2_decay": 0.5}, "beta2_decay should be <= 0 but is: 0.5"),
        ("adafactor", {"eps": [-1.0, 1.0]}, "epsilon1 should be >= 0 but is: -1.0"),
        ("adafactor", {"eps": [None, -1.0]}, "epsilon2 should be >= 0 but is: -1.0"),
        ("adafactor", {"d": 0.5}, "Clipping threshold d should be >= 1 but is: 0.5"),
        ("muon", {"momentum": -1.0}, "momentum should be >= 0 but is: -1.0"),
        ("muon", {"weight_decay": -1.0}, "weight decay should be >= 0 but is: -1.0"),
        ("muon", {"adjust_lr_fn": "x"}, "Adjust learning rate function x is not supported"),
        ("muon", {"ns_steps": 100}, "Number of steps must be less than 100 for computational efficiency"),
        ("muon", {"ns_coefficients": [1.0, 2.0]}, "Coefficients must be a tuple of exactly 3 values"),
    ],
)
def test_an_optimizer_of_matrices_refuses_what_torchs_refuses(name: str, options: dict[str, Any], words: str) -> None:
    params, grads = [tensor([[1.0, 2.0]])], [tensor([[0.5, 0.5]])]
    state = call(f"optim.{name}_state", params)
    with pytest.raises(Invalid) as refused:
        call(f"optim.{name}_", params, grads, state, **options)
    assert str(refused.value) == words
    assert host(params[0]).tolist() == [[1.0, 2.0]]


@pytest.mark.usefixtures("context")
def test_muon_takes_matrices_and_adafactor_asks_for_the_epsilon_of_half_precision() -> None:
    with pytest.raises(Invalid, match=r"Muon only supports 2D parameters .* with size: torch.Size\(\[2\]\)"):
        call("optim.muon_state", [tensor([1.0, 2.0])])
    half = [tensor(np.ones(2, np.float16))]
    state = call("optim.adafactor_state", half)
    with pytest.raises(Invalid, match=r"give eps=\[0.0009765625, 0.001\]"):
        call("optim.adafactor_", half, half, state)
    call("optim.adafactor_", half, [tensor(np.ones(2, np.float16))], state, eps=[2.0**-10, 0.001])
    np.testing.assert_allclose(host(half[0]), [0.99, 0.99], atol=1e-3)


@pytest.mark.usefixtures("context")
def test_iterations_of_lbfgs_are_torchs() -> None:
    case = GOLDEN["lbfgs"]
    params = [tensor(np.array(case["params"]))]
    state = call("optim.lbfgs_state", params, history_size=case["history_size"])
    for grad, after in zip(case["grads"], case["after"], strict=True):
        call("optim.lbfgs_", params, [tensor(np.array(grad))], state, lr=case["lr"])
        _close(params[0], after)


@pytest.mark.usefixtures("context")
def test_an_optimizer_refuses_what_torchs_refuses() -> None:
    params, grads = [tensor([1.0, 2.0])], [tensor([0.5, 0.5])]
    for name, options, words in (
        ("rmsprop", {"alpha": -1.0}, "Invalid alpha value: -1.0"),
        ("adagrad", {"lr": -0.1}, "Invalid learning rate: -0.1"),
        ("adadelta", {"rho": 2.0}, "Invalid rho value: 2.0"),
        ("rprop", {"etas": [1.5, 1.2]}, "Invalid eta values: 1.5, 1.2"),
        ("nadam", {"betas": [0.9, 1.0]}, "Invalid beta parameter at index 1: 1.0"),
        ("radam", {"eps": -1.0}, "Invalid epsilon value: -1.0"),
    ):
        state = call(f"optim.{name}_state", params)
        with pytest.raises(Invalid) as refused:
            call(f"optim.{name}_", params, grads, state, **options)
        assert str(refused.value) == words
    assert host(params[0]).tolist() == [1.0, 2.0]


# ---------------------------------------------------------------- initial values and clipping


@pytest.mark.parametrize("case", _named(GOLDEN["initial"], "init"))
def test_initial_values_are_torchs(context: Context, case: dict[str, Any]) -> None:  # noqa: F811
    context.rng.manual_seed(case["seed"])
    weights = tensor(np.zeros(case["shape"]))
    weights.requires_grad = True
    assert call(f"nn.init.{case['init']}", weights, *case["args"]) is weights
    _close(weights, case["want"])
    assert weights.requires_grad
    assert weights.edge is None


@pytest.mark.usefixtures("context")
def test_clipping_scales_gradients_in_place_to_the_norm_that_is_asked_for() -> None:
    params = [tensor([3.0, 1.0]), tensor([[2.0]]), tensor([7.0])]
    grads = [tensor([3.0, 0.0]), tensor([[4.0]])]
    for p, g in zip(params, grads, strict=False):
        p.grad = g
    _close(call("nn.utils.clip_grad_norm_", params, 1.0), 5.0)
    _close(grads[0], [3 / (5 + 1e-6), 0.0])
    assert params[1].grad is grads[1]
    call("nn.utils.clip_grad_value_", params, 0.7)
    _close(grads[1], [[0.7]])
    assert params[2].grad is None


@pytest.mark.usefixtures("context")
def test_a_norm_that_is_not_finite_is_refused_where_that_is_asked_for() -> None:
    param = tensor([1.0])
    param.grad = tensor([float("inf")])
    with pytest.raises(Invalid, match=r"The total norm of order 2\.0 for gradients from `parameters` is non-finite"):
        call("nn.utils.clip_grad_norm_", param, 1.0, error_if_nonfinite=True)
    assert host(param.grad).tolist() == [float("inf")]

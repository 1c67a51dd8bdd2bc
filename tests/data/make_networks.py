"""Writes networks.json: what PyTorch gives for recurrent networks, optimizers, initial values and their like.

Run with a Python that has torch: python tests/data/make_networks.py

A case is a call of an operation on tensors of float64: {"op", "args", "want", "grads"}; tensors are nested lists under
"$", "want" the flattened results, "grads" the gradients of the sum of all results times 1, 2, 3, ... for each tensor
argument that is marked. An optimizer's case has its options, the parameters, the gradients of five steps and the
parameters after each. A case of initial values has a seed, a shape and what was drawn.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

Case = dict[str, Any]
torch.backends.mkldnn.set_flags(False)


def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape, dtype=torch.float64) * scale).round(decimals=3).requires_grad_()


def said(value: Any) -> Any:
    """Arguments as JSON: tensors under "$", with "grad" where they are differentiated."""
    if isinstance(value, torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return {"$": value.detach().tolist(), "dtype": kind, "grad": value.requires_grad}
    if isinstance(value, list | tuple):
        return [said(v) for v in value]
    return value


def leaves(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from leaves(v)


def case(op: str, function: Callable[..., Any], *args: Any) -> Case:
    results = list(leaves(function(*args)))
    total = sum(
        ((r * torch.arange(1, r.numel() + 1, dtype=r.dtype).reshape(r.shape)).sum() for r in results),
        start=torch.zeros((), dtype=torch.float64),
    )
    inputs = [t for t in leaves(args) if t.requires_grad]
    grads = torch.autograd.grad(total, inputs)
    return {
        "op": op,
        "args": said(args),
        "want": [r.detach().tolist() for r in results],
        "grads": [g.tolist() for g in grads],
    }


def weights(gates: int, inputs: int, layers: int, directions: int, biased: bool, projected: int = 0) -> list[Any]:
    found = []
    for layer in range(layers):
        for _ in range(directions):
            width = inputs if layer == 0 else (projected or 2) * directions
            found += [drawn(gates * 2, width, scale=0.5), drawn(gates * 2, projected or 2, scale=0.5)]
            found += [drawn(gates * 2), drawn(gates * 2)] if biased else []
            found += [drawn(projected, 2)] if projected else []
    return found


def recurrent() -> Iterator[Case]:
    for name, gates in (("lstm", 4), ("gru", 3), ("rnn_tanh", 1), ("rnn_relu", 1)):
        run = getattr(torch, name)
        for layers, directions, biased, batch_first in ((1, 1, True, False), (2, 2, False, True)):
            state = drawn(layers * directions, 2, 2)
            hx: Any = (state, drawn(layers * directions, 2, 2)) if gates == 4 else state
            x = drawn(2, 3, 2) if batch_first else drawn(3, 2, 2)
            params = weights(gates, 2, layers, directions, biased)
            yield case(name, run, x, hx, params, biased, layers, 0.0, False, directions == 2, batch_first)
        cell = getattr(torch, f"{name}_cell")
        hx = (drawn(2, 2), drawn(2, 2)) if gates == 4 else drawn(2, 2)
        yield case(f"{name}_cell", cell, drawn(2, 2), hx, *weights(gates, 2, 1, 1, True))
    hx = (drawn(1, 2, 1), drawn(1, 2, 2))
    yield case("lstm", torch.lstm, drawn(2, 2, 2), hx, weights(4, 2, 1, 1, True, 1), True, 1, 0.0, False, False, False)


def sampled() -> Iterator[Case]:
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (False, True):
                args = (drawn(1, 1, 3, 4), drawn(1, 2, 3, 2, scale=1.2), mode, padding, align)
                yield case("nn.functional.grid_sample", functional.grid_sample, *args)
    volume = (drawn(1, 1, 2, 3, 2), drawn(1, 1, 2, 2, 3), "bilinear", "reflection", False)
    yield case("nn.functional.grid_sample", functional.grid_sample, *volume)
    for align in (False, True):
        for theta, size in ((drawn(1, 2, 3), [1, 1, 2, 3]), (drawn(1, 3, 4), [1, 1, 2, 1, 2])):
            yield case("nn.functional.affine_grid", functional.affine_grid, theta, size, align)
    for dims in (2, 3):
        pool = getattr(functional, f"fractional_max_pool{dims}d_with_indices")
        draws = torch.rand(1, 2, dims, dtype=torch.float64).round(decimals=2)
        args = (drawn(1, 2, *([5] * dims)), 2, 3, None, False, draws)
        results = pool(args[0], 2, 3, None, False, draws)
        made = case(f"nn.functional.fractional_max_pool{dims}d", lambda *a, pool=pool: pool(*a)[0], *args)
        yield {**made, "indices": results[1].tolist()}


OPTIMIZERS: dict[str, tuple[Any, list[dict[str, Any]], list[str]]] = {
    "sgd": (torch.optim.SGD, [{"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.1, "maximize": True}], []),
    "adam": (torch.optim.Adam, [{}, {"amsgrad": True, "weight_decay": 0.1}], ["amsgrad"]),
    "rmsprop": (
        torch.optim.RMSprop,
        [{}, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}],
        ["momentum", "centered"],
    ),
    "adagrad": (
        torch.optim.Adagrad,
        [{"lr_decay": 0.1}, {"initial_accumulator_value": 0.5, "maximize": True}],
        ["initial_accumulator_value"],
    ),
    "adadelta": (torch.optim.Adadelta, [{}, {"rho": 0.8, "weight_decay": 0.1}], []),
    "rprop": (torch.optim.Rprop, [{}, {"lr": 0.1, "etas": (0.4, 1.5), "step_sizes": (0.001, 0.2)}], ["lr"]),
    "adamax": (torch.optim.Adamax, [{}, {"lr": 0.1, "weight_decay": 0.1}], []),
    "nadam": (torch.optim.NAdam, [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}], []),
    "radam": (torch.optim.RAdam, [{"betas": (0.9, 0.8)}, {"weight_decay": 0.1, "decoupled_weight_decay": True}], []),
    "asgd": (torch.optim.ASGD, [{}, {"lr": 0.1, "t0": 2, "lambd": 0.1}], ["lr"]),
}


# Optimizers of matrices, and the shapes that they are tried on.
MATRICES: dict[str, tuple[Any, list[dict[str, Any]], list[tuple[int, ...]]]] = {
    "adafactor": (
        torch.optim.Adafactor,
        [
            {},
            {"weight_decay": 0.1, "maximize": True, "lr": 0.5},
            {"eps": (0.5, 0.1), "d": 1.5, "beta2_decay": -0.3},
        ],
        [(2, 3), (3,), (), (2, 2, 3)],
    ),
    "muon": (
        torch.optim.Muon,
        [
            {},
            {"nesterov": False, "momentum": 0.3, "weight_decay": 0.0},
            {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
            {"ns_coefficients": (2.0, -1.5, 0.5), "eps": 0.5},
        ],
        [(2, 3), (4, 2)],
    ),
}


def matrices() -> Iterator[Case]:
    for name, (kind, settings, shapes) in MATRICES.items():
        for options in settings:
            own = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
            params = [p.tolist() for p in own]
            optimizer = kind(own, **options)
            grads, after = [], []
            for step in range(5):
                for i, p in enumerate(own):
                    p.grad = None if step == 2 and i == 1 else torch.randn(p.shape, dtype=torch.float64)
                grads.append([None if p.grad is None else p.grad.tolist() for p in own])
                optimizer.step()
                after.append([p.tolist() for p in own])
            state = [{field: held.tolist() for field, held in optimizer.state[p].items()} for p in own]
            yield {
                "optimizer": name,
                "options": options,
                "params": params,
                "grads": grads,
                "after": after,
                "state": state,
            }


def optimizers() -> Iterator[Case]:
    for name, (kind, settings, of_state) in OPTIMIZERS.items():
        for options in settings:
            for dtype in (torch.float64, torch.complex128):
                params = [torch.randn(2, 2, dtype=dtype), torch.randn(3, dtype=dtype)]
                own = [p.clone().requires_grad_() for p in params]
                optimizer = kind(own, **options)
                grads, after = [], []
                for step in range(5):
                    step_grads = [torch.randn(p.shape, dtype=dtype) + p * 0.2 for p in params]
                    for p, g in zip(own, step_grads, strict=True):
                        p.grad = None if step == 2 and p.ndim == 1 else g
                    grads.append([None if p.grad is None else flat(p.grad) for p in own])
                    optimizer.step()
                    after.append([flat(p.detach()) for p in own])
                yield {
                    "optimizer": name,
                    "options": options,
                    "of_state": [o for o in of_state if o in options],
                    "complex": dtype.is_complex,
                    "params": [flat(p) for p in params],
                    "grads": grads,
                    "after": after,
                }


def flat(t: torch.Tensor) -> Any:
    """A tensor as nested lists; of a complex one, real and imaginary parts side by side."""
    return torch.view_as_real(t).tolist() if t.is_complex() else t.tolist()


def lbfgs() -> Case:
    """Ten iterations of L-BFGS on the sum of x^4 + (x_i - x_j)^2."""
    x = torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([x], lr=0.3, max_iter=1, history_size=3)
    begin, grads, after = x.detach().tolist(), [], []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (x**4).sum() + ((x - x.roll(1)) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(10):
        closure()
        assert x.grad is not None
        grads.append(x.grad.tolist())
        optimizer.step(closure)
        after.append(x.detach().tolist())
    return {"params": begin, "lr": 0.3, "history_size": 3, "grads": grads, "after": after}


def initial() -> Iterator[Case]:
    init = torch.nn.init
    rows: list[tuple[str, list[int], list[Any]]] = [
        ("uniform_", [3], [-1.0, 2.0]),
        ("normal_", [3, 2], [1.0, 0.5]),
        ("xavier_uniform_", [3, 2, 2], [2.0]),
        ("xavier_normal_", [4, 5], []),
        ("kaiming_uniform_", [3, 2, 2], [0.1, "fan_out", "leaky_relu"]),
        ("kaiming_normal_", [4, 5], [0, "fan_in", "relu"]),
        ("orthogonal_", [3, 2], []),
        ("orthogonal_", [2, 3, 2], [2.0]),
        ("trunc_normal_", [5, 5], []),
        ("trunc_normal_", [3, 2], [0.0, 1.0, 1.0, 2.0]),
        ("sparse_", [4, 3], [0.3]),
        ("dirac_", [4, 2, 3], [2]),
        ("eye_", [3, 2], []),
    ]
    for number, (name, shape, args) in enumerate(rows):
        torch.manual_seed(number)
        made = getattr(init, name)(torch.zeros(shape, dtype=torch.float64), *args)
        yield {"init": name, "seed": number, "shape": shape, "args": args, "want": made.tolist()}


def main() -> None:
    torch.manual_seed(0)
    body = {
        "torch": torch.__version__.partition("+")[0],
        "calls": [*recurrent(), *sampled()],
        "optimizers": list(optimizers()),
        "lbfgs": lbfgs(),
        "initial": list(initial()),
        "matrices": list(matrices()),
    }
    text = json.dumps(body, separators=(",", ":"))
    Path(__file__).with_name("networks.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Single operations beside PyTorch eager on the CPU: CPU time of one thread, the processes taking turns.

    python bench/ops.py                     prints the table
    python bench/ops.py --only conv norm    the cases whose names hold one of these words
    python bench/ops.py --write             puts the table into docs/performance.md

Each case is written once, in names that PyTorch and the engine share. Three processes run it: the engine as plain
installation has it (NumPy and SciPy), the engine with the extra of compiled kernels where that is installed, and
PyTorch. Sizes are those of a small model of a user's; a case with `backward` is forward and backward together.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import statistics
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.peers import ROOT, TORCH_MISSING, Peer, Tasks, find_torch, machine, serve_child

# How long one process measures before the next one's turn, in seconds of wall time.
TURN = 0.04
PAGE = ROOT / "docs" / "performance.md"
START, END = "<!-- bench/ops.py writes from here -->", "<!-- to here -->"

# ---------------------------------------------------------------- the cases


class Make:
    """Inputs from a seed: what `F.tensor(array, requires_grad)` of either side makes of NumPy's numbers."""

    def __init__(self, tensor: Callable[[Any, bool], Any]) -> None:
        import numpy as np

        self.np = np
        self.tensor = tensor
        self.rng = np.random.default_rng(0)

    def normal(self, *shape: int, grad: bool = True) -> Any:
        return self.tensor(self.rng.standard_normal(shape, dtype=self.np.float32), grad)

    def like(self, shape: tuple[int, ...]) -> Any:
        """Numbers for a gradient to come in, as an array."""
        return self.rng.standard_normal(shape, dtype=self.np.float32)

    def index(self, high: int, *shape: int) -> Any:
        return self.tensor(self.rng.integers(0, high, shape), False)

    def fixed(self, *shape: int) -> Any:
        """Numbers that want no gradient."""
        return self.normal(*shape, grad=False)

    def zeros(self, *shape: int) -> Any:
        return self.tensor(self.np.zeros(shape, self.np.float32), False)

    def full(self, value: int, *shape: int) -> Any:
        return self.tensor(self.np.full(shape, value), False)

    def ones(self, *shape: int) -> Any:
        return self.tensor(self.np.ones(shape, self.np.float32), False)


class Case(NamedTuple):
    """`run(F, *inputs)` is measured; where `backward` is set, the gradients of its result too.

    `goal` is the largest wanted ratio to PyTorch's CPU time of the plain installation, `compiled` that with the extra.
    """

    inputs: Callable[[Make], tuple[Any, ...]]
    run: Callable[..., Any]
    backward: bool = False
    goal: float | None = None
    compiled: float | None = None


def _layer(m: Make) -> tuple[Any, ...]:
    return m.normal(16, 128, 256), m.normal(256), m.normal(256)


def _images(channels: int, size: int, out: int, kernel: int = 3, n: int = 32, per_group: int = 0) -> Any:
    return lambda m: (m.normal(n, channels, size, size), m.normal(out, per_group or channels, kernel, kernel))


def _batch(m: Make) -> tuple[Any, ...]:
    return m.normal(32, 64, 32, 32), m.zeros(64), m.ones(64), m.normal(64), m.normal(64)


def _places(channels: int) -> Any:
    """Images and a grid whose places lie mostly inside."""
    return lambda m: (m.normal(8, channels, 64, 64), m.tensor(m.like((8, 64, 64, 2)) * m.np.float32(0.5), True))


def _adam(F: Any, step: Any) -> None:
    step()


CASES: dict[str, Case] = {
    # --- convolutions and pools
    "conv2d 32x3x32x32 by 16x3x3x3": Case(
        _images(3, 32, 16), lambda F, x, w: F.conv2d(x, w, None, 1, 1), True, 1.3, 1.3
    ),
    "conv2d 16x64x32x32 by 64x64x3x3": Case(
        _images(64, 32, 64, n=16), lambda F, x, w: F.conv2d(x, w, None, 1, 1), True, 1.5, 1.3
    ),
    "conv2d 32x32x32x32 by 64x32x3x3, stride 2": Case(
        _images(32, 32, 64), lambda F, x, w: F.conv2d(x, w, None, 2, 1), True
    ),
    "conv2d 1x1, 32x64x32x32 by 64x64x1x1": Case(_images(64, 32, 64, 1), lambda F, x, w: F.conv2d(x, w, None), True),
    "conv2d depthwise, 32x64x32x32 by 64x1x3x3": Case(
        _images(64, 32, 64, per_group=1), lambda F, x, w: F.conv2d(x, w, None, 1, 1, 1, 64), True
    ),
    "conv1d 32x64x256 by 64x64x3": Case(
        lambda m: (m.normal(32, 64, 256), m.normal(64, 64, 3)), lambda F, x, w: F.conv1d(x, w, None, 1, 1), True
    ),
    "max_pool2d 2, 32x64x32x32": Case(lambda m: (m.normal(32, 64, 32, 32),), lambda F, x: F.max_pool2d(x, 2), True),
    "max_pool2d 3 stride 2, 32x64x32x32": Case(
        lambda m: (m.normal(32, 64, 32, 32),), lambda F, x: F.max_pool2d(x, 3, 2, 1), True
    ),
    "avg_pool2d 2, 32x64x32x32": Case(lambda m: (m.normal(32, 64, 32, 32),), lambda F, x: F.avg_pool2d(x, 2), True),
    "conv_transpose2d 16x64x16x16 by 64x32x4x4, stride 2": Case(
        lambda m: (m.normal(16, 64, 16, 16), m.normal(64, 32, 4, 4)),
        lambda F, x, w: F.conv_transpose2d(x, w, None, 2, 1),
        True,
    ),
    "conv3d 2x16x8x32x32 by 32x16x3x3x3": Case(
        lambda m: (m.normal(2, 16, 8, 32, 32), m.normal(32, 16, 3, 3, 3)),
        lambda F, x, w: F.conv3d(x, w, None, 1, 1),
        True,
    ),
    "adaptive_avg_pool2d 7, 16x32x32x32": Case(
        lambda m: (m.normal(16, 32, 32, 32),), lambda F, x: F.adaptive_avg_pool2d(x, 7), True
    ),
    # --- images
    "grid_sample bilinear, 8x3x64x64": Case(_places(3), lambda F, x, g: F.grid_sample(x, g, align_corners=False), True),
    "grid_sample bilinear, 8x32x64x64": Case(
        _places(32), lambda F, x, g: F.grid_sample(x, g, align_corners=False), True
    ),
    "grid_sample bicubic, 8x3x64x64": Case(
        _places(3), lambda F, x, g: F.grid_sample(x, g, mode="bicubic", align_corners=False), True
    ),
    "interpolate bilinear, 8x3x128x128 to 50x50": Case(
        lambda m: (m.normal(8, 3, 128, 128),), lambda F, x: F.interpolate(x, size=(50, 50), mode="bilinear"), True
    ),
    "pad reflect by 1, 16x32x32x32": Case(
        lambda m: (m.normal(16, 32, 32, 32),), lambda F, x: F.pad(x, (1, 1, 1, 1), mode="reflect"), True
    ),
    # --- normalization
    "batch_norm 32x64x32x32, training": Case(
        _batch, lambda F, x, mean, var, w, b: F.batch_norm(x, mean, var, w, b, True), True, 1.3, 1.3
    ),
    "batch_norm 32x64x32x32, evaluation": Case(
        _batch, lambda F, x, mean, var, w, b: F.batch_norm(x, mean, var, w, b, False), False
    ),
    "layer_norm 16x128x256, forward": Case(_layer, lambda F, x, w, b: F.layer_norm(x, (256,), w, b), False, 2.5, 1.3),
    "layer_norm 16x128x256": Case(_layer, lambda F, x, w, b: F.layer_norm(x, (256,), w, b), True, 2.5, 1.3),
    "batch_norm 1024x256, training": Case(
        lambda m: (m.normal(1024, 256), m.zeros(256), m.ones(256), m.normal(256), m.normal(256)),
        lambda F, x, mean, var, w, b: F.batch_norm(x, mean, var, w, b, True),
        True,
    ),
    "group_norm 8, 16x32x32x32": Case(
        lambda m: (m.normal(16, 32, 32, 32), m.normal(32), m.normal(32)),
        lambda F, x, w, b: F.group_norm(x, 8, w, b),
        True,
    ),
    # --- softmax and losses
    "softmax and logsumexp 1000x1000, forward": Case(
        lambda m: (m.fixed(1000, 1000),), lambda F, x: (F.softmax(x, 1), F.logsumexp(x, 1)), False, 1.2, 1.2
    ),
    "softmax and logsumexp 1000x1000": Case(
        lambda m: (m.normal(1000, 1000),), lambda F, x: (F.softmax(x, 1), F.logsumexp(x, 1)), True, 1.2, 1.2
    ),
    "softmax 1000x1000": Case(lambda m: (m.normal(1000, 1000),), lambda F, x: F.softmax(x, 1), True),
    "log_softmax 1000x1000": Case(lambda m: (m.normal(1000, 1000),), lambda F, x: F.log_softmax(x, 1), True),
    "cross_entropy 1000x1000": Case(
        lambda m: (m.normal(1000, 1000), m.index(1000, 1000)), lambda F, x, t: F.cross_entropy(x, t), True, 1.2, 1.2
    ),
    "cross_entropy 1024x10": Case(
        lambda m: (m.normal(1024, 10), m.index(10, 1024)), lambda F, x, t: F.cross_entropy(x, t), True, 1.2, 1.2
    ),
    "softmax of attention, 8x8x128x128": Case(
        lambda m: (m.normal(8, 8, 128, 128),), lambda F, x: F.softmax(x, -1), True
    ),
    "smooth_l1_loss 1M": Case(
        lambda m: (m.normal(1 << 20), m.fixed(1 << 20)), lambda F, x, t: F.smooth_l1_loss(x, t), True
    ),
    "ctc_loss 100x16x32": Case(
        lambda m: (m.normal(100, 16, 32), m.index(31, 16, 20), m.full(100, 16), m.full(20, 16)),
        lambda F, x, t, n, m: F.ctc_loss(F.log_softmax(x, 2), t, n, m, 31),
        True,
    ),
    # --- activations
    "gelu 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.gelu(x), True, 4, 1.3),
    "gelu tanh 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.gelu(x, approximate="tanh"), True, 4, 1.3),
    "erf 1M": Case(lambda m: (m.fixed(1 << 20),), lambda F, x: F.erf(x), False, 4, 1.3),
    "silu 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.silu(x), True),
    "relu 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.relu(x), True),
    "hardswish 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.hardswish(x), True),
    "leaky_relu 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.leaky_relu(x), True),
    "sigmoid 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.sigmoid(x), True),
    "dropout 1M": Case(lambda m: (m.normal(1 << 20),), lambda F, x: F.dropout(x, 0.5), True),
    # --- order and scans
    "sort 1000x1000": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.sort(x, 1), False, 1.2, 1.2),
    "sort 1M": Case(lambda m: (m.fixed(1_000_000),), lambda F, x: F.sort(x, 0), False, 1.2, 1.2),
    "topk 10 of 1000x1000": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.topk(x, 10), False, 2, 1.3),
    "topk 5 of 64x10000": Case(lambda m: (m.fixed(64, 10000),), lambda F, x: F.topk(x, 5), False, 2, 1.3),
    "cumsum 1000x1000, dim 1": Case(lambda m: (m.normal(1000, 1000),), lambda F, x: F.cumsum(x, 1), True, 3, 1.3),
    "cumsum 1000x1000, dim 0": Case(lambda m: (m.normal(1000, 1000),), lambda F, x: F.cumsum(x, 0), True, 3, 1.3),
    "argmax 1000x1000, dim 1": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.argmax(x, 1)),
    "argmax 1000x1000, dim 0": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.argmax(x, 0)),
    "sum 1000x1000, dim 0": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.sum(x, 0)),
    "sum 1000x1000, dim 1": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.sum(x, 1)),
    "amax 1000x1000, dim 1": Case(lambda m: (m.fixed(1000, 1000),), lambda F, x: F.amax(x, 1)),
    "sum 1M": Case(lambda m: (m.fixed(1 << 20),), lambda F, x: F.sum(x)),
    # --- indices
    "gather 1000x1000, dim 1": Case(
        lambda m: (m.normal(1000, 1000), m.index(1000, 1000, 500)), lambda F, x, i: F.gather(x, 1, i), True, 3, 1.3
    ),
    "gather 1000x1000, dim 0": Case(
        lambda m: (m.normal(1000, 1000), m.index(1000, 500, 1000)), lambda F, x, i: F.gather(x, 0, i), True, 3, 1.3
    ),
    "scatter_add 1000x1000, dim 1": Case(
        lambda m: (m.fixed(1000, 1000), m.index(1000, 1000, 500), m.fixed(1000, 500)),
        lambda F, x, i, s: F.scatter_add(x, 1, i, s),
    ),
    "embedding 64x128 of 10000x256": Case(
        lambda m: (m.index(10000, 64, 128), m.normal(10000, 256)), lambda F, i, w: F.embedding(i, w), True, 3, 1.3
    ),
    "index_select 1000 of 10000x256": Case(
        lambda m: (m.normal(10000, 256), m.index(10000, 1000)), lambda F, x, i: F.index_select(x, 0, i), True
    ),
    "cat of four 256x1024": Case(
        lambda m: tuple(m.normal(256, 1024) for _ in range(4)), lambda F, *x: F.cat(list(x), 1), True
    ),
    "transpose and contiguous, 1000x1000": Case(
        lambda m: (m.fixed(1000, 1000),), lambda F, x: F.contiguous(F.transpose(x, 0, 1))
    ),
    "permute and contiguous, 32x128x8x32": Case(
        lambda m: (m.fixed(32, 128, 8, 32),), lambda F, x: F.contiguous(F.permute(x, (0, 2, 1, 3)))
    ),
    # --- products
    "bmm 64x128x64 by 64x64x128": Case(
        lambda m: (m.normal(64, 128, 64), m.normal(64, 64, 128)), lambda F, a, b: F.bmm(a, b), True, 1.1, 1.1
    ),
    "einsum bhid,bhjd->bhij, 8x8x128x64": Case(
        lambda m: (m.normal(8, 8, 128, 64), m.normal(8, 8, 128, 64)),
        lambda F, a, b: F.einsum("bhid,bhjd->bhij", [a, b]),
        True,
        1.1,
        1.1,
    ),
    "linear 2048x256 by 1024x256": Case(
        lambda m: (m.normal(2048, 256), m.normal(1024, 256), m.normal(1024)), lambda F, x, w, b: F.linear(x, w, b), True
    ),
    "scaled_dot_product_attention 8x8x128x64": Case(
        lambda m: tuple(m.normal(8, 8, 128, 64) for _ in range(3)),
        lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v),
        True,
    ),
    "lstm 32x16x64 by 128": Case(
        lambda m: (
            m.normal(32, 16, 64),
            m.zeros(1, 16, 128),
            m.zeros(1, 16, 128),
            m.normal(512, 64),
            m.normal(512, 128),
            m.normal(512),
            m.normal(512),
        ),
        lambda F, x, h, c, *w: F.lstm(x, (h, c), list(w), True, 1, 0.0, False, False, False),
        True,
    ),
    "cdist 500x64": Case(lambda m: (m.normal(500, 64), m.normal(500, 64)), lambda F, a, b: F.cdist(a, b), True),
    "inverse 256x16x16": Case(lambda m: (m.normal(256, 16, 16),), lambda F, x: F.inverse(x), True),
    # --- optimizers
    "adam step of 1M": Case(lambda m: (m.adam(1 << 20),), _adam),  # type: ignore[attr-defined]
}

# ---------------------------------------------------------------- the two sides


class Both:
    """Operations by their short names: those of nn.functional where they are there, else torch's."""

    def __init__(self, find: Callable[[str], Any], places: tuple[str, ...]) -> None:
        self.find, self.places = find, places

    def __getattr__(self, name: str) -> Any:
        found = next(f for f in (self.find(place + name) for place in self.places) if f is not None)
        setattr(self, name, found)
        return found


def _engine(compiled: bool) -> Tasks:
    """The cases as a program's executor would call the engine."""
    import engine.ops  # noqa: F401, I001  before NumPy, as in a server: it says which of its kernels BLAS takes
    import numpy as np

    from engine.autograd import run_backward
    from engine.backend import CPU, tune_allocator
    from engine.context import HERE, Context
    from engine.dtypes import from_numpy
    from engine.op import REGISTRY, Spec
    from engine.random import Generator
    from engine.record import REC
    from engine.tensor import Ledger, Tensor, fresh

    tune_allocator()
    if compiled:
        CPU.compile()
    np.seterr(all="ignore")
    ctx = HERE.ctx = Context(ledger=Ledger(1 << 40))
    ctx.rng = Generator(0)

    def find(name: str) -> Any:
        op = REGISTRY.get(name)
        return None if op is None else getattr(REC, op.overloads[0].name if op.overloads else name)

    F = Both(find, ("nn.functional.", ""))

    def tensor(array: Any, grad: bool) -> Tensor:
        d = from_numpy(array.dtype)
        assert d is not None
        t = fresh(np.array(array), Spec(array.shape, d), CPU, ctx.ledger)
        t.requires_grad = grad
        return t

    class MakeHere(Make):
        def adam(self, n: int) -> Any:
            params, grads = [self.normal(n)], [self.fixed(n)]
            state = getattr(REC, "optim.adam_state")(params)
            step = getattr(REC, "optim.adam_")

            def run() -> None:
                ctx.grad_enabled = False
                step(params, grads, state)
                ctx.grad_enabled = True

            return run

    def task(case: Case) -> Callable[[], None]:
        make = MakeHere(tensor)
        inputs = case.inputs(make)
        leaves = [t for t in inputs if getattr(t, "requires_grad", False)]
        if not case.backward:
            return lambda: case.run(F, *inputs)
        grads = [tensor(make.like(y.shape), False) for y in _all(case.run(F, *inputs))]

        def run() -> None:
            run_backward(_all(case.run(F, *inputs)), grads)
            for t in leaves:
                t.grad = None

        return run

    return {name: _late(task, case) for name, case in CASES.items()}


def _torch() -> Tasks:
    """The same cases in PyTorch eager."""
    import torch

    torch.set_num_threads(1)

    places = {"nn.functional.": torch.nn.functional, "": torch, "Tensor.": torch.Tensor}
    F = Both(lambda name: getattr(places[name[: name.rfind(".") + 1]], name.rpartition(".")[2], None), tuple(places))

    def tensor(array: Any, grad: bool) -> Any:
        return torch.tensor(array).requires_grad_(grad)

    class MakeHere(Make):
        def adam(self, n: int) -> Any:
            p = self.normal(n)
            p.grad = self.fixed(n)
            return torch.optim.Adam([p]).step

    def task(case: Case) -> Callable[[], None]:
        make = MakeHere(tensor)
        inputs = case.inputs(make)
        leaves = [t for t in inputs if getattr(t, "requires_grad", False)]
        if not case.backward:
            return lambda: case.run(F, *inputs)
        grads = [torch.tensor(make.like(tuple(y.shape))) for y in _all(case.run(F, *inputs))]

        def run() -> None:
            torch.autograd.backward(_all(case.run(F, *inputs)), grads)
            for t in leaves:
                t.grad = None

        return run

    return {name: _late(task, case) for name, case in CASES.items()}


def _all(made: Any) -> list[Any]:
    return list(made) if isinstance(made, tuple | list) else [made]


def _late(task: Callable[[Case], Callable[[], None]], case: Case) -> Callable[[], None]:
    """A task whose inputs are made when it is first run."""
    made: list[Callable[[], None]] = []

    def run() -> None:
        if not made:
            made.append(task(case))
        made[0]()

    return run


SIDES: dict[str, Callable[[], Tasks]] = {
    "plain": lambda: _engine(False),
    "compiled": lambda: _engine(True),
    "torch": _torch,
}

# ---------------------------------------------------------------- measuring


class Row(NamedTuple):
    """A case's medians: each side's microseconds of CPU, and the sides' ratios to PyTorch, of CPU and wall time."""

    us: dict[str, float]
    cpu: dict[str, float]
    wall: dict[str, float]


def measure(peers: dict[str, Peer], name: str, rounds: int) -> Row:
    """Rounds in which all sides ran in turn, each time beginning with another."""
    reps = {}
    for side, peer in peers.items():
        peer.measure(name, 1)  # makes the inputs, compiles
        reps[side] = max(1, min(200, int(TURN / max(peer.measure(name, 1)["wall"], 1e-6))))
    found: dict[str, list[dict[str, float]]] = {side: [] for side in peers}
    order = list(peers)
    for i in range(rounds):
        for side in order[i % len(order) :] + order[: i % len(order)]:
            found[side].append(peers[side].measure(name, reps[side]))

    def ratio(side: str, kind: str) -> float:
        return statistics.median(a[kind] / b[kind] for a, b in zip(found[side], found["torch"], strict=True))

    ours = [side for side in peers if side != "torch"]
    return Row(
        {side: statistics.median(x["cpu"] for x in found[side]) * 1e6 for side in peers},
        {side: ratio(side, "cpu") for side in ours},
        {side: ratio(side, "wall") for side in ours},
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _missed(found: float | None, goal: float | None) -> str:
    return "" if found is None or goal is None or found <= goal else " (above)"


def as_markdown(rows: dict[str, Row], rounds: int) -> str:
    """The table, with where and when it was measured."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("NumPy", "SciPy", "torch", "Numba"))
    today = dt.datetime.now(tz=dt.UTC).date()
    lines = [
        START,
        "",
        f"Measured on {today}: {machine()}, {versions}; medians of {rounds} rounds. {_load()}",
        "",
        "| case | torch, ms | plain | goal | wall | compiled | goal | wall |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        case = CASES[name]
        cells = [name + (", forward and backward" if case.backward else ""), f"{row.us['torch'] / 1e3:.2f}"]
        for side, goal in (("plain", case.goal), ("compiled", case.compiled)):
            ratio = row.cpu.get(side)
            shown = "" if ratio is None else f"{ratio:.2f}{_missed(ratio, goal)}"
            cells += [shown, _number(goal), "" if ratio is None else f"{row.wall[side]:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", END])


def _load() -> str:
    """What else the machine did, as far as the system says."""
    if not hasattr(os, "getloadavg"):
        return ""
    return f"The machine's load was {os.getloadavg()[1]:.0f}, of which the measurement is 1."


def _version(name: str) -> str:
    try:
        return metadata.version(name.lower())
    except metadata.PackageNotFoundError:
        return "not installed"


def write(table: str) -> None:
    """Puts the table between the marks in docs/performance.md."""
    page = PAGE.read_text()
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + table + after)


def has_compiled() -> bool:
    """Whether this interpreter has the extra of compiled kernels."""
    from engine.compiled import available

    return available()


def main() -> int:
    """Measures and prints the table; 1 if a side failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", choices=sorted(SIDES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD")
    parser.add_argument("--plain", action="store_true", help="leave the compiled kernels out")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    if options.child:
        serve_child(SIDES[options.child]())
        return 0
    python = find_torch()
    print(f"{machine()}\n")
    if python is None:
        print(TORCH_MISSING)
        return 0
    sides = ["plain", *(["compiled"] if has_compiled() and not options.plain else []), "torch"]
    peers = {side: Peer(__file__, side, python if side == "torch" else sys.executable) for side in sides}
    names = [n for n in CASES if not options.only or any(word in n for word in options.only)]
    rows: dict[str, Row] = {}
    print(f"{'case':44}" + "".join(f"{side + ' us':>13}" for side in sides) + "   ratio of CPU time (goal), wall")
    for name in names:
        row = rows[name] = measure(peers, name, options.rounds)
        case = CASES[name]
        told = [f"{name[:43]:44}", *(f"{row.us[side]:13.0f}" for side in sides)]
        for side, goal in (("plain", case.goal), ("compiled", case.compiled)):
            if side in row.cpu:
                said = f"{row.cpu[side]:.2f}" + ("" if goal is None else f" ({goal:g})")
                told.append(f"  {said:>12}{'!' if _missed(row.cpu[side], goal) else ' '} {row.wall[side]:.2f}")
        print("".join(told), flush=True)
    for peer in peers.values():
        peer.close()
    if options.write:
        write(as_markdown(rows, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the laws share: drawing an operation's samples, running them, and comparing what came out.

A *case* is one sample of one operation on one device. Its values depend on the operation's name and the sample's
number alone, so that a failure can be had again: `Case("mul", 1, "cuda:0")`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

import engine.ops  # noqa: F401  the operations register themselves
from engine.autograd import run_backward
from engine.backend import CPU, Backend
from engine.context import Context, active
from engine.dtypes import DTYPES, FLOAT, DType, bf16_to_f32, dtype, from_numpy
from engine.op import INPLACE, REGISTRY, Op, Spec
from engine.random import Generator
from engine.samples import S, T
from engine.tensor import Ledger, Tensor, fresh, view_of
from tests.devices import cuda

CUDA = cuda()
BACKENDS: dict[str, Backend] = {"cpu": CPU, CUDA.name: CUDA}
DEVICES = tuple(BACKENDS)

WIDER = {"complex64": "complex128"}  # what a law in float64 makes of a sample that asks for complex64


MIXED = ("float64", "float32")  # "mixed": operands of these two in turn


class Broken(AssertionError):
    """A law does not hold."""


def is_op(op: Op) -> bool:
    return op.kind != "overloads"


def operations() -> list[str]:
    """Every operation that has samples, by its first name; overloads by their own."""
    return sorted({op.name for op in REGISTRY.values() if is_op(op) and op.samples is not None and samples_of(op.name)})


@cache
def samples_of(name: str) -> tuple[S, ...]:
    """The samples of an operation; of an in-place one those whose input is a tensor, as it must be there."""
    op = REGISTRY[name]
    found = tuple(op.samples()) if op.samples is not None else ()
    return found if op.kind != INPLACE else tuple(s for s in found if s.args and isinstance(s.args[0], T))


# ---------------------------------------------------------------- drawing


def draw(t: T, wanted: str, rng: np.random.Generator) -> tuple[np.ndarray[Any, Any], DType]:
    """Host values of a sample's tensor (bfloat16 as its bits), and their dtype: `wanted` where it is left open."""
    name = t.dtype or wanted
    if t.dtype in WIDER and wanted in ("float64", "complex128"):
        name = WIDER[t.dtype]
    d = DTYPES[name]
    if t.values is not None:
        host = np.array(t.values, dtype=np.complex128 if d.is_complex else np.float64 if d.is_floating else None)
    elif t.spd:
        n = t.shape[-1]
        a = rng.uniform(-1, 1, t.shape)
        if d.is_complex:
            a = a + 1j * rng.uniform(-1, 1, t.shape)
        host = a @ np.conj(np.swapaxes(a, -1, -2)) + n * np.eye(n)
    elif d.name == "bool":
        host = rng.random(t.shape) < 0.5
    elif not (d.is_floating or d.is_complex):
        high = max(int(t.high), int(t.low) + 1)
        host = rng.integers(max(int(t.low), 0) if d.name == "uint8" else int(t.low), high, t.shape)
        if t.dtype is None:
            host = np.where(host == 0, 1, host)  # it may be a divisor
    elif t.distinct:
        count = int(np.prod(t.shape))
        host = rng.permutation(np.linspace(t.low, t.high, count)).reshape(t.shape)
    else:
        host = rng.uniform(t.low, t.high, t.shape)
        if d.is_complex:
            host = host + 1j * rng.uniform(t.low, t.high, t.shape)
    host = np.asarray(host)
    source = from_numpy(host.dtype)
    assert source is not None
    return np.ascontiguousarray(CPU.cast(host, source, d)).reshape(host.shape), d


def walk(value: Any, visit: Callable[[Any], Any]) -> Any:
    """A copy of nested arguments with `visit` applied to what is no container."""
    if isinstance(value, list):
        return [walk(v, visit) for v in value]
    if isinstance(value, tuple):
        return tuple(walk(v, visit) for v in value)
    if isinstance(value, dict):
        return {k: walk(v, visit) for k, v in value.items()}
    return visit(value)


def leaves_of(value: Any) -> list[Any]:
    found: list[Any] = []
    walk(value, found.append)
    return found


class Case:
    """One sample of one operation on one device, drawn in a dtype where the sample leaves it open."""

    def __init__(
        self, name: str, number: int, device: str, wanted: str = "float64", *, keep_wide: bool = False
    ) -> None:
        self.op = REGISTRY[name]
        self.number = number
        self.sample = samples_of(name)[number]
        self.backend = BACKENDS[device]
        self.device = device
        self.wanted = wanted
        self.ctx = Context(
            ledger=Ledger(1 << 30), rng=Generator(1234), device=device, devices=DEVICES, default_dtype=self._default()
        )
        rng = np.random.default_rng([zlib.crc32(name.encode()), number])
        self.hosts: list[tuple[np.ndarray[Any, Any], DType]] = []
        self.drawn: list[T] = []

        def visit(v: Any) -> Any:
            if not isinstance(v, T):
                return v
            self.hosts.append(draw(v, MIXED[len(self.hosts) % 2] if wanted == "mixed" else wanted, rng))
            self.drawn.append(v)
            return _Hole(len(self.hosts) - 1)

        bound = self.op.bind(tuple(self.sample.args), dict(self.sample.kwargs))
        self.arguments = tuple(self._read(p.form, walk(v, visit)) for p, v in zip(self.op.params, bound, strict=True))

    def _default(self) -> DType:
        return DTYPES[self.wanted if self.wanted in ("float64", "float32", "float16", "bfloat16") else "float32"]

    @staticmethod
    def _read(form: str, value: Any) -> Any:
        return dtype(value) if form.startswith("dtype") and isinstance(value, str) else value

    def __str__(self) -> str:
        return f"{self.op.name}{self.sample!r} on {self.device} in {self.wanted}"

    # -------------------------------------------- tensors

    def tensor(self, host: np.ndarray[Any, Any], d: DType) -> Tensor:
        return tensor(host, d, self.backend, self.ctx)

    def tensors(self, require: Sequence[int] = ()) -> list[Tensor]:
        """Fresh tensors for the sample's; those in `require` require grad."""
        made = [self.tensor(host, d) for host, d in self.hosts]
        for i in require:
            made[i].requires_grad = True
        return made

    def fill(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments with these in place of the sample's tensors."""
        return tuple(walk(a, lambda v: tensors[v.at] if isinstance(v, _Hole) else v) for a in self.arguments)

    @property
    def floats(self) -> list[int]:
        """The numbers of the tensors that may require grad."""
        return [
            i
            for i, ((_, d), t) in enumerate(zip(self.hosts, self.drawn, strict=True))
            if (d.is_floating or d.is_complex) and t.grad
        ]

    @property
    def tied(self) -> bool:
        """Whether the sample fixes values so that some are equal: a kink, where finite differences say nothing."""
        return any(
            t.values is not None and d.category >= FLOAT and len(np.unique(host)) < host.size
            for t, (host, d) in zip(self.drawn, self.hosts, strict=True)
        )

    # -------------------------------------------- running

    @contextmanager
    def here(self, grad: bool = True) -> Iterator[Context]:
        with active(self.ctx) as ctx:
            before = ctx.grad_enabled
            ctx.grad_enabled = grad
            try:
                yield ctx
            finally:
                ctx.grad_enabled = before

    def run(self, tensors: Sequence[Any], op: Op | None = None) -> Any:
        """The operation's result as it is, from a generator that is always in the same state."""
        self.ctx.rng.manual_seed(1234)
        return (op or self.op).run(self.fill(tensors))  # type: ignore[misc]

    def outputs(self, tensors: Sequence[Any]) -> list[Any]:
        """The result's parts, flattened: tensors, None and Python values."""
        return parts(self.run(tensors))


class _Hole:
    """Where a drawn tensor goes."""

    def __init__(self, at: int) -> None:
        self.at = at


def cases(name: str, device: str, wanted: str = "float64") -> Iterator[Case]:
    for number in range(len(samples_of(name))):
        yield Case(name, number, device, wanted)


def tensor(host: np.ndarray[Any, Any], d: DType, backend: Backend, ctx: Context) -> Tensor:
    return fresh(backend.from_host(np.array(host, order="C", copy=True)), Spec(host.shape, d), backend, ctx.ledger)


def parts(result: Any) -> list[Any]:
    return leaves_of(result)


def floating(t: Any) -> bool:
    return type(t) is Tensor and (t.dtype.is_floating or t.dtype.is_complex)


def raw(t: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's storage values on the host: bits for bfloat16."""
    return t.backend.to_host(t.array)


def values(t: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values on the host; reduced floats as float32."""
    return wide(raw(t), t.dtype)


def wide(host: np.ndarray[Any, Any], d: DType) -> np.ndarray[Any, Any]:
    """Storage values as numbers; by other means than the engine's own, which are on trial."""
    if d.name == "bfloat16":
        return bf16_to_f32(host)
    return host.astype(np.float32) if d.name == "float16" else host


def memory(t: Tensor) -> np.ndarray[Any, Any]:
    """All elements of a tensor's storage, on the host, copied."""
    return np.array(t.backend.to_host(t.storage.flat))


def share(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors lie in the same block of memory: the arrays are asked, not the storages."""
    if a.backend is not b.backend:
        return False
    if a.backend is CPU:
        return bool(np.shares_memory(a.array, b.array))
    return bool(a.numel and b.numel and a.array.data.mem == b.array.data.mem)


# ---------------------------------------------------------------- layouts


def laid_out(host: np.ndarray[Any, Any], d: DType, layout: str, backend: Backend, ctx: Context) -> Tensor:
    """The same values elsewhere in memory: dimensions in reverse order, every second element of a bigger block after
    an offset, or one row seen many times (`host` must then be made of equal rows)."""
    shape = host.shape
    if layout == "contiguous":
        return tensor(host, d, backend, ctx)
    if layout == "transposed":
        base = tensor(np.ascontiguousarray(host.T), d, backend, ctx)
        return view_of(base, shape, tuple(reversed(base.strides)), 0)
    if layout == "sliced":
        filler = 1 if d.name == "bool" else 77
        block = np.full(2 * host.size + 3, filler, dtype=host.dtype)
        block[3:][::2] = host.reshape(-1)
        base = tensor(block, d, backend, ctx)
        steps = [1] * len(shape)
        for i in range(len(shape) - 2, -1, -1):
            steps[i] = steps[i + 1] * max(shape[i + 1], 1)
        return view_of(base, shape, tuple(2 * s for s in steps), 3)
    if layout == "expanded":
        first = tensor(np.ascontiguousarray(host[:1]), d, backend, ctx)
        return view_of(first, shape, (0, *first.strides[1:]), 0)
    raise ValueError(layout)


# ---------------------------------------------------------------- gradients


def cotangents(outs: Sequence[Any], seed: int = 7) -> list[np.ndarray[Any, Any] | None]:
    """For each floating output random numbers in its dtype's compute dtype, on the host; None for the others."""
    rng = np.random.default_rng(seed)
    made: list[np.ndarray[Any, Any] | None] = []
    for t in outs:
        if not floating(t):
            made.append(None)
            continue
        c = rng.uniform(-1, 1, t.shape)
        if t.dtype.is_complex:
            c = c + 1j * rng.uniform(-1, 1, t.shape)
        made.append(np.asarray(c).astype(t.dtype.compute.np))
    return made


def seeds(
    case: Case, outs: Sequence[Any], cots: Sequence[np.ndarray[Any, Any] | None]
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs that have a tape, and their cotangents as tensors."""
    roots, given = [], []
    for t, c in zip(outs, cots, strict=True):
        if c is not None and t.requires_grad:
            host = CPU.cast(c, from_numpy(c.dtype) or t.dtype, t.dtype)
            roots.append(t)
            given.append(tensor(host, t.dtype, t.backend, case.ctx))
    return roots, given


def gradients(
    case: Case,
    require: Sequence[int],
    cots: Sequence[np.ndarray[Any, Any] | None] | None = None,
    tensors: list[Tensor] | None = None,
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """Runs the case and backward: the gradients of the tensors in `require`, in that order."""
    made = case.tensors() if tensors is None else tensors
    for i in require:
        made[i].requires_grad = True
    outs = case.outputs(made)
    roots, given = seeds(case, outs, cotangents(outs) if cots is None else cots)
    if not roots:
        return [None] * len(require)
    return run_backward(roots, given, inputs=[made[i] for i in require], accumulate=False, create_graph=create_graph)


# ---------------------------------------------------------------- comparing


def close(a: Any, b: Any, rtol: float, atol: float) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True))


TOLERANCE = {
    "float64": 1e-10,
    "complex128": 1e-10,
    "float32": 2e-5,
    "complex64": 2e-5,
    "float16": 4e-3,
    "bfloat16": 3e-2,
}


def same(a: Any, b: Any, what: str, *, exact: bool = False, factor: float = 1.0) -> None:
    """Two parts of results agree in type, shape, dtype and, up to rounding of their dtype, in value."""
    if type(a) is not Tensor or type(b) is not Tensor:
        if type(a) is not type(b) or not (a == b or (isinstance(a, float) and close(a, b, 1e-6, 1e-6))):
            raise Broken(f"{what}: {a!r} and {b!r}")
        return
    if a.spec != b.spec:
        raise Broken(f"{what}: {a.spec} and {b.spec}")
    x, y = values(a), values(b)
    if exact or not floating(a):
        if not np.array_equal(x, y, equal_nan=x.dtype.kind in "fc"):
            raise Broken(f"{what}: {brief(x)} and {brief(y)}")
        return
    tol = TOLERANCE[a.dtype.name] * factor
    finite = np.abs(y[np.isfinite(y)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    if not close(x, y, tol, tol * scale):
        raise Broken(f"{what}: {brief(x)} and {brief(y)}")


def all_same(a: Any, b: Any, what: str, **how: Any) -> None:
    """The same of whole results."""
    xs, ys = parts(a), parts(b)
    if len(xs) != len(ys):
        raise Broken(f"{what}: {len(xs)} and {len(ys)} results")
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        same(x, y, f"{what}, output {i}" if len(xs) > 1 else what, **how)


def brief(x: Any) -> str:
    return np.array2string(np.asarray(x), precision=6, threshold=12, edgeitems=3).replace("\n", "")

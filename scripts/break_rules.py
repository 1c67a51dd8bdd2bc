"""Breaks rules of the engine on purpose, one at a time, and says which laws notice. Writes the table of docs/laws.md.

    python scripts/break_rules.py            run everything, print the table and write it into docs/laws.md
    python scripts/break_rules.py --check    writes nothing; fails if a break goes unnoticed or the page is old

Every break is made in this process, by putting something wrong in the place of something right, and taken back
afterwards. The laws run on a few operations that are chosen for each break; they all hold before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from engine import autograd, carriers, compile, dtypes, fitting, lower, record, undo  # noqa: E402
from engine.backend import Backend  # noqa: E402
from engine.context import Context  # noqa: E402
from engine.op import REGISTRY, ParamSpec, Spec  # noqa: E402
from engine.random import Generator  # noqa: E402
from engine.shapes import wrap_dim  # noqa: E402
from engine.tensor import Storage, fresh  # noqa: E402
from tests.laws import agreement, gradients, places, planned, undoing, words  # noqa: E402  the laws register themselves
from tests.laws.harness import DEVICES, Broken  # noqa: E402
from tests.laws.law import LAWS, Law, subjects  # noqa: E402

PAGE = ROOT / "docs" / "laws.md"
START, END = "<!-- written by scripts/break_rules.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Break:
    """One thing broken on purpose, and the operations on which the laws are asked."""

    what: str
    ops: str
    make: Callable[[], Any]  # gives a context manager


# ---------------------------------------------------------------- tools


@contextmanager
def op(name: str, **changes: Any) -> Iterator[None]:
    """An operation with something else in its record."""
    made = REGISTRY[name]
    twins = [o for o in set(REGISTRY.values()) if o.functional is made]
    old = {n: getattr(made, n) for n in (*changes, "run")}
    old_twins = [(t, t.run) for t in twins]
    try:
        for n, value in changes.items():
            setattr(made, n, value)
        made.plans.clear()
        made.run = record.runner(made)
        for t in twins:
            t.run = record.runner(t)
        yield
    finally:
        for n, value in old.items():
            setattr(made, n, value)
        for t, run in old_twins:
            t.run = run
        made.plans.clear()


@contextmanager
def body(function: FunctionType, wrong: FunctionType) -> Iterator[None]:
    """Another body for a function, wherever it has been imported."""
    old = function.__code__
    function.__code__ = wrong.__code__
    try:
        yield
    finally:
        function.__code__ = old


@contextmanager
def promotion(a: str, b: str, result: str) -> Iterator[None]:
    """A wrong entry in the promotion table."""
    pair = (dtypes.dtype(a), dtypes.dtype(b))
    old = dtypes._PROMOTED[pair]
    dtypes._PROMOTED[pair] = dtypes.dtype(result)
    carriers._cache.clear()
    try:
        yield
    finally:
        dtypes._PROMOTED[pair] = old
        carriers._cache.clear()


def changed(name: str, **changes: Any) -> Callable[[], Any]:
    """A break of one operation's record."""
    return lambda: op(name, **changes)


def swapped(place: Any, name: str, wrong: Any) -> Callable[[], Any]:
    """A break of an attribute of a module or class."""
    return lambda: patch.object(place, name, wrong)


def result_of(name: str, change: Callable[[Any, tuple[Any, ...]], Any]) -> Callable[[], Any]:
    """A kernel whose result is changed."""
    kernel: Any = REGISTRY[name].kernel

    def wrong(k: Any, *args: Any, out: Any = None) -> Any:
        made = change(kernel(k, *args), args)
        if out is None:
            return made
        out[...] = made
        return out

    return changed(name, kernel=wrong)


def meta_of(name: str, change: Callable[[Spec], Spec]) -> Callable[[], Any]:
    """A meta whose answer is changed."""
    meta: Any = REGISTRY[name].meta
    return changed(name, meta=lambda k, *args: change(meta(k, *args)))


def rule_of(name: str, change: Callable[[Any, Any, Any, Any, Any], Any]) -> Callable[[], Any]:
    """A gradient rule whose answer is changed: change(F, saved, g, need, answer)."""
    rule: Any = REGISTRY[name].vjp
    return changed(name, vjp=lambda F, saved, g, need: change(F, saved, g, need, rule(F, saved, g, need)))


# ---------------------------------------------------------------- the wrong things


def _no_conj(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g * saved.other, need.other and g * saved.input


def _tanh_once(F: Any, saved: Any, g: Any, need: Any) -> Any:
    y = F.detach(saved.result) if F.recording else saved.result
    return g * (1 - y * y)


def _wrap_dim(dim: int, ndim: int, *, scalar_ok: bool = True) -> int:
    return max(dim, 0)


def _first_of_what_was_broadcast(g: Any, shape: tuple[int, ...]) -> Any:
    extra = g.ndim - len(shape)
    return g[(*(slice(0, 1) if i < extra or shape[i - extra] == 1 else slice(None) for i in range(g.ndim)),)].reshape(
        shape
    )


def _copying_view(source: Any, shape: Any, strides: Any, offset: int, d: Any = None) -> Any:
    from engine.tensor import view_of

    t = view_of(source, shape, strides, offset, d)
    return fresh(t.array.copy(), t.spec, t.backend, source.storage.ledger)


def _share_gradients(ctx: Any, leaf: Any, g: Any, own: bool, recorded: bool) -> None:
    accumulate(ctx, leaf, g, True, recorded)


accumulate = autograd._accumulate


def _values_of_bits(self: Any, array: Any, d: Any) -> Any:
    return array.astype(np.float32) if d.reduced else array


def _slot_but_not(name: str) -> Callable[..., None]:
    slot = undo.Undo.slot

    def wrong(self: Any, thing: Any, attribute: str) -> None:
        if attribute != name:
            slot(self, thing, attribute)

    return wrong


def _edge_of_the_view_alone(ctx: Any, t: Any, node: Any) -> None:
    t.edge, t.requires_grad = (node, 0), True


def _no_copy_before_writing(k: Any, input: Any, *, out: Any = None) -> Any:
    made = k.xp.maximum(input, 0, out=input)
    return made.copy() if out is None else made


def _host_only(k: Any, input: Any, *, out: Any = None) -> Any:
    return np.exp(input, out=out)


def _in_memory_order(made: Any, args: tuple[Any, ...]) -> Any:
    x = args[0]
    return made if x.flags.c_contiguous else made.T.reshape(made.shape)


def _renamed(op_name: str, at: int, **changes: Any) -> Callable[[], Any]:
    made = REGISTRY[op_name]
    p = made.params[at]
    fields = {"name": p.name, "type_": p.type, "form": p.form, "required": p.required, "default": p.default}
    params = list(made.params)
    params[at] = ParamSpec(**{**fields, **changes}, schema=p.schema, choices=p.choices)
    return lambda: patch.object(made, "params", tuple(params))


def _ignoring_no_grad() -> Any:
    return patch.object(Context, "grad_enabled", property(lambda self: True, lambda self, value: None), create=True)


def _frozen_versions() -> Any:
    return patch.object(Storage, "version", property(lambda self: 0, lambda self, value: None), create=True)


@contextmanager
def _plans_without_writes() -> Iterator[None]:
    kept = compile.Plan._kept

    def fewer(self: Any, steps: Any) -> Any:
        return [step for step in kept(self, steps) if not step.writes]

    with patch.object(compile.Plan, "_kept", fewer):
        yield


@contextmanager
def _plans_that_write_down_another_ufunc() -> Iterator[None]:
    write_down = lower._write_down

    def wrong(trace: Any, log: Any, *, removable: bool) -> None:
        turned = [(np.multiply if f is np.true_divide else f, *rest) for f, *rest in log]
        write_down(trace, turned, removable=removable)

    with patch.object(lower, "_write_down", wrong):
        yield


BREAKS: tuple[Break, ...] = (
    Break(
        "the sign of a gradient: `sub`'s second operand",
        "sub",
        rule_of("sub", lambda F, s, g, n, r: (r[0], n.other and -r[1])),
    ),
    Break("a save mask that forgets an operand: `div`", "div", changed("div", save={"input": (), "other": ("other",)})),
    Break(
        "a save mask that saves the wrong operand: `mul`",
        "mul",
        changed("mul", save={"input": ("input",), "other": ("other",)}),
    ),
    Break("a missing conj: `mul`", "mul", changed("mul", vjp=_no_conj)),
    Break(
        "gradients in the wrong order: `atan2`",
        "atan2",
        rule_of("atan2", lambda F, s, g, n, r: (r[1], r[0]) if n.input and n.other else r),
    ),
    Break(
        "a rule that looks at `need` and is wrong when one input is frozen: `mul`",
        "mul",
        rule_of("mul", lambda F, s, g, n, r: r if n.input and n.other else (n.input and r[0] * 2, n.other and r[1])),
    ),
    Break("a rule that loses the second order: `tanh`", "tanh", changed("tanh", vjp=_tanh_once)),
    Break("a missing unbroadcast, on arrays", "add", swapped(fitting, "sum_to", _first_of_what_was_broadcast)),
    Break(
        "a missing cast of the gradient to its input's dtype, with create_graph",
        "mul",
        swapped(autograd, "_as", lambda t, d: t),
    ),
    Break(
        "a gradient that two leaves share, not copied",
        "add sub clone",
        swapped(autograd, "_accumulate", _share_gradients),
    ),
    Break(
        "a dtype in a meta: `argmax` gives int32", "argmax", meta_of("argmax", lambda s: Spec(s.shape, dtypes.int32))
    ),
    Break("a dtype in a meta: `eq` keeps its operands' dtype", "eq", changed("eq", promote="arithmetic")),
    Break(
        "a shape in a meta: `sum` forgets keepdim",
        "sum",
        meta_of("sum", lambda s: Spec(tuple(n for n in s.shape if n != 1), s.dtype)),
    ),
    Break("a wrong entry in the promotion table: uint8 with int8", "add", lambda: promotion("uint8", "int8", "int8")),
    Break(
        "a dim wrapped wrongly: negative ones become 0", "transpose cumsum softmax", lambda: body(wrap_dim, _wrap_dim)
    ),
    Break("a missing guard: `gather`", "gather", changed("gather", guard=None)),
    Break("bfloat16 not widened, its bits taken for numbers", "exp matmul", swapped(Backend, "widen", _values_of_bits)),
    Break("a kernel that runs on raw bits: `exp` declared `moves`", "exp", changed("exp", moves=True)),
    Break(
        "a missing ownership copy: a kernel that gives back its input",
        "clone",
        changed("clone", kernel=lambda k, x, *a, out=None: x),
    ),
    Break(
        "a missing ownership copy: a result that is a view of its input",
        "flip tile diag_embed cumsum",
        lambda: _both(
            swapped(carriers, "owned", lambda made, *rest: made)(), result_of("cumsum", lambda m, a: a[0].T.T[...])()
        ),
    ),
    Break("a kernel that writes into its input: `relu`", "relu", changed("relu", kernel=_no_copy_before_writing)),
    Break(
        "a kernel that takes memory order for index order: `cumsum`", "cumsum", result_of("cumsum", _in_memory_order)
    ),
    Break("a kernel that calls NumPy whatever the device: `exp`", "exp", changed("exp", kernel=_host_only)),
    Break("a view that copies", "transpose select", swapped(record, "view_of", _copying_view)),
    Break(
        "a view's arrays and geometry that disagree: `transpose`",
        "transpose",
        changed("transpose", kernel=lambda k, x, a, b: x),
    ),
    Break(
        "a shortcut of `Raw` that differs from the operation: `mm`",
        "mm",
        swapped(carriers.Raw, "mm", lambda self, a, b: a @ b * 2),
    ),
    Break("a missing version bump", "exp_ add_", _frozen_versions),
    Break(
        "a wrong in-place cast check: everything may be stored",
        "div_ add_",
        swapped(carriers, "can_cast", lambda a, b: True),
    ),
    Break("leaves changed in place", "mul_", swapped(record, "check_inplace", lambda t, tracked: None)),
    Break("expanded tensors changed in place", "mul_", swapped(record, "check_overlap", lambda t, others: None)),
    Break(
        "a change through a view that its base's history does not see",
        "mul_",
        swapped(record, "rebase", _edge_of_the_view_alone),
    ),
    Break("a tape written without grad mode", "mul sum", _ignoring_no_grad),
    Break("undo forgets bytes", "mul_ copy_", swapped(undo.Undo, "write", lambda self, storage, low, high: None)),
    Break("undo forgets versions", "mul_ copy_", swapped(undo.Undo, "slot", _slot_but_not("version"))),
    Break(
        "undo forgets `.grad`",
        "mul",
        lambda: _both(
            patch.object(undo.Undo, "slot", _slot_but_not("grad")), patch.object(undo.Undo, "write", lambda *a: None)
        ),
    ),
    Break("undo forgets edges", "mul_", swapped(undo.Undo, "slot", _slot_but_not("edge"))),
    Break("undo forgets the generator", "rand", swapped(undo.Undo, "generator", lambda self, rng: None)),
    Break(
        "a default that is not PyTorch's: `nn.functional.leaky_relu`",
        "nn.functional.leaky_relu",
        _renamed("nn.functional.leaky_relu", 1, default=0.1),
    ),
    Break("a misspelt parameter: `amax`", "amax", _renamed("amax", 2, name="keepdims")),
    Break("a plan that leaves out what writes", "mul", _plans_without_writes),
    Break(
        "a plan whose trace keeps the random numbers it drew",
        "rand nn.functional.dropout",
        swapped(Generator, "restore", lambda self, state: None),
    ),
    Break("a plan that writes down another ufunc than ran", "div", _plans_that_write_down_another_ufunc),
)


@contextmanager
def _both(*managers: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for m in managers:
            stack.enter_context(m)
        yield


# ---------------------------------------------------------------- running


def caught_by(ops: list[str]) -> list[str]:
    """The laws that do not hold for these operations, on any device."""
    found = []
    for law in in_order():
        about = set(subjects(law))
        where = []
        for device in DEVICES:
            for name in ops:
                if name not in about:
                    continue
                try:
                    law.holds(name, device)
                except Broken:
                    where.append(device)
                    break
        if where:
            found.append(law.name if len(where) == len(DEVICES) else f"{law.name} (on {where[0]})")
    for name in ops:
        try:
            words.names_are_torchs(name)
        except Broken:
            found.append("names")
            break
    return found


def run(breaks: tuple[Break, ...] = BREAKS) -> list[tuple[Break, list[str]]]:
    """Each break with the laws that noticed it. Fails where a law does not hold to begin with."""
    every = sorted({name for b in breaks for name in b.ops.split()})
    before = caught_by(every)
    if before:
        raise SystemExit(f"before anything is broken these do not hold: {', '.join(before)} ({', '.join(every)})")
    rows = []
    for b in breaks:
        with b.make():
            rows.append((b, caught_by(b.ops.split())))
    return rows


def table(rows: list[tuple[Break, list[str]]]) -> str:
    """The breaks and what noticed them, as Markdown."""
    lines = ["| broken on purpose | noticed by |", "| --- | --- |"]
    lines += [f"| {b.what} | {', '.join(laws) or '**nothing**'} |" for b, laws in rows]
    return "\n".join(lines)


def in_order() -> list[Law]:
    """The laws, in an order that does not depend on what happened to be imported first."""
    order = [room.__name__ for room in (agreement, gradients, places, undoing, planned, words)]
    return sorted(LAWS.values(), key=lambda law: order.index(law.check.__module__))


def laws_as_text() -> str:
    """The laws and their sentences, as Markdown."""
    return "\n".join(f"- **{law.name}**: {law.sentence}" for law in in_order())


def page(rows: list[tuple[Break, list[str]]]) -> str:
    """docs/laws.md with the laws and the table as they are now."""
    text = PAGE.read_text("utf-8")
    head, _, rest = text.partition(START)
    tail = rest.partition(END)[2]
    return f"{head}{START}\n{laws_as_text()}\n\n## Broken on purpose\n\n{INTRODUCTION}\n\n{table(rows)}\n{END}{tail}"


INTRODUCTION = (
    "A law that cannot fail proves nothing. `python scripts/break_rules.py` breaks each of these, one at a time, in\n"
    "its own process, and runs the laws on a few operations. A test runs a part of it, and a slow test all of it."
)


def main() -> int:
    """Runs every break; 1 where one goes unnoticed, or where the page is old."""
    rows = run()
    print(table(rows))
    missed = [b.what for b, laws in rows if not laws]
    if missed:
        print(f"\nnothing noticed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    text = page(rows)
    if "--check" in sys.argv[1:]:
        if text != PAGE.read_text("utf-8"):
            print("docs/laws.md is not current: python scripts/break_rules.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

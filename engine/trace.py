"""One round of a repeated program as a flat list of calls on arrays.

The tracer runs the steps of a round as the interpreter does, on the round's real arrays, and writes down every kernel,
guard, view and gradient rule that it calls, with the arrays that go in and come out. Nothing of that round stays: what
it wrote is put back, random numbers included. `compile.py` makes the list into a function that runs such rounds
without tensors, tape and undo log.

What a round can do that such a list cannot say (a shape that depends on values, a tape that comes from outside the
round, in-place changes that the tape follows, ...) ends the trace with `NotPlanned`, and the interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from engine.autograd import seed_gradient, seed_of_ones
from engine.backend import CPU, Array, Backend, is_array
from engine.backtrace import SPECIAL, TracedBackward
from engine.carriers import K, finish, infer, infer_inplace, prepare
from engine.cells import Carrier, Cell, Given, Layout, NotPlanned, all_of, copied, planned_k, same
from engine.context import Context
from engine.costs import mind
from engine.dtypes import FLOAT, DType, float32, from_numpy
from engine.lower import Constant, Slot, Step, equal_bits, lower, lower_writes, plain_arguments, plain_results
from engine.op import COMPOSITE, INPLACE, LIST, PRIMITIVE, VIEW, Op, Spec
from engine.probing import accumulated, copied_array, lowered, on_device
from engine.shapes import has_internal_overlap, is_dense
from engine.tape import Node, base_of, check_overlap, edge_of, kept_edges
from engine.tensor import Storage, Tensor, View

_UNMADE = object()


# ---------------------------------------------------------------- the tracer


class Tracer:
    """The trace of one round. `steps` is what it found; `outside` are the arrays from outside the round, by slot."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.steps: list[Step] = []
        self.arrays: list[Array] = []  # by slot; they live as long as the trace, so that `id` names them
        self.constants: dict[Slot, Array] = {}  # arrays that are the same whenever the plan runs
        self.outside: dict[Slot, tuple[Tensor, bool]] = {}  # arrays of tensors, or of their storages, from outside
        self.place = 0  # the step of the program that is being traced
        self.bumps: dict[
            int, tuple[Storage, int, int]
        ] = {}  # storages from outside: version before, and how often written
        self.logged: list[tuple[Storage, int, int]] = []  # their ranges that are written
        self.grads: dict[int, Cell] = {}
        self.first: dict[int, tuple[Cell, Cell]] = {}  # leaves that had no gradient, and the one that they get
        self.made_bytes = 0  # of all results, as the interpreter would have them
        self.inner_seqs = False  # whether a call uses up sequence numbers of its own
        self.F = Carrier(self)
        self.given: dict[int, Tensor] = {}  # by storages from outside, the tensor with which they came
        self._slots: dict[int, Slot] = {}
        self._cells: dict[int, Cell] = {}
        self._keep: list[Any] = []
        self._fixed: set[int] = set()  # storages of constants: nobody may write there
        self._saved: list[tuple[Array, Array]] = []  # what was overwritten: memory, and a copy
        self.start_seq = ctx.seq

    # ------------------------------------------------ slots

    def slot(self, array: Array) -> Slot:
        """The slot of an array that the trace knows."""
        found = self._slots.get(id(array))
        if found is None:
            raise NotPlanned("an array came from nowhere")
        return found

    def register(self, array: Array) -> Slot:
        found = self._slots.get(id(array))
        if found is None:
            found = self._slots[id(array)] = len(self.arrays)
            self.arrays.append(array)
        return found

    def constant(self, array: Array) -> Slot:
        """An array that is the same whenever the plan runs."""
        slot = self.register(array)
        self.constants.setdefault(slot, array)
        return slot

    def _given(self, array: Array, of: Tensor, *, whole: bool) -> None:
        """The array of a tensor from outside the round, or of its whole storage."""
        self.outside.setdefault(self.register(array), (of, whole))

    def k_of(self, backend: Backend) -> K:
        return planned_k(backend)

    def emit(
        self,
        function: Callable[..., Any],
        arguments: Sequence[Any],
        *,
        writes: Sequence[Array] = (),
        made: Any = _UNMADE,
        **traits: Any,
    ) -> Any:
        """Calls a function of arrays and Constants, and writes the call down; its result, an array or several.

        `made`: the result, where the function was called already.
        """
        if made is _UNMADE:
            if traits.get("k") is not None:
                traits["k"].spec = traits.get("spec")
            seq = self.ctx.seq
            made = function(*plain_arguments(arguments))
            self.inner_seqs |= self.ctx.seq != seq
            self.ctx.seq = seq  # what a rule uses up inside, it uses up again when it runs
        inputs = self._slotted(arguments)
        single = type(made) not in (tuple, list)
        parts = (made,) if single else made
        # What is handed on as it came is there already.
        outputs = [self.register(part) if is_array(part) and id(part) not in self._slots else -1 for part in parts]
        self.steps.append(
            Step(
                function,
                inputs,
                outputs,
                self.place,
                single=single,
                writes=[self.slot(w) for w in writes],
                **traits,
            )
        )
        return made

    def _slotted(self, arguments: Sequence[Any]) -> list[Any]:
        return [x if type(x) is Constant else self._slotted(x) if type(x) is list else self.slot(x) for x in arguments]

    # ------------------------------------------------ tensors

    def cell(self, t: Tensor) -> Cell:
        """A tensor from outside the round."""
        if type(t) is Cell:
            return t
        found = self._cells.get(id(t))
        if found is None:
            found = self._cells[id(t)] = Cell(t.array, t.spec, t.storage, t.backend)
            found.tracer, found.origin = self, t
            found.offset, found._strides = t.offset, t._strides
            found.requires_grad = t.requires_grad
            found.edge, found.view = None, t.view
            self._given(t.array, t, whole=False)
            self.given.setdefault(id(t.storage), t)
            self._keep.append(t)
        return found

    def owned(self, array: Array, spec: Spec, backend: Backend, *, fixed: bool = False) -> Cell:
        """A tensor made in the round, which owns its array."""
        made = Cell(array, spec, Storage(array, backend, self.ctx.ledger), backend)
        made.tracer = self
        self.made_bytes += array.nbytes
        if fixed:
            self._fixed.add(id(made.storage))
        self._keep.append(made)
        return made

    def gradient(self, t: Cell) -> Cell | None:
        """The `.grad` of a tensor from outside."""
        if t.origin is None:
            return None
        if id(t) in self.first:
            return self.first[id(t)][1]
        found = self.grads.get(id(t))
        if found is None and t.origin.grad is not None:
            found = self.grads[id(t)] = self.cell(t.origin.grad)
        return found

    def before_write(self, t: Cell) -> None:
        """What is going to be written is put back at the end, and its version counted."""
        storage = t.storage
        if id(storage) in self._fixed:
            raise NotPlanned("a constant is changed in place")
        if id(storage) not in self.given:
            return
        low, high = t.touched()
        memory = storage.flat[low:high]
        self._saved.append((memory, memory.copy()))
        self.logged.append((storage, low, high))
        _, start, times = self.bumps.get(id(storage), (storage, storage.version, 0))
        self.bumps[id(storage)] = (storage, start, times + 1)

    def began(self, storage: Storage) -> int:
        """The version of a storage from outside when the round began."""
        return self.bumps.get(id(storage), (storage, storage.version, 0))[1]

    def finish(self) -> int:
        """Puts back what the round wrote, and lets go of its tensors; the sequence numbers that it used."""
        for memory, copy in reversed(self._saved):
            memory[...] = copy
        for storage, start, _ in self.bumps.values():
            storage.version = start
        # Else tracer and cells would hold each other, and a plan the tensors of a session.
        for kept in (self._cells, self._keep, self._saved, self.grads, self.first, self.given):
            kept.clear()
        del self.F
        used = self.ctx.seq - self.start_seq
        self.ctx.seq = self.start_seq
        return used

    # ------------------------------------------------ operations

    def run(self, op: Op, args: tuple[Any, ...]) -> Any:
        """One operation on cells."""
        kind = op.kind
        if kind == PRIMITIVE:
            return self._primitive(op, args)
        if kind == VIEW:
            return self._view(op, args)
        if kind == INPLACE:
            return self._inplace(op, args)
        if kind == COMPOSITE:
            return self._composite(op, args)
        special = SPECIAL.get(op.name)
        if special is None:
            raise NotPlanned(f"{op.name} works on tensors themselves")
        return special(self, *args)

    def _composite(self, op: Op, args: tuple[Any, ...]) -> Any:
        for at, form in op.slots:
            v = args[at]
            for t in (v or ()) if form == LIST else (v,):
                if isinstance(t, Tensor) and t.spec.dtype.reduced and not op.moves:
                    raise NotPlanned(f"{op.name} of {t.spec.dtype.name} is computed in float32")
        made = op.body(self.F, *args)  # type: ignore[misc]
        if op.composite_node and type(made) is Cell and made.edge is not None:
            made.edge[0].name = op.composite_node
        return made

    def _current(self, t: Cell) -> None:
        """Refuses what the interpreter would have to think about: tapes and views whose memory has changed."""
        view = t.view
        stale = t.origin is not None and view is not None and view.version != t.storage.version
        if stale and base_of(view).requires_grad:  # type: ignore[arg-type]
            raise NotPlanned("a view's base has got a tape since the view was made")
        if not t.requires_grad:
            return
        if t.origin is not None and t.origin.edge is not None and self.ctx.grad_enabled:
            raise NotPlanned("its tape comes from outside the round")
        if t.view is not None:
            if t.origin is not None and self.ctx.grad_enabled:
                raise NotPlanned("a view from outside the round requires grad")
            if t.view.version != t.storage.version:
                raise NotPlanned("a view's memory was changed after it was made")

    def _sorted(self, op: Op, args: tuple[Any, ...]) -> Given:
        given = Given(args)
        for at, form in op.slots:
            v = args[at]
            if form == LIST:
                items = list(v or ())
                given.sizes += (len(items),)
                if v is not None:
                    cells = given.cells[at] = [None if x is None else self.cell(x) for x in items]
                    given.specs[at] = [None if x is None else x.spec for x in cells]
                    given.values[at] = [None if x is None else x.array for x in cells]
                    given.tensors += cells
            elif isinstance(v, Tensor):
                t = given.cells[at] = self.cell(v)
                given.specs[at], given.values[at] = t.spec, t.array
                given.tensors.append(t)
            else:
                given.tensors.append(None)
        for i, each in enumerate(given.tensors):
            if each is None:
                continue
            self._current(each)
            if each.requires_grad:
                given.mask |= 1 << i
            if given.backend is None:
                given.backend = each.backend
            elif each.backend is not given.backend:
                raise NotPlanned("tensors are on several devices")
        for at in op.states:
            groups = args[at]
            if groups is not None:
                cells_of = {name: [self.cell(t) for t in group] for name, group in groups.items()}
                given.cells[at] = cells_of
                given.specs[at] = {name: [t.spec for t in group] for name, group in cells_of.items()}
                given.values[at] = {name: [t.array for t in group] for name, group in cells_of.items()}
        return given

    def _primitive(self, op: Op, args: tuple[Any, ...]) -> Any:
        ctx = self.ctx
        if op.dynamic:
            raise NotPlanned(f"the shape that {op.name} gives depends on values")
        grad_at = op.positions.get("requires_grad", -1) if not op.internal else -1
        if grad_at >= 0 and args[grad_at]:
            raise NotPlanned(f"{op.name} makes a leaf")
        mind(op, args, ctx.max_seconds)
        given = self._sorted(op, args)
        backend = given.backend or ctx.default_backend
        device_at = op.positions.get("device", -1) if not op.internal else -1
        if device_at >= 0 and args[device_at] is not None:
            backend = ctx.find(args[device_at])
        k = self.k_of(backend)
        out, compute = infer(op, k, given.specs)
        for spec in (out,) if type(out) is Spec else out or ():
            if spec is not None:
                ctx.admit(spec.nbytes)
        values = copied(given.values)
        prepare(op, k, values, given.specs, compute)
        plain = same(values, given.values)
        if op.guard is not None:
            self._guard(op, k, given, compute, plain)
        written = self._mutated(op, given)
        fin = self._kernel(op, k, given, out, compute, plain, written)
        for t in written:
            t.storage.version += 1
        if out is None:
            return None
        single = type(out) is Spec
        cells = tuple(
            None if s is None else self.owned(array, s, backend)
            for array, s in zip((fin,) if single else fin, (out,) if single else out, strict=True)
        )
        if given.mask and op.vjp is not None and ctx.grad_enabled:
            self._record(op, args, given, cells, compute, backend, plain)
        return cells[0] if single else list(cells)

    def _mutated(self, op: Op, given: Given) -> list[Cell]:
        """The tensors that a kernel writes into by itself, ready to be written to."""
        found: list[Cell] = []
        for at in op.mutates:
            v = given.cells.get(at)
            if type(v) is dict:
                found += [t for group in v.values() for t in group]
            elif type(v) is list:
                found += [t for t in v if t is not None]
            elif v is not None:
                found.append(v)
        for t in found:
            if t.dtype.reduced:
                raise NotPlanned(f"{op.name} of {t.dtype.name} is computed in float32")
            if op.vjp is not None and t.requires_grad and self.ctx.grad_enabled:
                raise NotPlanned("an in-place change that the tape follows")
            if has_internal_overlap(t.shape, t.strides):
                raise NotPlanned("memory that overlaps itself is changed")
            self.before_write(t)
        return found

    def _guard(self, op: Op, k: Any, given: Given, compute: DType | None, plain: bool) -> None:
        guard: Any = op.guard
        specs, layout = tuple(given.specs), Layout(given.values)
        if plain and layout.flat:
            self.emit(guard, [Constant(k), *layout.arguments(given.values)])
            return

        def check(*arrays: Array) -> None:
            values = layout.fill(arrays)
            prepare(op, k, values, specs, compute)
            guard(k, *values)

        self.emit(check, layout.arrays(given.values))

    def _kernel(
        self, op: Op, k: Any, given: Given, out: Any, compute: DType | None, plain: bool, written: Sequence[Cell]
    ) -> Any:
        kernel: Any = op.kernel
        backend = k.backend
        layout = Layout(given.values)
        still = not (op.random or written)
        pure = still and op.guard is None
        removable = pure and (op.elementwise or op.family in ("reductions", "factories", "views", "shaping"))
        traits: dict[str, Any] = {"writes": [t.array for t in written], "removable": removable}
        arguments = [Constant(k), *layout.arguments(given.values)] if layout.flat else []
        plain = plain and backend is CPU
        if plain and layout.flat and pure and type(out) is Spec:
            array = lower(
                self, kernel, arguments, out, lambda made, values: finish(op, k, made, out, values), removable=removable
            )
            if array is not None:
                return array
        if plain and layout.flat and written and out is None and not op.random:
            if lower_writes(self, kernel, arguments, [t.array for t in written]):
                return None
            return self.emit(kernel, arguments, k=k, spec=out, **traits)
        if plain and layout.flat and type(out) is Spec and still:
            k.spec = out
            made = kernel(*plain_arguments(arguments))
            fin = finish(op, k, made, out, given.values)
            if fin is made:
                return self.emit(kernel, arguments, made=made, k=k, spec=out, **traits)
        if plain and layout.flat and type(out) in (tuple, list) and still:
            k.spec = out
            made = plain_results(kernel(*plain_arguments(arguments)))
            if all(s is not None and finish(op, k, m, s, given.values) is m for m, s in zip(made, out, strict=True)):
                traits["alone"] = {
                    at: alone
                    for at, name in enumerate(op.outputs)
                    if (alone := op.alone.get(name)) and equal_bits(alone(*plain_arguments(arguments)), made[at])
                }
                return self.emit(
                    lambda *found: plain_results(kernel(*found)), arguments, made=made, k=k, spec=out, **traits
                )
        specs = tuple(given.specs)

        def general(k: Any, *arrays: Array) -> Any:
            values = layout.fill(arrays)
            prepare(op, k, values, specs, compute)
            k.spec = out
            made = kernel(k, *values)
            if out is None:
                return ()
            if type(out) is Spec:
                return finish(op, k, made, out, values)
            return tuple(None if s is None else finish(op, k, m, s, values) for m, s in zip(made, out, strict=True))

        arrays = layout.arrays(given.values)
        if backend is not CPU and not op.random:
            found = lowered(self, self.ctx, backend, general, arrays, traits["writes"], removable=removable)
            if found is not None:
                return found[0] if type(out) is Spec else tuple(found)
        return self.emit(partial(general, k), arrays, **traits)

    def _record(
        self,
        op: Op,
        args: tuple[Any, ...],
        given: Given,
        results: Sequence[Cell | None],
        compute: DType | None,
        backend: Backend,
        plain: bool,
    ) -> None:
        """Writes a node, as `apply.record` does, with cells for tensors."""
        names = op.outputs if len(op.outputs) == len(results) else ("result",) * len(results)
        live = [
            i
            for i, (r, name) in enumerate(zip(results, names, strict=True))
            if r is not None and name not in op.nondiff and r.dtype.category >= FLOAT
        ]
        if not live:
            return
        mask, edges = 0, []
        for i, t in enumerate(given.tensors):
            edge = None if t is None else edge_of(t)
            if edge is not None and t is not None and t.dtype.category >= FLOAT:
                mask |= 1 << i
            edges.append(edge)
        saved = []
        for at in op.plan(mask, given.sizes)[1]:
            if at >= len(args):
                row = results[at - len(args)]
                if row is not None:
                    saved.append((at, -1, row.array, row.storage, row.storage.version))
                continue
            v = given.cells.get(at)
            if isinstance(v, Cell):
                saved.append((at, -1, v.array, v.storage, v.storage.version))
            elif isinstance(v, list):
                saved += [(at, j, t.array, t.storage, t.storage.version) for j, t in enumerate(v) if t is not None]
        self.ctx.seq += 1
        outs = tuple(r.spec if r is not None else None for r in results)
        kept = None if plain and compute is not None and all_of(given.specs, op, compute) else compute
        node = Node(
            op, tuple(given.specs), tuple(edges), tuple(saved), outs, mask, given.sizes, kept, backend, self.ctx.seq
        )
        tensors = [s for s in given.specs if type(s) is Spec]
        if kept is None and plain and len(outs) == 1 and not op.has_lists and not outs[0].dtype.reduced:  # type: ignore[union-attr]
            node.plain = all(not s.dtype.reduced for s in tensors)
            d = outs[0].dtype  # type: ignore[union-attr]
            node.real = node.plain and d.is_floating and all(s.dtype is d for s in tensors)
        for i in live:
            results[i].edge = (node, i)  # type: ignore[union-attr]
            results[i].requires_grad = True  # type: ignore[union-attr]

    def _view(self, op: Op, args: tuple[Any, ...]) -> Any:
        ctx = self.ctx
        source = self.cell(args[0])
        self._current(source)
        made = op.geometry(source, *args[1:])  # type: ignore[misc]
        many = type(made) is list
        results = [self._view_of(source, *geometry) for geometry in (made if many else [made])]
        for r in results:
            if r.nbytes > source.storage.nbytes:
                ctx.admit_view(r.nbytes)
        if op.vjp is None:
            return results if many else results[0]
        old = source.view
        base, steps = (source, ()) if old is None else (old.base, old.steps)
        creation = "no_grad" if not ctx.grad_enabled else "multi" if many else "default"
        if creation == "default" and old is not None:
            creation = old.creation
        rest = args[1:]
        for i, r in enumerate(results):
            r.view = View(base, (*steps, (op, rest, i)), creation, source.storage.version)
        if source.requires_grad and ctx.grad_enabled:
            outs = tuple(r.spec for r in results)
            edge = source.edge if source.edge is not None else source
            ctx.seq += 1
            node = Node(op, (source.spec, *rest), (edge,), (), outs, 1, (), None, source.backend, ctx.seq)
            node.plain = not many
            for i, r in enumerate(results):
                if r.dtype.category >= FLOAT:
                    r.edge, r.requires_grad = (node, i), True
        elif source.requires_grad:
            raise NotPlanned("a view of what requires grad is made without a tape")
        return results if many else results[0]

    def _view_of(self, source: Cell, shape: Any, strides: Any, offset: int, dtype: DType | None = None) -> Cell:
        storage, backend = source.storage, source.backend
        d = dtype or source.spec.dtype
        size = d.itemsize
        if 0 in shape:
            array = backend.xp.empty(shape, dtype=d.np)
            self.constant(array)
        else:
            flat = storage.flat
            if id(flat) not in self._slots:
                if id(storage) in self.given:
                    self._given(storage.buf, self.given[id(storage)], whole=True)
                flat = storage._flat = self.emit(
                    lambda buf: backend.flat(buf).reshape(-1), (storage.buf,), removable=True, view=True
                )
            rest = (Constant(d.np), Constant(shape), Constant(offset * size), Constant([s * size for s in strides]))
            array = self.emit(backend.view, (flat, *rest), removable=True, view=True)
        made = Cell(array, Spec(shape, d), storage, backend)
        made.tracer = self
        made.offset, made._strides = offset, strides
        self._keep.append(made)
        return made

    def _inplace(self, op: Op, args: tuple[Any, ...]) -> Any:
        ctx = self.ctx
        f: Op = op.functional  # type: ignore[assignment]
        kernel: Any = f.kernel
        given = self._sorted(f, args)
        t = given.cells.get(0)
        if not isinstance(t, Cell):
            raise NotPlanned("a number is changed in place")
        if given.mask and ctx.grad_enabled:
            raise NotPlanned("an in-place change that the tape follows")
        if t.view is not None and t.view.creation != "default" and ctx.grad_enabled:
            raise NotPlanned("a view that may not be changed in place is")
        backend = t.backend
        k = self.k_of(backend)
        out, compute = infer_inplace(op, k, given.specs)
        d = t.spec.dtype
        check_overlap(t, given.tensors[1:])
        values = copied(given.values)
        prepare(f, k, values, given.specs, compute)
        plain = same(values, given.values)
        if f.guard is not None:
            self._guard(f, k, given, compute, plain)
        self.before_write(t)
        layout = Layout(given.values)
        direct = values[0] is t.array and (f.updates or (f.elementwise and out.dtype is d))
        specs = tuple(given.specs)
        if direct and plain and layout.flat and not f.random and backend is CPU:
            arguments = [Constant(k), *layout.arguments(given.values)]
            if not lower_writes(self, kernel, arguments, [t.array], into_first=True):

                def change(*arguments: Any) -> None:
                    kernel(*arguments, out=arguments[1])

                self.emit(change, arguments, writes=[t.array], k=k, spec=out)
        else:

            def general(k: Any, *arrays: Array) -> None:
                values = layout.fill(arrays)
                prepare(f, k, values, specs, compute)
                k.spec = out
                if direct:
                    kernel(k, *values, out=arrays[0])
                    return
                made = kernel(k, *values)
                if type(made) is not k.backend.ndarray:
                    made = k.xp.asarray(made)
                arrays[0][...] = made if f.moves else k.backend.cast(made, from_numpy(made.dtype) or float32, d)

            arrays = layout.arrays(given.values)
            found = None
            if backend is not CPU and not f.random:
                found = lowered(self, ctx, backend, general, arrays, [t.array])
            if found is None:
                self.emit(partial(general, k), arrays, writes=[t.array])
        t.storage.version += 1
        return t

    # ------------------------------------------------ backward

    def backward(
        self,
        outputs: Sequence[Any],
        gradients: Sequence[Any],
        *,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Any] | None = None,
        accumulate: bool = True,
    ) -> list[Any]:
        """`autograd.run_backward` on cells."""
        if create_graph:
            raise NotPlanned("create_graph makes a tape of the gradients")
        ctx = self.ctx
        if kept_edges(ctx) is not None:
            raise NotPlanned("a tensor that is no leaf retains its gradient")
        work = TracedBackward(self, bool(retain_graph))
        roots = []
        for i, t in enumerate(map(self.cell, outputs)):
            self._current(t)
            if not t.requires_grad or t.edge is None:
                raise NotPlanned("backward from a tensor without a tape")
            gradient = gradients[i]
            if gradient is None:
                seed = seed_of_ones(t)
                self.constant(seed)
            else:
                gradient = self.cell(gradient)
                if gradient.dtype is not t.dtype:
                    raise NotPlanned("the gradient to start from has another dtype")
                seed = seed_gradient(t, gradient, i).array
            roots.append((t.edge, seed))
        edges = []
        if inputs is not None:
            inputs = [self.cell(t) for t in inputs]
            for t in inputs:
                self._current(t)
                if not t.requires_grad:
                    raise NotPlanned("an input of backward does not require grad")
                edges.append(edge_of(t))
            work.restrict([e for e, _ in roots], edges)
        mode, ctx.grad_enabled = ctx.grad_enabled, False
        try:
            for edge, seed in roots:
                work.send(edge, seed)
            work.run()
            if not accumulate:
                return [self._captured(work, e, t) for e, t in zip(edges, inputs or (), strict=True)]
            if inputs is not None and any(type(e) is tuple and work.captures.get(e) is not None for e in edges):
                raise NotPlanned("a gradient is kept at a tensor that is no leaf")
            for leaf, (g, _) in work.leaves.items():
                self._accumulate(leaf, g)  # type: ignore[arg-type]
        finally:
            ctx.grad_enabled = mode
        return list(work.leaves)

    def _captured(self, work: TracedBackward, edge: Any, t: Cell) -> Cell | None:
        if type(edge) is tuple:
            g = work.captures.get(edge)
        else:
            found = work.leaves.get(edge)
            g = None if found is None else found[0]
        if g is None:
            return None
        if t.backend is CPU:
            array = self.emit(np.ndarray.copy, (g,), removable=True)
        else:
            array = on_device(self, self.ctx, t.backend, copied_array, (g,), removable=True)
        return self.owned(array, t.spec, t.backend)

    def _accumulate(self, leaf: Cell, g: Array) -> None:
        old = self.gradient(leaf)
        if leaf.origin is None:
            raise NotPlanned("a leaf is made in the round")
        if old is None:
            if leaf.backend is CPU:
                made = self.emit(np.ndarray.copy, (g,), removable=True)
            else:
                made = on_device(self, self.ctx, leaf.backend, copied_array, (g,), removable=True)
            self.first[id(leaf)] = leaf, self.owned(made, leaf.spec, leaf.backend)
            return
        if old.requires_grad or not is_dense(old.shape, old.strides) or leaf.dtype.reduced:
            raise NotPlanned("gradients are added up in another way")
        self.before_write(old)
        if old.backend is CPU:
            self.emit(np.add, (old.array, g, old.array), writes=[old.array])
        else:
            on_device(self, self.ctx, old.backend, accumulated, (old.array, g), [old.array])
        old.storage.version += 1


__all__ = ["Tracer"]

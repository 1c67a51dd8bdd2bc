"""A backward pass of a traced round: its rules are written down as they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop
from typing import Any

import numpy as np

from engine.autograd import BackwardPass, rule_on_arrays, unfit
from engine.backend import CPU, Array, Backend
from engine.cells import NotPlanned, Tracing
from engine.dtypes import float32
from engine.fitting import fit_array, row_sums
from engine.lower import Constant, lower_rule, plain_results
from engine.op import Spec
from engine.probing import lowered, on_device
from engine.tape import FREED, Node


def _alike(a: Any, b: Any) -> bool:
    """Whether two results of rules are equal, bit for bit."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return type(a) is type(b)
    return bool(a.dtype == b.dtype and a.strides == b.strides and a.tobytes() == b.tobytes())


def _bare(node: Node) -> Node:
    """A node as its rule needs it: without edges, which would keep the round's tensors."""
    made = Node(node.op, node.args, (), (), node.outs, node.mask, node.sizes, node.compute, node.backend, node.seq)
    made.plain, made.real = node.plain, node.real
    return made


class TracedBackward(BackwardPass):
    """A backward pass whose rules are written down."""

    def __init__(self, tracer: Tracing, retain: bool) -> None:
        super().__init__(tracer.ctx, False, retain)
        self.tracer = tracer

    def add(self, a: Any, b: Any, spec: Spec) -> Any:
        backend = next((one for one in self.ctx.ks if type(a) is one.ndarray), CPU)
        if backend is not CPU:
            d = spec.dtype

            def general(k: Any, a: Array, b: Array) -> Array:
                if not d.reduced:
                    return k.xp.add(a, b)
                return k.backend.cast(k.xp.add(k.backend.widen(a, d), k.backend.widen(b, d)), float32, d)

            return on_device(self.tracer, self.ctx, backend, general, (a, b), removable=True)
        if spec.dtype.reduced:
            raise NotPlanned("gradients of a reduced dtype are added up")
        if spec.shape:
            return self.tracer.emit(np.add, (a, b), ufunc=True)
        return self.tracer.emit(lambda a, b: np.asarray(a + b), (a, b))

    def run(self) -> None:
        captures = self.captures if self.needed is not None else {}
        while self.heap:
            node = heappop(self.heap)[1]
            g = self.buffers.pop(node)
            if self.needed is not None:
                for i in range(len(node.outs)):
                    if (node, i) in captures:
                        captures[node, i] = g if len(node.outs) == 1 else g[i]
                if node not in self.needed:
                    continue
            if node.saved is FREED:
                raise NotPlanned("a tape is used twice")
            for _, _, _, storage, version in node.saved:
                if storage is not None and storage.version != version:
                    raise NotPlanned("a saved tensor was changed in place")
            for edge, made in zip(node.edges, self.rule(node, g), strict=False):  # a rule may give the first one alone
                if edge is None or made is None or made is False:
                    continue
                spec, backend = (
                    (edge[0].outs[edge[1]], edge[0].backend) if type(edge) is tuple else (edge.spec, edge.backend)
                )
                self.send(edge, self.fitted(made, spec, backend, node))
            if not self.retain and node.saved:
                node.saved = FREED

    def rule(self, node: Node, g: Any) -> Sequence[Any]:
        """The node's rule, as `rule_on_arrays` runs it."""
        tracer = self.tracer
        k = tracer.k_of(node.backend)
        rows = node.saved
        several = type(g) is list
        given = [x for x in g if x is not None] if several else [g]
        pattern = [x is not None for x in g] if several else None
        again = _bare(node)
        places = [(at, sub) for at, sub, _, _, _ in rows]

        def call(*arrays: Array) -> Any:
            rest = iter(arrays)
            again.saved = tuple([(at, sub, next(rest), None, 0) for at, sub in places])
            sent: Any = next(rest) if pattern is None else [next(rest) if there else None for there in pattern]
            try:
                return plain_results(rule_on_arrays(again, sent, k)[1])
            finally:
                again.saved = ()  # or a plan that is kept would hold the arrays of its last round

        arrays = [row[2] for row in rows]
        if node.backend is not CPU:

            def general(k: Any, *arrays: Array) -> Any:
                again.backend = k.backend
                rest = iter(arrays)
                again.saved = tuple([(at, sub, next(rest), None, 0) for at, sub in places])
                sent: Any = next(rest) if pattern is None else [next(rest) if there else None for there in pattern]
                try:
                    return tuple(rule_on_arrays(again, sent, k)[1])
                finally:
                    again.saved, again.backend = (), node.backend

            found = lowered(tracer, self.ctx, node.backend, general, [*arrays, *given], removable=True)
            if found is not None:
                return found  # type: ignore[no-any-return]
        if node.plain and not several and node.backend is CPU:

            def probed(saved: Sequence[Any], sent: Any, wrapped: Any) -> Any:
                values = [*node.args, *node.outs]
                for (at, _), x in zip(places, saved, strict=True):
                    values[at] = x
                fast = node.op.array_vjp
                if fast is not None and node.real:
                    return fast(wrapped(k), values, sent, node.mask)
                need = node.op.plan(node.mask, ())[0]
                return node.op.vjp(wrapped(k).raw, node.op.saved_type._make(values), sent, need)  # type: ignore[misc]

            key = (node.op.name, node.mask, node.real, repr(node.args))
            seq = self.ctx.seq
            gradients = lower_rule(tracer, call, probed, arrays, given[0], key)
            self.ctx.seq = seq
            if gradients is not None:
                return gradients
        elif several and node.backend is CPU and node.op.array_vjp is not None:
            fast = self._fast(node, places, arrays, g, call)
            if fast is not None:
                return tracer.emit(fast[0], [*arrays, *given], made=fast[1])  # type: ignore[no-any-return]
        return tracer.emit(call, [*arrays, *given])  # type: ignore[no-any-return]

    def _fast(
        self, node: Node, places: Any, arrays: Sequence[Array], g: Sequence[Any], general: Callable[..., Any]
    ) -> Any:
        """The rule on arrays of an operation with several results, and what it gives; None where it does not do."""
        k, mask = self.tracer.k_of(node.backend), node.mask
        rule: Any = node.op.array_vjp
        template = [*node.args, *node.outs]
        specs = [x for x in template if type(x) is Spec]
        wide = node.compute is None or all(s.dtype is node.compute for s in specs if s.dtype.is_floating)
        if not wide or any(s.dtype.reduced for s in specs) or any(sub >= 0 for _, sub in places):
            return None
        pattern = [x is not None for x in g]

        def call(*arrays: Array) -> Any:
            rest = iter(arrays)
            values = template.copy()
            for at, _ in places:
                values[at] = next(rest)
            made = rule(k, values, [next(rest) if there else None for there in pattern], mask)
            return made if made is NotImplemented else plain_results(made)

        given = [*arrays, *[x for x in g if x is not None]]
        made = call(*given)
        same = made is not NotImplemented and all(map(_alike, made, general(*given)))
        return (call, made) if same else None

    def _summed(self, ones: Array, g: Array) -> Array:
        """What `fit_array` makes of rows that it adds up as a product, which may go into memory that stays."""
        tracer = self.tracer
        if g.ndim != 2:
            form = (len(ones), g.shape[-1])
            g = tracer.emit(lambda array: array.reshape(form), (g,), removable=True, view=True)
        tracer.constant(ones)
        return tracer.emit(np.matmul, (ones, g), removable=True, ufunc=True)

    def fitted(self, made: Array, spec: Spec, backend: Backend, node: Node) -> Array:
        if (
            made.shape != spec.shape
            or made.dtype is not spec.dtype.np
            or (not node.plain and unfit(node, spec, backend))
        ):
            bare = _bare(node)
            if backend is not CPU and backend is node.backend:

                def general(k: Any, array: Array) -> Array:
                    bare.backend = k.backend
                    return fit_array(array, spec, k.backend, bare)

                found = lowered(self.tracer, self.ctx, backend, general, (made,), removable=True)
                bare.backend = backend
                if found is not None:
                    return found[0]
            if backend is CPU and node.backend is CPU and made.dtype is spec.dtype.np and not spec.dtype.reduced:
                ones = row_sums(made, spec.shape)
                if ones is not None:
                    return self._summed(ones, made)
            return self.tracer.emit(fit_array, (made, Constant(spec), Constant(backend), Constant(bare)))
        return made


# ---------------------------------------------------------------- the steps that run one


def _backward_step(tracer: Any, input: Any, gradient: Any, retain: Any, create: bool, inputs: Any) -> None:
    tracer.backward([input], [gradient], retain_graph=retain, create_graph=create, inputs=inputs)


def _backward_steps(tracer: Any, tensors: Any, grads: Any, retain: Any, create: bool, inputs: Any) -> None:
    seeds = [None] * len(tensors) if grads is None else grads
    if len(seeds) != len(tensors):
        raise NotPlanned("the gradients are not as many as the tensors")
    tracer.backward(tensors, seeds, retain_graph=retain, create_graph=create, inputs=inputs)


def _grad_step(
    tracer: Any, outputs: Any, inputs: Any, grads: Any, retain: Any, create: bool, unused: bool | None
) -> list[Any]:
    seeds = [None] * len(outputs) if grads is None else grads
    if len(seeds) != len(outputs):
        raise NotPlanned("the gradients are not as many as the tensors")
    found = tracer.backward(outputs, seeds, retain_graph=retain, create_graph=create, inputs=inputs, accumulate=False)
    if not unused and any(g is None for g in found):
        raise NotPlanned("an input was not used")
    return found  # type: ignore[no-any-return]


SPECIAL: dict[str, Callable[..., Any]] = {
    "backward": _backward_step,
    "autograd.backward": _backward_steps,
    "autograd.grad": _grad_step,
}


__all__ = ["SPECIAL", "TracedBackward"]

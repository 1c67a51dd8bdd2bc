"""Backward: gradients by walking the tape.

The sequence number of a node is the topological order, so ready nodes are taken from a heap, highest number first:
no recursion, whatever the depth. On arrays (`Raw`) where the gradients themselves need no tape, on tensors (`Rec`)
with create_graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from time import perf_counter
from typing import Any

import numpy as np

from engine.backend import CPU, Array, Backend
from engine.carriers import NUMBERS, K, to_compute
from engine.context import HERE, Context, grad_mode, out_of_time
from engine.dtypes import TENSOR_TYPES, DType, cast_scalar, float32, from_numpy
from engine.errors import (
    Call,
    DeviceMismatch,
    DtypeMismatch,
    Hint,
    NoGradient,
    NotScalar,
    Param,
    SavedChanged,
    ShapeMismatch,
    TapeFreed,
)
from engine.fitting import fit_array
from engine.op import LIST, REGISTRY, Spec
from engine.record import REC
from engine.shapes import is_dense, text
from engine.tape import FREED, Edge, Node, edge_of, kept_edges, node_words, refresh, refuse_nan
from engine.tensor import Storage, Tensor, fresh

# ---------------------------------------------------------------- backward


def _changed(node: Node, at: int, array: Array, storage: Storage, version: int) -> SavedChanged:
    spec = node.args[at] if at < len(node.args) else node.outs[at - len(node.args)]
    if type(spec) is list:
        spec = spec[0]
    index, maker = 0, node.grad_fn
    if at < len(node.args):
        for slot, edge in zip(node.op.slots, node.edges, strict=False):
            if slot[0] == at and type(edge) is tuple:
                maker, index = edge[0].grad_fn, edge[1]
    where = "torch.cuda." if node.backend.kind == "cuda" else "torch."
    produced = f", which is output {index} of {node_words(maker)}," if maker else ""
    return SavedChanged(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{where}{TENSOR_TYPES[spec.dtype.name]} {text(spec.shape)}]{produced} is at version {storage.version}; "
        f"expected version {version} instead. Hint: enable anomaly detection to find the operation that failed to "
        "compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).",
        hint=Hint("saved-changed", op=node.op.name),
    )


def freed() -> TapeFreed:
    """The error of a backward pass through a tape whose saved values are gone, in PyTorch's words."""
    return TapeFreed(
        "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
        "been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
        "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access "
        "saved tensors after calling backward.",
        hint=Hint("retain-graph", Call("backward", {"input": Param("input"), "retain_graph": True})),
    )


def _saved_arrays(node: Node, k: K) -> tuple[Any, list[Any]]:
    """The rule's `saved` on arrays: operands as they were after promotion; what was not saved is a Spec."""
    op = node.op
    if node.saved is FREED:
        raise freed()
    values = list(node.args)
    n = len(values)
    values += node.outs[:1] if op.multi_view else node.outs
    compute = node.compute
    backend = node.backend
    for at, sub, array, storage, version in node.saved:
        if storage is not None and storage.version != version:
            raise _changed(node, at, array, storage, version)
        spec = values[at] if sub < 0 else node.args[at][sub]
        if compute is not None and at < n and at in op.promote_at:
            if type(array) is not backend.ndarray:  # a 0-d CPU tensor beside tensors of another device
                array = backend.from_host(array)
            array = to_compute(backend, array, spec.dtype, compute, compute.compute)
        elif spec.dtype.reduced and not op.moves:
            array = backend.widen(array, spec.dtype)
        if sub < 0:
            values[at] = array
        else:
            if values[at] is node.args[at]:
                values[at] = list(values[at])
            values[at][sub] = array
    if compute is not None and not op.numbers:
        for at in op.promote_at:
            if type(values[at]) in NUMBERS:
                wide = compute.compute
                values[at] = k.xp.asarray(cast_scalar(values[at], wide), dtype=wide.np)
    return op.saved_type._make(values), values


def _saved_tensors(node: Node) -> Any:
    """The rule's `saved` on tensors with their history, for create_graph."""
    op = node.op
    if node.saved is FREED:
        raise freed()
    values = list(node.args)
    n = len(values)
    values += node.outs[:1] if op.multi_view else node.outs
    edges = _edges_by_position(node)
    compute = node.compute
    for at, sub, array, storage, version in node.saved:
        if storage is not None and storage.version != version:
            raise _changed(node, at, array, storage, version)
        spec = values[at] if sub < 0 else node.args[at][sub]
        edge = (node, at - n) if at >= n else edges.get((at, sub))
        if at >= n and op.outputs[at - n] in op.nondiff:
            edge = None
        if type(edge) is Tensor:
            t = edge
        else:
            if storage is None:
                t = fresh(array, spec, node.backend, HERE.ctx.ledger)
            else:
                t = Tensor(array, spec, storage, storage.backend)
                t.offset = offset_in(array, storage)
            if edge is not None and (spec.dtype.is_floating or spec.dtype.is_complex):
                t.edge, t.requires_grad = edge, True
        if compute is not None and at < n and at in op.promote_at:
            if t.backend is not node.backend:
                t = REC._to_device(t, node.backend.name)
            t = _as(t, compute.compute)
        elif spec.dtype.reduced and not op.moves:
            t = _as(t, float32)
        if sub < 0:
            values[at] = t
        else:
            if values[at] is node.args[at]:
                values[at] = list(values[at])
            values[at][sub] = t
    if compute is not None and not op.numbers:
        for at in op.promote_at:
            if type(values[at]) in NUMBERS:
                wide = compute.compute
                array = node.backend.asarray(cast_scalar(values[at], wide), wide.np)
                values[at] = fresh(array, Spec((), wide), node.backend, HERE.ctx.ledger)
    return op.saved_type._make(values)


def offset_in(array: Array, storage: Storage) -> int:
    """Elements from the start of the storage to the array's first; only views need it, and it is exact for them."""
    try:
        start = array.__array_interface__["data"][0] - storage.flat.__array_interface__["data"][0]
    except AttributeError:
        start = array.data.ptr - storage.flat.data.ptr
    return int(start // array.itemsize) if array.size else 0


def _edges_by_position(node: Node) -> dict[tuple[int, int], Edge]:
    out: dict[tuple[int, int], Edge] = {}
    i = 0
    lists = iter(node.sizes)
    for at, form in node.op.slots:
        if form == LIST:
            for j in range(next(lists)):
                out[at, j] = node.edges[i]
                i += 1
        else:
            out[at, -1] = node.edges[i]
            i += 1
    return out


def _as(t: Tensor, d: DType) -> Tensor:
    if t.spec.dtype is d:
        return t
    return REGISTRY["_to_dtype"].run((t, d))  # type: ignore[no-any-return]


def _flatten(node: Node, grads: Any) -> Sequence[Any]:
    """A rule's answer as one gradient per flattened input."""
    if type(grads) is not tuple:  # the first input's alone
        grads = (grads, *(None,) * (len(node.op.slots) - 1))
    if not node.sizes:
        return grads  # type: ignore[no-any-return]
    flat: list[Any] = []
    lists = iter(node.sizes)
    for (_, form), g in zip(node.op.slots, grads, strict=True):
        if form == LIST:
            n = next(lists)
            flat.extend(g if g is not None and g is not False else [None] * n)
        else:
            flat.append(g)
    return flat


def _fit_tensor(g: Tensor, spec: Spec) -> Tensor:
    if g.shape != spec.shape and g.ndim < len(spec.shape):  # as in fitting.sum_to
        g = REC.reshape(g, spec.shape)
    if g.shape != spec.shape:
        extra = g.ndim - len(spec.shape)
        axes = list(range(extra)) + [i + extra for i, n in enumerate(spec.shape) if n == 1 and g.shape[i + extra] != 1]
        if axes:
            g = REC.sum(g, axes, True)
        g = REC.reshape(g, spec.shape)
    if g.dtype.is_complex and not spec.dtype.is_complex:
        g = REC.real(g)
    return _as(g, spec.dtype)


_make = tuple.__new__  # of a namedtuple's type and its values; a third of the time that its own `_make` takes


def rule_on_arrays(node: Node, g: Any, k: K) -> tuple[list[Any], Sequence[Any]]:
    """Runs a node's rule: the values it was given, and one gradient per flattened input."""
    op = node.op
    if node.plain:  # the common case, written out
        values = [*node.args, *node.outs]
        if node.saved is FREED:
            raise freed()
        for at, _, array, storage, version in node.saved:
            if storage is not None and storage.version != version:
                raise _changed(node, at, array, storage, version)
            values[at] = array
        fast = op.array_vjp
        if fast is not None and node.real:
            return values, fast(k, values, g, node.mask)
        need = op.needs.get(node.mask) or op.plan(node.mask, ())[0]
        grads = op.vjp(k.raw, _make(op.saved_type, values), g, need)  # type: ignore[misc]
        return values, grads if type(grads) is tuple else (grads,)
    saved, values = _saved_arrays(node, k)
    if not op.moves:
        if len(node.outs) == 1:
            g = k.backend.widen(g, node.outs[0].dtype)
        else:
            g = [
                x if x is None or not s.dtype.reduced else k.backend.widen(x, s.dtype)
                for x, s in zip(g, node.outs, strict=True)
            ]
    grads = op.vjp(k.raw, saved, g, op.plan(node.mask, node.sizes)[0])  # type: ignore[misc]
    return values, _flatten(node, grads)


def _unseen(made: Array, g: Any, values: Sequence[Any], grads: Sequence[Any], backend: Backend) -> bool:
    """Whether a rule's answer, which has no base, is seen by nobody else: not what came in, and given only once."""
    if made is g:
        return False
    once = 0
    for other in grads:
        if other is made:
            once += 1
    if once > 1:
        return False
    if backend.kind != "cpu":
        flat = [y for x in (g, *values) for y in (x if type(x) is list else (x,))]
        return backend.is_fresh(made, flat)
    for value in values:  # an array that owns its memory is seen by others only as itself
        if value is made or (type(value) is list and any(x is made for x in value)):
            return False
    return type(g) is not list or not any(x is made for x in g)


def unfit(node: Node, spec: Spec, backend: Backend) -> bool:
    """Whether a gradient of an input's shape and dtype may still be something else than its gradient in storage."""
    return (spec.dtype.reduced and not node.op.moves) or node.backend is not backend


class BackwardPass:
    """One backward pass."""

    # Set by `restrict`, where only some gradients are wanted.
    needed: set[Node] | None = None
    captures: dict[tuple[Node, int], Any]
    wanted_leaves: set[Tensor] | None = None

    def __init__(self, ctx: Context, create_graph: bool, retain_graph: bool) -> None:
        self.ctx = ctx
        self.recorded = create_graph
        self.retain = retain_graph
        self.heap: list[tuple[int, Node]] = []
        self.buffers: dict[Node, Any] = {}
        self.leaves: dict[Tensor, tuple[Any, bool]] = {}
        self.anomaly = ctx.anomaly
        self.kept = kept_edges(ctx)
        self.retained: list[tuple[Tensor, Any]] = []  # (tensor that is no leaf, its gradient)

    def send(self, edge: Edge, g: Any, owned: bool = False) -> None:
        """Adds a gradient, which fits, to what an edge has received."""
        if type(edge) is tuple:
            node, i = edge
            buffer = self.buffers.get(node)
            if buffer is None:
                heappush(self.heap, (-node.seq, node))
                if len(node.outs) == 1:
                    self.buffers[node] = g
                else:
                    buffer = self.buffers[node] = [None] * len(node.outs)
                    buffer[i] = g
            elif len(node.outs) == 1:
                self.buffers[node] = self.add(buffer, g, node.outs[0])
            else:
                buffer[i] = g if buffer[i] is None else self.add(buffer[i], g, node.outs[i])
        else:
            if self.wanted_leaves is not None and edge not in self.wanted_leaves:
                return
            old = self.leaves.get(edge)
            if old is None:
                self.leaves[edge] = (g, owned)
            else:
                self.leaves[edge] = (self.add(old[0], g, edge.spec), True)

    def add(self, a: Any, b: Any, spec: Spec) -> Any:
        if self.recorded:
            return a + b
        if spec.dtype.reduced:
            backend = CPU if type(a) is np.ndarray else self.ctx.default_backend
            for k in self.ctx.ks:
                if type(a) is k.ndarray:
                    backend = k
            d = spec.dtype
            return backend.cast(backend.widen(a, d) + backend.widen(b, d), float32, d)
        made = a + b
        return made if type(made) is type(a) else np.asarray(made)

    def run(self) -> None:
        """Takes ready nodes, highest number first, and sends what their rules give along their edges."""
        heap, buffers, leaves, needed, wanted = self.heap, self.buffers, self.leaves, self.needed, self.wanted_leaves
        captures = self.captures if needed is not None else {}
        recorded, retain, anomaly, kept = self.recorded, self.retain, self.anomaly, self.kept
        ks, undo, deadline = self.ctx.ks, self.ctx.undo, self.ctx.deadline
        while heap:
            if perf_counter() > deadline:  # a pass is one step, however long the tape
                raise out_of_time(self.ctx.max_seconds)
            node = heappop(heap)[1]
            g = buffers.pop(node)
            if kept is not None:
                for i, part in enumerate([g] if len(node.outs) == 1 else g):
                    here = needed is None or node in needed or (node, i) in captures
                    if part is not None and here and (node, i) in kept:
                        self.retained.append((kept[node, i], part))
            if needed is not None:
                for i in range(len(node.outs)):
                    if (node, i) in captures:
                        captures[node, i] = g if len(node.outs) == 1 else g[i]
                if node not in needed:
                    continue
            if recorded:
                self.step_recorded(node, g)
            else:
                backend = node.backend
                ndarray = backend.ndarray
                plain = node.plain
                values, grads = rule_on_arrays(node, g, ks[backend])
                if anomaly:
                    refuse_nan(self.ctx, node, grads)
                # This loop runs once per input of every node, so `send` is written out for the common cases.
                for edge, made in zip(node.edges, grads):  # noqa: B905  # strict costs, and a law checks the lengths
                    if edge is None or made is None or made is False:
                        continue
                    if type(edge) is tuple:
                        target, i = edge
                        outs = target.outs
                        spec = outs[i]
                        if (
                            type(made) is not ndarray
                            or made.shape != spec.shape
                            or made.dtype is not spec.dtype.np
                            or (not plain and unfit(node, spec, target.backend))
                        ):
                            made = fit_array(made, spec, target.backend, node)
                        if len(outs) == 1 and target not in buffers:
                            buffers[target] = made
                            heappush(heap, (-target.seq, target))
                        else:
                            self.send(edge, made)
                    elif wanted is None or edge in wanted:
                        spec = edge.spec
                        if (
                            type(made) is not ndarray
                            or made.shape != spec.shape
                            or made.dtype is not spec.dtype.np
                            or (not plain and unfit(node, spec, edge.backend))
                        ):
                            made = fit_array(made, spec, edge.backend, node)
                        if edge in leaves:
                            self.send(edge, made)
                        else:
                            # What anything else can see, or is not plain memory, is copied when it becomes .grad.
                            leaves[edge] = (made, made.base is None and _unseen(made, g, values, grads, edge.backend))
            if not retain and node.saved and node.saved is not FREED:
                if node.seq < undo.start_seq:
                    undo.node(node, "saved")
                node.saved = FREED

    def step_recorded(self, node: Node, g: Any) -> None:
        op = node.op
        saved = _saved_tensors(node)
        if len(node.outs) == 1:
            if node.outs[0].dtype.reduced and not op.moves:
                g = _as(g, float32)
        elif not op.moves:
            g = [x if x is None or not x.dtype.reduced else _as(x, float32) for x in g]
        need = op.plan(node.mask, node.sizes)[0]
        grads = _flatten(node, op.vjp(REC, saved, g, need))  # type: ignore[misc]
        if self.anomaly:
            refuse_nan(self.ctx, node, [x.array if type(x) is Tensor else x for x in grads])
        tied = op.ties if type(op.ties) is bool else op.ties(*node.args)
        for edge, gi in zip(node.edges, grads, strict=True):
            if edge is None or gi is None or gi is False:
                continue
            target = edge[0].outs[edge[1]] if type(edge) is tuple else edge.spec
            made = _fit_tensor(gi, target)
            if tied:
                made = self._tied(node, made)
            where = edge[0].backend if type(edge) is tuple else edge.backend
            self.send(edge, made if made.backend is where else REC._to_device(made, where.name))

    def _tied(self, node: Node, g: Tensor) -> Tensor:
        """A gradient as a function of the node's inputs too, though it does not depend on them: the node needs their
        edges and specs, and none of their values."""
        places = _edges_by_position(node)
        inputs = [
            (node.args[at] if sub < 0 else node.args[at][sub], e) for (at, sub), e in places.items() if e is not None
        ]
        own = edge_of(g)
        edges = (own, *(e for _, e in inputs))
        mask = (1 << len(edges)) - (2 if own is None else 1)
        args, sizes = (g.spec, [spec for spec, _ in inputs]), (len(inputs),)
        seq = self.ctx.next_seq()
        made = Tensor(g.array, g.spec, g.storage, g.backend)
        made.offset = g.offset
        tie = Node(REGISTRY["_tied"], args, edges, (), (g.spec,), mask, sizes, None, g.backend, seq)
        tie.name = node.grad_fn.replace("Backward", "BackwardBackward")
        made.edge, made.requires_grad = (tie, 0), True
        return made

    def restrict(self, roots: Sequence[Edge], inputs: Sequence[Edge]) -> None:
        """Only what lies between the roots and these inputs is to run."""
        wanted = {e for e in inputs if type(e) is tuple}
        self.wanted_leaves = {e for e in inputs if type(e) is not tuple}
        seen: dict[int, Node] = {}
        stack = [e[0] for e in roots if type(e) is tuple]
        while stack:
            node = stack.pop()
            if node.seq in seen:
                continue
            seen[node.seq] = node
            stack.extend(e[0] for e in node.edges if type(e) is tuple and e[0].seq not in seen)
        needed: set[Node] = set()
        for seq in sorted(seen):
            node = seen[seq]
            for e in node.edges:
                if e is None:
                    continue
                if (type(e) is tuple and (e[0] in needed or e in wanted)) or (
                    type(e) is not tuple and e in self.wanted_leaves
                ):
                    needed.add(node)
                    break
        self.needed = needed
        self.captures = dict.fromkeys(wanted)


def _check_scalar(output: Tensor) -> None:
    """Only a real scalar has a gradient to start from that goes without saying."""
    if output.numel != 1:
        raise NotScalar(
            "grad can be implicitly created only for scalar outputs",
            hint=Hint("backward-scalar", Call("sum", {"input": Param("input")}), shape=list(output.shape)),
            param="gradient",
        )
    if not output.dtype.is_floating:
        raise NotScalar(
            f"grad can be implicitly created only for real scalar outputs but got torch.{output.dtype.name}",
            hint=Hint("backward-real"),
            param="gradient",
        )


_ones: dict[tuple[Backend, DType], Array] = {}


def seed_of_ones(output: Tensor) -> Array:
    """1 in the output's shape and storage dtype; the 0-d one is shared, so nobody may write into it."""
    spec = output.spec
    found = None if spec.shape else _ones.get((output.backend, spec.dtype))
    if found is None:
        _check_scalar(output)
        d = spec.dtype
        ones = output.backend.xp.ones(spec.shape, d.compute.np)
        found = ones if d.compute is d else output.backend.cast(ones, d.compute, d)
        if not spec.shape:
            _ones[output.backend, d] = found
    return found


def seed_gradient(output: Tensor, gradient: Tensor | None, index: int) -> Tensor:
    """The gradient to start from; 1 for a real scalar. Raises in PyTorch's words."""
    if gradient is None:
        _check_scalar(output)
        return REC.ones_like(output)  # type: ignore[no-any-return]
    if gradient.shape != output.shape:
        raise ShapeMismatch(
            f"Mismatch in shape: grad_output[{index}] has a shape of torch.Size({text(gradient.shape)}) and "
            f"output[{index}] has a shape of torch.Size({text(output.shape)}).",
            hint=Hint("gradient-shape", shape=list(output.shape)),
            param="gradient",
        )
    if gradient.backend is not output.backend:
        raise DeviceMismatch(
            f"invalid gradient at index {index} - expected device {output.device} but got {gradient.device}",
            hint=Hint("move-device", Call("to", {"input": Param("gradient"), "device": output.device})),
            param="gradient",
        )
    if gradient.dtype.is_complex != output.dtype.is_complex:
        raise DtypeMismatch(
            "For complex Tensors, both grad_output and output are required to have the same dtype. Mismatch in dtype: "
            f"grad_output[{index}] has a dtype of torch.{gradient.dtype.name} and output[{index}] has a dtype of "
            f"torch.{output.dtype.name}.",
            param="gradient",
        )
    if gradient.dtype is not output.dtype:
        gradient = _as(gradient, output.dtype)
    return gradient


def run_backward(
    outputs: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Sequence[Tensor] | None = None,
    accumulate: bool = True,
) -> list[Tensor | None]:
    """torch.autograd.backward and the core of torch.autograd.grad.

    With `accumulate`, adds to `.grad` of the leaves (or of `inputs`) and returns the leaves it reached; without,
    returns the gradients of `inputs`, None where unused.
    """
    ctx = HERE.ctx
    retain = create_graph if retain_graph is None else retain_graph
    work = BackwardPass(ctx, create_graph, retain)
    roots = []
    for i, t in enumerate(outputs):
        gradient = gradients[i]
        if t.view is not None:
            refresh(t)
        if not t.requires_grad:
            raise NoGradient(
                f"element {i} of tensors does not require grad and does not have a grad_fn",
                hint=Hint("requires-grad", Call("requires_grad_", {"input": Param("input")})),
            )
        if gradient is None and not create_graph:
            roots.append((t if t.edge is None else t.edge, seed_of_ones(t)))
            continue
        with grad_mode(create_graph):
            seed = seed_gradient(t, gradient, i)
            roots.append((edge_of(t), seed if create_graph else seed.array))
    edges: list[Edge] = []
    if inputs is not None:
        for t in inputs:
            if t.view is not None:
                refresh(t)
            if not t.requires_grad:
                words = "One of the differentiated Tensors does not require grad"
                raise NoGradient(words, hint=Hint("requires-grad"), param="inputs")
            edges.append(edge_of(t))
        work.restrict([e for e, _ in roots], edges)
    mode, ctx.grad_enabled = ctx.grad_enabled, create_graph
    try:
        for edge, seed in roots:
            work.send(edge, seed)
        work.run()
        for t, g in work.retained:
            if not accumulate or inputs is None or all(t is not x for x in inputs):
                _accumulate(ctx, t, g, False, create_graph)
        if not accumulate:
            return [_captured(work, e, t) for e, t in zip(edges, inputs or (), strict=True)]
        if inputs is not None:
            for e, t in zip(edges, inputs, strict=True):
                if type(e) is tuple and work.captures.get(e) is not None:
                    work.leaves[t] = (work.captures[e], False)
        for leaf, (g, own) in work.leaves.items():
            if own and leaf.grad is None and not create_graph and g.flags.c_contiguous:
                if leaf.uid:
                    ctx.undo.slot(leaf, "grad")
                leaf.grad = fresh(g, leaf.spec, leaf.backend, ctx.ledger)
            else:
                _accumulate(ctx, leaf, g, own, create_graph)
    finally:
        ctx.grad_enabled = mode
    return [*work.leaves, *(t for t, _ in work.retained if t not in work.leaves)]


def _captured(work: BackwardPass, edge: Edge, t: Tensor) -> Tensor | None:
    if type(edge) is tuple:
        g = work.captures.get(edge)
    else:
        found = work.leaves.get(edge)
        g = None if found is None else found[0]
    if g is None or type(g) is Tensor:
        return g
    array = g if g.base is None and g.flags.c_contiguous and not work.recorded else g.copy()
    if any(array is x.array for x in (t,)):
        array = array.copy()
    return fresh(array.copy() if array is g else array, t.spec, t.backend, work.ctx.ledger)


def _accumulate(ctx: Context, leaf: Tensor, g: Any, own: bool, recorded: bool) -> None:
    """AccumulateGrad: a new `.grad`, or an addition to the one there is."""
    undo = ctx.undo
    old = leaf.grad
    if recorded:
        undo.slot(leaf, "grad")
        leaf.grad = g if old is None else old + g
        return
    if old is None:
        undo.slot(leaf, "grad")
        if not own or g.base is not None or not g.flags.c_contiguous:
            g = g.copy()
        leaf.grad = fresh(g, leaf.spec, leaf.backend, ctx.ledger)
        return
    d = leaf.spec.dtype
    if old.requires_grad or not is_dense(old.shape, old.strides):
        undo.slot(leaf, "grad")
        made = REC.add(old, fresh(g.copy(), leaf.spec, leaf.backend, ctx.ledger))
        leaf.grad = made
        return
    low, high = old.touched()
    undo.write(old.storage, low, high)
    if d.reduced:
        b = leaf.backend
        old.array[...] = b.cast(b.widen(old.array, d) + b.widen(g, d), float32, d)
    else:
        leaf.backend.xp.add(old.array, g, out=old.array)
    undo.slot(old.storage, "version")
    old.storage.version += 1


def _leaf_of(array: Array, k: K) -> Tensor:
    """A tensor of its own with an array's values, which may be strided; a plain array serves as it is."""
    if type(array) is not k.backend.ndarray or not array.flags.c_contiguous:
        array = k.xp.array(array, order="C")
    return fresh(array, Spec(array.shape, from_numpy(array.dtype) or float32), k.backend, HERE.ctx.ledger)


def vjp_through(reference: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for a fast kernel: the gradient of a reference composite at the saved inputs, which must all be saved."""

    def rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
        names = [n for n, wanted in vars(need).items() if wanted is True]
        values = list(saved)
        fields = saved._fields
        leaves = []
        for name in names:
            at = fields.index(name)
            v = values[at]
            if not F.recording:
                v = _leaf_of(v, F.k)
                v.requires_grad = True
            elif not v.requires_grad:
                v.requires_grad = True
            else:
                v = REC.view(v, v.shape)  # one tensor given twice has a gradient in each place
            values[at] = v
            leaves.append(v)
        n = reference.__code__.co_argcount - 1
        for at in range(n):
            v = values[at]
            if hasattr(v, "dtype") and type(v) not in (Tensor, Spec):
                values[at] = _leaf_of(v, F.k)
        with grad_mode(True):
            out = reference(REC, *values[:n])
            seed = g if F.recording else _leaf_of(g, F.k)
            found: list[Any] = [None] * len(leaves)
            if out.requires_grad:  # else the result does not depend on the inputs, as of sizes 0
                found = run_backward([out], [seed], inputs=leaves, create_graph=F.recording, accumulate=False)
            found = [REC.zeros_like(leaf) if x is None else x for x, leaf in zip(found, leaves, strict=True)]
        made = found if F.recording else [x.array for x in found]
        by_name = dict(zip(names, made, strict=True))
        return tuple(by_name.get(fields[at]) for at in range(n) if hasattr(need, fields[at]))

    return rule

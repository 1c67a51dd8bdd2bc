"""The tape: nodes, and the rules that keep them true when memory changes.

A node is data: the operation, its arguments (specs in place of tensors), the edges of its inputs, fixed when it was
recorded, the saved values with the versions they had, and a sequence number, which is the topological order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.backend import Backend
from engine.carriers import view_specs
from engine.context import HERE, Context
from engine.dtypes import DType
from engine.errors import Call, Conflict, Hint, Invalid, LeafInPlace, NoGradient, Param
from engine.op import REGISTRY, Op
from engine.shapes import has_internal_overlap
from engine.tensor import Tensor, View

# ---------------------------------------------------------------- nodes

Edge = Any  # (node, output index), a leaf Tensor, or None
FREED: Any = ("freed",)


class Node:
    """One recorded operation. `mask` has a bit for each input, lists flattened, whose gradient is wanted.

    `sizes`: the lengths of list arguments. `compute`: the dtype computed in, where operands were promoted.
    `name`: torch's grad_fn, where it is not the operation's own. `plain`: whether it has one output, all its tensors
    are on one device, and nothing was promoted, widened or gathered from a list, so that backward can skip all that.
    `real`: whether all its tensors are of one real dtype besides.
    """

    name = ""

    def __init__(
        self,
        op: Op,
        args: tuple[Any, ...],
        edges: tuple[Edge, ...],
        saved: tuple[Any, ...],
        outs: tuple[Any, ...],
        mask: int,
        sizes: tuple[int, ...],
        compute: DType | None,
        backend: Backend,
        seq: int,
    ) -> None:
        self.op = op
        self.args = args
        self.edges = edges
        self.saved = saved
        self.outs = outs
        self.mask = mask
        self.sizes = sizes
        self.compute = compute
        self.backend = backend
        self.seq = seq
        self.plain = self.real = False

    @property
    def grad_fn(self) -> str:
        rule = self.op.node_rule
        return self.name or (self.op.node if rule is None else rule(*self.args))

    @property
    def saved_bytes(self) -> int:
        return 0 if self.saved is FREED else sum(row[2].nbytes for row in self.saved)

    def __repr__(self) -> str:
        return f"<{self.grad_fn} #{self.seq}>"


def edge_of(t: Tensor) -> Edge:
    """Where a tensor's gradient goes: (node, output index), the leaf itself, or None."""
    return (t.edge if t.edge is not None else t) if t.requires_grad else None


def refresh(t: Tensor) -> None:
    """Recomputes a view's edge from its base where the memory changed since: another view, or the base, was written."""
    view = t.view
    if view is None or view.version == t.storage.version:
        return
    base = base_of(view)
    ctx = HERE.ctx
    if not base.requires_grad:
        return
    if view.creation != "default":
        if ctx.grad_enabled:
            raise view_refusal(view, t, indirect=True)
        return
    edge = edge_of(base)
    spec = base.spec
    for op, rest, index in view.steps:
        made = view_specs(op, (spec, *rest))
        outs = tuple(made) if type(made) is list else (made,)
        node = Node(op, (spec, *rest), (edge,), (), outs, 1, (), None, t.backend, ctx.next_seq())
        edge, spec = (node, index), outs[index]
    if type(edge) is tuple:
        edge[0].name = "AsStridedBackward0"
    undo = ctx.undo
    undo.slot(t, "edge")
    undo.slot(t, "requires_grad")
    undo.force_slot(view, "version")
    t.edge, t.requires_grad, view.version = edge, True, t.storage.version


def base_of(view: View) -> Tensor:
    """The base, which is no view: if its own sizes were changed in place since, the tensor that has the old ones."""
    base = view.base
    while base.view is not None:
        base = base.view.base
    return base


def shown_grad_fn(t: Tensor) -> str | None:
    """The grad_fn to show: that of a view whose base was changed since is computed only when it is used."""
    view = t.view
    stale = view is not None and view.version != t.storage.version
    if view is not None and stale and base_of(view).requires_grad and view.creation == "default":
        return "AsStridedBackward0"
    return t.edge[0].grad_fn if t.edge is not None else None


def node_words(grad_fn: str) -> str:
    """What PyTorch calls a node in its messages."""
    if grad_fn in ("CopySlices", "CopyBackwards"):
        return f"torch::autograd::{grad_fn}"
    return grad_fn.removesuffix("Backward0").replace("Backward", "")


def refuse_nan(ctx: Context, node: Node, grads: Sequence[Any]) -> None:
    """torch.autograd.detect_anomaly: refuses gradients of a node that have a NaN, and says which step made it."""
    for i, g in enumerate(grads):
        kind = getattr(getattr(g, "dtype", None), "kind", "")
        if kind not in ("f", "c") or not bool(node.backend.xp.isnan(g).any()):
            continue
        words = f"Function '{node.grad_fn}' returned nan values in its {i}th output."
        error = NoGradient(words, code="nan-gradient")
        trace = ctx.made_by(node.seq)
        if trace is not None:
            _, error.step, rounds, error.op = trace
            error.round = rounds or None
            error.hint = Hint("nan-gradient", op=error.op)
        raise error


def view_refusal(view: View, t: Tensor, *, indirect: bool) -> Conflict:
    """PyTorch's refusal to change views of some kinds in place."""
    what = "its base or another view of its base has been" if indirect else "is being"
    source = None
    if t.edge is not None:
        source = f"Output {t.edge[1]} of {node_words(t.edge[0].grad_fn)}"
    if view.creation == "no_grad" or source is None:
        prefix = "A view was created in" if source is None else f"{source} is a view of a view which was created in"
        words = f"{prefix} no_grad mode and {what} modified inplace with grad mode enabled."
    else:
        words = f"{source} is a view and {what} modified inplace."
    if view.creation == "no_grad":
        words += (
            " Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by "
            "moving both the view and the inplace either both inside the no_grad block (if you don't want the "
            "inplace to be tracked) or both outside (if you want the inplace to be tracked)."
        )
    else:
        words += (
            " This view is the output of a function that returns multiple views. Such functions do not allow the "
            "output views to be modified inplace. You should replace the inplace operation by an out-of-place one."
        )
    return Conflict(words, code="view-changed-in-place", hint=Hint("out-of-place"))


def require_grad(t: Tensor, flag: bool = True, *, made: bool = True) -> None:
    """Sets requires_grad of a leaf, which was just `made` or was there before. Raises where PyTorch does."""
    if flag and not (t.dtype.is_floating or t.dtype.is_complex):
        words = "Only Tensors of floating point and complex dtype can require gradients"
        raise Invalid(
            words if made else "only Tensors of floating point dtype can require gradients",
            code="integer-requires-grad",
            hint=Hint("give-dtype", dtype="float32", have=t.dtype.name)
            if made
            else Hint("cast-input", Call("to", {"input": Param("input"), "dtype": "float32"}), have=t.dtype.name),
            param="requires_grad",
        )
    if t.edge is not None and not flag:
        raise Invalid(
            "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
            "subgraph that doesn't require differentiation use var_no_grad = var.detach().",
            code="not-a-leaf",
            hint=Hint("detach", Call("detach", {"input": Param("input")})),
        )
    HERE.ctx.undo.slot(t, "requires_grad")
    t.requires_grad = flag


# ---------------------------------------------------------------- in place


def check_inplace(t: Tensor, tracked: bool) -> None:
    """Refuses, as PyTorch does, in-place changes that the tape could not follow."""
    if not (tracked and HERE.ctx.grad_enabled):
        return
    view = t.view
    if view is not None:
        if view.creation != "default":
            raise view_refusal(view, t, indirect=False)
        if t.requires_grad and view.base.edge is None:
            raise LeafInPlace(
                "a view of a leaf Variable that requires grad is being used in an in-place operation.",
                hint=Hint("leaf-inplace"),
            )
    if t.requires_grad and t.edge is None:
        raise LeafInPlace(
            "a leaf Variable that requires grad is being used in an in-place operation.", hint=Hint("leaf-inplace")
        )


def overlap_within() -> Invalid:
    """The refusal to write to a tensor that has one place for two elements."""
    return Invalid(
        "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
        "Please clone() the tensor before performing the operation.",
        code="memory-overlap",
        hint=Hint("clone-first", Call("clone", {"input": Param("input")})),
    )


def overlap_between() -> Invalid:
    """The refusal to write to a tensor that shares some places with an operand."""
    return Invalid(
        "unsupported operation: some elements of the input tensor and the written-to tensor refer to a single memory "
        "location. Please clone() the tensor before performing the operation.",
        code="memory-overlap",
        hint=Hint("clone-first", Call("clone", {"input": Param("other")})),
    )


def check_overlap(t: Tensor, others: Sequence[Tensor | None]) -> None:
    """Refuses writes that would read what they have written already, as PyTorch does."""
    if has_internal_overlap(t.shape, t.strides):
        raise overlap_within()
    for o in others:
        if o is None or o is t or o.storage is not t.storage:
            continue
        if not t.is_dense or not o.is_dense or not t.numel or not o.numel:
            continue  # NumPy copies where such operands overlap
        size, osize = t.dtype.itemsize, o.dtype.itemsize
        low, high = t.offset * size, (t.offset + t.numel) * size
        olow, ohigh = o.offset * osize, (o.offset + o.numel) * osize
        if (low, high) == (olow, ohigh):
            partial = t.strides != o.strides
        else:
            partial = low < ohigh and olow < high
        if partial:
            raise overlap_between()


def rebase(ctx: Context, t: Tensor, node: Node) -> None:
    """Gives a tensor that was changed in place its new history; a view's change is pasted into its base's history."""
    undo = ctx.undo
    view = t.view
    if view is not None:
        base = base_of(view)
        put = REGISTRY["_view_put"]
        paste = Node(
            put,
            (base.spec, t.spec, view.steps),
            (edge_of(base), (node, 0)),
            (),
            (base.spec,),
            3 if base.requires_grad else 2,
            (),
            None,
            t.backend,
            ctx.next_seq(),
        )
        paste.name = "CopySlices"
        undo.slot(base, "edge")
        undo.slot(base, "requires_grad")
        base.edge, base.requires_grad = (paste, 0), True
        undo.force_slot(view, "version")
        view.version = -1
        refresh(t)
    else:
        undo.slot(t, "edge")
        undo.slot(t, "requires_grad")
        t.edge, t.requires_grad = (node, 0), True


def kept_edges(ctx: Context) -> dict[Any, Tensor] | None:
    """The tensors that are no leaves and retain their gradients, by edge; None where there are none."""
    if ctx.retained is None:
        return None
    kept = {}
    for t in ctx.retained:
        if t.retains:
            if t.view is not None:
                refresh(t)
            if t.edge is not None:
                kept[t.edge] = t
    return kept or None

"""Why the result of a call has its dtype, shape, device, memory and requires_grad, and what `dim` did: notes as data.

A `Note` is data like a hint: a key and facts; the app makes sentences. Notes are made from the operation's record, the
arguments, and what the results turned out to be, by integer arithmetic alone: nothing is computed a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from engine.answer import ArrayData
from engine.carriers import NUMBERS
from engine.context import HERE
from engine.dtypes import BOOL, FLOAT, INT, DType, int64, promote_types, result_type, scalar_dtype, to_complex, to_real
from engine.errors import EngineError
from engine.op import INPLACE, REGISTRY, SPECIAL, Op
from engine.shapes import broadcast, wrap_dims
from engine.tape import shown_grad_fn
from engine.tensor import Tensor

ABOUT = ("dtype", "shape", "dim", "device", "memory", "requires_grad", "grad")  # in the order in which they are said
CATEGORIES = ("bool", "int", "float", "complex")
SHOWN_OUTPUTS = 64  # of an operation with more results (split), the first so many are explained

_TENSOR, _ZERO_D, _NUMBER = 2, 1, 0  # ranks of operands, as engine.dtypes.result_type takes them


class Note:
    """One thing to say: `key` (its first word says what it is about) chooses the sentence, `facts` fill it.

    `of` names the one of several results that it is about. A fact whose name ends in `_word` is a word of the language.
    """

    __slots__ = ("facts", "key", "of")

    def __init__(self, key: str, /, **facts: Any) -> None:
        self.key, self.facts = key, facts
        self.of: str | None = None

    @property
    def about(self) -> str:
        return self.key.partition(".")[0]

    def to_data(self, step: Sequence[int] | None = None) -> dict[str, Any]:
        data: dict[str, Any] = {"key": self.key, "facts": self.facts}
        if self.of is not None:
            data["of"] = self.of
        if step is not None:
            data["step"] = list(step)
        return data

    def __repr__(self) -> str:
        return f"Note({self.key!r}, {self.facts})"


# ---------------------------------------------------------------- one call


class Seen:
    """A tensor argument as it was before the call. `label` is what the caller gave, or the parameter's name."""

    __slots__ = ("device", "dtype", "label", "leaf", "param", "requires_grad", "shape", "strides", "tensor")

    def __init__(self, param: str, label: str, t: Tensor) -> None:
        self.param, self.label, self.tensor = param, label, t
        self.shape, self.dtype, self.strides, self.device = t.shape, t.dtype, t.strides, t.device
        self.requires_grad = t.requires_grad or shown_grad_fn(t) is not None
        self.leaf = t.edge is None

    @property
    def rank(self) -> int:
        return _TENSOR if self.shape else _ZERO_D


@dataclass(slots=True)
class Operand:
    """What takes part in promotion."""

    label: str
    dtype: DType
    rank: int


class Case:
    """One call of an operation, with what was known before it ran."""

    def __init__(self, op: Op, args: Sequence[Any], given: Mapping[str, Any]) -> None:
        ctx = HERE.ctx
        self.op = op
        self.rule: Op = op.functional or op  # whose parameters and promotion say what happens
        self.name = _public_name(op)
        self.args = tuple(args)
        self.given = given
        self.default = ctx.default_dtype
        self.default_device = ctx.default_backend.name
        self.recording = ctx.grad_enabled
        self.seen = [s for at in range(len(op.params)) for s in self._seen(at)]

    def _seen(self, at: int) -> Iterator[Seen]:
        name, value = self.op.names[at], self.args[at]
        given = self.given.get(name)
        if type(value) is Tensor:
            yield Seen(name, given if type(given) is str else name, value)
        elif type(value) in (list, tuple):
            for i, t in enumerate(value):
                if type(t) is Tensor:
                    item = given[i] if type(given) is list and i < len(given) else None
                    yield Seen(name, item if type(item) is str else f"{name}[{i}]", t)

    def arg(self, name: str) -> Any:
        at = self.op.positions.get(name)
        return None if at is None else self.args[at]

    def source(self, t: Tensor) -> Seen | None:
        """The argument that has the memory of `t`; the very tensor, where it is one."""
        same = [s for s in self.seen if s.tensor is t]
        return next(iter(same or [s for s in self.seen if s.tensor.storage is t.storage]), None)

    @property
    def in_place(self) -> bool:
        return self.op.kind == INPLACE or (self.op.kind == SPECIAL and self.op.name.endswith("_"))

    def operands(self, places: Sequence[int] | None = None) -> list[Operand]:
        """What takes part in promotion: tensors and numbers at these parameters, or at all but indices and masks."""
        found = []
        for at, p in enumerate(self.op.params):
            if at not in places if places is not None else p.name in _NO_OPERANDS:
                continue
            found += [Operand(s.label, s.dtype, s.rank) for s in self.seen if s.param == p.name]
            if type(self.args[at]) in NUMBERS and "tensor" in p.form:
                found.append(Operand(p.name, scalar_dtype(self.args[at], self.default), _NUMBER))
        return found


_NO_OPERANDS = frozenset(("index", "indices", "mask", "condition", "target", "alpha", "beta"))
_heads: dict[int, str] = {}


def _public_name(op: Op) -> str:
    """The name that callers use: that of the head, for an overload."""
    if not op.internal:
        return op.name
    if not _heads:
        _heads.update({id(o): head.name for head in REGISTRY.values() for o in head.overloads})
    return _heads.get(id(op), op.name)


def explain(case: Case, made: Any) -> list[tuple[Tensor | None, Note]]:
    """The notes on a call, each with the result it is about; None for one about all of them."""
    notes: list[tuple[Tensor | None, Note]] = []
    results = list(outputs(case.rule, made))[:SHOWN_OUTPUTS]
    for label, t in results:
        for note in _on_result(case, label, t):
            note.of = label
            notes.append((t, note))
    if results:
        notes += [(None, note) for note in _on_dims(case, results[0][1])]
    if case.op.name == "autograd.grad" and type(made) is list:
        unused = [i for i, g in enumerate(made) if g is None]
        notes += [(None, Note("grad.unused-input", param=f"inputs[{i}]")) for i in unused]
    return sorted(notes, key=lambda pair: ABOUT.index(pair[1].about))


def merged(notes: Sequence[tuple[Tensor | None, Note]]) -> list[Note]:
    """The notes of all results as one list: what is true of each of them is said once."""
    count = len({id(t) for t, _ in notes if t is not None})
    groups: dict[str, list[Note]] = {}
    for _, note in notes:
        groups.setdefault(repr(note), []).append(note)
    found = []
    for same in groups.values():
        if len(same) >= count or same[0].of is None:
            one = Note(same[0].key, **same[0].facts)
            found.append(one)
        else:
            found += same
    return found


def outputs(op: Op, made: Any, label: str | None = None) -> Iterator[tuple[str | None, Tensor]]:
    """Every tensor of a result, with what it is called where there are several."""
    if type(made) is Tensor:
        yield label, made
    elif type(made) in (list, tuple):
        fields = op.fields if label is None and op.fields is not None else None
        for i, part in enumerate(made):
            name = fields[i] if fields is not None and i < len(fields) else f"{label or ''}[{i}]"
            yield from outputs(op, part, name)
    elif type(made) is dict:
        for key, part in made.items():
            yield from outputs(op, part, str(key))


def _on_result(case: Case, label: str | None, t: Tensor) -> Iterator[Note]:
    yield _dtype(case, label, t)
    shape = _shape(case, t)
    if shape is not None:
        yield from shape
    yield _device(case, t)
    yield from _memory(case, t)
    flag = _requires_grad(case, t)
    if flag is not None:
        yield flag


# ---------------------------------------------------------------- dtype

_POSITIONS = frozenset((
    "argmax", "argmin", "argsort", "nonzero", "argwhere", "searchsorted", "bucketize", "multinomial", "randperm",
    "tril_indices", "triu_indices",
))  # fmt: skip
_COUNTS = frozenset(("count_nonzero", "bincount"))
_JOINING = frozenset(("pointwise", "comparison", "activations", "joining"))  # families whose operands are promoted
_JOINING_OPS = frozenset(("where", "outer", "ger", "kron", "block_diag"))


def _dtype(case: Case, label: str | None, t: Tensor) -> Note:
    d = t.dtype
    own = case.source(t)
    if case.in_place and own is not None and own.tensor is t:
        return Note("dtype.inplace", param=own.label, dtype=d.name)
    if case.arg("dtype") is not None:
        return Note("dtype.given", dtype=d.name)
    if case.op.family == "casts" and case.seen and (d is not case.seen[0].dtype or case.name == d.name):
        return Note("dtype.cast", op=case.name, have=case.seen[0].dtype.name, dtype=d.name)
    if case.op.family == "data":
        return _data_dtype(case, d)
    several = label is not None and all(s.dtype is not d for s in case.seen)
    if d is int64 and (case.name in _POSITIONS or several or (label or "").endswith("indices")):
        return Note("dtype.index", dtype=d.name)
    if d is int64 and case.name in _COUNTS:
        return Note("dtype.count", dtype=d.name)
    if case.rule.promote is not None and label is None:
        operands = case.operands(case.rule.promote_at)
        if operands:
            return _promoted(case, operands, d)
    if not case.seen or (case.op.family == "factories" and all(s.dtype is not d for s in case.seen)):
        return _factory_dtype(case, d)
    if case.op.family in _JOINING or case.name in _JOINING_OPS:
        return _promoted(case, case.operands(), d)
    operands = [Operand(s.label, s.dtype, s.rank) for s in case.seen]
    same = [o for o in operands if o.dtype is d]
    if same and len(same) < len(operands):
        return Note("dtype.of", param=same[0].label, dtype=d.name)
    return _promoted(case, operands, d)


def _promoted(case: Case, operands: Sequence[Operand], d: DType) -> Note:
    """Why operands of these dtypes give a result of this one."""
    try:
        joint = result_type([(o.dtype, o.rank) for o in operands], case.default)
    except EngineError:  # some dtypes have no common one; what such an operation gives is its own affair
        return Note("dtype.is", dtype=d.name)
    if d is joint:
        return joined_dtype(operands, joint)
    if d.category == BOOL:
        return Note("dtype.truth", dtype=d.name)
    if joint.category <= INT and d is int64:
        return Note("dtype.int64-sum", have=joint.name, dtype=d.name)
    if joint.category < FLOAT and d is case.default:
        return Note("dtype.to-float", have=joint.name, dtype=d.name)
    if joint.is_complex and d is to_real(joint):
        return Note("dtype.real", have=joint.name, dtype=d.name)
    if d.is_complex and joint.is_floating and joint.name != "float16" and d is to_complex(joint):
        return Note("dtype.complex", have=joint.name, dtype=d.name)
    values = [s.label for s in case.seen if s.dtype is d]
    return Note("dtype.of", param=values[0], dtype=d.name) if values else Note("dtype.is", dtype=d.name)


def joined_dtype(operands: Sequence[Operand], joint: DType) -> Note:
    """Which operand won, by category and by rank."""
    kinds = {o.dtype for o in operands}
    if len(operands) == 1:
        return Note("dtype.kept", param=operands[0].label, dtype=joint.name)
    if kinds == {joint}:
        return Note("dtype.same", params=[o.label for o in operands], dtype=joint.name)
    top = max(o.rank for o in operands)
    first = [o for o in operands if o.rank == top]
    rest = [o for o in operands if o.rank < top]
    held = first[0].dtype
    for o in first[1:]:
        held = promote_types(held, o.dtype)
    if joint is not held and rest:
        winner = max(rest, key=lambda o: (o.dtype.category, o.rank))
        key = "dtype.raised-by-number" if winner.rank == _NUMBER else "dtype.raised-by-0d"
        return Note(
            key, param=winner.label, other=first[0].label, have=held.name, dtype=joint.name,
            high_word=CATEGORIES[winner.dtype.category], low_word=CATEGORIES[held.category],
        )  # fmt: skip
    others = [o for o in first if o.dtype is not joint]
    if others:
        loser = others[0]
        if joint not in kinds:
            other = next((o for o in first if o.dtype is not loser.dtype), None)
            if other is None:
                return Note("dtype.is", dtype=joint.name)
            return Note("dtype.both", a=loser.dtype.name, b=other.dtype.name, dtype=joint.name)
        winner = next((o for o in first if o.dtype is joint), first[0])
        facts = {"param": winner.label, "dtype": joint.name, "other": loser.label, "have": loser.dtype.name}
        if loser.dtype.category == joint.category:
            return Note("dtype.wider", **facts)
        words = {"high_word": CATEGORIES[joint.category], "low_word": CATEGORIES[loser.dtype.category]}
        return Note("dtype.category", **facts, **words)
    loser = next(o for o in rest if o.dtype is not joint)
    key = "dtype.over-number" if loser.rank == _NUMBER else "dtype.over-0d"
    return Note(key, param=first[0].label, dtype=joint.name, other=loser.label, have=loser.dtype.name)


def _factory_dtype(case: Case, d: DType) -> Note:
    numbers = [a for a in case.args if type(a) in (int, float, complex, bool)]
    if d is case.default:
        return Note("dtype.default", dtype=d.name)
    if d is int64 and numbers:
        return Note("dtype.whole-numbers", dtype=d.name)
    return Note("dtype.is", dtype=d.name)


def _data_dtype(case: Case, d: DType) -> Note:
    if case.name.endswith("Tensor"):
        return Note("dtype.constructor", op=case.name, dtype=d.name)
    for s in case.seen:
        return Note("dtype.kept", param=s.label, dtype=d.name)
    return data_dtype("data", case.given.get("data"), d)


def data_dtype(name: str, value: Any, d: DType) -> Note:
    """Why values that were written down, or uploaded, have this dtype."""
    if type(value) is dict and "data" in value:
        if value.get("dtype") is not None:
            return Note("dtype.given", dtype=d.name)
        value = value["data"]
    if type(value) is ArrayData and not value.inferred:
        return Note("dtype.uploaded", dtype=d.name)
    key = {"bool": "dtype.data-bool", "int64": "dtype.data-int"}.get(d.name, "dtype.data-float")
    return Note(key, param=name, dtype=d.name)


# ---------------------------------------------------------------- shape

_PRODUCTS: Mapping[str, tuple[str, str]] = {  # which two parameters are multiplied as matrices or vectors
    **dict.fromkeys(("mm", "bmm"), ("input", "mat2")),
    **dict.fromkeys(("matmul", "linalg.matmul", "dot", "vdot"), ("input", "other")),
    **dict.fromkeys(("addmm", "addmm_"), ("mat1", "mat2")),
    **dict.fromkeys(("addmv", "addmv_"), ("mat", "vec")),
    **dict.fromkeys(("baddbmm", "baddbmm_"), ("batch1", "batch2")),
    "mv": ("input", "vec"),
}
_OUTER = frozenset(("outer", "ger"))
_CELLWISE = frozenset(("pointwise", "comparison", "activations"))
_CELLWISE_OPS = frozenset(("where", "masked_fill", "masked_fill_", "broadcast_tensors"))
_RESIZES = frozenset(("view", "reshape", "flatten", "ravel", "unflatten", "reshape_as", "view_as"))
_SWAPS = frozenset(("t", "T", "mT", "H", "mH", "adjoint", "transpose", "swapaxes", "swapdims", "t_", "transpose_"))


def _shape(case: Case, t: Tensor) -> list[Note] | None:
    shape = list(t.shape)
    name = case.name
    if name in _PRODUCTS:
        return _product(case, *_PRODUCTS[name], shape)
    if not case.seen:
        return [Note("shape.size", shape=shape)] if case.arg("size") is not None else None
    first = case.seen[0]
    have = list(first.shape)
    if name == "nn.functional.linear":
        return [Note("shape.linear", a=have, b=list(case.seen[1].shape), inner=have[-1], shape=shape)]
    if name in _OUTER:
        return [Note("shape.outer", a=have, b=list(case.seen[1].shape), shape=shape)]
    if case.op.family in _CELLWISE or name in _CELLWISE_OPS or case.rule.elementwise:
        return _cell_by_cell(case, shape)
    if name in ("expand", "expand_as", "broadcast_to"):
        return _stretched(first, shape)
    if name in _RESIZES and case.arg("dtype") is None:
        wanted = case.arg("shape") or case.arg("size") or case.arg("sizes")
        guess = isinstance(wanted, list | tuple) and -1 in wanted
        note = Note("shape.resized", have=have, shape=shape, count=prod(have))
        if guess and len(wanted) == len(shape):
            return [note, Note("shape.guessed", size=shape[wanted.index(-1)], count=prod(have))]
        return [note]
    if name in _SWAPS and have != shape:
        return [Note("shape.swapped", have=have, shape=shape)]
    if name == "permute":
        return [Note("shape.permuted", have=have, shape=shape, dims=[d % max(len(have), 1) for d in case.arg("dims")])]
    return None


def _product(case: Case, a: str, b: str, shape: list[int]) -> list[Note]:
    x, y = [next(s for s in case.seen if s.param == name) for name in (a, b)]
    facts = {"a": list(x.shape), "b": list(y.shape), "inner": x.shape[-1], "shape": shape}
    if len(x.shape) == 1 and len(y.shape) == 1:
        note = Note("shape.dot", size=x.shape[0])
    elif len(y.shape) == 1:
        note = Note("shape.matrix-vector", **facts)
    elif len(x.shape) == 1:
        note = Note("shape.vector-matrix", **facts)
    elif len(x.shape) == 2 and len(y.shape) == 2:
        note = Note("shape.matmul", **facts)
    else:
        note = Note("shape.matmul-batch", **facts)
    added = case.seen[0]
    stretched = _stretched(added, shape) if added is not x and list(added.shape) != shape else []
    return [note, *stretched]


def _cell_by_cell(case: Case, shape: list[int]) -> list[Note] | None:
    shapes = [s.shape for s in case.seen]
    if len(shapes) < 2:
        return None
    try:
        if list(broadcast(*shapes)) != shape:
            return None
    except EngineError:
        return None
    if all(list(s) == shape for s in shapes):
        return [Note("shape.cell-by-cell", params=[s.label for s in case.seen], shape=shape)]
    return [note for s in case.seen if list(s.shape) != shape for note in _stretched(s, shape)]


def _stretched(s: Seen, shape: list[int]) -> list[Note]:
    """Which dimensions of the result an operand was stretched along."""
    have = list(s.shape)
    added = len(shape) - len(have)
    facts = {"param": s.label, "have": have, "shape": shape}
    if not have and shape:
        return [Note("shape.single", **facts)]
    notes = []
    if added > 0:
        notes.append(Note("shape.missing", **facts, dims=list(range(added)), sizes=shape[:added]))
    dims = [added + i for i, n in enumerate(have) if n != shape[added + i]]
    if dims:
        notes.append(Note("shape.stretched", **facts, dims=dims, sizes=[shape[d] for d in dims]))
    return notes


# ---------------------------------------------------------------- dim

_WHOLE = frozenset(("sum", "mean", "prod", "max", "min", "median", "nanmedian", "std", "var", "all", "any", "nansum",
                    "nanmean", "argmax", "argmin", "count_nonzero", "amax", "amin", "aminmax", "var_mean", "std_mean",
                    "quantile", "nanquantile"))  # fmt: skip
_ALONG = frozenset(("softmax", "log_softmax", "nn.functional.softmax", "nn.functional.log_softmax",
                    "nn.functional.softmin", "cumsum", "cumprod", "cumsum_", "cumprod_", "cummax", "cummin",
                    "logcumsumexp", "sort", "argsort", "topk", "flip", "roll"))  # fmt: skip
_PICKS = frozenset(("index_select", "gather", "take_along_dim", "select", "narrow", "select_copy", "narrow_copy"))
_CUTS = frozenset(("split", "chunk", "unbind", "tensor_split", "split_with_sizes", "unsafe_split", "unsafe_chunk"))
_JOINS = frozenset(("cat", "concat", "concatenate"))


def _line(ndim: int, dim: int) -> str:
    """What the cells along a dimension are called: a row runs along the last of two dimensions."""
    return "vector" if ndim == 1 else "other" if ndim != 2 else "row" if dim == 1 else "column"


def _on_dims(case: Case, t: Tensor) -> Iterator[Note]:
    if not case.seen:
        return
    have, shape = list(case.seen[0].shape), list(t.shape)
    ndim, dim, name = len(have), case.arg("dim"), case.name
    if "keepdim" in case.op.positions or name == "count_nonzero":
        if ndim and (dim is not None or name in _WHOLE):
            yield from _joined(case, dim, have, shape)
    elif name in _JOINS and shape and type(dim) is int:
        at = dim % len(shape)
        shapes = [s.shape for s in case.seen if len(s.shape) == len(shape)]  # PyTorch passes over empty ones
        facts = {"dim": at, "parts": [s[at] for s in shapes], "size": shape[at], "shape": shape}
        yield Note(f"dim.cat-{_line(len(shape), at)}", **facts)
    elif name == "stack" and type(dim) is int:
        yield Note("dim.stack", dim=dim % len(shape), count=len(case.seen), have=have, shape=shape)
    elif name in ("unsqueeze", "unsqueeze_") and type(dim) is int:
        yield Note("dim.added", dim=dim % len(shape), have=have, shape=shape)
    elif name in ("squeeze", "squeeze_"):
        gone = [d for d in wrap_dims(dim, ndim) if have[d] == 1]
        yield Note("dim.dropped", dims=gone, have=have, shape=shape) if gone else Note("dim.none-dropped", have=have)
    elif not ndim:
        return
    elif name in _ALONG and (dim is not None or case.arg("dims") is not None):
        dims = wrap_dims(dim if dim is not None else case.arg("dims"), ndim)
        for at in dims if len(dims) == 1 else ():
            yield Note(f"dim.along-{_line(ndim, at)}", dim=at, count=have[at], have=have)
    elif name in _PICKS and type(dim) is int:
        at = dim % ndim
        yield Note(f"dim.picked-{_line(ndim, at)}", dim=at, have=have, shape=shape)
    elif name in _CUTS:
        at = (dim or 0) % ndim
        yield Note(f"dim.cut-{_line(ndim, at)}", dim=at, count=have[at], have=have)


def _joined(case: Case, dim: Any, have: list[int], shape: list[int]) -> Iterator[Note]:
    """A reduction: which cells became one."""
    dims = sorted(wrap_dims(dim, len(have)))
    if dim is None or (type(dim) in (list, tuple) and not dim):
        yield Note("dim.all", count=prod(have), have=have, shape=shape)
    elif len(dims) == 1:
        at = dims[0]
        yield Note(f"dim.joined-{_line(len(have), at)}", dim=at, count=have[at], have=have, shape=shape)
    else:
        yield Note("dim.joined-several", dims=dims, count=prod(have[d] for d in dims), have=have, shape=shape)
    if case.arg("keepdim"):
        yield Note("dim.kept", dims=dims, shape=shape)


# ---------------------------------------------------------------- device and memory


def _device(case: Case, t: Tensor) -> Note:
    where = t.device
    if case.arg("device") is not None or case.name in ("cuda", "cpu"):
        return Note("device.given", device=where)
    tensors = [s for s in case.seen if s.device == where]
    if not tensors:
        return Note("device.default", device=where) if not case.seen else Note("device.is", device=where)
    scalars = [s for s in case.seen if s.device != where]
    if scalars:
        return Note("device.scalar-joins", param=scalars[0].label, device=where, other=tensors[0].label)
    return Note("device.same", param=tensors[0].label, device=where)


def _memory(case: Case, t: Tensor) -> Iterator[Note]:
    """Whether the result is a view, the tensor itself, or a copy where one might have expected a view."""
    source = case.source(t)
    if source is not None and source.tensor is t:
        if case.in_place and case.op.name not in ("requires_grad_", "detach_"):
            yield Note("memory.inplace", param=source.label, version=t.version)
        elif not case.in_place:
            yield Note("memory.itself", param=source.label)
    elif source is not None:
        if case.op.name == "detach":
            yield Note("memory.detached", param=source.label)
        else:
            yield Note("memory.view", param=source.label)
        if 0 in [step for step, n in zip(t.strides, t.shape, strict=True) if n > 1]:
            yield Note("memory.repeats", param=source.label)
    elif case.seen:
        first = case.seen[0]
        if case.name in _RESIZES:
            facts = {"param": first.label, "strides": list(first.strides), "shape": list(t.shape)}
            yield Note("memory.copy-reshape", **facts)
        elif case.name == "getitem":
            yield Note("memory.copy-index", param=first.label)
        elif case.name in ("clone", "contiguous") or case.op.family == "casts":
            yield Note("memory.copy", param=first.label)


# ---------------------------------------------------------------- requires_grad


def _requires_grad(case: Case, t: Tensor) -> Note | None:
    grad_fn = shown_grad_fn(t)
    wanting = next((s for s in case.seen if s.requires_grad and s.tensor is not t), None)
    if grad_fn is not None:
        own = next((s for s in case.seen if s.requires_grad), None)
        return Note("requires_grad.recorded", param=own.label if own else case.name, grad_fn=grad_fn)
    if t.requires_grad:
        if not t.is_leaf or wanting is None:
            return Note("requires_grad.leaf")
        return Note("requires_grad.view-no-grad", param=wanting.label)
    if case.op.name in ("detach", "detach_"):
        return Note("requires_grad.detached", param=case.seen[0].label)
    if wanting is None:
        return Note("requires_grad.none", params=[s.label for s in case.seen]) if case.seen else None
    if not (t.dtype.is_floating or t.dtype.is_complex):
        return Note("requires_grad.whole", dtype=t.dtype.name)
    if not case.recording:
        return Note("requires_grad.no-grad", param=wanting.label)
    return Note("requires_grad.no-rule", op=case.name)

"""The one place where primitives run on tensors. Each operation gets its runner once, when it is declared.

A runner sorts out the arguments, infers shapes and dtypes, guards, asks for memory, runs the kernel, wraps the results
and writes the tape. The runners of elementwise operations skip what equal dtypes make needless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.backend import Array, Backend
from engine.carriers import arranged, finish, infer, prepare
from engine.context import HERE, SMALL, Context
from engine.dtypes import FLOAT, DType, float32, float64, scalar_type
from engine.errors import Call, DeviceMismatch, DtypeMismatch, Hint, Param, ShapeMismatch
from engine.op import LIST, Op, Spec
from engine.shapes import broadcast_two, has_internal_overlap
from engine.tape import Node, check_inplace, edge_of, overlap_within, refresh, require_grad
from engine.tensor import Storage, Tensor, fresh

WIDEST = 3.4028234663852886e38  # the largest float32

# ---------------------------------------------------------------- apply


class Inputs:
    """The arguments of one call, sorted out: specs for metas, arrays for kernels, tensors for the tape."""

    __slots__ = ("backend", "mask", "sizes", "specs", "tensors", "values")

    def __init__(self, op: Op, args: tuple[Any, ...]) -> None:
        self.values: list[Any] = list(args)
        self.specs: list[Any] = list(args)
        self.tensors: list[Tensor | None] = []
        self.sizes: tuple[int, ...] = ()
        self.mask = 0
        backend: Backend | None = None
        scalar_backend: Backend | None = None
        for at, form in op.slots:
            v = args[at]
            if form == LIST:
                items = v if v is not None else []
                self.sizes += (len(items),)
                if v is not None:
                    self.specs[at] = [None if x is None else x.spec for x in items]
                    self.values[at] = [None if x is None else x.array for x in items]
            elif type(v) is Tensor:
                items = (v,)
                self.specs[at] = v.spec
                self.values[at] = v.array
            else:
                self.tensors.append(None)
                continue
            for t in items:
                if t is None:
                    self.tensors.append(None)
                    continue
                if t.view is not None:
                    refresh(t)
                if t.requires_grad:
                    self.mask |= 1 << len(self.tensors)
                self.tensors.append(t)
                if t.backend is backend:
                    continue
                if not t.spec.shape and t.backend.kind == "cpu" and op.promote is not None:
                    scalar_backend = t.backend  # a 0-d CPU tensor may join tensors of any device
                elif backend is None:
                    backend = t.backend
                elif t.backend is not backend:
                    raise device_mismatch(op, backend, t, self.tensors)
        for at in op.states:
            groups = args[at]
            if groups is not None:
                self.specs[at] = {name: [t.spec for t in group] for name, group in groups.items()}
                self.values[at] = {name: [t.array for t in group] for name, group in groups.items()}
        if backend is None:
            backend = scalar_backend
        elif scalar_backend is not None and scalar_backend is not backend:
            self._move_scalars(op, backend)
        self.backend = backend

    def _move_scalars(self, op: Op, backend: Backend) -> None:
        for at, form in op.slots:
            s, v = self.specs[at], self.values[at]
            if form != LIST and type(s) is Spec and not s.shape and not isinstance(v, backend.ndarray):
                self.values[at] = backend.from_host(v)


def device_mismatch(op: Op, backend: Backend, other: Tensor, tensors: Sequence[Tensor | None]) -> DeviceMismatch:
    """Tensors on two devices, in PyTorch's words, with the move that mends it."""
    names = [backend.name, other.backend.name]
    return DeviceMismatch(
        f"Expected all tensors to be on the same device, but found at least two devices, {names[0]} and {names[1]}!",
        hint=Hint("move-device", Call("to", {"input": Param("input"), "device": names[1]}), devices=names),
        op=op.name,
    )


def primitive_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """The general way to run a primitive on tensors."""
    device_at = op.positions.get("device", -1) if not op.internal else -1
    grad_at = op.positions.get("requires_grad", -1)
    has_rule = op.vjp is not None

    def run(args: tuple[Any, ...]) -> Any:
        ctx = HERE.ctx
        given = Inputs(op, args)
        backend = given.backend
        if device_at >= 0 and args[device_at] is not None:
            backend = ctx.find(args[device_at])
        elif backend is None:
            backend = ctx.default_backend
        k = ctx.k(backend)
        values, specs = given.values, given.specs
        out, compute = infer(op, k, specs)
        prepare(op, k, values, specs, compute)
        if op.guard is not None:
            op.guard(k, *values)
        if op.dynamic:
            pass  # the size is in the values: its guard has asked
        elif type(out) is Spec:
            ctx.admit(out.nbytes)
        elif out is not None:
            ctx.admit(sum(s.nbytes for s in out if s is not None))
        if op.mutates:
            _before_mutation(op, args, ctx)
        k.spec = out
        made = op.kernel(k, *values)  # type: ignore[misc]
        if op.mutates:
            _after_mutation(op, args, values, backend)
        if out is None:
            return None
        if op.dynamic:  # the meta could not know the shape
            out = (
                Spec(made.shape, out.dtype)
                if type(out) is Spec
                else [None if s is None else Spec(m.shape, s.dtype) for m, s in zip(made, out, strict=True)]
            )
        single = type(out) is Spec
        if single:
            result = fresh(finish(op, k, made, out, values), out, backend, ctx.ledger)
            results: Any = (result,)
        else:
            results = tuple(
                fresh(finish(op, k, m, s, values), s, backend, ctx.ledger) if s is not None else None
                for m, s in zip(made, out, strict=True)
            )
        if given.mask and has_rule and ctx.grad_enabled:
            record(op, ctx, args, given, results, compute, backend)
        if grad_at >= 0 and args[grad_at]:
            require_grad(results[0])
        return result if single else list(results)

    return run


def _mutated(op: Op, args: tuple[Any, ...]) -> Iterator[Tensor]:
    for at in op.mutates:
        v = args[at]
        if type(v) is Tensor:
            yield v
        elif type(v) is dict:
            for group in v.values():
                yield from group
        elif v is not None:
            yield from (t for t in v if t is not None)


def _before_mutation(op: Op, args: tuple[Any, ...], ctx: Context) -> None:
    """Checks and logs the tensors that a kernel is going to write into by itself."""
    for t in _mutated(op, args):
        if op.vjp is not None and t.requires_grad and ctx.grad_enabled:  # optimizers have none and may change leaves
            check_inplace(t, True)
        if has_internal_overlap(t.shape, t.strides):
            raise overlap_within()
        low, high = t.touched()
        ctx.undo.write(t.storage, low, high)


def _after_mutation(op: Op, args: tuple[Any, ...], values: list[Any], backend: Backend) -> None:
    """Bumps versions, and rounds what was written in float32 into tensors of a reduced dtype."""
    for at in op.mutates:
        v, made = args[at], values[at]
        if type(v) is dict:
            pairs = [pair for name, group in v.items() for pair in zip(group, made[name], strict=True)]
        else:
            pairs = [(v, made)] if type(v) is Tensor else list(zip(v or (), made or (), strict=True))
        for t, array in pairs:
            if t is None:
                continue
            if t.dtype.reduced:
                t.array[...] = backend.cast(array, float32, t.dtype)
            t.storage.version += 1


def record(
    op: Op,
    ctx: Context,
    args: tuple[Any, ...],
    given: Inputs,
    results: Sequence[Tensor | None],
    compute: DType | None,
    backend: Backend,
    original: Array = None,
) -> Node | None:
    """Writes a node and gives the results their edges. `original` is a copy of an input that was overwritten."""
    outs = tuple(r.spec if r is not None else None for r in results)
    live = [
        i
        for i, (r, name) in enumerate(zip(results, _output_names(op, len(results)), strict=True))
        if r is not None and name not in op.nondiff and (r.dtype.is_floating or r.dtype.is_complex)
    ]
    if not live:
        if original is None:
            _refuse_dtype(op, results)
        return None
    mask = 0
    edges = []
    for i, t in enumerate(given.tensors):
        edge = None if t is None else edge_of(t)
        if edge is not None and t is not None and (t.dtype.is_floating or t.dtype.is_complex):
            mask |= 1 << i
        edges.append(edge)
    _, saves = op.plan(mask, given.sizes)
    saved: list[tuple[int, int, Array, Storage | None, int]] = []
    n = len(args)
    for at in saves:
        if at >= n:
            t = results[at - n]
            if t is not None:
                saved.append((at, -1, t.array, t.storage, t.storage.version))
        else:
            v = args[at]
            if type(v) is Tensor:
                if at == 0 and original is not None:
                    saved.append((at, -1, original, None, 0))
                else:
                    version = v.storage.version
                    if original is not None and v.storage is args[0].storage:
                        version -= 1  # what was saved is gone: using it must fail, as in PyTorch
                    saved.append((at, -1, v.array, v.storage, version))
            elif type(v) is list or type(v) is tuple:
                saved.extend(
                    (at, j, t.array, t.storage, t.storage.version) for j, t in enumerate(v) if type(t) is Tensor
                )
    node = Node(
        op,
        tuple(given.specs),
        tuple(edges),
        tuple(saved),
        outs,
        mask,
        given.sizes,
        compute,
        backend,
        ctx.next_seq(),
    )
    for i in live:
        t = results[i]
        t.edge = (node, i)  # type: ignore[union-attr]
        t.requires_grad = True  # type: ignore[union-attr]
    return node


def _refuse_dtype(op: Op, results: Sequence[Tensor | None]) -> None:
    """Refuses a result that should require grad and is of a dtype that cannot; casts and comparisons have none."""
    if op.family == "casts" or op.promote == "compare":
        return
    for r, name in zip(results, _output_names(op, len(results)), strict=True):
        if r is not None and name not in op.nondiff:
            raise DtypeMismatch(
                f"Autograd not support dtype: {scalar_type(r.dtype)}", code="integer-requires-grad", op=op.name
            )


def _output_names(op: Op, n: int) -> Sequence[str]:
    return op.outputs if len(op.outputs) == n else ("result",) * n


_STRUCTURAL = frozenset(("int", "dim", "dims", "ints", "shape", "bool", "choice", "dtype", "float"))


def single_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """A primitive with one tensor and one result: the general way, with nothing to sort out.

    A meta is a function of shapes, dtypes and parameters, so what it said is remembered.
    """
    general = primitive_runner(op)
    kernel: Any = op.kernel
    guard = op.guard
    has_rule = op.vjp is not None
    after = len(op.params)
    by_cell = op.by_cell
    saves = op.plan(1, ())[1]
    saves_input, saves_result = 0 in saves, after in saves
    # 1, 1.0 and True are one key but may give three dtypes: calls that take plain numbers are not remembered.
    memorable = all(p.form.rstrip("?") in _STRUCTURAL for p in op.params[1:])
    memo: dict[Any, tuple[Spec, DType | None, bool, int]] = {}

    def run(args: tuple[Any, ...]) -> Any:
        t = args[0]
        if type(t) is not Tensor:
            return general(args)
        if t.view is not None:
            refresh(t)
        ctx = HERE.ctx
        backend = t.backend
        k = ctx.ks[backend]
        spec = t.spec
        rest = args[1:]
        key: Any = (spec.shape, spec.dtype, ctx.default_dtype, rest)
        try:
            found = memo.get(key) if memorable else None
        except TypeError:  # a list among the parameters
            found, key = None, ()
        if found is None:
            out, compute = infer(op, k, [spec, *rest])
            plain = not (spec.dtype.reduced or (compute is not None and compute is not spec.dtype))
            found = (out, compute, plain, out.nbytes)
            if memorable and key:
                if len(memo) > 4096:
                    memo.clear()
                memo[key] = found
        out, compute, plain, nbytes = found
        values = [t.array, *rest]
        if not plain:
            prepare(op, k, values, [spec, *rest], compute)
        if guard is not None:
            guard(k, *values)
        d = out.dtype
        ledger = ctx.ledger
        if nbytes > SMALL or ledger.held + nbytes > ledger.limit:
            ctx.admit(nbytes)
        k.spec = out
        made = kernel(k, *values)
        if type(made) is not backend.ndarray:
            made = backend.xp.asarray(made)  # NumPy gives scalars where there are no dimensions
        if (
            made.dtype is not d.np
            or made.base is not None
            or d.reduced
            or made.shape != out.shape
            or not made.flags.c_contiguous
            or (by_cell and len(out.shape) > 1 and not t.array.flags.c_contiguous)
        ):
            made = finish(op, k, made, out, values)
        storage = Storage(made, backend, ledger)
        result = Tensor(made, out, storage, backend)
        if t.requires_grad and has_rule and ctx.grad_enabled:
            if d.category < FLOAT:
                _refuse_dtype(op, (result,))
                return result
            saved: tuple[Any, ...] = ()
            if saves_input:
                of = t.storage
                saved = ((0, -1, t.array, of, of.version),)
            if saves_result:
                saved += ((after, -1, made, storage, 0),)
            ctx.seq = seq = ctx.seq + 1
            edge = t.edge if t.edge is not None else t
            if compute is spec.dtype:
                compute = None
            node = Node(op, (spec, *rest), (edge,), saved, (out,), 1, (), compute, backend, seq)
            node.plain = plain and not d.reduced
            node.real = node.plain and d is spec.dtype and d.is_floating
            result.edge = (node, 0)
            result.requires_grad = True
        return result

    return run


def all_rows(values: Sequence[Any], places: Sequence[int]) -> bool:
    """Whether all arrays at these places are in row-major order."""
    for at in places:
        x = values[at]
        if x is not None and not x.flags.c_contiguous:
            return False
    return True


def several_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """A primitive with a few tensors and one result, where nothing is promoted, widened or moved between devices."""
    general = primitive_runner(op)
    kernel: Any = op.kernel
    guard = op.guard
    has_rule = op.vjp is not None
    after = len(op.params)
    places = tuple(at for at, _ in op.slots)
    others = tuple(at for at in range(len(op.params)) if at not in places)
    by_cell = op.by_cell
    if not all(op.params[at].form.rstrip("?") in _STRUCTURAL for at in others):
        return general
    memo: dict[Any, Any] = {}  # the result's Spec, or None where only the general way will do

    def run(args: tuple[Any, ...]) -> Any:
        ctx = HERE.ctx
        key: list[Any] = [ctx.default_dtype]
        values = list(args)
        backend = None
        mask = 0
        bit = 1
        for at in places:
            t = args[at]
            if type(t) is Tensor:
                if t.view is not None:
                    refresh(t)
                if t.backend is not backend:
                    if backend is not None:
                        return general(args)
                    backend = t.backend
                if t.requires_grad:
                    mask |= bit
                spec = t.spec
                key += (spec.shape, spec.dtype)
                values[at] = t.array
            elif t is not None:
                return general(args)
            else:
                key.append(None)
            bit <<= 1
        if backend is None:
            return general(args)
        for at in others:
            key.append(args[at])
        k = ctx.ks[backend]
        try:
            out = memo.get(whole := tuple(key), op)
        except TypeError:  # a list among the parameters
            return general(args)
        if out is op:
            specs = [a.spec if type(a) is Tensor else a for a in args]
            out, compute = infer(op, k, specs)
            tensors = [s.dtype for s in specs if type(s) is Spec]
            promoted = [specs[at].dtype for at in op.promote_at if specs[at] is not None]
            if any(d.reduced for d in tensors) or any(d is not compute for d in promoted):
                out = None
            if len(memo) > 4096:
                memo.clear()
            memo[whole] = out
        if out is None:
            return general(args)
        if guard is not None:
            guard(k, *values)
        ctx.admit(out.nbytes)
        k.spec = out
        made = kernel(k, *values)
        if (
            type(made) is not backend.ndarray
            or made.dtype is not out.dtype.np
            or made.base is not None
            or made.shape != out.shape
            or not made.flags.c_contiguous
            or (by_cell and len(out.shape) > 1 and not all_rows(values, places))
        ):
            made = finish(op, k, made, out, values)
        storage = Storage(made, backend, ctx.ledger)
        result = Tensor(made, out, storage, backend)
        if mask and has_rule and ctx.grad_enabled:
            if out.dtype.category < FLOAT:
                _refuse_dtype(op, (result,))
                return result
            edges = tuple([edge_of(t) if type(t := args[at]) is Tensor else None for at in places])
            saved: tuple[Any, ...] = ()
            for at in (op.plans.get(mask) or op.plan(mask, ()))[1]:
                if at < after:
                    t = args[at]
                    if type(t) is Tensor:
                        saved += ((at, -1, t.array, t.storage, t.storage.version),)
                else:
                    saved += ((at, -1, made, storage, 0),)
            specs_ = tuple([a.spec if type(a) is Tensor else a for a in args])
            node = Node(op, specs_, edges, saved, (out,), mask, (), None, backend, ctx.next_seq())
            node.plain = not out.dtype.reduced
            result.edge = (node, 0)
            result.requires_grad = True
        return result

    return run


class _Functions(dict[Backend, Any]):
    """A function of each device's array module, looked up once."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __missing__(self, backend: Backend) -> Any:
        made = self[backend] = getattr(backend.xp, self.name)
        return made


def ordinary(args: tuple[Any, ...]) -> bool:
    """Whether all numbers among the arguments are real and fit every dtype that keeps itself."""
    for v in args:
        kind = type(v)
        if ((kind is float or kind is int) and not -WIDEST <= v <= WIDEST) or kind is complex:
            return False
    return True


def unary_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """Elementwise, one tensor: no promotion and no meta where the dtype stays."""
    general = primitive_runner(op)
    kernel: Any = op.kernel
    direct = len(op.params) == 1 and op.ufunc != ""
    functions = _Functions(op.ufunc)
    has_rule = op.vjp is not None
    more = len(op.params) > 1
    if not op.keeps:
        return general
    _, saves = op.plan(1, ())
    saves_input, saves_result = 0 in saves, any(at >= len(op.params) for at in saves)
    after = len(op.params)

    def run(args: tuple[Any, ...]) -> Any:
        a = args[0]
        if type(a) is not Tensor:
            return general(args)
        spec = a.spec
        d = spec.dtype
        if d is not float32 and d is not float64:
            return general(args)
        if more and not ordinary(args):
            return general(args)  # whose meta may refuse a number that float32 cannot hold
        ctx = HERE.ctx
        array = a.array
        backend = a.backend
        if array.nbytes > SMALL:
            ctx.admit(array.nbytes)
        made = functions[backend](array) if direct else kernel(ctx.ks[backend], array, *args[1:])
        if type(made) is not backend.ndarray:
            made = backend.xp.asarray(made)
        if made.dtype is not d.np or made.base is not None:
            return general(args)
        if made.ndim > 1 and not array.flags.c_contiguous:
            made = arranged(op, backend.xp, made, [array])
        storage = Storage(made, backend, ctx.ledger)
        out = Tensor(made, spec, storage, backend)
        if has_rule and ctx.grad_enabled:
            if a.view is not None:
                refresh(a)
            if a.requires_grad:
                saved: tuple[Any, ...] = ()
                if saves_input:
                    of = a.storage
                    saved = ((0, -1, array, of, of.version),)
                if saves_result:
                    saved += ((after, -1, made, storage, 0),)
                ctx.seq = seq = ctx.seq + 1
                edge = a.edge if a.edge is not None else a
                node = Node(op, (spec, *args[1:]), (edge,), saved, (spec,), 1, (), None, backend, seq)
                node.plain = node.real = True
                out.edge = (node, 0)
                out.requires_grad = True
        return out

    return run


def binary_runner(op: Op) -> Callable[[tuple[Any, ...]], Any]:
    """Elementwise, two operands: no promotion and no meta where both have one dtype, or one is a plain number."""
    general = primitive_runner(op)
    kernel: Any = op.kernel
    has_ufunc, usual = op.ufunc != "", op.defaults[2:]
    functions = _Functions(op.ufunc)
    has_rule, numbers = op.vjp is not None, op.numbers
    if not op.keeps:
        return general
    after = len(op.params)
    wanted = [op.plan(mask, ())[1] if mask else () for mask in range(4)]
    saves = [(0 in plan, 1 in plan, any(at >= after for at in plan)) for plan in wanted]

    def run(args: tuple[Any, ...]) -> Any:
        a, b = args[0], args[1]
        rest = args[2:]
        if type(a) is not Tensor or (rest and (rest != usual or rest[0] is True)):  # True == 1
            return general(args)
        spec = of_a = a.spec
        d = spec.dtype
        if d is not float32 and d is not float64:
            return general(args)
        x = a.array
        backend = a.backend
        ctx = HERE.ctx
        tensors = type(b) is Tensor
        if tensors:
            of_b = b.spec
            if of_b.dtype is not d or b.backend is not backend:
                return general(args)
            y = b.array
            if spec.shape != of_b.shape:
                try:
                    spec = Spec(broadcast_two(spec.shape, of_b.shape), d)
                except ShapeMismatch:
                    return general(args)  # in the meta's words
                if spec.nbytes > SMALL:
                    ctx.admit(spec.nbytes)
        elif type(b) is float or type(b) is int:
            y = float(b)
            of_b = b
        else:
            return general(args)
        if x.nbytes > SMALL:
            ctx.admit(x.nbytes)
        made = functions[backend](x, y) if has_ufunc else kernel(ctx.ks[backend], x, y, *rest)
        if type(made) is not backend.ndarray:
            made = backend.xp.asarray(made)
        if made.dtype is not d.np or made.base is not None:
            return general(args)
        if made.ndim > 1 and not (x.flags.c_contiguous and (not tensors or y.flags.c_contiguous)):
            made = arranged(op, backend.xp, made, [x, y] if tensors else [x])
        storage = Storage(made, backend, ctx.ledger)
        out = Tensor(made, spec, storage, backend)
        if has_rule and ctx.grad_enabled:
            if a.view is not None:
                refresh(a)
            mask = 1 if a.requires_grad else 0
            if tensors:
                if b.view is not None:
                    refresh(b)
                if b.requires_grad:
                    mask += 2
            if mask:
                saves_a, saves_b, saves_out = saves[mask]
                saved: tuple[Any, ...] = ()
                if saves_a:
                    of = a.storage
                    saved = ((0, -1, x, of, of.version),)
                if saves_b and tensors:
                    of = b.storage
                    saved += ((1, -1, y, of, of.version),)
                if saves_out:
                    saved += ((after, -1, made, storage, 0),)
                edge_a = (a.edge if a.edge is not None else a) if mask & 1 else None
                edge_b = (b.edge if b.edge is not None else b) if mask & 2 else None
                ctx.seq = seq = ctx.seq + 1
                plain = tensors or numbers
                compute = None if plain else d
                node = Node(op, (of_a, of_b, *rest), (edge_a, edge_b), saved, (spec,), mask, (), compute, backend, seq)
                node.plain = node.real = plain
                out.edge = (node, 0)
                out.requires_grad = True
        return out

    return run

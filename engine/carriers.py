"""What runs under the tape: promotion, metas and kernels, and the two carriers that need no tape.

A rule or a composite is written once in torch-named operations of a carrier `F`. `Raw` computes on arrays, `Meta`
on shapes and dtypes; `Rec`, in `tape`, on tensors, recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine import dtypes
from engine.backend import CPU, Array, Backend
from engine.dtypes import (
    BOOL,
    FLOAT,
    INT,
    DType,
    can_cast,
    cast_scalar,
    float32,
    from_numpy,
    result_type,
    round_scalar,
    scalar_dtype,
    scalar_type,
)
from engine.errors import Bug, Call, DtypeMismatch, Hint, KernelLacksDtype, Param, ShapeMismatch
from engine.op import COMPOSITE, LIST, PRIMITIVE, REGISTRY, VIEW, Op, Spec
from engine.random import Philox
from engine.shapes import Shape, broadcast_two, is_dense, iterated_strides, text

NUMBERS = frozenset((bool, int, float, complex))


class K:
    """What a kernel needs besides its parameters, and what a meta knows besides shapes: one per session and device.

    `xp`, `sp`: the array module and its SciPy. `rng`: the session's generator. `dtype`: the promoted result dtype
    while a meta runs. `spec`: the result's Spec (or a tuple of them) while a kernel runs.
    """

    __slots__ = ("backend", "ctx", "device", "dtype", "last", "raw", "sp", "spec", "xp")

    def __init__(self, backend: Backend, ctx: Any) -> None:
        self.backend = backend
        self.ctx = ctx
        self.xp = backend.xp
        self.sp = backend.sp
        self.device = backend.name
        self.dtype: DType = float32
        self.spec: Any = None
        self.last: Op | None = None
        self.raw = Raw(self)

    @property
    def rng(self) -> Any:
        """The device's stream of the session's generator. Asking for it tells the undo log that it may move."""
        generator = self.ctx.touch_rng()
        return generator if self.backend is CPU else Philox(generator, self.backend)

    @property
    def default_dtype(self) -> DType:
        return self.ctx.default_dtype  # type: ignore[no-any-return]

    def from_host(self, array: Any) -> Array:
        return self.backend.from_host(array)


# ---------------------------------------------------------------- promotion

_cache: dict[tuple[Any, ...], tuple[DType, DType]] = {}


def promotion(op: Op, k: K, specs: Any) -> tuple[DType | None, DType | None]:
    """(dtype to compute in, dtype of the result) of a call with these specs and scalars, by the op's category."""
    rule = op.promote
    if rule is None:
        return None, None
    if not isinstance(rule, str):
        return rule(k, *specs)  # type: ignore[no-any-return]
    default = k.ctx.default_dtype
    key: list[Any] = [rule, default.index]
    for at in op.promote_at:
        v = specs[at]
        if type(v) is Spec:
            key.append(v.dtype.index + (16 if v.shape else 0))
        elif type(v) is list or type(v) is tuple:
            key += [s.dtype.index + (16 if s.shape else 0) for s in v]
        elif v is not None:
            key.append(type(v))
    found = _cache.get(cached := tuple(key))
    if found is None:
        operands = []
        for at in op.promote_at:
            v = specs[at]
            for s in v if type(v) in (list, tuple) else (v,):
                if type(s) is Spec:
                    operands.append((s.dtype, 2 if s.shape else 1))
                elif s is not None:
                    operands.append((scalar_dtype(s, default), 0))
        found = _cache[cached] = categories[rule](result_type(operands, default), default)
    return found


def _float(joint: DType, default: DType) -> tuple[DType, DType]:
    d = default if joint.category < FLOAT else joint
    return d, d


def _no_bool(joint: DType, default: DType) -> tuple[DType, DType]:
    return joint, joint


# How the operands' joint dtype becomes (compute, result).
categories: dict[str, Callable[[DType, DType], tuple[DType, DType]]] = {
    "arithmetic": lambda joint, default: (joint, joint),
    "float": _float,
    "compare": lambda joint, default: (joint, dtypes.bool_),
    "logical": lambda joint, default: (joint, dtypes.bool_),
}


def infer(op: Op, k: K, specs: Any) -> tuple[Any, DType | None]:
    """The result's specs, and the dtype to compute in; raises every structural error."""
    compute, result = promotion(op, k, specs)
    if result is not None:
        k.dtype = result
    if op.kind == COMPOSITE:
        return op.body(Meta(k), *specs), None  # type: ignore[misc]
    if op.kind == VIEW:
        return view_specs(op, specs), None
    return op.meta(k, *specs), compute  # type: ignore[misc]


def infer_inplace(op: Op, k: K, specs: Any) -> tuple[Spec, DType | None]:
    """What `infer` says of an in-place form's function, after PyTorch's checks that its result can be stored.

    A dtype that the kernel lacks is found out last, as in PyTorch.
    """
    f: Op = op.functional  # type: ignore[assignment]
    if op.meta is not None:  # what only the in-place form refuses
        k.dtype = promotion(f, k, specs)[1] or specs[0].dtype
        op.meta(k, *specs)
    try:
        out, compute = infer(f, k, specs)
    except KernelLacksDtype:
        if f.elementwise or f.promote == "compare":
            shape: Shape = ()
            for s in specs:
                shape = broadcast_two(shape, s.shape) if type(s) is Spec else shape
            _check_stored(op, Spec(shape, k.dtype), specs[0])
        raise
    _check_stored(op, out, specs[0])
    return out, compute


def _check_stored(op: Op, out: Spec, target: Spec) -> None:
    """Refuses a result that an in-place operation cannot store in its tensor."""
    if out.shape != target.shape:
        words = f"output with shape {text(target.shape)} doesn't match the broadcast shape {text(out.shape)}"
        f: Op = op.functional  # type: ignore[assignment]
        if not f.elementwise and f.promote is None and not f.updates and f.kind == PRIMITIVE:  # not cell by cell
            sizes = f"input tensor size {text(target.shape)} and output tensor size {text(out.shape)}"
            words = f"Bad in-place call: {sizes} should match"
        raise ShapeMismatch(words, op=op.name)
    if not can_cast(out.dtype, target.dtype):
        raise DtypeMismatch(
            f"result type {scalar_type(out.dtype)} can't be cast to the desired output type "
            f"{scalar_type(target.dtype)}",
            hint=Hint(
                "inplace-dtype",
                Call("to", {"input": Param("input"), "dtype": out.dtype.name}),
                have=target.dtype.name,
                want=out.dtype.name,
            ),
            op=op.name,
        )


def view_specs(op: Op, specs: Any) -> Any:
    """The specs of a view operation's results."""
    made = op.geometry(*specs)  # type: ignore[misc]
    d = specs[0].dtype
    if type(made) is list:
        return [Spec(g[0], d) for g in made]
    return Spec(made[0], made[3] if len(made) == 4 else d)


def prepare(op: Op, k: K, values: list[Any], specs: Any, compute: DType | None) -> None:
    """Casts arrays and scalars in `values` to what the kernel takes: the compute dtype, reduced floats widened."""
    backend = k.backend
    if compute is not None:
        wide = compute.compute
        for at in op.promote_at:
            v, s = values[at], specs[at]
            exact = op.exact and at != op.promote_at[0]  # PyTorch's kernels take the second operand so
            if type(s) is Spec:
                values[at] = to_compute(backend, v, s.dtype, compute, wide, not s.shape and exact)
            elif type(v) is list:
                values[at] = [to_compute(backend, x, y.dtype, compute, wide) for x, y in zip(v, s, strict=True)]
            elif type(v) in NUMBERS:
                values[at] = cast_scalar(v, wide)
                if wide is not compute and not exact:
                    values[at] = round_scalar(values[at], compute)
    if not op.moves:
        for at, form in op.slots:
            s = specs[at]
            if form == LIST:
                if s is not None and (compute is None or at not in op.promote_at):
                    pairs = zip(values[at], s, strict=True)
                    values[at] = [x if y is None else backend.widen(x, y.dtype) for x, y in pairs]
            elif type(s) is Spec and s.dtype.reduced and (compute is None or at not in op.promote_at):
                values[at] = backend.widen(values[at], s.dtype)
        for at in op.states:
            if specs[at] is not None:
                values[at] = {
                    name: [backend.widen(x, y.dtype) for x, y in zip(values[at][name], group, strict=True)]
                    for name, group in specs[at].items()
                }


def to_compute(
    backend: Backend, array: Array, source: DType, compute: DType, wide: DType, exact: bool = False
) -> Array:
    """`array` in the dtype `wide`, rounded through `compute` where that is a reduced dtype other than its own."""
    if wide is not compute and source is not compute and source.category >= INT and not source.reduced and not exact:
        return backend.widen(backend.cast(array, source, compute), compute)
    if source is wide:
        return array
    return backend.cast(array, source, wide)


def finish(op: Op, k: K, made: Any, spec: Spec, inputs: list[Any]) -> Array:
    """A kernel's result as an array of the spec's storage dtype that owns its memory."""
    backend = k.backend
    d = spec.dtype
    if type(made) is not backend.ndarray:
        made = k.xp.asarray(made)
    if made.dtype != d.np or (d.reduced and not op.moves):
        if made.base is not None and not made.flags.c_contiguous:
            made = made.copy()  # as `owned` copies what needs no cast: in row-major order
        if d.reduced and not op.moves:
            made = backend.cast(made, from_numpy(made.dtype) or float32, d)
        else:
            source = from_numpy(made.dtype)
            if source is None:
                raise Bug(f"kernel of {op.name} gave {made.dtype}", op=op.name)
            made = backend.cast(made, source, d)
        if type(made) is not backend.ndarray:
            made = k.xp.asarray(made)
    if made.base is not None or not made.flags.c_contiguous or backend.kind != "cpu":
        made = owned(made, inputs, backend)
        if op.row_major and not made.flags.c_contiguous:
            made = made.copy()
    if op.by_cell and made.ndim > 1:
        made = arranged(op, k.xp, made, inputs)
    if made.shape != spec.shape:
        raise Bug(f"kernel of {op.name} gave shape {made.shape}, its meta says {spec.shape}", op=op.name)
    return made


def arranged(op: Op, xp: Any, made: Array, inputs: list[Any]) -> Array:
    """An elementwise result, in PyTorch's order of memory where its operands lie in different ones."""
    arrays = [x for x in inputs if getattr(x, "ndim", 0)]
    if not made.size or all(x.flags.c_contiguous for x in arrays):
        return made
    if op.name == "rsub":  # other - input
        arrays.reverse()
    strides = iterated_strides(made.shape, [(x.shape, x.strides) for x in arrays])
    return in_layout(xp, made, strides)


def in_layout(xp: Any, made: Array, strides: Shape) -> Array:
    """A dense array with these strides, counted in elements; itself where it has them."""
    size = made.itemsize
    if all(n == 1 or have == want * size for n, have, want in zip(made.shape, made.strides, strides, strict=True)):
        return made
    other = _dense(xp, made.shape, strides, made.dtype)
    other[...] = made
    return other


def blank_like(xp: Any, like: Array, dtype: Any = None) -> Array:
    """Memory for an array in the layout of another one: PyTorch's preserve_format, NumPy's but for expanded arrays."""
    if like.flags.c_contiguous or len({*like.strides, 0}) > like.ndim:
        return xp.empty_like(like, dtype=dtype)
    strides = iterated_strides(like.shape, [(like.shape, like.strides)])
    return _dense(xp, like.shape, strides, like.dtype if dtype is None else dtype)


def _dense(xp: Any, shape: Shape, strides: Shape, dtype: Any) -> Array:
    """Memory whose dimensions lie in the order of these strides, and which no other array owns."""
    order = sorted(range(len(shape)), key=lambda i: -strides[i])
    back = sorted(range(len(shape)), key=order.__getitem__)
    return xp.empty_like(xp.empty([shape[i] for i in order], dtype).transpose(back))


def owned(made: Array, inputs: list[Any], backend: Backend) -> Array:
    """A kernel's result, copied where it is a view of an input or is not dense."""
    base = made.base
    if base is None:
        flat = [y for x in inputs for y in (x if type(x) is list else (x,))]
        if not backend.is_fresh(made, flat):
            return made.copy()
        return made if is_dense(made.shape, tuple([s // made.itemsize for s in made.strides])) else made.copy()
    if not made.flags.c_contiguous or base.nbytes != made.nbytes:
        return made.copy()
    for x in inputs:
        for y in x if type(x) is list else (x,):
            if base is y or base is _root(y):
                return made.copy()
    return made


def _root(x: Any) -> Any:
    base = getattr(x, "base", None)
    return x if base is None else base


# ---------------------------------------------------------------- Raw


class Raw:
    """The carrier of arrays: the same promotion, metas, guards and kernels, and no tape.

    Arrays are in their compute dtype, so no bfloat16 is ever seen here.
    """

    recording = False

    def __init__(self, k: K) -> None:
        self.k = k

    def __getattr__(self, name: str) -> Any:
        op = resolve(name)
        made = _raw(op, self)
        setattr(self, name, made)
        return made

    # The operations that rules use most, without promotion, meta and binding; a law holds them to the general way.

    def conj(self, input: Array) -> Array:
        return self.k.xp.conjugate(input) if input.dtype.kind == "c" else input

    def mm(self, input: Array, mat2: Array) -> Array:
        return input @ mat2

    def transpose(self, input: Array, dim0: int, dim1: int) -> Array:
        return input.swapaxes(dim0, dim1) if input.ndim else input

    def reshape(self, input: Array, shape: Shape) -> Array:
        return input.reshape(shape)

    def expand(self, input: Array, size: Shape) -> Array:
        shape = input.shape
        if shape == size:
            return input
        if not shape and 0 not in size:
            return self.k.backend.view(input, input.dtype, size, 0, (0,) * len(size))
        shift = len(size) - len(shape)
        sizes = tuple([n if n >= 0 else shape[i - shift] for i, n in enumerate(size)])
        if not input.flags.c_contiguous or 0 in sizes:
            return self.k.xp.broadcast_to(input, sizes)
        steps = [0] * shift
        steps += [0 if n == 1 else s for n, s in zip(shape, input.strides, strict=True)]
        if any(n not in (1, m) for n, m in zip(shape, sizes[shift:], strict=True)):
            raise Bug(f"a rule expands {shape} to {sizes}")
        return self.k.backend.view(input, input.dtype, sizes, 0, steps)

    # Questions that need no operation.

    def shape(self, x: Array) -> Shape:
        return x.shape  # type: ignore[no-any-return]

    def dtype(self, x: Array) -> DType:
        d = x.dtype
        return d if type(d) is DType else from_numpy(d) or float32  # a rule may ask it of a Spec

    def can_view(self, x: Array, shape: Shape) -> bool:
        return True

    def zeros_for(self, spec: Spec) -> Array:
        return self.k.xp.zeros(spec.shape, spec.dtype.compute.np)

    def constant(self, value: complex, like: Array) -> Array:
        """A 0-d array of like's dtype."""
        return self.k.xp.asarray(value, dtype=like.dtype)


_NAMESPACES = ("nn.functional.", "linalg.", "special.", "autograd.")


def resolve(name: str) -> Op:
    """The operation that a carrier's attribute stands for: `F.mul`, `F.relu` (nn.functional.relu), `F.inv`."""
    op = REGISTRY.get(name)
    if op is None:
        op = next((REGISTRY[n + name] for n in _NAMESPACES if n + name in REGISTRY), None)
    if op is None:
        raise AttributeError(f"there is no operation {name}")
    return op


def spec_of(x: Any) -> Any:
    """The Spec of an array; what is no array as it is."""
    if hasattr(x, "dtype"):
        return Spec(x.shape, from_numpy(x.dtype) or float32)
    if type(x) is list:
        return [spec_of(y) for y in x]
    return x


# The dtypes on which elementwise operations skip promotion and meta, on arrays as on tensors.
_KEPT = frozenset((dtypes.float32.np, dtypes.float64.np))


def _raw(op: Op, raw: Raw) -> Callable[..., Any]:
    k = raw.k
    n = len(op.params)
    ndarray = k.backend.ndarray
    kernel: Any = op.kernel
    keeps = op.keeps and op.outputs == ("result",) and not op.has_lists
    others = [at for at, _ in op.slots][1:]

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != n:
            args = op.bind(args, kwargs)
        if keeps:
            first = args[0]
            if type(first) is ndarray and first.dtype in _KEPT:
                d = first.dtype
                for at in others:
                    x = args[at]
                    if (x.dtype is not d) if type(x) is ndarray else type(x) not in (float, int):
                        break
                else:
                    made = kernel(k, *args)
                    if type(made) is not ndarray:
                        made = k.xp.asarray(made)
                    if made.dtype is d:
                        return made
        if op.body is not None:
            return op.body(raw, *args)
        if op.kind == VIEW:
            return kernel(k, *args)
        return execute(op, k, args)

    return call


def execute(op: Op, k: K, args: tuple[Any, ...]) -> Any:
    """Runs a primitive on arrays: promotion, meta, guard, kernel, result dtype."""
    values = list(args)
    specs = list(args)
    for at, form in op.slots:
        v = args[at]
        if form == LIST:
            specs[at] = [spec_of(x) for x in v] if v is not None else None
            values[at] = list(v) if v is not None else None
        elif v is not None and type(v) not in NUMBERS:
            specs[at] = spec_of(v)
    out, compute = infer(op, k, specs)
    prepare(op, k, values, specs, compute)
    if op.guard is not None:
        op.guard(k, *values)
    k.spec = out
    made = op.kernel(k, *values)  # type: ignore[misc]
    if type(out) is Spec:
        return _cast(k, made, out)
    return [_cast(k, m, s) if s is not None else None for m, s in zip(made, out, strict=True)]


def _cast(k: K, made: Any, spec: Spec) -> Array:
    want = spec.dtype.compute
    if made.dtype == want.np and type(made) is k.backend.ndarray:
        return made
    made = k.xp.asarray(made)
    return k.backend.cast(made, from_numpy(made.dtype) or float32, want)


# ---------------------------------------------------------------- Meta


class Meta:
    """The carrier of specs: shapes and dtypes only."""

    recording = False

    def __init__(self, k: K) -> None:
        self.k = k

    def __getattr__(self, name: str) -> Any:
        op = resolve(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made = infer(op, self.k, list(op.bind(args, kwargs)))[0]
            if op.kind != COMPOSITE:
                self.k.last = op  # of a composite's results, the one whose node they will show
            return made

        setattr(self, name, call)
        return call

    def shape(self, x: Spec) -> Shape:
        return x.shape

    def dtype(self, x: Spec) -> DType:
        return x.dtype

    def can_view(self, x: Spec, shape: Shape) -> bool:
        return True

    def zeros_for(self, spec: Spec) -> Spec:
        return spec

    def constant(self, value: complex, like: Spec) -> Spec:
        return Spec((), like.dtype)


def _spec_binary(category: str) -> Callable[[Any, Any], Any]:
    def operator(self: Spec, other: Any) -> Any:
        operands = [(self.dtype, 2 if self.shape else 1)]
        if type(other) is Spec:
            operands.append((other.dtype, 2 if other.shape else 1))
            shape = broadcast_two(self.shape, other.shape)
        elif type(other) in NUMBERS:
            operands.append((scalar_dtype(other, float32), 0))
            shape = self.shape
        else:
            raise TypeError("this operand was not saved: declare it in `save`")
        return Spec(shape, categories[category](result_type(operands), float32)[1])

    return operator


for _name in ("add", "sub", "mul", "pow"):
    setattr(Spec, f"__{_name}__", _spec_binary("arithmetic"))
    setattr(Spec, f"__r{_name}__", _spec_binary("arithmetic"))
setattr(Spec, "__truediv__", _spec_binary("float"))  # noqa: B010  mypy knows no such attribute
setattr(Spec, "__rtruediv__", _spec_binary("float"))  # noqa: B010
setattr(Spec, "__neg__", lambda self: self)  # noqa: B010


def check_promoted_bool(d: DType, words: str) -> None:
    """Refuses bool where PyTorch does."""
    if d.category == BOOL:
        raise DtypeMismatch(words)

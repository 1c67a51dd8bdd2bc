"""What an operation is: one record, and the registry of all of them. Data only; `declare` makes the records.

A *primitive* has a meta (shapes, dtypes, every structural error), a guard (checks that need values) and a kernel.
A *view* has a geometry rule instead of a kernel that computes. A *composite* is written in other operations.
An *in-place* operation `x_` refers to its functional form.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from math import prod
from typing import Any

from engine.dtypes import DType
from engine.elsewhere import instead, near, plain
from engine.errors import Hint, MissingParameter, NoSuchOp, UnknownParameter
from engine.shapes import Shape, contiguous_strides


class Spec:
    """Shape and dtype of an array: what metas compute with, and what a rule sees of an operand that was not saved."""

    __slots__ = ("dtype", "shape")
    __array_ufunc__ = None  # NumPy must not take a Spec for an object array
    offset = 0

    def __init__(self, shape: Shape, dtype: DType) -> None:
        self.shape = shape
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Spec({list(self.shape)}, {self.dtype.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.shape == other.shape and self.dtype is other.dtype

    __hash__ = None  # type: ignore[assignment]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def strides(self) -> Shape:
        return contiguous_strides(self.shape)


class ParamSpec:
    """One parameter of an operation: name, type (see `declare`), default, and what the docs say of it."""

    __slots__ = ("choices", "default", "doc", "form", "gaps", "name", "required", "schema", "type")

    def __init__(
        self,
        name: str,
        type_: str,
        form: str,
        *,
        required: bool,
        default: Any,
        schema: dict[str, Any],
        choices: tuple[str, ...] = (),
        gaps: bool = False,
    ) -> None:
        self.name = name
        self.gaps = gaps  # whether null may stand for a tensor of a list
        self.type = type_
        self.form = form
        self.required = required
        self.default = default
        self.schema = schema
        self.choices = choices
        self.doc = ""


class Need:
    """Which gradients are wanted, by parameter name: a bool, or a tuple of bools for a list of tensors."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.__dict__.update(wanted)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not a differentiable input")


ONE, LIST = "one", "list"
PRIMITIVE, VIEW, COMPOSITE, INPLACE, SPECIAL = "primitive", "view", "composite", "inplace", "special"


class Op:
    """The record of one operation. Built by `declare.op`; read by everyone."""

    def __init__(self, name: str, kind: str, params: Sequence[ParamSpec]) -> None:
        self.name = name
        self.called = called(name)  # by PyTorch, in its messages
        self.kind = kind
        self.params = tuple(params)
        self.names = tuple(p.name for p in params)
        self.positions = {n: i for i, n in enumerate(self.names)}
        self.defaults = tuple(p.default for p in params)
        self.required = sum(1 for p in params if p.required)
        self.slots: tuple[tuple[int, str], ...] = ()  # (position, ONE or LIST) of tensor parameters
        self.has_lists = False
        self.states: tuple[int, ...] = ()  # positions of objects of lists of tensors
        self.functions: tuple[int, ...] = ()  # positions of programs; the operation's run then is a generator
        self.family = ""
        self.doc = ""
        self.outputs: tuple[str, ...] = ("result",)  # names of the outputs, for `save` and for fields
        self.fields: tuple[str, ...] | None = None  # torch's field names, where the result is an object of them
        self.returns = "Tensor"
        # how it runs
        self.kernel: Callable[..., Any] | None = None
        self.alone: dict[str, Callable[..., Any]] = {}  # of results that the kernel gives: a kernel of that one alone
        self.meta: Callable[..., Any] | None = None
        self.guard: Callable[..., None] | None = None
        self.geometry: Callable[..., Any] | None = None
        self.body: Callable[..., Any] | None = None
        self.functional: Op | None = None
        self.run: Any = None  # a function of the arguments; set by the tape: the one way to call it
        # promotion
        self.promote: str | Callable[..., Any] | None = None
        self.promote_at: tuple[int, ...] = ()
        # gradient
        self.vjp: Callable[..., Any] | None = None
        self.array_vjp: Callable[..., Any] | None = None  # the rule once more, for plain nodes on arrays
        self.vjp_stated = False  # a rule, or a word that there is none
        self.save: dict[str, tuple[str, ...]] = {}
        self.nondiff: frozenset[str] = frozenset()
        self.ties: bool | Callable[..., bool] = False  # of the node's arguments: PyTorch's backward takes the input too
        self.node = ""  # torch's grad_fn
        self.node_rule: Callable[..., str] | None = None  # of the node's arguments, where it depends on them
        self.exact = False  # numbers and 0-d operands after the first join float16 and bfloat16 unrounded
        self.numbers = False  # the rule takes Python numbers as they were given, not as 0-d arrays
        self.saved_type: Any = None
        self.plans: dict[Any, tuple[Need, tuple[int, ...]]] = {}
        self.needs: dict[int, Need] = {}  # the first halves of `plans`, for operations without lists
        # traits
        self.ufunc = ""  # the array module's function that the kernel is, other parameters having their defaults
        self.elementwise = False  # out may alias an input of the same geometry
        self.keeps = False  # float32 stays float32, float64 stays float64, unguarded: the fast path
        self.by_cell = False  # so are comparisons, and what PyTorch's iterator lays out in memory
        self.row_major = False  # the results are, in whatever order their operands lie
        self.updates = False  # a kernel given out= finds the input's values in it
        self.moves = False  # only moves elements: runs on bfloat16 bits and float16 as they are
        self.multi_view = False  # a view with several outputs: refuses in-place changes
        self.inplace = False  # has a variant `x_`
        self.mutates: tuple[int, ...] = ()  # positions of tensors that the kernel itself writes into
        self.random = False
        self.dynamic = False  # the shape depends on values: the guard asks for memory
        self.internal = False
        self.composite_node = ""
        self.tensor_result = True
        # for people and laws
        self.aliases: tuple[str, ...] = ()
        self.samples: Callable[..., Any] | None = None
        self.error_samples: Callable[..., Any] | None = None
        self.example: dict[str, Any] | None = None
        self.domain: Any = None
        self.overloads: list[Op] = []

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    @property
    def differentiable(self) -> bool:
        if self.kind == INPLACE:
            return self.functional is not None and self.functional.differentiable
        if self.promote == "compare":
            return False  # the results are bools; the rule is for the in-place form, which stores them as numbers
        return self.kind == COMPOSITE or self.vjp is not None

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments in positional order, defaults filled in. Raises UnknownParameter, MissingParameter."""
        n = len(args)
        if not kwargs and n == len(self.params):
            return args
        values = list(self.defaults)
        values[:n] = args
        given = n
        for name, value in kwargs.items():
            at = self.positions.get(name)
            if at is None:
                raise unknown_parameter(self.name, name, self.names)
            values[at] = value
            if at < self.required:
                given += 1
        if given < self.required:
            for i, p in enumerate(self.params):
                if p.required and i >= n and p.name not in kwargs:
                    raise MissingParameter(
                        f"{self.name}() missing required argument: '{p.name}'", op=self.name, param=p.name
                    )
        return tuple(values)

    def plan(self, mask: int, sizes: tuple[int, ...]) -> tuple[Need, tuple[int, ...]]:
        """For the inputs (flattened) that require grad, bit by bit: `need`, and which values the rule wants saved."""
        key = (mask, sizes) if sizes else mask
        found = self.plans.get(key)
        if found is None:
            found = self.plans[key] = self._plan(mask, sizes)
            if not sizes:
                self.needs[mask] = found[0]
        return found

    def _plan(self, mask: int, sizes: tuple[int, ...]) -> tuple[Need, tuple[int, ...]]:
        wanted: dict[str, Any] = {}
        bit = 0
        lists = iter(sizes)
        saves: set[int] = set()
        for at, form in self.slots:
            name = self.names[at]
            if form == LIST:
                n = next(lists)
                flags = tuple(bool(mask >> (bit + j) & 1) for j in range(n))
                wanted[name] = flags
                hit = any(flags)
                bit += n
            else:
                hit = wanted[name] = bool(mask >> bit & 1)
                bit += 1
            if hit:
                for saved in self.save.get(name, ()):
                    at_saved = self.positions.get(saved)
                    saves.add(at_saved if at_saved is not None else len(self.names) + self.outputs.index(saved))
        return Need(wanted), tuple(sorted(saves))


def called(name: str) -> str:
    """What PyTorch calls a function in its messages: linear, linalg_inv, special_zeta, normal_."""
    space, _, last = name.rpartition(".")
    if space in ("linalg", "special", "fft"):
        return f"{space}_{last}"
    return last if space.startswith(("nn.", "autograd", "signal.")) else name


REGISTRY: dict[str, Op] = {}


def find_op(name: str) -> Op:
    """The operation called `name`. Raises NoSuchOp with the nearest names."""
    op = REGISTRY.get(name)
    if op is None or (op.internal and name.startswith("_")):
        raise no_such_op(name)
    return op


def no_such_op(name: str) -> NoSuchOp:
    """The error for a name that is no operation: with what stands in its place, or the nearest names."""
    public = [n for n, op in REGISTRY.items() if not op.internal]
    hint = None if plain(name) in REGISTRY else instead(name)
    if hint is None:
        likely = near(name, public)
        hint = Hint("near-names", near=likely) if likely else Hint("list-ops")
    return NoSuchOp(f"there is no operation {name!r}", hint=hint, op=name)


# ---------------------------------------------------------------- overloads


def accepts(form: str, value: Any) -> bool:
    """Whether a value, as JSON or already converted, can be what a parameter of this form takes."""
    if value is None:
        return form.endswith("?")
    return any(_accepts(part, value) for part in form.rstrip("?").split("|"))


def _accepts(form: str, value: Any) -> bool:
    kind = type(value)
    number = kind in (bool, int, float, complex)
    if form in ("tensor", "data", "any"):
        return True
    if form == "scalar":
        return number or (kind is dict and bool({"re", "im", "float"} & value.keys()))
    if form in ("int", "dim"):
        return kind is int
    if form == "float":
        return kind in (bool, int, float) or kind is dict
    if form == "bool":
        return kind is bool
    if form in ("dims", "ints"):
        return kind is int or _is_shape(value)
    if form == "shape":
        return _is_shape(value)
    if form == "tensors":
        return kind in (list, tuple)
    if form in ("str", "choice", "device"):
        return kind is str
    if form == "dtype":
        return kind in (str, DType)
    if form == "state":
        return kind is dict
    return True


def _is_shape(value: Any) -> bool:
    """Whether it is a list of ints; of PyTorch only the first must not be a bool."""
    if type(value) not in (list, tuple) or not all(type(v) in (int, bool) for v in value):
        return False
    return not value or type(value[0]) is int


def choose(head: Op, given: dict[str, Any]) -> Op:
    """The overload that takes these parameters: by their names, then by their types. Raises where none does."""
    named = [o for o in head.overloads if all(n in o.positions for n in given)]
    complete = [o for o in named if all(p.name in given for p in o.params if p.required)]
    fitting = [o for o in complete if all(accepts(o.params[o.positions[n]].form, v) for n, v in given.items())]
    if fitting:
        return fitting[0]
    if complete:
        return complete[0]  # its own checks say which type is wrong
    if named:
        raise missing(named[0], given, head.name)
    known = list(dict.fromkeys(n for o in head.overloads for n in o.names))
    unknown = [n for n in given if n not in known]
    if unknown:
        raise unknown_parameter(head.name, unknown[0], known)
    shown = ", ".join(f"({', '.join(o.names)})" for o in head.overloads)
    raise UnknownParameter(
        f"{head.name}() received an invalid combination of arguments: ({', '.join(given)}); it takes one of {shown}",
        op=head.name,
    )


# Other spellings of parameters that PyTorch's parser takes, NumPy's; and its own where its functions differ from its
# methods or its documentation.
_SPELLINGS = {"axis": "dim", "keepdims": "keepdim", "x": "input", "a": "input", "x1": "input", "x2": "other"}
_OF_ONE = {
    "cholesky_inverse": {"input": "L"},
    "cholesky_solve": {"input": "B", "input2": "L"},
    "dot": {"tensor": "other"},
    "isin": {"element": "elements", "test_element": "test_elements"},
    "linalg.lstsq": {"input": "A", "b": "B"},
    "linalg.pinv": {"input": "A", "rcond": "rtol"},
    "linalg.tensorsolve": {"input": "A", "other": "B"},
    "linalg.vector_norm": {"input": "x"},
    "lu": {"A": "input"},
    "orgqr": {"input2": "tau"},
    "ormqr": {"input2": "tau", "input3": "other"},
    "result_type": {"tensor": "tensor1", "other": "tensor2"},
}
_OF_LINALG = {"input": "A", "A": "input"}  # its documentation says A, and its parser often asks for input
# Functions that Python binds, by their names alone, and not PyTorch's parser; of nn.functional all but a few.
_PYTHONS = ("nn.", "optim.", "autograd.", "signal.")
_PYTHON = frozenset(("atleast_1d", "atleast_2d", "atleast_3d", "cdist", "lobpcg", "meshgrid", "norm",
                     "pca_lowrank", "split", "stft", "svd_lowrank", "tensordot", "unravel_index"))  # fmt: skip
_PARSED = frozenset(("adaptive_avg_pool1d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "bilinear", "celu_",
                     "channel_shuffle", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d",
                     "conv_transpose2d", "conv_transpose3d", "cosine_similarity", "elu_", "gelu", "hardshrink",
                     "hardtanh_", "leaky_relu_", "linear", "logsigmoid", "native_channel_shuffle", "one_hot",
                     "pairwise_distance", "pdist", "pixel_shuffle", "pixel_unshuffle", "prelu", "relu_", "rrelu_",
                     "scaled_dot_product_attention", "selu_", "softplus", "softshrink", "threshold_"))  # fmt: skip


def of_python(name: str) -> bool:
    """Whether a function is written in Python in PyTorch."""
    space, _, last = name.rpartition(".")
    return (name.startswith(_PYTHONS) and not (space == "nn.functional" and last in _PARSED)) or name in _PYTHON


def spelled(op: Op, args: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments by the names that parameters have here; those of no parameter, or of one given twice, stay."""
    variants = op.overloads or [op]
    unknown = [n for n in args if all(n not in o.positions for o in variants)]
    if not unknown or op.kind == SPECIAL or op.name == "getitem" or of_python(op.name):
        return args
    linalg = _OF_LINALG if op.name.startswith("linalg.") else {}
    others = {**_SPELLINGS, **linalg, **_OF_ONE.get(op.name, {})}
    new = {n: others[n] for n in unknown if n in others and others[n] not in args}
    new = {n: to for n, to in new.items() if any(to in o.positions for o in variants)}
    return args if len(set(new.values())) < len(new) else {new.get(n, n): v for n, v in args.items()}


def missing(op: Op, given: Container[str], name: str) -> MissingParameter:
    """The error for parameters that a call of `name` lacks, in PyTorch's words.

    Its parser counts from the first of them, and Python those that are missing.
    """
    names = [p.name for p in op.params if p.required]
    if of_python(op.name):
        names = [n for n in names if n not in given]
        *rest, last = [repr(n) for n in names]
        listed = f"{', '.join(rest)}{',' if len(rest) > 1 else ''} and {last}" if rest else last
        argument = "arguments" if rest else "argument"
    else:
        names = names[next(i for i, n in enumerate(names) if n not in given) :]
        listed = ", ".join(f'"{n}"' for n in names)
        argument = "argument" if names[1:] else "arguments"  # so it says
    p = op.params[op.positions[names[0]]]
    return MissingParameter(
        f"{op.called}() missing {len(names)} required positional {argument}: {listed}",
        op=name,
        param=p.name,
        hint=Hint("missing-parameter", param=p.name, type=p.type, op=name),
    )


def unknown_parameter(op: str, name: str, known: Sequence[str]) -> UnknownParameter:
    """The error for a parameter that there is not: with the namesake that has it, or the nearest one there is."""
    from difflib import get_close_matches

    other = _namesake(op, name)
    if other is not None:
        hint = Hint("namesake", other=other, param=name)
    elif alike := get_close_matches(name, known, 1, 0.5):
        hint = Hint("near-parameter", near=alike[0])
    else:
        hint = Hint("parameters", params=list(known))
    words = f"{called(op)}() got an unexpected keyword argument '{name}'"
    return UnknownParameter(words, op=op, param=name, hint=hint)


def _namesake(op: str, param: str) -> str | None:
    """An operation of the same name in another module of PyTorch that has the parameter: as torch.embedding takes
    `indices`, and nn.functional.embedding `input`."""
    last = op.rpartition(".")[2]
    for space in ("", "nn.functional.", "linalg.", "special.", "fft.", "nn.init."):
        other = REGISTRY.get(space + last)
        if other is None or other.name == op or other.internal:
            continue
        if any(param in variant.positions for variant in other.overloads or [other]):
            return other.name
    return None

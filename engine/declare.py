"""`@op`, `@view`, `@composite`, `@special`: one declaration an operation, read into its record.

The Python signature is the operation's signature. Its annotations, made of the types below, give JSON schema,
validation, client method and docs.
"""

from __future__ import annotations

import inspect
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from keyword import iskeyword
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from engine.carriers import infer
from engine.context import HERE
from engine.dtypes import can_cast, dtype
from engine.errors import Bug, EngineError
from engine.op import COMPOSITE, INPLACE, LIST, ONE, PRIMITIVE, REGISTRY, SPECIAL, VIEW, Op, ParamSpec, Spec
from engine.parameters import PARAMETERS
from engine.record import runner
from engine.samples import S, T

# ---------------------------------------------------------------- parameter types

Array = Annotated[Any, "tensor"]  # a tensor; in a kernel an array, in a meta a Spec
Scalar = Annotated[Any, "scalar"]  # a Python number
Dim = Annotated[int, "dim"]
Dims = Annotated[Any, "dims"]  # one dim or a list of them
Shape = Annotated[Any, "shape"]  # a list of sizes
Ints = Annotated[Any, "ints"]  # an int or a list of ints: kernel sizes, strides
DTypeArg = Annotated[Any, "dtype"]
Device = Annotated[str, "device"]
Index = Annotated[Any, "index"]
State = Annotated[Any, "state"]  # an object of lists of tensors
Data = Annotated[Any, "data"]  # what torch.tensor takes
Function = Annotated[Any, "function"]  # steps with inputs and results; in an operation a generator function of a list

_REF = "#/components/schemas/"
_SCHEMAS: dict[str, dict[str, Any]] = {
    "tensor": {"$ref": _REF + "TensorArg"},
    "tensor|scalar": {"$ref": _REF + "TensorArg"},
    "tensor|tensors": {"anyOf": [{"$ref": _REF + "TensorArg"}, {"$ref": _REF + "TensorListArg"}]},
    "tensors": {"$ref": _REF + "TensorListArg"},
    "scalar": {"$ref": _REF + "ScalarArg"},
    "int": {"type": "integer"},
    "float": {"$ref": _REF + "FloatArg"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "dim": {"type": "integer"},
    "dims": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
    "ints": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]},
    "shape": {"type": "array", "items": {"type": "integer"}},
    "ints|tensors": {
        "anyOf": [
            {"type": "integer"},
            {"type": "array", "items": {"type": "integer"}},
            {"$ref": _REF + "TensorListArg"},
        ]
    },
    "scalar|scalars|tensors": {
        "anyOf": [
            {"$ref": _REF + "ScalarArg"},
            {"type": "array", "items": {"$ref": _REF + "ScalarArg"}},
            {"$ref": _REF + "TensorListArg"},
        ]
    },
    "int|str": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "ints|str": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}, {"type": "string"}]},
    "float|floats": {"anyOf": [{"$ref": _REF + "FloatArg"}, {"type": "array", "items": {"$ref": _REF + "FloatArg"}}]},
    "dtype": {"$ref": _REF + "DTypeArg"},
    "device": {"$ref": _REF + "DeviceArg"},
    "index": {"$ref": _REF + "IndexArg"},
    "state": {"$ref": _REF + "StateArg"},
    "data": {"$ref": _REF + "DataArg"},
    "function": {"$ref": _REF + "FunctionArg"},
}
_SHOWN = {
    "tensor": "Tensor",
    "tensor|scalar": "Tensor or Number",
    "tensors": "list of Tensors",
    "scalar": "Number",
    "dims": "int or list of ints",
    "tensor|tensors": "Tensor or list of Tensors",
    "ints": "int or list of ints",
    "ints|tensors": "int, list of ints or list of Tensors",
    "scalar|scalars|tensors": "Number, list of Numbers or list of Tensors",
    "int|str": "int or string",
    "ints|str": "int, list of ints or string",
    "float|floats": "float or list of floats",
    "shape": "list of ints",
    "state": "object of lists of Tensors",
    "dim": "int",
    "function": "object of inputs, steps and return",
}


def _parse(annotation: Any) -> tuple[str, bool, tuple[str, ...]]:
    """(form, may be None, choices) of an annotation."""
    origin = get_origin(annotation)
    if annotation is type(None):
        return "none", True, ()
    if annotation is Any:
        return "any", False, ()
    if origin is Annotated:
        return get_args(annotation)[1], False, ()
    if origin is Literal:
        return "choice", False, tuple(get_args(annotation))
    if origin is list:
        inner = _parse(get_args(annotation)[0])[0]
        return {"tensor": "tensors", "int": "shape", "scalar": "scalars", "float": "floats"}[inner], False, ()
    if annotation in (int, float, bool, str):
        return annotation.__name__, False, ()
    if origin is Union or type(annotation).__name__ == "UnionType":
        parts = [_parse(a) for a in get_args(annotation)]
        forms = [p[0] for p in parts if p[0] != "none"]
        optional = any(p[0] == "none" for p in parts)
        if len(forms) == 1:
            return forms[0], optional, parts[0][2]
        return "|".join(forms), optional, ()
    raise Bug(f"unreadable annotation {annotation!r}")


def _has_gaps(annotation: Any) -> bool:
    """Whether it is, or may be, a list whose items may be null."""
    if get_origin(annotation) is list:
        return _parse(get_args(annotation)[0])[1]
    return any(_has_gaps(a) for a in get_args(annotation) if get_origin(annotation) is not Annotated)


def _read_params(function: Callable[..., Any], full: str) -> list[ParamSpec]:
    hints = get_type_hints(function, include_extras=True)
    params = []
    for i, p in enumerate(inspect.signature(function).parameters.values()):
        if i == 0 or p.name == "out":
            continue
        form, optional, choices = _parse(hints[p.name])
        required = p.default is inspect.Parameter.empty
        schema = {"enum": list(choices)} if choices else dict(_SCHEMAS.get(form, {}))
        if optional:
            schema = {"enum": [*choices, None]} if choices else {"anyOf": [schema, {"type": "null"}]}
        label = (
            p.name[:-1] if p.name.endswith("_") and iskeyword(p.name[:-1]) else p.name
        )  # `from_` is PyTorch's `from`
        spec = ParamSpec(
            label,
            (_SHOWN.get(form, form) if not choices else " | ".join(choices)) + (" or null" if optional else ""),
            form + ("?" if optional else ""),
            required=required,
            default=None if required else p.default,
            schema=schema,
            choices=choices,
            gaps=_has_gaps(hints[p.name]),
        )
        spec.doc = PARAMETERS.get(f"{full}.{label}") or PARAMETERS.get(label, "")
        params.append(spec)
    return params


# ---------------------------------------------------------------- declarations


class Declared:
    """What a decorator leaves behind: a handle to add the rule and the guard to."""

    def __init__(self, op: Op) -> None:
        self.op = op

    def vjp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        self.op.vjp, self.op.vjp_stated = rule, True
        return rule

    def array_vjp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """The rule once more, `rule(k, values, g, mask)`, for the commonest operations.

        Backward takes it where no tape is wanted, all tensors are of one real dtype and nothing was promoted. `values`
        are the arguments and results, arrays where they were saved; `mask` has a bit for each input whose gradient is
        wanted. It gives a tuple; a law holds it to the rule.
        """
        self.op.array_vjp = rule
        return rule

    def alone(self, result: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A kernel of one of the results, to the bit, for plans in which nobody needs the others."""

        def enter(kernel: Callable[..., Any]) -> Callable[..., Any]:
            self.op.alone[result] = kernel
            return kernel

        return enter

    def guard(self, check: Callable[..., None]) -> Callable[..., None]:
        self.op.guard = check
        return check

    def meta(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        self.op.meta = rule
        return rule


_UNSTATED: Any = object()


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[._]", name) if part)


def _declare(
    function: Callable[..., Any],
    kind: str,
    *,
    family: str,
    name: str | None = None,
    alias: Sequence[str] = (),
    samples: Iterable[S] = (),
    errors: Iterable[Any] = (),
    node: str | None = None,
    internal: bool = False,
    joins: str | None = None,
    moves: bool = False,
    outputs: Sequence[str] = ("result",),
    fields: bool = False,
    returns: str | None = None,
    example: dict[str, Any] | None = None,
    inplace: bool = False,
    random: bool = False,
    dynamic: bool = False,
) -> Op:
    full = name or function.__name__
    op = Op(full, kind, _read_params(function, full))
    op.family = family
    op.doc = inspect.cleandoc(function.__doc__ or "")
    op.slots = tuple(
        (i, LIST if p.form.startswith("tensors") else ONE)
        for i, p in enumerate(op.params)
        if p.form.split("|")[0].rstrip("?") in ("tensor", "tensors")
    )
    op.has_lists = any(form == LIST for _, form in op.slots)
    op.functions = tuple(i for i, p in enumerate(op.params) if p.form.startswith("function"))
    op.states = tuple(i for i, p in enumerate(op.params) if p.form.startswith("state"))
    op.outputs = tuple(outputs)
    op.fields = tuple(outputs) if fields else None
    op.returns = returns or ("object of Tensors" if fields else "Tensor" if len(outputs) == 1 else "list of Tensors")
    op.tensor_result = returns != "value"
    op.node = node or _camel(full.rpartition(".")[2].rstrip("_")) + "Backward0"
    op.internal = internal or joins is not None or full.startswith("_")
    op.moves = moves
    op.inplace = inplace
    op.random = random
    op.dynamic = dynamic
    op.samples = lambda: list(samples)
    op.error_samples = lambda: list(errors)
    op.example = example
    op.saved_type = namedtuple(  # type: ignore[misc] # noqa: PYI024
        "Saved", [*op.names, *(o for o in op.outputs if o not in op.names)], rename=True
    )
    register(op, full, alias)
    if joins:
        join(op, joins)
    return op


def register(op: Op, name: str, alias: Sequence[str] = ()) -> None:
    """Puts an operation into the registry, under its name and its aliases."""
    for each in (name, *alias):
        if each in REGISTRY:
            raise Bug(f"operation {each} is declared twice")
        REGISTRY[each] = op
    op.aliases = tuple(alias)


def join(op: Op, name: str) -> None:
    """Puts an overload under the name that its callers use."""
    head = REGISTRY.get(name)
    if head is None:
        head = Op(name, "overloads", ())
        head.family = op.family
        head.run = None
        REGISTRY[name] = head
    op.called = head.called
    head.overloads.append(op)


def _tensor_param(p: ParamSpec) -> ParamSpec:
    """The parameter as one that takes no number: there is no changing a number in place."""
    if p.form == "tensor":
        return p
    made = ParamSpec(p.name, _SHOWN["tensor"], "tensor", required=True, default=None, schema=dict(_SCHEMAS["tensor"]))
    made.doc = p.doc
    return made


def _make_inplace(op: Op) -> None:
    twin = Op(op.name + "_", INPLACE, (_tensor_param(op.params[0]), *op.params[1:]))
    twin.functional = op
    twin.slots, twin.has_lists = op.slots, op.has_lists
    twin.family, twin.node = op.family, op.node
    twin.doc = f"In-place version of `{op.name}`: changes `input`, keeps its id and raises its version.\n\n{op.doc}"
    twin.samples, twin.error_samples = op.samples, op.error_samples
    twin.internal = op.internal
    twin.random = op.random
    twin.saved_type = op.saved_type
    REGISTRY[twin.name] = twin
    for a in op.aliases:
        if "." not in a:
            REGISTRY[a + "_"] = twin
    twin.aliases = tuple(a + "_" for a in op.aliases if "." not in a)


def op(
    *,
    family: str,
    meta: Callable[..., Any] | None = None,
    promote: str | Callable[..., Any] | None = None,
    over: Sequence[str] | None = None,
    vjp: Any = _UNSTATED,
    save: dict[str, Sequence[str]] | None = None,
    nondiff: Sequence[str] = (),
    elementwise: bool = False,
    by_cell: bool = False,
    row_major: bool = False,
    updates: bool = False,
    keeps: bool | None = None,
    exact: bool = False,
    ufunc: str = "",
    mutates: Sequence[str] = (),
    numbers: bool = False,
    node: str | Callable[..., str] | None = None,
    ties: bool | Callable[..., bool] = False,
    **common: Any,
) -> Callable[[Callable[..., Any]], Declared]:
    """Declares a primitive. The function is its kernel: `kernel(k, *parameters, out=None)`.

    `meta(k, *parameters)` gives the result's Spec, or a tuple of them. `promote` names a category of
    `carriers.categories`, applied to the tensor parameters named in `over` (all of them if not given), or is a function
    `(k, *specs) -> (dtype to compute in, dtype of the result)`.
    `keeps`: on float32 and float64 the result has the dtype of the operands and no guard is needed, so that
    equal dtypes can skip promotion and meta. `ufunc` names the function of the array module that the kernel is, where
    the parameters after the operands have their defaults: it is then called at once. `save` says, for each input, what
    its gradient needs. `vjp=None` says aloud that there is no gradient.
    `exact`: where the computation is in float16 or bfloat16, numbers and 0-d tensors are not rounded to it first.
    `numbers`: the rule takes Python numbers as they were given; else they reach it as 0-d arrays. `node` is torch's
    grad_fn, or a function of the arguments (specs in place of tensors) that gives it. `ties`: with create_graph the
    gradient counts as a function of the inputs, whose second gradients are zeros, since PyTorch's backward kernel takes
    them: True, or a function of the arguments.
    """

    def decorate(function: Callable[..., Any]) -> Declared:
        fixed = node if isinstance(node, str) else None
        made = _declare(function, PRIMITIVE, **{"family": family, "node": fixed, **common})
        if node is not None and fixed is None:
            made.node_rule = node  # type: ignore[assignment]
        made.numbers = numbers
        made.ties = ties
        made.kernel = function
        made.meta = meta
        made.promote = promote
        if promote is not None:
            named = over if over is not None else [made.names[at] for at, _ in made.slots]
            made.promote_at = tuple(made.positions[n] for n in named)
        made.save = {n: tuple(wanted) for n, wanted in (save or {}).items()}
        made.nondiff = frozenset(nondiff)
        made.elementwise = elementwise
        made.by_cell = elementwise or by_cell or (promote in ("compare", "logical") and not row_major)
        made.row_major = row_major or (made.family == "reductions" and "keepdim" in made.positions)
        made.updates = updates
        made.ufunc = ufunc
        made.keeps = (elementwise and promote in ("arithmetic", "float")) if keeps is None else keeps
        made.exact = exact
        made.mutates = tuple(made.positions[n] for n in mutates)
        if vjp is not _UNSTATED:
            made.vjp, made.vjp_stated = vjp, True
        if made.inplace:
            _make_inplace(made)
        return Declared(made)

    return decorate


def view(
    *, family: str, geometry: Callable[..., Any], multi: bool = False, **common: Any
) -> Callable[[Callable[..., Any]], Declared]:
    """Declares a view. `geometry(input, *parameters)` gives (sizes, strides, offset) in elements, or a list of them.

    The function is what `Raw` runs: the same on an array, by the array's own methods.
    """

    def decorate(function: Callable[..., Any]) -> Declared:
        made = _declare(function, VIEW, **{"family": family, "moves": True, **common})
        made.kernel = function
        made.geometry = geometry
        made.multi_view = multi
        return Declared(made)

    return decorate


def composite(*, family: str, node: str | None = None, **common: Any) -> Callable[[Callable[..., Any]], Declared]:
    """Declares an operation written in others: `body(F, *parameters)`."""

    def decorate(function: Callable[..., Any]) -> Declared:
        made = _declare(function, COMPOSITE, **{"family": family, "node": node, **common})
        made.body = function
        made.composite_node = node or ""
        made.vjp_stated = True
        return Declared(made)

    return decorate


def special(
    *, family: str, meta: Callable[..., Any] | None = None, **common: Any
) -> Callable[[Callable[..., Any]], Declared]:
    """Declares an operation on tensors themselves: `function(ctx, *parameters)`.

    With a parameter that is a Function it is a generator function, and calls it by `yield from function(tensors)`.
    """

    def decorate(function: Callable[..., Any]) -> Declared:
        made = _declare(function, SPECIAL, **{"family": family, **common})
        made.kernel = function
        made.meta = meta
        made.vjp_stated = True
        return Declared(made)

    return decorate


def finalize() -> None:
    """Gives every operation its runner; called once, when all are declared. A forgotten rule is an error here."""
    for made in set(REGISTRY.values()):
        if made.kind == "overloads":
            continue
        if made.kind == PRIMITIVE and not made.vjp_stated:
            raise Bug(f"operation {made.name} has neither a gradient rule nor vjp=None")
        if made.kind == PRIMITIVE and made.vjp is not None and set(made.outputs) & set(made.names):
            raise Bug(f"operation {made.name} has an output called like one of its parameters")
        if made.kind == VIEW and made.vjp is None and not made.vjp_stated:
            raise Bug(f"view {made.name} has no gradient rule")
        made.run = runner(made)


# ---------------------------------------------------------------- the catalogue


def _json_default(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json_default(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, complex):
        return {"re": value.real, "im": value.imag}
    return value


def operation_id(name: str) -> str:
    """A plain identifier for generators: `nn.functional.relu` is `nn_functional_relu`, `add_` is `add_inplace`."""
    plain = name.replace(".", "_")
    return f"{plain[:-1]}_inplace" if plain.endswith("_") else plain


def example_value(sample: Any, seed: int = 0) -> Any:
    """A sample's argument as JSON: small tidy numbers that stay floats in any language."""
    if isinstance(sample, T):
        return _example_tensor(sample, seed)
    if isinstance(sample, list | tuple):
        return [example_value(x, seed + i) for i, x in enumerate(sample)]
    if isinstance(sample, float) and sample.is_integer():
        return {"float": int(sample)}
    return _json_default(sample)


def _example_tensor(sample: T, seed: int) -> Any:
    numbers = iter(range(seed, 1 << 30))
    span = sample.high - sample.low

    def number() -> Any:
        i = next(numbers)
        if sample.dtype == "bool":
            return i % 3 != 0
        if sample.dtype in ("int64", "int32", "uint8", "int16", "int8"):
            return int(sample.low + i * 7 % max(int(span), 1))
        tidy = round(sample.low + ((i * 0.37 + 0.13) % 1.0) * span, 2)
        tidy = tidy + 0.01 if float(tidy).is_integer() else tidy
        return [tidy, round(0.25 + 0.5 * (i % 3), 2)] if sample.dtype == "complex64" else tidy

    def nested(shape: Sequence[int]) -> Any:
        return number() if not shape else [nested(shape[1:]) for _ in range(shape[0])]

    explicit = False
    if sample.values is not None:
        data, explicit = _whole(sample.values), sample.dtype is None
    elif sample.spd:
        n = sample.shape[-1]
        data = [[round(2.5 if i == j else 0.5 / (1 + abs(i - j)), 3) for j in range(n)] for i in range(n)]
    else:
        data = nested(sample.shape)
    plain = sample.dtype is None or sample.dtype in ("bool", "int64")
    if plain and not explicit and 0 not in sample.shape and sample.shape:
        return data
    body: dict[str, Any] = {"data": data, "dtype": sample.dtype or "float32"}
    if 0 in sample.shape:
        body["shape"] = list(sample.shape)
    return body


def _whole(data: Any) -> Any:
    """Values in which 3.0 is 3, as a language without 1.0 would send them; the dtype stands beside them."""
    if isinstance(data, list | tuple):
        return [_whole(x) for x in data]
    return int(data) if isinstance(data, float) and data.is_integer() else _json_default(data)


def _fits_in_place(made: Op, sample: S) -> bool:
    """Whether a sample's result has the shape of its first tensor, so that `x_` takes it too."""
    k = HERE.ctx.k(HERE.ctx.default_backend)

    def spec(x: Any) -> Any:
        if isinstance(x, T):
            return Spec(x.shape, dtype(x.dtype or "float32"))
        return [spec(y) for y in x] if isinstance(x, list) else x

    args = made.bind(tuple(spec(a) for a in sample.args), {n: spec(v) for n, v in sample.kwargs.items()})
    try:
        out = infer(made.functional or made, k, list(args))[0]
    except EngineError:
        return False
    first = args[0]
    return isinstance(first, Spec) and out.shape == first.shape and can_cast(out.dtype, first.dtype)


def example_of(made: Op) -> dict[str, Any]:
    """A request body that works, from the operation's own example or its first sample."""
    if made.example is not None:
        return made.example
    samples = made.samples() if made.samples else []
    if not samples:
        return {}
    if made.kind == INPLACE:
        samples = [s for s in samples if _fits_in_place(made, s)] or samples
    first = samples[0]
    body = {n: example_value(a, 3 * i) for i, (n, a) in enumerate(zip(made.names, first.args, strict=False))}
    body.update({n: example_value(v, 5) for n, v in first.kwargs.items()})
    return body


def _entry(name: str, made: Op) -> dict[str, Any]:
    variants = made.overloads or [made]
    params: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for p in variant.params:
            if p.name in params:
                if p.schema != params[p.name]["schema"]:
                    old = params[p.name]["schema"]
                    options = old.get("anyOf", [old])
                    params[p.name]["schema"] = {"anyOf": [*options, p.schema]}
                continue
            params[p.name] = {
                "name": p.name,
                "type": p.type,
                "default": _json_default(p.default),
                "required": p.required and all(p.name in v.names[: v.required] for v in variants),
                "doc": p.doc,
                "schema": p.schema,
            }
    first = variants[0]
    doc = "\n\n".join(dict.fromkeys(v.doc for v in variants))
    summary = doc.partition("\n")[0]
    return {
        "name": name,
        "summary": summary,
        "family": made.family,
        "params": list(params.values()),
        "returns": " or ".join(dict.fromkeys(v.returns for v in variants)),
        "differentiable": first.differentiable,
        "inplace": first.kind == INPLACE or (first.kind == SPECIAL and name.endswith("_")),
        "view": first.kind == VIEW,
        "doc": doc,
        "example": example_of(first),
        "operation_id": operation_id(name),
    }


def catalogue() -> list[dict[str, Any]]:
    """Every public operation as GET /v1/ops describes it, by name."""
    return [_entry(name, made) for name, made in sorted(REGISTRY.items()) if not made.internal]

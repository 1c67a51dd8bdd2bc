"""A session's programs as PyTorch code that needs no server: what was computed here, computed there.

A tensor is a variable: its name where it has one that Python takes, else its id. The local names of a program are
variables too, under another name where the session has one of the same. Random numbers are PyTorch's, from the
session's seed, so they come out the same.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from app.scripts.history import floats_of, opening
from engine.dtypes import DTYPES
from engine.service import ArrayData

# Operations that PyTorch has as methods of Tensor alone, beside those that change a tensor in place.
METHODS = frozenset(
    (
        "backward", "bfloat16", "bool", "byte", "cdouble", "cfloat", "char", "contiguous", "cpu", "cuda", "dim",
        "dim_order", "double", "element_size", "expand", "expand_as", "float", "half", "int", "is_contiguous",
        "is_set_to", "item", "long", "ndimension", "nelement", "new_empty", "new_empty_strided", "new_full",
        "new_ones", "new_tensor", "new_zeros", "repeat", "reshape_as", "retain_grad", "short", "size", "storage_offset",
        "stride", "sum_to_size", "to", "to_dense", "tolist", "type", "type_as", "unfold", "view", "view_as",
    )
)  # fmt: skip
# What changes a tensor in place as a function of `torch`, and is no method.
FUNCTIONS = frozenset(
    (
        "alpha_dropout_",
        "celu_",
        "dropout_",
        "embedding_renorm_",
        "feature_alpha_dropout_",
        "feature_dropout_",
        "rrelu_",
        "selu_",
        "threshold_",
    )
)
PROPERTIES = frozenset(
    (
        *("H", "T", "mH", "mT", "ndim", "shape", "grad_fn", "is_leaf", "itemsize", "nbytes", "requires_grad"),
        *("retains_grad", "dtype", "device", "layout", "is_cpu", "is_cuda", "is_meta", "is_nested", "is_quantized"),
        "is_sparse",
    )
)
# What is a packed sequence in PyTorch, and a list of its tensors here.
PACKED = frozenset(("sequence", "packed_sequences"))
# What takes its tensors one after the other instead of as a list.
STARRED = frozenset(
    ("block_diag", "broadcast_shapes", "broadcast_tensors", "cartesian_prod", "chain_matmul", "meshgrid", "einsum")
)
OPTIMIZERS = {
    name.lower(): name
    for name in (
        *("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "ASGD", "Adagrad", "Adadelta"),
        *("Adafactor", "Muon"),
    )
}

_FUNCTION = "object of inputs, steps and return"
_NUMBERS = {"NaN": 'float("nan")', "Infinity": 'float("inf")', "-Infinity": '-float("inf")'}
_TAKEN = frozenset((*keyword.kwlist, *dir(builtins), "torch", "optimizer_step"))
_ID = re.compile(r"t\d+\Z")

_STEP = '''

def optimizer_step(kind, params, grads, state, **options):
    """One step of an optimizer of torch.optim whose state is kept in `state` between the steps."""
    shared = [p.detach() for p in params]  # the same memory, without history
    optimizer = kind(shared, **state.get("made with", {}), **options)
    for i, (p, g) in enumerate(zip(shared, grads)):
        p.grad = g
        if i in state:
            optimizer.state[p] = state[i]
    optimizer.step()
    for i, p in enumerate(shared):
        state[i] = optimizer.state[p]
'''


def write(history: Mapping[str, Any], catalogue: Sequence[Mapping[str, Any]]) -> str:
    """The script."""
    script = _Script({op["name"]: op for op in catalogue})
    for told in history["calls"]:
        script.program(told["number"], told["program"], told["ids"])
    first, *rest = opening(history)
    lines = [f'"""{first}']
    lines += ["", *rest] if rest else []
    lines += ['"""', "", "import torch"]
    if script.optimizes:
        lines += [*_STEP.splitlines(), ""]
    lines.append("")
    if history["default_dtype"] != "float32":
        lines.append(f"torch.set_default_dtype(torch.{history['default_dtype']})")
    if history["device"] != "cpu":
        lines.append(f'torch.set_default_device("{history["device"]}")')
    lines.append(f"torch.manual_seed({history['seed']})")
    if script.missing:
        lines.append("")
        forked = history["forked"] if history["whole"] else None
        before = f"made before call {history['begins']}" if forked is None else f"of the public session {forked}"
        for name, variable in script.missing.items():
            lines.append(f"{variable} = None  # {name}: {before}; put its values here")
        names = ", ".join(script.missing.values())
        lines.append(f'assert all(t is not None for t in [{names}]), "fill in what was made before: {names}"')
    lines += ["", *script.lines]
    shown = list(dict.fromkeys(script.variables[key] for key in script.names.values() if key in script.variables))
    if shown:
        lines.append("")
        lines += [f'print("{name}", {name}, sep=" = ")' for name in shown]
    return "\n".join(lines) + "\n"


class _Script:
    """Lines as they grow, and which variable stands for what."""

    def __init__(self, catalogue: Mapping[str, Mapping[str, Any]]) -> None:
        self.catalogue = catalogue
        self.lines: list[str] = []
        self.names: dict[str, str] = {}  # the session's names, and the id (or state) that each stands for
        self.variables: dict[str, str] = {}  # ids, and the variable of each
        self.missing: dict[str, str] = {}
        self.optimizes = False
        self.functions = 0
        self.locals: dict[str, str] = {}
        self._indent = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self._indent + text)

    # ------------------------------------------------ programs

    def program(self, number: int, program: Mapping[str, Any], ids: Mapping[str, Any]) -> None:
        """One program: its inputs, its steps, and then what it kept."""
        steps, inputs = program.get("steps") or [], program.get("inputs") or {}
        names = {**(program.get("keep") or {}), **(program.get("keep_all") or {})}
        names = {local: _spread(name, ids.get(local)) for local, name in names.items()}
        made = list(dict.fromkeys(_made_by(steps)))
        alone = len(steps) + len(inputs) == 1 and "repeat" not in (steps or ({},))[0]
        self.locals = {}
        if alone:
            variables = {local: self._own_variable(ids.get(local), names.get(local)) for local in (*inputs, *made)}
        else:
            variables = self._fresh_variables(number, inputs, made)
            self.line(f"# call {number}")
            for local in made:  # a name of the session is the session's until a step has made it
                if local not in inputs and self._known(local):
                    self.line(f"{variables[local]} = {self._reference(local)}")
        for local, value in inputs.items():
            text = self._tensor(value, False)
            if type(value) is str and local not in made:
                variables[local] = text  # another name of the same tensor
            else:
                self.line(f"{variables[local]} = {text}")
        if not alone:
            self.locals = dict(variables)
        self._within(bool(program.get("no_grad") and steps), lambda: self._steps(steps, variables, 1))
        self.locals = dict(variables)
        kept = [(self._reference(local), found, names.get(local)) for local, found in ids.items()]
        self.locals = {}
        for variable, found, name in kept:
            self._keep(variable, found, name)

    def _own_variable(self, ids: Any, name: Any) -> str:
        """The variable of the only result of a call: that of the tensor it is kept as; "" where none is kept."""
        if type(ids) is str:
            return _identifier(name) if type(name) is str else self.variables.get(ids) or _identifier(ids)
        return "result" if ids else ""

    def _fresh_variables(self, number: int, inputs: Iterable[str], made: Iterable[str]) -> dict[str, str]:
        """For each local name a variable that neither the session nor a program around it uses."""
        used = {*self.variables.values(), *self.missing.values(), *self.locals.values()}
        variables: dict[str, str] = {}
        for local in dict.fromkeys((*inputs, *made)):
            variable = _identifier(local)
            if variable in used:
                variable = f"{variable}_{number}"
            while variable in used:
                variable += "_"
            used.add(variable)
            variables[local] = variable
        return variables

    def _within(self, no_grad: bool, write: Callable[[], None]) -> None:
        """What `write` writes, where it is asked for without a tape."""
        if no_grad:
            self.line("with torch.no_grad():")
            self._indent += 1
        write()
        if no_grad:
            self._indent -= 1

    def _keep(self, variable: str, ids: Any, names: Any) -> None:
        """Binds what a program kept to the session's variables."""
        if type(ids) is str:
            self._bind(variable, ids, names if type(names) is str else None)
        elif isinstance(ids, list):
            for i, one in enumerate(ids):
                if one is not None:
                    self._keep(f"{variable}[{i}]", one, names[i] if isinstance(names, list) else None)
        elif isinstance(ids, Mapping):
            fields = names if isinstance(names, Mapping) else {}
            if all(isinstance(group, list) for group in ids.values()):  # an optimizer's state
                first = next((f for f in fields.values() if f), None)
                if first:
                    stem = first[0].rpartition(".")[0].rpartition(".")[0]
                    self.names[stem] = stem
                    self.variables[stem] = _identifier(stem)
                    if self.variables[stem] != variable:
                        self.line(f"{self.variables[stem]} = {variable}")
                return
            flat = isinstance(names, list)
            for i, (field, one) in enumerate(ids.items()):
                name = (names[i] if i < len(names) else None) if flat else fields.get(field)
                self._keep(f"{variable}.{field}", one, name)

    def _bind(self, variable: str, id: str, name: str | None) -> None:
        old = self.variables.get(id)
        wanted = _identifier(name or id) if name is not None or old is None else old
        if name is not None:
            previous = self.names.get(name)
            if previous is not None and previous != id:
                self.variables.pop(previous, None)
            for known, holder in list(self.names.items()):
                if holder == id and known != name:
                    del self.names[known]
            self.names[name] = id
        others = {v for key, v in self.variables.items() if key != id}
        while wanted in others:
            wanted += "_"
        if wanted != variable:
            self.line(f"{wanted} = {variable}")
        self.variables[id] = wanted

    # ------------------------------------------------ steps

    def _steps(self, steps: Sequence[Mapping[str, Any]], variables: Mapping[str, str], depth: int) -> None:
        for step in steps:
            if "repeat" in step:
                self._repeat(step, variables, depth)
            else:
                self._within(bool(step.get("no_grad")), partial(self._step, step, variables))

    def _repeat(self, step: Mapping[str, Any], variables: Mapping[str, str], depth: int) -> None:
        counter = f"round_{depth}"
        collect = step.get("collect") or {}
        for name in collect:
            self.line(f"{_identifier(name)}_collected = []")
        self.line(f"for {counter} in range(1, {step['repeat'] + 1}):")
        self._indent += 1
        self._steps(step.get("steps") or [], variables, depth + 1)
        if not step.get("steps") and not collect:
            self.line("pass")
        for name, every in collect.items():
            append = f"{_identifier(name)}_collected.append({self._reference(name)}.item())"
            self.line(append if every == 1 else f"if {counter} % {every} == 0:")
            if every != 1:
                self.lines.append("    " * (self._indent + 1) + append)
        self._indent -= 1

    def _function(self, function: Mapping[str, Any]) -> str:
        """Steps that an operation calls, as a function before its line: the function's name."""
        self.functions += 1
        inputs, steps, returns = function["inputs"], function["steps"], function["return"]
        made = list(dict.fromkeys(_made_by(steps)))
        (name,) = self._fresh_variables(self.functions, [f"function_{self.functions}"], ()).values()
        variables = self._fresh_variables(self.functions, inputs, made)
        self.line(f"def {name}({', '.join(variables[local] for local in inputs)}):")
        self._indent += 1
        for local in made:  # until a step has made it, a name is what it is around the function
            outside = local in self.locals or self._known(local)
            if outside and local not in inputs and _read_first(steps, local) is not False:
                self.line(f"{variables[local]} = {self._reference(local)}")
        around, self.locals = self.locals, {**self.locals, **variables}
        self._steps(steps, variables, 1)
        if isinstance(returns, list):
            self.line(f"return ({''.join(f'{self._reference(local)}, ' for local in returns).strip()})")
        else:
            self.line(f"return {self._reference(returns)}")
        self.locals = around
        self._indent -= 1
        return name

    def _step(self, step: Mapping[str, Any], variables: Mapping[str, str]) -> None:
        op, args, out = step["op"], dict(step.get("args") or {}), step.get("out")
        text = self._private(op, args) or self._call(op, args)
        if isinstance(out, Mapping):
            out = out["whole"]
        if text.startswith("raise "):
            self.line(text)
            return
        if op == "setitem_":
            given = self._tensor(args["input"], False)
            target = variables.get(out, "") if type(out) is str else ""
            if type(args["input"]) is not str:  # a tensor that was given in place needs a variable to be changed
                target = target or "changed"
                self.line(f"{target} = {given}")
                given = target
            self.line(f"{given}[{self._index(args['index'])}] = {self._tensor(args['value'], True)}")
            if target not in ("", given):
                self.line(f"{target} = {given}")
            return
        if type(out) is str and variables[out]:
            self.line(f"{variables[out]} = {text}")
        elif isinstance(out, list):
            targets = [variables[local] if local else "_" for local in out]
            self.line(f"{', '.join(targets)}{',' if len(targets) == 1 else ''} = {text}")
        else:
            self.line(text)

    def _private(self, op: str, args: Mapping[str, Any]) -> str | None:
        """What only the service has: releasing, naming, clearing."""
        if op == "_release":
            ref = args["input"]
            id = self.names.get(ref, ref)
            variable = self.variables.pop(id, None)
            self.names = {name: holder for name, holder in self.names.items() if holder != id}
            return "pass" if variable is None else f"del {variable}"
        if op == "_release_unnamed":
            named = set(self.names.values())
            gone = [self.variables.pop(id) for id in list(self.variables) if id not in named]
            return f"del {', '.join(gone)}" if gone else "pass"
        if op == "_clear_grad":
            return f"{self._reference(args['input'])}.grad = None"
        if op == "_rename" and args.get("name") is None:
            ref = self._reference(args["input"])
            id = next((key for key, variable in self.variables.items() if variable == ref), None)
            self.names = {name: holder for name, holder in self.names.items() if holder != id}
            return "pass"
        return None

    def _call(self, op: str, args: dict[str, Any]) -> str:
        """One operation as an expression."""
        kind = op.rpartition(".")[2]
        if op == "getitem":
            return f"{self._tensor(args['input'], False)}[{self._index(args['index'])}]"
        if op == "setitem_":
            return ""  # a statement: see _step
        if op.startswith("optim."):
            return self._optimizer(kind, args)
        entry = self.catalogue.get(op)
        params = entry["params"] if entry else []
        types = {p["name"]: p["type"] for p in params}
        order = [p["name"] for p in params if p["name"] in args] or list(args)
        order += [name for name in args if name not in order]
        values = [(name, self._argument(args[name], types.get(name, "any"), name)) for name in order]
        if _FUNCTION in types.values():  # these take several tensors as a tuple alone
            values = [
                (name, f"tuple({text})" if isinstance(args[name], list) and _tensors(args[name]) else text)
                for name, text in values
            ]
        if op.startswith("nn.utils.rnn."):
            values = [(n, f"torch.nn.utils.rnn.PackedSequence(*{text})" if n in PACKED else text) for n, text in values]
        if op in PROPERTIES:
            return f"{values[0][1]}.{op}"
        if op == "tensor":
            return self._constructed(args)
        if kind in STARRED:
            return f"torch.{op}({', '.join(text if name == 'equation' else f'*{text}' for name, text in values)})"
        # The tensors that must be given come first, by position: what they are called differs between a function's
        # documentation and what it takes.
        positional = 2 if op == "split" else 1  # PyTorch calls the second parameter otherwise than its methods do
        for p in params[1:]:
            tensors = p["type"].startswith(("Tensor", "list of Tensors"))
            if not (p["required"] and tensors and positional < len(values) and values[positional][0] == p["name"]):
                break
            positional += 1
        if op in METHODS or (kind.endswith("_") and "." not in op and op not in FUNCTIONS):
            (_, owner), *values = values
            return f"{owner}.{op}({_arguments(values, positional - 1)})"
        return f"torch.{op}({_arguments(values, positional)})"

    def _constructed(self, args: Mapping[str, Any]) -> str:
        given = {name: value for name, value in args.items() if value is not None and name != "data"}
        return self._literal({"data": args["data"], **given})

    def _optimizer(self, kind: str, args: dict[str, Any]) -> str:
        if kind.endswith("_state"):
            made = {name: value for name, value in args.items() if name == "initial_accumulator_value"}
            return f'{{"made with": {made!r}}}' if made else "{}"
        name = OPTIMIZERS.get(kind.rstrip("_"))
        if name is None:
            return f'raise NotImplementedError("torch.optim takes no step of {kind} with a state that is kept outside")'
        self.optimizes = True
        params = self._list(args.pop("params", []))
        grads = self._list(args.pop("grads", []))
        state = args.pop("state", None)
        held = "{}" if state is None else self._reference(state) if type(state) is str else repr(state)
        options = "".join(f", {name}={_plain(value)}" for name, value in args.items() if value is not None)
        return f"optimizer_step(torch.optim.{name}, {params}, {grads}, {held}{options})"

    # ------------------------------------------------ values

    def _argument(self, value: Any, type_: str, name: str) -> str:
        if value is None:
            return "None"
        if type_.startswith(_FUNCTION):
            return self._function(value)
        if type_ == "index":
            return f"[{self._index(value)}]"
        if "dtype" in type_ or (name in ("dtype", "d", "type") and type(value) is str and value in DTYPES):
            return f"torch.{value}"
        if type_.startswith("Tensor or list of Tensors") and isinstance(value, list) and _tensors(value):
            return self._list(value)
        if type_.startswith("Tensor"):
            return self._tensor(value, "Number" in type_)
        if "list of Tensors" in type_:
            if type(value) is str:
                return self._reference(value)
            if isinstance(value, list) and any(type(v) in (str, dict, list) or isinstance(v, ArrayData) for v in value):
                return self._list(value)
            return self._list(value) if type_.startswith("list") else _plain(value)
        if type_ == "data":
            return _nested(value)
        return _plain(value)

    def _list(self, values: Any) -> str:
        if type(values) is str:
            return self._reference(values)
        return f"[{', '.join('None' if v is None else self._tensor(v, False) for v in values)}]"

    def _tensor(self, value: Any, numbers: bool) -> str:
        """What stands where a tensor is wanted: a variable, a number where PyTorch takes one, else a new tensor."""
        if type(value) is str:
            return _NUMBERS.get(value) or self._reference(value)
        if type(value) is dict and "data" not in value:
            return _plain(value) if numbers else f"torch.tensor({_plain(value)})"
        if isinstance(value, dict | list | ArrayData):
            return self._literal(value)
        return _plain(value) if numbers else f"torch.tensor({_plain(value)})"

    def _literal(self, value: Any) -> str:
        """A tensor that was given in place."""
        given = value if type(value) is dict else {"data": value}
        data, dtype = given["data"], given.get("dtype")
        if isinstance(data, ArrayData) and not data.inferred and dtype is None:
            dtype = data.dtype
        options = "".join(
            f", {name}={text}"
            for name, text in (
                ("dtype", f"torch.{dtype}" if dtype else None),
                ("device", repr(given["device"]) if given.get("device") else None),
            )
            if text
        )
        text = f"torch.tensor({_nested(data, dtype)}{options})"
        if given.get("shape") is not None:
            text += f".reshape({given['shape']})"
        return f"{text}.requires_grad_()" if given.get("requires_grad") else text

    def _index(self, index: Any) -> str:
        parts = index if isinstance(index, list) else [index]
        texts = [self._index_part(part) for part in parts]
        return ", ".join(texts) if len(texts) != 1 or texts[0].startswith(("[", "torch")) else texts[0]

    def _index_part(self, part: Any) -> str:
        if isinstance(part, str):
            if part in ("...", "None"):
                return part
            return part if ":" in part else self._reference(part)
        if isinstance(part, dict | ArrayData):
            return self._literal(part)
        if isinstance(part, list):
            return f"torch.tensor({_nested(part)})" if part else "torch.tensor([], dtype=torch.int64)"
        return _plain(part)

    def _known(self, reference: str) -> bool:
        return reference in self.names or reference in self.variables

    def _reference(self, reference: str) -> str:
        """The variable that a name or id stands for; one that nothing here has made is missing."""
        if reference in self.locals:
            return self.locals[reference]
        if reference.endswith(".grad"):
            return self._reference(reference[:-5]) + ".grad"
        id = self.names.get(reference, reference)
        found = self.variables.get(id) or self.missing.get(reference)
        if found is None:
            found = self.missing[reference] = _identifier(reference)
        return found


def _made_by(steps: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """The local names that steps give, in their order."""
    for step in steps:
        if "repeat" in step:
            yield from _made_by(step.get("steps") or [])
            continue
        out = step.get("out")
        if isinstance(out, Mapping):
            yield out["whole"]
        elif type(out) is str:
            yield out
        else:
            yield from (name for name in out or () if name)


def _read_first(steps: Sequence[Mapping[str, Any]], name: str) -> bool | None:
    """Whether steps read a name before one of them makes it; None where they do neither."""
    for step in steps:
        if "repeat" in step:
            found = _read_first(step.get("steps") or [], name) if step["repeat"] else None
        elif _mentions(step.get("args"), name):
            found = True
        else:
            found = False if name in _made_by([step]) else None
        if found is not None:
            return found
    return None


def _mentions(value: Any, name: str) -> bool:
    if isinstance(value, Mapping):
        return any(_mentions(item, name) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, name) for item in value)
    return type(value) is str and name in (value, value.removesuffix(".grad"))


def _tensors(values: Sequence[Any]) -> bool:
    """Whether a list where one tensor may stand too is several: the service's own rule, see engine.arguments."""
    return any(
        (type(v) is str and v not in _NUMBERS)
        or isinstance(v, dict | ArrayData)
        or (isinstance(v, list) and _tensors(v))
        for v in values
    )


def _spread(name: Any, ids: Any) -> Any:
    """`x` for several results: `x.0`, `x.1`, …, or by field `x.values`, …, nested as the ids are."""
    if type(ids) is str or name is None:
        return name
    if isinstance(ids, list):
        return [_spread(f"{name}.{i}", one) for i, one in enumerate(ids)]
    return {field: _spread(f"{name}.{field}", one) for field, one in ids.items()} if isinstance(ids, Mapping) else name


def _identifier(name: str) -> str:
    """A Python variable for a name: itself where Python takes it."""
    made = re.sub(r"\W", "_", name, flags=re.ASCII)
    if made[:1].isdigit():
        made = f"_{made}"
    return f"{made}_" if made in _TAKEN or (made != name and _ID.match(made)) else made


def _arguments(values: Sequence[tuple[str, str]], positional: int) -> str:
    """Arguments in order, the first so many by position, the others by name."""
    return ", ".join(text if i < positional else f"{name}={text}" for i, (name, text) in enumerate(values))


def _plain(value: Any) -> str:
    """A value that is no tensor, as Python writes it."""
    if type(value) is str:
        return _NUMBERS.get(value) or repr(value)
    if type(value) is dict:
        if "float" in value:
            return _plain(float(value["float"]))
        if {"re", "im"} & value.keys():
            return f"complex({_plain(value.get('re', 0.0))}, {_plain(value.get('im', 0.0))})"
        return "{" + ", ".join(f"{key!r}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, ArrayData):
        return _nested(value)
    if type(value) is float and (value != value or abs(value) == float("inf")):
        return _NUMBERS["NaN" if value != value else "Infinity" if value > 0 else "-Infinity"]
    return repr(value)


def _nested(value: Any, dtype: str | None = None) -> str:
    """Data as nested lists; pairs of numbers are complex where the dtype is."""
    if isinstance(value, ArrayData):
        value = floats_of(value).tolist()
    if dtype in ("complex64", "complex128"):
        value = _complex(value)
    elif dtype is not None and "int" in dtype:
        value = _whole(value)
    return _plain(value)


def _complex(value: Any) -> Any:
    """Innermost pairs [re, im] as complex numbers; those that are ones already stay."""
    if isinstance(value, list):
        if len(value) == 2 and not any(isinstance(v, list | complex) for v in value):
            return {"re": value[0], "im": value[1]}
        return [_complex(v) for v in value]
    return value


def _whole(value: Any) -> Any:
    """Integers that came as strings, for readers of 53 bits, as integers."""
    if isinstance(value, list):
        return [_whole(v) for v in value]
    return int(value) if type(value) is str else value

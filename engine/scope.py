"""The names of a running program, and what its steps leave behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

from engine.arguments import kind_of, number, references
from engine.backend import CPU
from engine.context import Context
from engine.dtypes import dtype
from engine.errors import (
    EngineError,
    Hint,
    Invalid,
    MissingParameter,
    NoGrad,
    NoSuchTensor,
    OutOfMemory,
    WrongType,
)
from engine.literal import read
from engine.op import Op, Spec
from engine.steps import Step, known_fields
from engine.tape import require_grad
from engine.tensor import Tensor, fresh, lendable


class Namespace(Protocol):
    """What a program needs of the session it runs in."""

    ctx: Context

    def find(self, reference: str) -> Tensor | None: ...
    def find_state(self, reference: str) -> dict[str, list[Tensor]] | None: ...
    def references(self) -> Sequence[str]: ...


ABSENT = object()


class Scope:
    """The names of a running program: outputs so far, then inputs, then the session's."""

    __slots__ = ("ctx", "names", "session", "strict")

    def __init__(self, session: Namespace, strict: bool) -> None:
        self.session = session
        self.strict = strict
        self.ctx = session.ctx
        self.names: dict[str, Any] = {}

    def resolve(self, name: str, param: str | None = None) -> Any:
        """Whatever a name stands for; `x.grad` may be None. Raises NoSuchTensor with near names."""
        found = self.look(name)
        if found is not ABSENT:
            return found
        if name.endswith(".grad"):
            base = self.resolve(name[:-5], param)
            return base.grad if type(base) is Tensor else None
        known = [*self.names, *(() if self.strict else self.session.references())]
        near = get_close_matches(name, known, 3, 0.6)
        raise NoSuchTensor(
            f"there is no tensor {name!r}{' in this program' if self.strict else ''}",
            hint=Hint("near-names", near=near) if near else Hint("list-tensors"),
            param=param,
        )

    def look(self, name: str) -> Any:
        """Whatever a name stands for; ABSENT for none, and for gradients."""
        found = self.names.get(name, ABSENT)
        if found is ABSENT and not self.strict and not name.endswith(".grad"):
            t = self.session.find(name)
            if t is not None:
                return t
        return found

    def tensor(self, name: str, param: str) -> Tensor:
        found = self.resolve(name, param)
        if type(found) is Tensor:
            return found
        if found is None and name.endswith(".grad"):
            raise NoGrad(f"{name[:-5]!r} has no gradient yet", hint=Hint("no-grad-yet", name=name[:-5]), param=param)
        if type(found) in (bool, int, float, complex):
            return self.literal(found, param)
        what = "a list of tensors" if type(found) is list else kind_of(found)
        raise WrongType(f"{name!r} is {what}, and a tensor is wanted here", param=param)

    def tensors(self, name: str, param: str, op: str, *, nulls: bool = False) -> list[Any]:
        found = self.resolve(name, param)
        if type(found) is dict:  # a result of several fields, as a packed sequence is
            found = list(found.values())
        if type(found) is list and all(type(t) is Tensor or (nulls and t is None) for t in found):
            return found
        if type(found) is Tensor:
            raise WrongType(
                f"{op}(): argument '{param}' must be tuple of Tensors, not Tensor",
                hint=Hint("tensor-list", param=param, name=name),
                param=param,
            )
        raise WrongType(f"{name!r} is no list of tensors", param=param)

    def state(self, name: str, param: str) -> dict[str, Any]:
        found = self.names.get(name, ABSENT)
        if found is ABSENT and not self.strict:
            found = self.session.find_state(name) or ABSENT
        if type(found) is dict:
            return found
        raise NoSuchTensor(f"there is no optimizer state {name!r}", param=param, hint=Hint("make-state"))

    def literal(self, value: Any, param: str, empty: type = float, adopt: bool = False) -> Tensor:
        """A tensor from values that the caller wrote down; `adopt` where they are read only once."""
        ctx = self.ctx
        wanted = shape = None
        backend = ctx.default_backend
        flag = False
        if type(value) is dict:
            found = number(value)
            if found is not None:
                value = found
            else:
                known_fields(value, _LITERAL, _LITERAL, "tensor")
                if "data" not in value:
                    raise MissingParameter("a tensor needs data", param=param, hint=Hint("tensor-data"))
                d = value.get("dtype")
                wanted = dtype(d) if isinstance(d, str) else None
                if d is not None and wanted is None:
                    raise WrongType(f"dtype is a name, got {kind_of(d)}", param="dtype")
                shape = value.get("shape")
                if shape is not None and not (type(shape) is list and all(type(n) is int for n in shape)):
                    raise WrongType("shape is a list of whole numbers", param="shape")
                if value.get("device") is not None:
                    if not isinstance(value["device"], str):
                        raise WrongType("device is a name", param="device")
                    backend = ctx.find(value["device"])
                flag = value.get("requires_grad", False)
                if flag is None:
                    flag = False
                if type(flag) is not bool:
                    raise WrongType("requires_grad is true or false", param="requires_grad")
                value = value["data"]
        if empty is int and wanted is None and type(value) is list and not any(_numbers(value)):
            wanted = dtype("int64")
        array, d = read(value, wanted, shape, ctx.default_dtype, param=param, adopt=adopt)
        ctx.admit(array.nbytes)
        t = fresh(backend.from_host(array), Spec(array.shape, d), backend, ctx.ledger)
        if adopt and backend is CPU:
            t.storage.origin = lendable(t.array)
        if flag:
            require_grad(t)
        return t


def _numbers(items: list[Any]) -> Iterator[bool]:
    """Something for each item of nested lists that is no list."""
    for item in items:
        if type(item) is list:
            yield from _numbers(item)
        else:
            yield True


_LITERAL = ("data", "shape", "dtype", "device", "requires_grad")


@dataclass(slots=True)
class Outcome:
    """What a program left behind, before the session commits it."""

    scope: Scope
    collected: dict[str, list[Any]]
    steps_run: int
    plans: dict[tuple[int, ...], PlanReport] = field(default_factory=dict)
    kept: dict[tuple[int, ...], Any] = field(default_factory=dict)  # plans (engine.replays.Kept) of this request alone
    entry: Any = None  # what the worker keeps of the program (engine.replays.Entry)
    total: int = 0  # the steps that the program will run, as far as its text says
    rounds: list[int] = field(default_factory=list)  # of the repeats that are under way, the outer one first
    times: list[int] = field(default_factory=list)  # how many rounds each of them has


@dataclass(slots=True)
class PlanReport:
    """How a repeat ran: so many rounds by a plan, and why not the others, where there is a reason.

    `kernels`: fused kernels that a planned round calls, None where no tensor is on a CUDA device; `unfused`: why chains
    there run as array code.
    """

    rounds: int = 0
    why: str | None = None
    kernels: int | None = None
    unfused: str | None = None

    def told(self) -> dict[str, Any]:
        """The report as an answer has it."""
        found: dict[str, Any] = {"rounds": self.rounds, "why_not": self.why}
        if self.kernels is not None:
            found |= {"kernels": self.kernels, "why_not_fused": self.unfused}
        return found


def no_memory() -> OutOfMemory:
    """What is said where the machine itself has no memory left."""
    return OutOfMemory("the machine has no memory left for this", hint=Hint("free-memory", whose="server"))


def named(op: Op, made: Any) -> Any:
    """A result by torch's field names where it has them."""
    if op.fields is not None and type(made) is list:
        return {name: part for name, part in zip(op.fields, made, strict=False) if part is not None}
    return made


def bind_several(
    step: Step, out: list[str], made: Any, names: dict[str, Any], path: list[int], rounds: list[int]
) -> None:
    """Gives the parts of a result the names in `out`. Raises where they are not as many."""
    parts = list(made.values()) if type(made) is dict else made if type(made) in (list, tuple) else [made]
    if len(parts) != len(out):
        error = Invalid(
            f"{step.op.name} gives {len(parts)} result{'s' if len(parts) != 1 else ''}, but out names {len(out)}",
            code="out-count",
            param="out",
            hint=Hint("out-count", count=len(parts)),
        )
        locate(error, step, path, rounds)
        raise error
    names.update({name: part for name, part in zip(out, parts, strict=True) if name})


def locate(e: EngineError, step: Step, path: list[int], rounds: list[int]) -> None:
    """Says in the error which step it was, and fills its hint with what the caller gave."""
    if e.step is None:
        e.step = path
        e.round = list(rounds) or None
        e.op = step.op.name if e.op is None or e.op.startswith("_") else e.op
        if e.hint is not None:
            e.hint = e.hint.fill(references(step.given, step.op))


def one_number(value: Any, name: str) -> Any:
    """The number in a one-element tensor."""
    if type(value) in (bool, int, float, complex):
        return value
    if type(value) is Tensor and value.numel == 1:
        return item(value)
    raise Invalid(
        f"collect takes tensors of one element, and {name!r} is "
        + (f"of shape {list(value.shape)}" if type(value) is Tensor else kind_of(value)),
        code="collect-one-element",
        hint=Hint("collect-one"),
        param="collect",
    )


def item(t: Tensor) -> Any:
    """The one element of a tensor, as a Python number."""
    host = t.backend.to_host(t.array)
    if t.dtype.reduced:
        from engine.backend import CPU

        host = CPU.widen(host, t.dtype)
    return host.reshape(-1)[0].item()

"""Runs a case as a program in a session, and says what differs from PyTorch's answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.answer import ArrayData, TensorAnswer
from engine.declare import catalogue
from engine.dtypes import DTYPES
from engine.errors import EngineError
from engine.session import Session
from tests.conformance.reading import Array, Case, Fields, Reference, Spec, Word, widened
from tests.engine.programs import run

PARAMETERS = {entry["name"]: [p["name"] for p in entry["params"]] for entry in catalogue()}

# Parameters that the contract lacks, and the values of them that change neither dtype, shape nor values.
ABSENT: dict[str, tuple[str, ...]] = {
    "out": (),
    "layout": ("strided",),
    "pin_memory": ("False",),
    "memory_format": ("preserve_format", "contiguous_format"),
    "generator": (),
}
# Of equal elements PyTorch says which one these take.
TIES_DOCUMENTED = ("max", "min", "argmax", "argmin")


class CannotCall(Exception):
    """The case calls with parameters that the operation does not have."""


# ---------------------------------------------------------------- which cases run


def why_not(case: Case) -> str | None:
    """Why a case says nothing about this service, in a word; None where it does."""
    if case.operation is None:
        return "internal"
    arrays = [*case.inputs, *_arrays(list(case.arguments)), *_arrays(case.output if case.kind != "error" else None)]
    if any(x.dtype not in DTYPES for x in arrays) or any(
        isinstance(x, Word) and x in ("complex32", "uint16", "uint32", "uint64") for x in _leaves(list(case.arguments))
    ):
        return "dtype"
    if case.kind == "error":
        message = case.raw["error"]["message"]
        if case.raw["error"]["raised"] == "TypeError" and re.search(
            r"must be Tensor, not (int|float|bool|complex)|got \(int, (int|Tensor)\)", message
        ):
            return "number for a tensor"
        _, keywords, named = case.arguments
        for given in (keywords, named or {}):
            if any(k in ABSENT and v is not None and str(v) not in ABSENT[k] for k, v in given.items()):
                return "absent parameter"
    return None


def _leaves(v: Any) -> Iterable[Any]:
    if isinstance(v, list | tuple):
        for x in v:
            yield from _leaves(x)
    elif isinstance(v, dict):
        yield from _leaves(list(v.values()))
    else:
        yield v


def _arrays(v: Any) -> list[Any]:
    return [x for x in _leaves(v) if isinstance(x, Array | Spec)]


# ---------------------------------------------------------------- a case as a program


def arguments(case: Case, parameters: Sequence[str]) -> dict[str, Any]:
    """The call's arguments by the service's names; by PyTorch's positions where a name is not known."""
    args, keywords, named = case.arguments
    known = lambda given: {  # noqa: E731
        k: v for k, v in given.items() if k not in ABSENT and (k in parameters or not (v is None or v == "cpu"))
    }
    if named is not None:
        if case.operation == "getitem" and not isinstance(named["index"], tuple):
            named = {**named, "index": (named["index"],)}
        if case.raw.get("property") or all(k in parameters for k in known(named)):
            return known(named)
    elif case.operation == "to":
        return {**dict(zip(("input", "other", "non_blocking", "copy"), args, strict=False)), **known(keywords)}
    args = list(args)
    varargs = parameters[1:2] and parameters[1] in ("size", "shape", "dims", "sizes", "repeats")
    if varargs and len(args) > 2 and all(isinstance(v, int) for v in args[1:]):
        args[1:] = [args[1:]]
    elif len(args) > len(parameters) > 0:
        args[len(parameters) - 1 :] = [args[len(parameters) - 1 :]]
    found = {**dict(zip(parameters, args, strict=False)), **known(keywords)}
    if set(found) - set(parameters):
        raise CannotCall(f"no parameter {sorted(set(found) - set(parameters))} among {parameters}")
    return found


def written(v: Any, names: Sequence[str]) -> Any:
    """A value as a program writes it."""
    if isinstance(v, Reference):
        return names[v.number]
    if isinstance(v, list | tuple):
        return [written(x, names) for x in v]
    if isinstance(v, slice):
        parts = ["" if x is None else str(x) for x in (v.start, v.stop, v.step)]
        return ":".join(parts if v.step is not None else parts[:2])
    if v is Ellipsis:
        return "..."
    if isinstance(v, complex):
        return {"re": written(v.real, names), "im": written(v.imag, names)}
    if isinstance(v, float) and not np.isfinite(v):
        return "NaN" if v != v else "Infinity" if v > 0 else "-Infinity"
    return str(v) if isinstance(v, Word) else v


class Program:
    """The program of a case: its inputs are x0, x1, …, its outputs y0, y1, …, the cotangents g0, g1, …"""

    def __init__(self, case: Case, *, op: str | None = None, backward: bool = True) -> None:
        self.case = case
        operation = op or case.operation
        if operation not in PARAMETERS:
            raise CannotCall(f"there is no operation {operation}")
        inplace = op is not None
        self.inputs: dict[str, Any] = {}
        self.steps: list[dict[str, Any]] = []
        self.names: list[str] = []
        for number, (row, array) in enumerate(zip(case.raw["inputs"], case.inputs, strict=True)):
            self._add_input(f"x{number}", array, row)
            copied = row.get("requires_grad") and (case.raw.get("inplace_call") or (inplace and number == 0))
            if copied or (inplace and number == 0):  # a leaf that requires grad cannot be changed in place
                self.steps.append({"op": "clone", "args": {"input": f"x{number}"}, "out": f"c{number}"})
            self.names.append(f"c{number}" if copied or (inplace and number == 0) else f"x{number}")
        args = {k: written(v, self.names) for k, v in arguments(case, PARAMETERS[operation]).items()}
        expected = case.output if case.kind != "error" else None
        self.several = isinstance(expected, list | tuple) and bool(_arrays(expected))
        self.parts: list[Any] = list(expected) if self.several else [expected]
        self.outs = [f"y{i}" for i in range(len(self.parts))]
        self.steps.append({"op": operation, "args": args, "out": self.outs if self.several else "y0"})
        self.returns = [] if case.kind == "error" else list(self.outs)
        self.returns += [self.names[m["in"]] for m in case.raw.get("mutated", ())]
        self.grads = case.raw.get("grads") if backward else None
        if self.grads is not None:
            self._add_backward()

    def _add_input(self, name: str, array: Array, row: dict[str, Any]) -> None:
        flag = bool(row.get("requires_grad"))
        strides = row.get("strides")
        shape = array.stored.shape
        if strides is None or array.stored.size == 0:
            data = ArrayData(np.array(array.stored, order="C"), array.dtype)
            self.inputs[name] = {"data": data, "requires_grad": flag}
            return
        memory = np.zeros(1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)), array.stored.dtype)
        np.lib.stride_tricks.as_strided(memory, shape, [s * memory.itemsize for s in strides])[...] = array.stored
        self.inputs[f"m{name}"] = {"data": ArrayData(memory, array.dtype)}
        args = {"input": f"m{name}", "size": list(shape), "stride": list(strides)}
        self.steps.append({"op": "as_strided", "args": args, "out": name, "no_grad": True})
        if flag:
            self.steps.append({"op": "requires_grad_", "args": {"input": name}, "out": name})

    def _add_backward(self) -> None:
        case = self.case
        sent = [(f"y{i}", row) for i, row in enumerate(case.raw["cotangents"]) if row is not None]
        for i, (_, row) in enumerate(sent):
            array = case.table[row]
            self.inputs[f"g{i}"] = {"data": ArrayData(np.array(array.stored, order="C"), array.dtype)}
        if sent:
            args = {"tensors": [y for y, _ in sent], "grad_tensors": [f"g{i}" for i in range(len(sent))]}
            self.steps.append({"op": "autograd.backward", "args": args})
        self.returns += [f"x{k}.grad" for k, _ in self.grads or ()]

    def run(self, session: Session) -> dict[str, Any]:
        keep = {name: name for name in (*self.outs, *set(self.names))} if self.case.raw.get("aliases") else {}
        done = run(session, *self.steps, inputs=self.inputs, return_=self.returns, keep=keep)
        results: dict[str, Any] = done["results"]
        return results


# ---------------------------------------------------------------- what differs


def difference(got: Any, want: Any, tolerance: tuple[float, float], *, gauge: bool = False, shape: bool = False) -> str:
    """What is wrong with a result, in a sentence; empty where nothing is."""
    if isinstance(want, list | tuple):
        if isinstance(got, dict):
            got = list(got.values())
        if not isinstance(got, list) or len(got) != len(want):
            return f"{got!r} is no list of {len(want)}"
        pairs = zip(got, want, strict=True)
        return next((d for d in (difference(g, w, tolerance, gauge=gauge, shape=shape) for g, w in pairs) if d), "")
    if isinstance(want, Array | Spec):
        if not isinstance(got, TensorAnswer):
            return f"{got!r} is no tensor"
        if got.dtype != want.dtype:
            return f"dtype {got.dtype}, not {want.dtype}"
        wanted = want.shape if isinstance(want, Spec) else want.stored.shape
        if got.shape != wanted:
            return f"shape {got.shape}, not {wanted}"
        if isinstance(want, Spec) or shape:
            return ""
        assert got.values is not None
        return _unlike(widened(got.values, got.dtype), want.values, tolerance, gauge)
    if isinstance(want, Word):
        return "" if type(got).__name__ == want else f"{got!r} is no {want}"
    if isinstance(want, float | complex) and isinstance(got, int | float | complex) and not isinstance(got, bool):
        return "" if np.isclose(got, want, *tolerance, equal_nan=True) else f"{got!r}, not {want!r}"
    return "" if type(got) is type(want) and got == want else f"{got!r}, not {want!r}"


def _unlike(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], tolerance: tuple[float, float], gauge: bool) -> str:
    if a.dtype.kind not in "fc":
        return "" if np.array_equal(a, b) else f"{int((a != b).sum())} of {a.size} values differ"
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        a, b = a.astype(wide), b.astype(wide)
        if gauge:
            a, b = np.abs(a), np.abs(b)
        bad = ~np.isclose(a, b, *tolerance, equal_nan=True)
    if not bad.any():
        return ""
    return f"{int(bad.sum())} of {bad.size} values differ: {a[bad][0]!r}, not {b[bad][0]!r}"


def outputs_differ(program: Program, results: dict[str, Any]) -> str:
    case = program.case
    gauge = bool(case.raw.get("gauge"))
    _, _, named = case.arguments
    open_ties = case.raw.get("ties") and case.operation not in TIES_DOCUMENTED and not (named or {}).get("stable")
    fields = case.raw.get("output", {}).get("fields", []) if isinstance(case.raw.get("output"), dict) else []
    for i, want in enumerate(program.parts):
        picked = bool(open_ties) and (fields[i : i + 1] == ["indices"] or case.op == "argsort")
        found = difference(results[f"y{i}"], want, case.tolerance("out"), gauge=gauge, shape=picked)
        if found:
            return f"output {i}: {found}"
    for m in case.raw.get("mutated", ()):
        found = difference(results[program.names[m["in"]]], case.table[m["t"]], case.tolerance("out"))
        if found:
            return f"input {m['in']} afterwards: {found}"
    return ""


def aliases_differ(program: Program, session: Session) -> str:
    """Whether each output shares memory with an input where PyTorch's does, and nowhere else."""
    case = program.case
    tensors = {name: session.names.get(name) for name in (*program.outs, *program.names)}
    wanted = {tuple(pair) for pair in case.raw["aliases"]}
    for i, y in enumerate(program.outs):
        for number, x in enumerate(program.names):
            one, other = tensors[y], tensors[x]
            if one is None or other is None or not one.numel:  # None: the input itself came back, under another name
                continue
            shared = one.storage is other.storage
            if shared != ((i, number) in wanted):
                return f"output {i} {'shares' if shared else 'does not share'} memory with input {number}"
    return ""


def grads_differ(program: Program, results: dict[str, Any]) -> str:
    case = program.case
    assert program.grads is not None
    if case.raw.get("gauge"):  # other vectors than PyTorch's would need other cotangents
        parts = enumerate(program.parts)
        if any(difference(results[f"y{i}"], want, case.tolerance("out")) for i, want in parts):
            return ""
    for number, row in program.grads:
        got = results[f"x{number}.grad"]
        if row is None:  # zeros say the same
            if got is not None and got.values.any():
                return f"input {number} has a gradient, and should have none"
            continue
        want = case.table[row]
        if got is None:
            return f"input {number} has no gradient"
        if got.dtype != want.dtype:
            return f"the gradient of input {number} has dtype {got.dtype}, not {want.dtype}"
        a = _projected(case, number, widened(got.values, got.dtype))
        b = _projected(case, number, want.values)
        if a.shape != b.shape:
            return f"the gradient of input {number} has shape {a.shape}, not {b.shape}"
        found = _unlike(a, b, case.tolerance("grad"), False)
        if found:
            return f"the gradient of input {number}: {found}"
    return ""


def _projected(case: Case, number: int, a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The part of a gradient that is no convention: PyTorch's own test maps these inputs first."""
    rule = case.meta.get("grad_projection")
    _, _, named = case.arguments
    triangle = np.triu if (named or {}).get("upper", case.op == "triangular_solve") else np.tril
    if rule == "hermitian" and number == 0:
        return (a + np.conj(np.swapaxes(a, -1, -2))) / 2
    if rule == "triangular" and number == 1:
        return triangle(a)
    if rule == "triangular_real_positive_diagonal" and number == 0:
        a = triangle(a)
        n = np.arange(a.shape[-1])
        a[..., n, n] = a[..., n, n].real
    return a


# ---------------------------------------------------------------- the questions


def value_differs(case: Case) -> str:
    """Outputs, changed inputs, shared memory and gradients."""
    session = Session("s")
    try:
        program = Program(case)
        found = outputs_differ(program, results := program.run(session))
        if not found and case.raw.get("aliases"):
            found = aliases_differ(program, session)
        if not found and program.grads is not None:
            found = grads_differ(program, results)
        return found
    except (EngineError, CannotCall) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        session.close()


def error_differs(case: Case) -> tuple[str, bool]:
    """What is wrong with a refusal, and whether its words are PyTorch's."""
    session = Session("s")
    try:
        Program(case).run(session)
    except EngineError as error:
        return "", re.search(case.raw["error"]["regex"], str(error)) is not None
    except CannotCall as error:
        return str(error), False
    finally:
        session.close()
    return f"is not refused: {case.raw['error']['message'][:80]}", False


def inplace_differs(case: Case) -> str | None:
    """`x_` on a copy of the input gives what `x` gives, or is refused where the result is broader. None: not asked."""
    op = case.meta.get("inplace")
    output = case.output
    if not op or op not in PARAMETERS or not isinstance(output, Array) or case.raw.get("property"):
        return None
    first = case.arguments[0][:1]
    if case.operation != op.rstrip("_") or not first or not isinstance(first[0], Reference):
        return None
    given = case.inputs[first[0].number]
    if first[0].number != 0 or (case.arguments[2] or {}).get("dtype") is not None:
        return None
    same_shape = output.stored.shape == given.stored.shape
    refused = bool(case.raw.get("broadcasts_input")) and not same_shape
    if not refused and not (same_shape and output.dtype == given.dtype):
        return None
    session = Session("s")
    try:
        program = Program(case, op=op)
        results = program.run(session)
    except EngineError as error:
        return "" if refused else f"{op}: {type(error).__name__}: {error}"
    except CannotCall:
        return None
    finally:
        session.close()
    if refused:
        return f"{op}: a result broader than the input is not refused"
    found = outputs_differ(program, results)
    if not found and program.grads is not None:
        found = grads_differ(program, results)
    return found and f"{op}: {found}"


__all__ = ["Fields", "error_differs", "inplace_differs", "value_differs", "why_not"]

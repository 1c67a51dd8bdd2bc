"""Every call that the operations make on the stand-in is one that the real CuPy would take.

All samples of all operations run on the stand-in, in several dtypes, with gradients of first and second order, with a
recorder on. Each function call recorded is then bound against the signature of the installed CuPy's own function, each
ufunc call is looked up in CuPy's own table of type loops. Nothing runs on CuPy.
"""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from engine import simulated
from engine.autograd import run_backward
from engine.errors import EngineError
from engine.simulated.names import Parameters
from engine.tensor import Tensor
from tests.laws.harness import Case, operations, samples_of, seeds

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

WANTED = ("float64", "float32", "float16", "bfloat16", "complex64", "int64")
Calls = dict[Any, simulated.Call]


def shapeless(value: Any) -> Any:
    """A described value without its shape: what decides signature and loop."""
    if isinstance(value, tuple) and value[:1] == ("array",):
        return ("array", value[1], len(value[2]))
    return tuple(map(shapeless, value)) if isinstance(value, tuple) else value


def run_one(case: Case) -> None:
    """A sample, and where it has gradients both orders of them."""
    with np.errstate(all="ignore"), case.here():
        tensors = case.tensors(case.floats)
        outs = [t for t in case.outputs(tensors) if type(t) is Tensor]
        graded = [t for t in outs if t.requires_grad and t.dtype.is_floating]
        if not graded:
            return
        cots = [np.ones(t.shape, t.dtype.compute.np) if t in graded else None for t in outs]
        roots, given = seeds(case, outs, cots)
        inputs = [tensors[i] for i in case.floats]
        first = run_backward(roots, given, inputs=inputs, accumulate=False, create_graph=True)
        again = [t for t in first if t is not None and t.requires_grad and t.dtype.is_floating]
        if again:
            ones = [case.tensor(np.ones(t.shape, t.spec.dtype.np), t.dtype) for t in again]
            if all(not t.dtype.reduced for t in again):
                run_backward(again, ones, inputs=inputs, accumulate=False)


@pytest.fixture(scope="module")
def recorded() -> Calls:
    """Every distinct call, by name, dtypes, ranks and keywords."""
    calls: Calls = {}

    def hook(call: simulated.Call) -> None:
        calls.setdefault((call.name, shapeless(call.args), shapeless(call.kwargs)), call)

    ran = 0
    with simulated.recording(hook):
        for name in operations():
            for number in range(len(samples_of(name))):
                for wanted in WANTED:
                    try:
                        case = Case(name, number, "cuda:0", wanted)
                        if wanted != WANTED[0] and not any(t.dtype is None for t in case.drawn):
                            continue
                        run_one(case)
                        ran += 1
                    except EngineError:
                        continue  # not for this dtype; the laws look after how that is refused
    assert ran > 3000
    return calls


def resolve(name: str) -> Any:
    """The object of CuPy that a recorded name stands for."""
    parts_of = name.split(".")
    for split in range(len(parts_of), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts_of[:split]))
        except ImportError:
            continue
        for part in parts_of[split:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def test_the_recorder_has_heard_much(recorded: Calls) -> None:
    assert len(recorded) > 3000
    assert len({call.name for call in recorded.values()}) > 120


def test_every_function_call_binds_to_the_real_signature(names_script: ModuleType, recorded: Calls) -> None:
    import cupy

    signatures: dict[str, Any] = {}
    bound, wrong = 0, []
    for call in recorded.values():
        target = resolve(call.name)
        if isinstance(target, cupy.ufunc) or call.name.endswith(".at") or call.name == "cupy.ndarray":
            continue  # these have tests of their own, below
        if call.name not in signatures:
            text = names_script.signature_text(target)
            signatures[call.name] = None if text is None else Parameters(call.name, text)
        if signatures[call.name] is None:
            continue
        try:
            signatures[call.name].bind(call.args, dict(call.kwargs))
            if inspect.isfunction(target):  # and by Python itself, where it can
                inspect.signature(target).bind(*call.args, **dict(call.kwargs))
        except TypeError as error:
            wrong.append(f"{call.name}{call.args}{call.kwargs}: {error}")
        bound += 1
    assert wrong == []
    assert bound > 1000


def _operand(value: Any) -> Any:
    """A described operand as CuPy's search for a loop sees it: a dtype, or a Python scalar's."""
    if value[0] == "array":
        return np.dtype(value[1]), None
    kind = {"bool": bool, "int": int, "float": float, "complex": complex}[value[1]]
    return np.dtype({bool: "?", int: "q", float: "d", complex: "D"}[kind]), None if kind is bool else kind


def test_every_ufunc_call_has_a_loop_in_the_real_table(recorded: Calls) -> None:
    import cupy

    found, wrong = 0, []
    for call in recorded.values():
        target = resolve(call.name)
        if not isinstance(target, cupy.ufunc):
            continue
        operands = [_operand(value) for value in call.args[: target.nin]]
        keywords = dict(call.kwargs)
        extra = set(keywords) - {"out", "dtype", "casting"}
        dtype = keywords.get("dtype")
        wanted = np.dtype(dtype[1]) if dtype is not None else None
        types = tuple(t for t, _ in operands)
        weaks = tuple(w for _, w in operands)
        try:
            if wanted is not None:
                op = (
                    target._ops._guess_routine_from_dtype(wanted)
                    if target._out_ops is None
                    else (target._out_ops._guess_routine_from_dtype(wanted))
                )
            elif any(weaks) and not all(w is not None for w in weaks):
                op = next((o for o in target._ops.ops if _fits(types, weaks, o.in_types)), None)
            else:
                op = target._ops._guess_routine_from_in_types(types)
        except TypeError as error:
            op, extra = None, {str(error)}
        if op is None or op.error_func is not None or extra:
            wrong.append(f"{call.name}{call.args}{call.kwargs}")
        found += 1
    assert wrong == []
    assert found > 1000


def _fits(types: tuple[Any, ...], weaks: tuple[Any, ...], loop: tuple[Any, ...]) -> bool:
    """Whether arrays can be cast safely, and weak scalars be made, into the types of a loop."""
    for given, weak, into in zip(types, weaks, loop, strict=True):
        if weak is None:
            if not np.can_cast(given, into):
                return False
        elif np.result_type(weak(0), into) != into and not np.can_cast(given, into):
            return False
    return True


def test_every_scatter_has_an_atomic_operation(recorded: Calls) -> None:
    """`cupy.add.at` and its like: the ufunc has an operation for it, and the dtype is among those of CuPy's kernel."""
    from engine.simulated.ufuncs import AT_DTYPES

    calls = [call for call in recorded.values() if call.name.endswith(".at")]
    assert calls
    for call in calls:
        operation = resolve(call.name.removesuffix(".at"))._scatter_op
        assert operation is not None, call
        assert np.dtype(call.args[0][1]).char in AT_DTYPES[operation], call


def test_arrays_from_pointers() -> None:
    """cupy.ndarray(shape, dtype, memptr, strides, order): the parameters that views are made by."""
    import cupy

    words = (cupy.ndarray.__new__.__doc__ or "") + (cupy.ndarray.__init__.__doc__ or "") + (cupy.ndarray.__doc__ or "")
    for parameter in ("shape", "dtype", "memptr", "strides", "order"):
        assert re.search(rf"\b{parameter}\b", words), parameter

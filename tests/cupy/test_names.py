"""What the stand-in offers is what the installed CuPy offers: names, parameters, methods, type loops."""

from __future__ import annotations

import importlib
import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from engine import simulated
from engine.simulated.names import NAMES
from tests.engine.simulated_calls import DTYPES, sp, xp

pytestmark = pytest.mark.filterwarnings("ignore")


def place(module: str) -> Any:
    """The stand-in's module of CuPy's dotted name."""
    found: Any = sp if module.startswith("cupyx.scipy") else xp
    parts = module.split(".")
    for part in parts[2 if module.startswith("cupyx.scipy") else 1 :]:
        found = getattr(found, part)
    return found


def test_the_list_is_what_the_installed_cupy_offers(names_script: ModuleType) -> None:
    assert names_script.read() == NAMES, "python scripts/cupy_names.py writes the list"


@pytest.mark.parametrize("module", [m for m in NAMES["modules"] if m != "cupyx"])
def test_every_name_that_cupy_lacks_the_stand_in_lacks(names_script: ModuleType, module: str) -> None:
    """All that NumPy or SciPy has under this name is tried: what CuPy has not must not be there."""
    real = importlib.import_module(module)
    host = importlib.import_module(module.replace("cupyx.scipy", "scipy").replace("cupy", "numpy"))
    lacking = [n for n in dir(host) if not n.startswith("_") and not hasattr(real, n)]
    assert [n for n in lacking if hasattr(place(module), n)] == []
    if module in ("cupy", "cupy.linalg", "cupyx.scipy.special", "cupyx.scipy.linalg"):
        assert len(lacking) > 5


@pytest.mark.parametrize("module", [m for m in NAMES["modules"] if m != "cupyx"])
def test_every_name_that_the_stand_in_has_cupy_has(names_script: ModuleType, module: str) -> None:
    real, ours = importlib.import_module(module), place(module)
    offered = [n for n in dir(ours) if hasattr(ours, n)]
    assert [n for n in offered if not hasattr(real, n)] == []
    assert offered


def test_methods_and_attributes() -> None:
    import cupy

    ours = {n for n in dir(simulated.ndarray) if not n.startswith("_")}
    assert sorted(n for n in ours if not hasattr(cupy.ndarray, n)) == []
    # Special methods too: an operator that CuPy's arrays lack must not work here.
    own = {n for n in vars(simulated.ndarray) if n.startswith("__")}
    python = {"__getattr__", "__slots__", "__weakref__", "__annotations__", "__module__", "__doc__", "__repr__"}
    assert sorted(n for n in own - python if not hasattr(cupy.ndarray, n)) == []


@pytest.mark.parametrize("module", [m for m in NAMES["modules"] if m != "cupyx"])
def test_every_keyword_that_cupy_does_not_take_is_refused(names_script: ModuleType, module: str) -> None:
    """Each function is offered every keyword that any other function of its module takes, and that CuPy's has not."""
    from engine.simulated.names import Parameters

    real = importlib.import_module(module)
    texts = {}
    for name in NAMES["modules"][module]["functions"]:
        text = names_script.signature_text(getattr(real, name))
        if text is not None:
            texts[name] = Parameters(name, text)
    keywords = sorted({k for p in texts.values() for k in p.allowed})
    tried = 0
    for name, signature in texts.items():
        if signature.takes_any or not hasattr(place(module), name):
            continue
        function = getattr(place(module), name)
        for keyword in keywords:
            if keyword not in signature.allowed:
                tried += 1
                with pytest.raises(TypeError):
                    function(**{keyword: None})
    assert tried or len(keywords) < 3


def test_loops_are_chosen_as_cupy_chooses() -> None:
    import cupy

    for name in NAMES["modules"]["cupy"]["ufuncs"]:
        theirs, ours = getattr(cupy, name), getattr(xp, name)
        for types in itertools.product(DTYPES, repeat=theirs.nin):
            op = theirs._ops._guess_routine_from_in_types(types)
            try:
                found = ours._loops.find(name, [np.zeros(1, t) for t in types], None)
            except TypeError:
                assert op is None or op.error_func is not None
            else:
                assert found == (op.in_types, op.out_types)

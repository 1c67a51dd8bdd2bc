"""Tests of an installed CuPy: run by `make test-cupy`. It needs no GPU and no driver: nothing is computed with it."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cupy_names.py"
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("cupy") is None:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="CuPy is not installed: `make test-cupy` installs it"))


@pytest.fixture(scope="session")
def names_script() -> ModuleType:
    """scripts/cupy_names.py, with empty modules in place of the CUDA libraries that are not installed."""
    spec = importlib.util.spec_from_file_location("cupy_names", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cupy_names"] = module
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.replace_missing_libraries()
    return module

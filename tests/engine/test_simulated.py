"""The stand-in for CuPy: it computes what NumPy computes, and refuses what CuPy refuses.

Each strict rule has a test that fails when the rule is dropped; those on memory and indices are in
`test_simulated_memory.py`, those on dtypes and linear algebra in `test_simulated_numbers.py`. The list of names is held
to an installed CuPy where there is one.
"""

from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

from engine import simulated
from engine.simulated import linear
from engine.simulated.functions import TABLE
from engine.simulated.names import NAMES, kind_of, parameters
from engine.simulated.routines import ROUTINES
from tests.engine.simulated_calls import (
    AGREEING,
    DTYPES,
    GENERIC,
    Scipy,
    expressions,
    hosts,
    on_device,
    parts,
    run,
    sp,
    xp,
)

# NumPy or SciPy calls it otherwise.
ELSEWHERE = {
    "a.ptp(axis=1)": "np.ptp(a, axis=1)",
    "sp.linalg.lu_solve(sp.linalg.lu_factor(p),p[0])": "sp.linalg.solve(p, p[0])",
}


@pytest.mark.parametrize("expression", expressions())
def test_agrees_with_numpy(expression: str) -> None:
    values = hosts()
    wanted = parts(run(ELSEWHERE.get(expression, expression), np, Scipy, values))
    got = parts(run(expression, xp, sp, on_device(values)))
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        if isinstance(ours, simulated.ndarray):
            assert ours.shape == np.shape(theirs)
            if "lu_factor" not in expression:  # cuSOLVER counts pivots in int32
                assert ours.dtype == np.asarray(theirs).dtype
            np.testing.assert_allclose(ours.get(), theirs, rtol=1e-5, atol=1e-6)
        else:
            assert ours == theirs


def test_every_function_offered_is_tried_above() -> None:
    elsewhere = {"asnumpy", "copyto", "empty", "empty_like", "fill_diagonal", "get_array_module", "place", "put"}
    elsewhere |= {"put_along_axis", "putmask"}
    missing = [n for n in (*TABLE, *ROUTINES) if f"xp.{n}(" not in AGREEING and n not in elsewhere]
    missing += [n for n in linear.LINALG if f"xp.linalg.{n}(" not in AGREEING]
    missing += [n for part, names in linear.SCIPY.items() for n in names if f"sp.{part}.{n}(" not in AGREEING]
    assert not missing


@pytest.mark.parametrize("expression", expressions(GENERIC))
def test_what_has_no_line_of_its_own_agrees_too(expression: str) -> None:
    values = hosts()
    wanted = parts(run(expression, np, Scipy, values))
    got = parts(run(expression, xp, sp, on_device(values)))
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert isinstance(ours, simulated.ndarray)
        assert ours.shape == np.shape(theirs)
        np.testing.assert_allclose(ours.get(), theirs, rtol=1e-5, atol=1e-6)


def generic_names() -> list[tuple[str, str]]:
    modules = {m: r for m, r in NAMES["modules"].items() if m.startswith("cupyx.scipy.")}
    return [
        (m, n)
        for m, r in modules.items()
        for n in r["functions"]
        if m.count(".") > 2 or not linear.is_written(m.rpartition(".")[2], n)
    ]


def test_every_other_function_of_cupyx_scipy_is_served_too_and_held_to_its_parameters() -> None:
    lacking = []
    for module, name in generic_names():
        place: Any = sp
        for part in module.split(".")[2:]:
            place = getattr(place, part)
        try:
            function = getattr(place, name)
        except simulated.NotOffered:
            lacking.append(f"{module}.{name}")
            continue
        if not parameters(module, name).takes_any:
            with pytest.raises(TypeError, match="takes no keyword 'no_such'"):
                function(no_such=1)
    # What SciPy has dropped since.
    gone = {"special.btdtr", "special.btdtri", "special.sph_harm", "fft.get_fft_plan", "linalg.kron"}
    gone |= {f"signal.{n}" for n in ("cwt", "morlet", "morlet2", "qmf", "ricker")}
    assert {name.removeprefix("cupyx.scipy.") for name in lacking} <= gone
    assert len(generic_names()) > 200


def test_no_host_value_crosses_where_there_is_no_line_of_its_own() -> None:
    w = xp.asarray([0.5, 1.5, -2.0, 3.0])
    host = np.ones(4)
    for call in (
        lambda: sp.signal.lfilter(host, w, w),
        lambda: sp.signal.lfilter([host], w, w),
        lambda: sp.ndimage.laplace(host),
        lambda: sp.signal.windows.kaiser(6, beta=np.float64(8.0)),
        lambda: xp.polyval(host, w),
    ):
        with pytest.raises(TypeError, match="cannot be used on the device"):
            call()


@pytest.mark.parametrize("name", sorted(NAMES["modules"]["cupy"]["ufuncs"]))
def test_ufuncs_agree_with_numpy_on_every_dtype_they_take(name: str) -> None:
    ours, theirs = getattr(xp, name), getattr(np, name)
    tried = 0
    for dtype in DTYPES[1:]:  # bool has loops of its own: see test_bool_and_complex_loops
        operands = [np.array([[1, 2, 3], [4, 1, 2]]).astype(dtype) for _ in range(ours.nin)]
        try:
            results = parts(ours(*map(xp.asarray, operands)))
        except TypeError:
            continue
        tried += 1
        with np.errstate(all="ignore"):
            wanted = list(map(np.asarray, parts(theirs(*operands))))
        for result, expected in zip(results, wanted, strict=True):
            if name not in ("i0", "sinc"):  # no ufuncs in NumPy, always float64 there
                assert result.dtype == expected.dtype
            np.testing.assert_allclose(result.get(), expected, rtol=1e-2 if dtype.char in "bBe" else 1e-5, atol=1e-3)
    assert tried >= 3


# ---------------------------------------------------------------- names and keywords


@pytest.mark.parametrize(
    "module, name",
    [
        (xp, "vecdot"),
        (xp, "unstack"),
        (xp, "nanquantile"),
        (xp, "nanpercentile"),
        (xp, "matvec"),
        (xp, "spacing"),
        (xp.linalg, "vector_norm"),
        (xp.linalg, "matrix_norm"),
        (xp.linalg, "svdvals"),
        (xp.linalg, "multi_dot"),
        (xp.linalg, "trace"),
        (xp.linalg, "outer"),
        (sp.linalg, "cholesky"),
        (sp.linalg, "solve"),
        (sp.linalg, "sqrtm"),
        (sp.special, "jv"),
        (sp.special, "kv"),
        (sp.special, "spherical_jn"),
        (sp.special, "eval_hermite"),
    ],
)
def test_what_cupy_lacks_is_missing(module: Any, name: str) -> None:
    assert not hasattr(module, name)
    with pytest.raises(AttributeError, match=f"CuPy 14.* has no '{name}'"):
        getattr(module, name)


def test_nothing_of_numpy_is_there_that_cupy_lacks() -> None:
    lacking = [n for n in dir(np) if not n.startswith("_") and kind_of("cupy", n) is None]
    assert {"vecdot", "unstack", "nanquantile", "nanpercentile"} <= set(lacking)
    assert not [n for n in lacking if hasattr(xp, n)]
    listed_not = [n for n in dir(np.linalg) if not n.startswith("_") and kind_of("cupy.linalg", n) is None]
    assert not [n for n in listed_not if hasattr(xp.linalg, n)]
    array = xp.zeros(2)
    listed = NAMES["ndarray"]
    known = {*listed["methods"], *listed["attributes"], *listed["special"]}
    assert not [n for n in dir(np.ndarray) if not n.startswith("_") and n not in known and hasattr(array, n)]


def test_the_array_class_has_no_public_name_of_its_own() -> None:
    listed = NAMES["ndarray"]
    assert {n for n in vars(simulated.ndarray) if not n.startswith("_")} <= {*listed["methods"], *listed["attributes"]}
    special = {n for n in vars(simulated.ndarray) if n.startswith("__")}
    assert special - set(listed["special"]) <= {
        "__getattr__",
        "__slots__",
        "__weakref__",
        "__repr__",
        "__annotations__",
    }
    assert "__imatmul__" not in special
    assert "__index__" not in special


@pytest.mark.parametrize("name", ["RawModule", "ElementwiseKernel", "fuse", "random", "cuda", "apply_along_axis"])
def test_what_only_the_standin_lacks_is_said_so(name: str) -> None:
    with pytest.raises(simulated.NotOffered, match="the stand-in does not offer it"):
        getattr(xp, name)
    assert not hasattr(xp, name)
    with pytest.raises(simulated.NotOffered):
        xp.zeros(2).toDlpack()


@pytest.mark.parametrize(
    "expression",
    [
        "xp.sum(a, where=m)",
        "xp.sum(a, initial=1.0)",
        "xp.max(a, initial=0.0)",
        "xp.mean(a, where=m)",
        "xp.var(a, correction=1)",
        "xp.count_nonzero(m, axis=0, keepdims=True)",
        "xp.sort(a, stable=True)",
        "xp.argsort(a, stable=True)",
        "xp.sort(a, order=None)",
        "xp.clip(a, min=0, max=1)",
        "xp.take(a, u, mode='clip')",
        "xp.unique(a, sorted=True)",
        "xp.reshape(a, shape=(4, 3))",
        "xp.einsum('ij->i', a, out=a[0])",
        "xp.add(a, b, where=m)",
        "xp.add(a, b, subok=True)",
        "xp.add(a, b, order='C')",
        "xp.matmul(p, p, dtype=np.float64)",
        "xp.zeros(3, device=None)",
        "xp.linalg.cholesky(p, upper=True)",
        "xp.linalg.svd(p, hermitian=True)",
        "xp.linalg.pinv(p, rtol=1e-6)",
        "xp.linalg.matrix_rank(p, rtol=1e-6)",
        "sp.linalg.solve_triangular(p, p, overwrite_a=True)",
        "a.sum(initial=0)",
        "a.argsort(stable=True)",
        "a.astype(np.int32, casting='safe')",
        "a.argmax(axis=0, where=m)",
    ],
)
def test_keywords_that_cupy_does_not_take(expression: str) -> None:
    with pytest.raises(TypeError):
        run(expression, xp, sp, on_device(hosts()))


def test_too_many_and_missing_arguments() -> None:
    a = xp.zeros((2, 2))
    with pytest.raises(TypeError, match="positional"):
        xp.sum(a, 0, None, None, False, 0)
    with pytest.raises(TypeError, match="misses 'axis'"):
        xp.take_along_axis(a, xp.zeros((2, 2), np.int64))
    with pytest.raises(TypeError, match="two values"):
        xp.sum(a, a=a)
    with pytest.raises(TypeError, match="operands"):
        xp.add(a)


# ---------------------------------------------------------------- nothing crosses by itself


HOST_VALUES = [np.ones((2, 2)), np.ones(()), np.float32(2), np.float64(2), np.int64(1), np.bool_(True)]


@pytest.mark.parametrize("value", HOST_VALUES, ids=lambda v: f"{type(v).__name__}{np.ndim(v)}")
def test_host_values_are_refused_everywhere(value: Any) -> None:
    a = xp.ones((2, 2))
    calls: list[Any] = [
        lambda: a + value,
        lambda: value + a,
        lambda: value * a,
        lambda: a < value,
        lambda: a == value,
        lambda: a @ value,
        lambda: xp.add(a, value),
        lambda: xp.add(value, a),
        lambda: xp.where(a > 0, a, value),
        lambda: xp.where(value, a, a),
        lambda: xp.clip(a, value, None),
        lambda: xp.full((2,), value),
        lambda: xp.full_like(a, value),
        lambda: xp.sum(value),
        lambda: xp.sum(a, axis=value),
        lambda: xp.zeros(value),
        lambda: xp.concatenate((a, value)),
        lambda: xp.stack([a, value]),
        lambda: xp.take(a, value),
        lambda: xp.searchsorted(a[0], value),
        lambda: xp.linalg.solve(a, value),
        lambda: xp.fft.fft(value),
        lambda: sp.special.erf(value),
        lambda: sp.special.logsumexp(a, b=value),
        lambda: xp.einsum("ij,ij->i", a, value),
        lambda: a.fill(value),
        lambda: a[value],
        lambda: a.__setitem__(0, value),
        lambda: a.__setitem__(..., value),
        lambda: a.__setitem__(xp.asarray([0]), value),
        lambda: a.__setitem__(value, 1.0),
        lambda: xp.add.at(a, xp.asarray([0]), value),
        lambda: xp.put(a, xp.asarray([0]), value),
        lambda: xp.copyto(a, value),
        lambda: xp.add(a, a, out=value),
        lambda: a.reshape(value),
        lambda: a[: value if isinstance(value, np.int64) else np.int64(1)],
        lambda: xp.repeat(a, value),
    ]
    for i, call in enumerate(calls):
        with pytest.raises(TypeError):
            print("not refused: call", i, call())


def test_numpy_does_not_take_device_arrays() -> None:
    a = xp.ones((2, 2))
    for call in (
        lambda: np.asarray(a),
        lambda: np.array([a, a]),
        lambda: np.add(a, 1),
        lambda: np.add.reduce(a),
        lambda: np.exp(a),
        lambda: np.sum(a),
        lambda: np.concatenate([a, a]),
        lambda: np.ones(2) + a,
        lambda: np.float32(1) - a,
        lambda: np.linalg.inv(a),
        lambda: scipy.special.erf(a),
        lambda: np.ones(2).__iadd__(a),
        lambda: np.zeros((2, 2)).__setitem__(0, a),
        lambda: memoryview(a),
        lambda: xp.asarray([a, a]),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()


def test_lists_are_no_arrays() -> None:
    a = xp.ones((2, 2))
    for call in (
        lambda: xp.sum([1.0, 2.0]),
        lambda: xp.add(a, [1.0, 2.0]),
        lambda: a[[0, 1]],
        lambda: a.__setitem__(0, [1.0, 2.0]),
        lambda: xp.concatenate(a),
        lambda: xp.take(a, [0]),
        lambda: xp.sum(3.0),
        lambda: a[True],
        lambda: a["x"],
        lambda: a[1.0],
    ):
        with pytest.raises(TypeError):
            call()


def test_device_arrays_are_no_shapes_and_axes() -> None:
    a, one = xp.ones((2, 2)), xp.asarray(1)
    for call in (
        lambda: xp.zeros(one),
        lambda: xp.sum(a, axis=one),
        lambda: xp.reshape(a, (one, 4)),
        lambda: a.reshape(one, -1),
        lambda: xp.roll(a, one),
        lambda: xp.arange(one),
        lambda: xp.broadcast_to(a, (one, 2, 2)),
        lambda: a[one:],
        lambda: range(one),
        lambda: xp.ndarray((one,)),
    ):
        with pytest.raises(TypeError):
            call()


def test_the_borders() -> None:
    host = np.arange(6.0).reshape(2, 3)
    a = xp.asarray(host)
    host[0, 0] = 100
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]]  # a copy went over
    back = a.get()
    back[0, 0] = 7
    assert float(a[0, 0]) == 0
    assert type(xp.asnumpy(a)) is np.ndarray
    out = np.empty((2, 3))
    assert xp.asnumpy(a, out=out) is out
    assert out.tolist() == a.tolist()
    with pytest.raises(TypeError):
        a.get(out=np.empty((2, 3), np.float32))
    with pytest.raises(ValueError, match="hape"):
        a.get(out=np.empty((3, 2)))
    a.set(np.ones((2, 3)))
    assert a.tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(TypeError):
        a.set(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="copy"):
        xp.asarray(host, copy=False)
    assert xp.asarray(a) is a
    assert xp.array(a) is not a
    assert xp.asarray(np.asfortranarray(host)).flags.f_contiguous
    assert xp.get_array_module(1, a) is xp
    assert xp.get_array_module(host) is np
    with pytest.raises(ValueError, match="Unsupported dtype"):
        xp.asarray(["a"])
    for make in (xp.zeros, xp.empty, xp.ones):
        for dtype in ("M8[s]", object, "S3", ">f4"):
            with pytest.raises(ValueError, match="Unsupported dtype"):
                make(2, dtype)


def test_scalars_come_back_by_waiting() -> None:
    one = xp.asarray(1.5)
    assert (float(one), int(one), complex(one), bool(one), one.item()) == (1.5, 1, 1.5 + 0j, True, 1.5)
    assert bool(xp.zeros((1, 1))) is False
    for empty_or_many in (xp.zeros(0), xp.zeros(2)):
        with pytest.raises(ValueError, match="ambiguous"):
            bool(empty_or_many)
        with pytest.raises(ValueError, match="size 1"):
            float(empty_or_many)


def test_copies_and_pickles() -> None:
    a = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    for other in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert type(other) is simulated.ndarray
        assert other.tolist() == a.tolist()
        assert not xp.shares_memory(a, other)
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_zero_dimensions_are_arrays() -> None:
    a = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    for result in (
        a.sum(),
        a[0, 0],
        a.max(),
        xp.mean(a),
        xp.dot(a[0], a[0]),
        a[0] @ a[0],
        xp.add(xp.asarray(1), 2),
        xp.allclose(a, a),
        xp.array_equal(a, a),
        xp.count_nonzero(a),
        xp.linalg.norm(a),
        xp.linalg.det(a),
        xp.linalg.matrix_rank(a),
        xp.take(a, 1),
        a[xp.asarray(0), 1],
        xp.einsum("ii", a),
        xp.searchsorted(a[0], 1.5),
        xp.trace(a),
        *a.ravel(),
    ):
        assert type(result) is simulated.ndarray
        assert result.shape == ()
    assert type(xp.linalg.slogdet(a)) is tuple


# ---------------------------------------------------------------- the recorder


def test_recorder() -> None:
    calls: set[simulated.Call] = set()
    a = xp.ones((2, 3), np.float32)
    with simulated.recording(calls.add):
        a + 1.5
        xp.sum(a, axis=0, keepdims=True)
        a.sum(0)
        a[0, 1:]
        a[0] = 2.0
        a.astype(np.float64)
        xp.linalg.norm(a)
        sp.special.erf(a)
        xp.add.at(a, xp.asarray([0]), 1.0)
        xp.concatenate((a, a))
        a @ a.T
    xp.exp(a)
    array = ("array", "float32", (2, 3))
    assert simulated.Call("cupy.add", (array, ("scalar", "float")), ()) in calls
    keywords = (("axis", ("scalar", "int")), ("keepdims", ("scalar", "bool")))
    assert simulated.Call("cupy.sum", (array,), keywords) in calls
    assert simulated.Call("cupy.concatenate", (("tuple", array, array),), ()) in calls
    names = {call.name for call in calls}
    assert {"cupy.ndarray.sum", "cupy.ndarray.__getitem__", "cupy.ndarray.__setitem__", "cupy.ndarray.astype"} <= names
    assert {"cupy.linalg.norm", "cupyx.scipy.special.erf", "cupy.add.at", "cupy.matmul"} <= names
    assert "cupy.exp" not in names


# ---------------------------------------------------------------- the list is CuPy's own


SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cupy_names.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("cupy_names", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_reads_signatures_from_docstrings_and_keywords_from_bodies() -> None:
    names = script()

    def compiled() -> None:
        """_ndarray_base.sort(self, int axis=-1, kind=None) -> None"""

    compiled.__signature__ = "unreadable"  # type: ignore[attr-defined]
    assert names.signature_text(compiled) == "self, axis=-1, kind=None"

    def modern(a: int, /, b: float = 1.5, *, c: str = "x") -> None: ...

    assert names.signature_text(modern) == "a, /, b=1.5, *, c='x'"
    assert names.to_text({"cupy": "1", "modules": {}}).endswith("}\n")

"""Decompositions: gradients of what does not depend on phases, refusals of what does, and errors in PyTorch's words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError
from engine.session import Session
from tests.engine.programs import run, step, values

Json = dict[str, Any]
RNG = np.random.default_rng(3)
REAL = RNG.standard_normal((3, 3))
COMPLEX = REAL + 1j * RNG.standard_normal((3, 3))
BATCH = RNG.standard_normal((2, 3, 3))


def literal(x: Any, **options: Any) -> Json:
    x = np.asarray(x)
    if x.dtype.kind == "c":
        return {"data": np.stack([x.real, x.imag], -1).tolist(), "dtype": "complex128", **options}
    kind = "int32" if x.dtype.kind == "i" else "float64"
    return {"data": x.tolist(), "dtype": kind, "shape": list(x.shape), **options}


def check(x: Any, *steps: Json, result: str = "y", second: bool = True) -> None:
    """Gradients of a real function of x against finite differences, of the first and the second order."""
    func = {"inputs": ["x"], "steps": list(steps), "return": result}
    given = literal(x, requires_grad=True)
    names = ["autograd.gradcheck", "autograd.gradgradcheck"] if second else ["autograd.gradcheck"]
    for name in names:
        assert run(Session("s", seed=1), step(name, "r", func=func, inputs=[given]), return_=["r"])["results"]["r"]


def words(op: str, /, **args: Any) -> str:
    with pytest.raises(EngineError) as caught:
        run(Session("s"), step(op, **args))
    return caught.value.detail


def hermitian(*inner: Json) -> list[Json]:
    """Steps before a decomposition of Hermitian matrices: x + x^H, so that finite differences stay among them."""
    return [step("mH", "t", input="x"), step("add", "h", input="x", other="t"), *inner]


def lengths(name: str) -> list[Json]:
    """|z|^2 of each element: what does not depend on a phase."""
    return [step("abs", "y", input=name), step("pow", "y", input="y", exponent=2)]


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("x", [REAL, COMPLEX, BATCH], ids=["real", "complex", "batch"])
def test_gradients_of_eigenvectors_that_know_no_phase(x: Any) -> None:
    check(x, step("linalg.eig", ["l", "v"], A="x"), *lengths("v"))
    check(x, step("linalg.eig", ["l", "v"], A="x"), *lengths("l"))
    check(x, *hermitian(step("linalg.eigh", ["l", "v"], A="h")), *lengths("v"))
    check(x, *hermitian(step("linalg.eigh", ["l", "v"], A="h")), result="l")


@pytest.mark.parametrize("x", [REAL, COMPLEX, BATCH[..., :2], COMPLEX[:2]], ids=["real", "complex", "tall", "wide"])
def test_gradients_of_singular_vectors_that_know_no_phase(x: Any) -> None:
    for part in ("u", "v", "s"):
        check(x, step("linalg.svd", ["u", "s", "v"], A="x", full_matrices=False), *lengths(part))


@pytest.mark.parametrize("x", [REAL, COMPLEX[:2], BATCH[..., :2]], ids=["square", "wide", "tall"])
def test_gradients_of_factors(x: Any) -> None:
    check(x, step("linalg.lu", ["p", "l", "u"], A="x"), *lengths("l"))
    check(x, step("linalg.lu", ["p", "l", "u"], A="x"), *lengths("u"))
    check(x, step("linalg.lu_factor", ["y", "p"], A="x"), *lengths("y"))


@pytest.mark.parametrize("driver", ["gels", "gelsy", "gelsd", "gelss"])
def test_gradients_of_least_squares(driver: str) -> None:
    b = literal(RNG.standard_normal((3, 2)))
    solve = step("linalg.lstsq", ["y", "r", "k", "s"], A="x", B=b, driver=driver)
    check(REAL[:, :2], solve)
    if driver != "gelsy":
        check(REAL[:, :2], solve, result="r")


@pytest.mark.parametrize(
    "op, out, loss, said",
    [
        (
            "linalg.eig",
            ["l", "v"],
            "v",
            "linalg_eig_backward: The eigenvectors in the complex case are specified up to ",
        ),
        ("linalg.eigh", ["l", "v"], "v", "linalg_eigh_backward: The eigenvectors in the complex case are specified up"),
        (
            "linalg.svd",
            ["v", "s", "w"],
            "v",
            "svd_backward: The singular vectors in the complex case are specified up ",
        ),
    ],
)
def test_a_loss_that_depends_on_a_phase_is_refused(op: str, out: list[str], loss: str, said: str) -> None:
    steps = [
        step(op, out, A="x"),
        step("real", "y", input=loss),
        step("sum", "y", input="y"),
        step("backward", input="y"),
    ]
    with pytest.raises(EngineError, match="specified up to multiplication by e") as caught:
        run(Session("s"), *steps, inputs={"x": literal(COMPLEX, requires_grad=True)})
    assert caught.value.detail.startswith(said)
    assert caught.value.code == "ill-defined-gradient"


@pytest.mark.parametrize("op", ["geqrf", "linalg.ldl_factor", "linalg.ldl_factor_ex"])
def test_what_has_no_gradient_says_so_in_backward(op: str) -> None:
    name = {"geqrf": "input"}.get(op, "A")
    first = step("getitem", "y", input="f.0", index=[0])
    names = ["f.0", *[f"f.{i}" for i in range(1, 3 if op.endswith("_ex") else 2)]]
    with pytest.raises(EngineError, match="is not implemented"):
        run(
            Session("s"),
            step(op, names, **{name: "x"}),
            first,
            step("sum", "y", input="y"),
            step("backward", input="y"),
            inputs={"x": literal(REAL + REAL.T, requires_grad=True)},
        )


# ---------------------------------------------------------------- values


def result(op: str, /, out: Any = "r", **args: Any) -> Any:
    names = out if isinstance(out, list) else [out]
    found = run(Session("s"), step(op, out, **args), return_=names)["results"]
    return [np.asarray(values(found[n])) for n in names]


def test_factors_make_the_matrix_again() -> None:
    p, lower, upper = result("linalg.lu", ["p", "l", "u"], A=literal(BATCH))
    np.testing.assert_allclose(p @ lower @ upper, BATCH, atol=1e-12)
    lu, pivots = result("linalg.lu_factor", ["lu", "p"], A=literal(BATCH))
    b = RNG.standard_normal((2, 3, 2))
    for left, adjoint in ((True, False), (True, True), (False, False), (False, True)):
        right = b if left else b.swapaxes(-1, -2)
        (x,) = result(
            "linalg.lu_solve",
            LU=literal(lu),
            pivots=literal(pivots.astype(np.int32)),
            B=literal(right),
            left=left,
            adjoint=adjoint,
        )
        a = BATCH.swapaxes(-1, -2) if adjoint else BATCH
        np.testing.assert_allclose(a @ x if left else x @ a, right, atol=1e-10)
    symmetric = BATCH + BATCH.swapaxes(-1, -2)
    ld, pivots = result("linalg.ldl_factor", ["ld", "p"], A=literal(symmetric))
    (x,) = result("linalg.ldl_solve", LD=literal(ld), pivots=literal(pivots.astype(np.int32)), B=literal(b))
    np.testing.assert_allclose(symmetric @ x, b, atol=1e-10)
    packed, tau = result("geqrf", ["a", "t"], input=literal(BATCH))
    (q,) = result("linalg.householder_product", input=literal(packed), tau=literal(tau))
    np.testing.assert_allclose(q @ np.triu(packed), BATCH, atol=1e-12)
    (x,) = result("ormqr", input=literal(packed), tau=literal(tau), other=literal(b), transpose=True)
    np.testing.assert_allclose(x, q.swapaxes(-1, -2) @ b, atol=1e-12)


def test_covariances_are_numpys() -> None:
    x, counts, weights = RNG.standard_normal((3, 5)), np.array([1, 2, 1, 3, 1], np.int32), RNG.random(5)
    (found,) = result("cov", input=literal(x), fweights=literal(counts), aweights=literal(weights), correction=0)
    np.testing.assert_allclose(found, np.cov(x, fweights=counts, aweights=weights, ddof=0))
    np.testing.assert_allclose(result("corrcoef", input=literal(x))[0], np.corrcoef(x))


# ---------------------------------------------------------------- errors

ZEROS = {"data": [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]}
NAN = {"data": [["NaN", 1.0], [1.0, 2.0]]}
ONE = {"data": [[1.0, 2.0], [3.0, 4.0]]}


@pytest.mark.parametrize(
    "op, args, said",
    [
        (
            "linalg.inv",
            {"A": ZEROS},
            (
                "linalg.inv: (Batch element 1): The diagonal element 1 is zero, the inversion could not be "
                "completed because "
                "the input matrix is singular."
            ),
        ),
        (
            "linalg.lu_factor",
            {"A": ZEROS},
            (
                "torch.linalg.lu_factor: (Batch element 1): U[1,1] is zero and using it on lu_solve would result in a "
                "division by zero. If you still want to perform the factorization, consider calling linalg.lu(A, "
                "pivot) or "
                "linalg.lu_factor_ex(A, pivot)"
            ),
        ),
        (
            "linalg.lu",
            {"A": ONE, "pivot": False},
            "linalg.lu_factor: LU without pivoting is not implemented on the CPU",
        ),
        ("linalg.eig", {"A": NAN}, "torch.linalg.eig: input tensor should not contain infs or NaNs."),
        (
            "linalg.lu_solve",
            {"LU": ONE, "pivots": {"data": [3, 3], "dtype": "int32"}, "B": ONE},
            (
                "Pivots given to lu_solve must all be smaller or equal to LU.size(-2). Did you properly pass the "
                "result of "
                "lu_factor?"
            ),
        ),
        (
            "lu_unpack",
            {"LU_data": ONE, "LU_pivots": {"data": [0, 1], "dtype": "int32"}},
            (
                "pivots passed to lu_unpack must be between 1 and LU.size(-2) inclusive.Did you properly pass the "
                "result of "
                "lu_factor?"
            ),
        ),
        (
            "linalg.lstsq",
            {"A": ONE, "B": ONE, "driver": "qr"},
            "torch.linalg.lstsq: parameter `driver` should be one of (gels, gelsy, gelsd, gelss)",
        ),
        ("linalg.cond", {"A": ONE, "p": 3}, "linalg.cond got an invalid norm type: 3"),
        ("cov", {"input": ONE, "aweights": [-1.0, 1.0]}, "cov(): aweights cannot be negative"),
        ("cov", {"input": ONE, "aweights": [0.0, 0.0]}, "cov(): weights sum to zero, can't be normalized"),
    ],
)
def test_errors_are_in_pytorchs_words(op: str, args: Json, said: str) -> None:
    assert words(op, **args) == said


def test_pivots_of_ldl_are_not_taken_on_trust() -> None:
    assert "pivots are from 1 to 2" in words(
        "linalg.ldl_solve", LD=ONE, pivots={"data": [7, 2], "dtype": "int32"}, B=ONE
    )


# ---------------------------------------------------------------- NaN


@pytest.mark.parametrize("at", [(0, 0), (1, 2), (2, 2)], ids=str)
def test_a_matrix_with_nan_has_no_numbers_in_its_inverse(at: tuple[int, int]) -> None:
    a = BATCH.copy()
    a[(0, *at)] = np.nan
    args = {"A": literal(a)}
    steps = [
        step("linalg.inv", "inv", **args),
        step("linalg.solve", "solved", **args, B=literal(np.ones((3, 1)))),
        step("linalg.slogdet", ["sign", "log"], **args),
    ]
    names = ["inv", "solved", "sign", "log"]
    done = run(Session("s"), *steps, return_=names)["results"]
    inv, solved, sign, log = (np.array(values(done[name])) for name in names)
    for of in (inv, solved, log):
        assert np.isnan(of[0]).all()
        assert np.isfinite(of[1]).all()
    assert sign[0] == 0


def test_nan_goes_on_through_the_factors() -> None:
    a = REAL.copy()
    a[0, 0] = np.nan
    done = run(Session("s"), step("linalg.lu_factor", ["lu", "pivots"], A=literal(a)), return_=["lu", "pivots"])
    lu = np.array(values(done["results"]["lu"]))
    assert np.isnan(lu[1:]).all()
    assert lu[0, 1:].tolist() == a[0, 1:].tolist()
    assert values(done["results"]["pivots"]) == [1, 2, 3]

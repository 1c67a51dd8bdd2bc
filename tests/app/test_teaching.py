"""The errors that a beginner meets first, word for word: PyTorch's message, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from engine.service import Service, WorkerSpec
from tests.app.conftest import served


@pytest.fixture(scope="module")
def two_devices() -> Iterator[httpx.Client]:
    """A service with a CPU and a simulated CUDA device."""
    service = Service([WorkerSpec("inline", ("cpu", "cuda:0"), inline=True, practice=True)])
    with served(create_app(Settings(), service)) as client:
        yield client


@pytest.fixture(autouse=True)
def tensors(two_devices: httpx.Client) -> Iterator[None]:
    for body in (
        {"name": "a", "data": [[1, 2], [3, 4]]},
        {"name": "b", "data": [[1.0, 2.0], [3.0, 4.0]]},
        {"name": "w", "data": [1.0, 2.0], "requires_grad": True},
        {"name": "g", "data": [1.0, 2.0], "device": "cuda"},
    ):
        assert two_devices.post("/v1/tensors", json=body).status_code == 201
    for op, body in (("mul", {"input": "w", "other": "w", "out_name": "y"}), ("sum", {"input": "y", "out_name": "s"})):
        assert two_devices.post(f"/v1/ops/{op}", json=body).status_code == 200
    yield
    assert two_devices.delete("/v1/sessions/default").status_code == 204


def said(client: httpx.Client, path: str, body: Any) -> tuple[int, str, str, str]:
    response = client.post(f"/v1/{path}", json=body)
    problem = response.json()
    return response.status_code, problem["code"], problem["detail"], problem["hint"]


@pytest.mark.parametrize(
    "path, body, status, code, detail, hint",
    [
        (
            "ops/mm",
            {"input": "a", "mat2": "b"},
            422,
            "dtype-mismatch",
            "expected m1 and m2 to have the same dtype, but got: long int != float",
            (
                'cast input first: POST /v1/ops/to {"input": "a", "dtype": "float32"}; that makes a new tensor, '
                'so use its id, or add "out_name" to give it the old one\'s name'
            ),
        ),
        (
            "ops/mm",
            {"input": "b", "mat2": "a"},
            422,
            "dtype-mismatch",
            "expected m1 and m2 to have the same dtype, but got: float != long int",
            (
                'cast mat2 first: POST /v1/ops/to {"input": "a", "dtype": "float32"}; that makes a new tensor, '
                'so use its id, or add "out_name" to give it the old one\'s name'
            ),
        ),
        (
            "ops/gather",
            {"input": "b", "dim": 0, "index": "b"},
            422,
            "index-dtype",
            "gather(): Expected dtype int32/int64 for index",
            (
                'index must be whole numbers of the dtype int64, and is float32: POST /v1/ops/to {"input": "b", '
                '"dtype": "int64"} makes a new tensor of them, so use its id'
            ),
        ),
        (
            "ops/add",
            {"input": "b", "other": [1.0, 2.0, 3.0]},
            422,
            "shape-mismatch",
            "The size of tensor a (2) must match the size of tensor b (3) at non-singleton dimension 1",
            (
                "counted from the last one, sizes must be equal or one of the two 1; [2, 2] and [3] differ in "
                "dimension 1: unsqueeze, reshape or transpose one of them"
            ),
        ),
        (
            "ops/mm",
            {"input": "b", "mat2": [[1.0, 2.0, 3.0]]},
            422,
            "shape-mismatch",
            "mat1 and mat2 shapes cannot be multiplied (2x2 and 1x3)",
            "the last size of [2, 2] must equal the last but one of [1, 3]: transpose one of them, perhaps",
        ),
        (
            "ops/sum",
            {"input": "b", "dim": 2},
            422,
            "dim-out-of-range",
            "Dimension out of range (expected to be in range of [-2, 1], but got 2)",
            "dim goes from -2 to 1 here; negative ones count from the end",
        ),
        (
            "tensors",
            {"data": [1, 2], "requires_grad": True},
            422,
            "integer-requires-grad",
            "Only Tensors of floating point and complex dtype can require gradients",
            'say the dtype as well: "dtype": "float32" (in JSON, 1 is an integer and 1.0 a float)',
        ),
        (
            "ops/add_",
            {"input": "w", "other": 1},
            409,
            "leaf-changed-in-place",
            "a leaf Variable that requires grad is being used in an in-place operation.",
            (
                'say "no_grad": true with the change, as an optimizer does, '
                "or use the operation without its underscore, which makes a new tensor"
            ),
        ),
        (
            "tensors/y/backward",
            {},
            422,
            "backward-needs-gradient",
            "grad can be implicitly created only for scalar outputs",
            (
                'its shape is [2]: reduce it to one number first (POST /v1/ops/sum {"input": "y"}), '
                'or give "gradient", of the same shape'
            ),
        ),
        (
            "tensors/b/backward",
            {},
            422,
            "does-not-require-grad",
            "element 0 of tensors does not require grad and does not have a grad_fn",
            'mark what you want gradients of, and compute the result anew: POST /v1/ops/requires_grad_ {"input": "b"}',
        ),
        (
            "ops/add",
            {"input": "w", "other": "g"},
            422,
            "device-mismatch",
            "Expected all tensors to be on the same device, but found at least two devices, cpu and cuda:0!",
            (
                'move one of them first: POST /v1/ops/to {"input": "w", "device": "cuda:0"} makes a new tensor there, '
                "so use its id"
            ),
        ),
        (
            "ops/matmull",
            {"input": "a", "other": "b"},
            404,
            "no-such-op",
            "there is no operation 'matmull'",
            "did you mean matmul, chain_matmul, mul?",
        ),
        (
            "ops/sum",
            {"input": "b", "dmi": 1},
            422,
            "unknown-parameter",
            "sum() got an unexpected keyword argument 'dmi'",
            'did you mean "dim"?',
        ),
        (
            "ops/dropout",
            {"input": "b", "training": False},
            422,
            "unknown-parameter",
            "dropout() got an unexpected keyword argument 'training'",
            "nn.functional.dropout takes training: another operation of that name",
        ),
        ("ops/sum", {"input": "bb"}, 404, "no-such-tensor", "there is no tensor 'bb'", "did you mean b?"),
        (
            "tensors",
            {"data": [[1, 2], [3]]},
            422,
            "ragged-list",
            "expected sequence of length 2 at dim 1 (got 1)",
            "all lists of one level must have one length; in data, the first that has another is at [1]",
        ),
    ],
)
def test_errors_that_teach(
    two_devices: httpx.Client, path: str, body: Any, status: int, code: str, detail: str, hint: str
) -> None:
    assert said(two_devices, path, body) == (status, code, detail, hint)


def test_backward_a_second_time(two_devices: httpx.Client) -> None:
    assert two_devices.post("/v1/tensors/s/backward").status_code == 200
    assert said(two_devices, "tensors/s/backward", {}) == (
        409,
        "tape-freed",
        (
            "Trying to backward through the graph a second time (or directly access saved tensors after they have "
            "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
            "autograd.grad(). Specify retain_graph=True if you need to backward through the graph a second time or if "
            "you need to access saved tensors after calling backward."
        ),
        (
            "compute the result anew, or keep the tape at the first time: "
            'POST /v1/ops/backward {"input": "s", "retain_graph": true}'
        ),
    )

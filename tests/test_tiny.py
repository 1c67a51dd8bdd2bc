"""The whole product in one readable file, in a few seconds: a service in process, spoken to over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings

Talk = Callable[[httpx.AsyncClient], Awaitable[None]]


def serve(talk: Talk) -> None:
    """Runs a conversation with a fresh service."""

    async def main() -> None:
        application = create_app(Settings(workers="inline"))
        async with application.router.lifespan_context(application):
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                await talk(client)

    asyncio.run(main())


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def test_a_tensor_goes_up_and_comes_back() -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        made = await post(client, "tensors", data=[[1, 2], [3, 4.5]], name="x")
        assert (made["id"], made["shape"], made["dtype"]) == ("t1", [2, 2], "float32")
        assert (await client.get("/v1/tensors/x")).json()["values"] == [[1.0, 2.0], [3.0, 4.5]]
        text = (await client.get("/v1/tensors/x", params={"as": "text"})).text.strip()
        assert text == "tensor([[1.0000, 2.0000],\n        [3.0000, 4.5000]])"
        assert (await client.delete("/v1/tensors/x")).status_code == 204
        assert (await client.get("/v1/tensors/x")).status_code == 404

    serve(talk)


def test_gradients_are_those_of_the_book() -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        await post(client, "tensors", data=[2.0, 3.0], requires_grad=True, name="a")
        await post(client, "tensors", data=[6.0, 4.0], requires_grad=True, name="b")
        await post(client, "ops/pow", input="a", exponent=3, out_name="a3")
        await post(client, "ops/mul", input="a3", other=3, out_name="a3")
        await post(client, "ops/pow", input="b", exponent=2, out_name="b2")
        await post(client, "ops/sub", input="a3", other="b2", out_name="q")
        found = await post(client, "tensors/q/backward", gradient=[1.0, 1.0])
        assert found["grads"]["a"]["values"] == [36.0, 81.0]
        assert found["grads"]["b"]["values"] == [-12.0, -8.0]

    serve(talk)


def test_seeds_give_pytorchs_numbers() -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        await post(client, "ops/manual_seed", seed=1234)
        normal = (await post(client, "ops/randn", size=[2, 3]))["result"]["values"]
        uniform = (await post(client, "ops/rand", size=[2, 3]))["result"]["values"]
        assert [[round(v, 4) for v in row] for row in normal] == [[0.0461, 0.4024, -1.0115], [0.2167, -0.6123, 0.5036]]
        assert [[round(v, 4) for v in row] for row in uniform] == [[0.7749, 0.8208, 0.2793], [0.6817, 0.2837, 0.6567]]

    serve(talk)


def test_a_program_trains_and_a_refused_one_changes_nothing() -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        await post(client, "tensors", data=[0.0, 0.0], requires_grad=True, name="w")
        step = [
            {"op": "matmul", "args": {"input": [[1.0, 2.0], [3.0, 4.0]], "other": "w"}, "out": "y"},
            {"op": "nn.functional.mse_loss", "args": {"input": "y", "target": [5.0, 11.0]}, "out": "loss"},
            {"op": "autograd.grad", "args": {"outputs": ["loss"], "inputs": ["w"]}, "out": "g"},
            {"op": "optim.sgd_", "args": {"params": ["w"], "grads": "g", "lr": 0.03}},
        ]
        await post(client, "programs", steps=[{"repeat": 2000, "steps": step}])
        learned = (await client.get("/v1/tensors/w")).json()
        assert learned["values"] == pytest.approx([1.0, 2.0], abs=1e-2)
        refused = await client.post(
            "/v1/programs", json={"steps": [*step, {"op": "mm", "args": {"input": "w", "mat2": "w"}}]}
        )
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["step"]) == (422, "shape-mismatch", [4])
        assert (await client.get("/v1/tensors/w")).json() == learned

    serve(talk)


def test_a_mistake_is_answered_with_pytorchs_words_and_the_call_that_mends_it() -> None:
    async def talk(client: httpx.AsyncClient) -> None:
        await post(client, "tensors", data=[[1, 2]], name="whole")
        refused = await client.post("/v1/ops/mm", json={"input": "whole", "mat2": [[0.5], [1.5]]})
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["detail"] == "expected m1 and m2 to have the same dtype, but got: long int != float"
        assert 'POST /v1/ops/to {"input": "whole", "dtype": "float32"}' in refused.json()["hint"]
        await post(client, "ops/to", input="whole", dtype="float32", out_name="whole")
        assert (await post(client, "ops/mm", input="whole", mat2=[[0.5], [1.5]]))["result"]["values"] == [[3.5]]

    serve(talk)

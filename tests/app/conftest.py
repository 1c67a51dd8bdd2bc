"""The application around a service of the tests' own, and around the real one, without a network."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from engine.service import Limits, TensorAnswer, Timing
from tests.processes import serving

BASE = "http://127.0.0.1:8000"
WITH_FRONTS = ("test_real", "test_once", "test_jobs")


class _Bytes(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


class _InProcess(httpx.BaseTransport):
    """Calls an application that runs in the event loop behind `portal`."""

    def __init__(self, portal: BlockingPortal, application: FastAPI) -> None:
        self.portal = portal
        self.inner = httpx.ASGITransport(application, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        sent = httpx.Request(request.method, request.url, headers=request.headers, stream=_Bytes(request.read()))
        return self.portal.call(self._handle, sent)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        body = b"".join([part async for part in response.aiter_raw()])
        return httpx.Response(response.status_code, headers=response.headers, content=body)


@contextmanager
def served(application: FastAPI) -> Iterator[httpx.Client]:
    """A client of the application, which is started before and closed after."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(application.router.lifespan_context(application)),
        httpx.Client(transport=_InProcess(portal, application), base_url=BASE) as client,
    ):
        yield client


def tensor(values: Any = 1.5, dtype: str = "float32", **fields: Any) -> TensorAnswer:
    """A tensor as a worker would answer it."""
    array = np.asarray(values, "uint16" if dtype == "bfloat16" else dtype)
    known = {"id": "t1", "name": None, "device": "cpu", "requires_grad": False, "is_leaf": True, "grad_fn": None}
    return TensorAnswer(
        **{**known, "version": 0, "etag": "e1", **fields},
        shape=array.shape,
        dtype=dtype,
        numel=array.size,
        nbytes=array.nbytes,
        values=array,
    )


class FakeService:
    """Answers with what a test puts into `answers`, or raises it; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.answer: Any = None
        self.is_ready = True
        self.simulated = False

    @property
    def last(self) -> tuple[Any, ...]:
        return self.asked[-1]

    @property
    def program(self) -> dict[str, Any]:
        """The program that was run last."""
        assert self.last[0] == "run"
        found: dict[str, Any] = self.last[3]
        return found

    def _reply(self, *asked: Any) -> Any:
        self.asked.append(asked)
        answer = self.answer(*asked) if callable(self.answer) else self.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def start(self) -> None:
        self.asked.append(("start",))

    async def close(self) -> None:
        self.asked.append(("close",))

    def ready(self) -> bool:
        return self.is_ready

    def info(self) -> dict[str, Any]:
        return {"version": "0", "devices": [{"name": "cpu"}]}

    async def up(self) -> bool:
        return self.is_ready

    async def told(self) -> dict[str, Any]:
        return self.info()

    async def devices(self) -> list[dict[str, Any]]:
        return [{"name": "cpu"}]

    def catalogue(self) -> list[dict[str, Any]]:
        param = {
            "type": "Tensor",
            "required": True,
            "doc": "a tensor",
            "schema": {"$ref": "#/components/schemas/TensorArg"},
        }
        entry = {
            "summary": "Adds.",
            "family": "pointwise",
            "params": [{"name": "input", **param}, {"name": "other", **param}],
            "returns": "Tensor",
            "differentiable": True,
            "inplace": False,
            "view": False,
            "doc": "Adds two.",
            "example": {"input": [1.5], "other": 2},
            "schema": {},
            "operation_id": "add",
            "example_setup": None,
        }
        return [{"name": name, **entry} for name in ("add", "add_", "matmul")]

    def take_data_dir(self) -> None:
        pass

    async def create_session(self, owner: str, options: Any, once: Any = None) -> Any:
        return self._reply("create_session", owner, options, *(() if once is None else (once,)))

    async def list_sessions(self, owner: str, *, limit: int, cursor: str | None) -> Any:
        return self._reply("list_sessions", owner, limit, cursor)

    async def session_info(self, owner: str, ref: str) -> Any:
        return self._reply("session_info", owner, ref)

    async def patch_session(self, owner: str, ref: str, changes: Any, once: Any = None) -> Any:
        return self._reply("patch_session", owner, ref, changes, *(() if once is None else (once,)))

    async def delete_session(self, owner: str, ref: str, once: Any = None) -> Any:
        return self._reply("delete_session", owner, ref)

    @property
    def limits(self) -> Limits:
        return Limits()

    async def usage(self, owner: str) -> Any:
        return self._reply("usage", owner)

    async def numbers(self) -> Any:
        return {"workers": []}

    async def session_memory(self, owner: str, ref: str, *, limit: int, cursor: str | None) -> Any:
        return self._reply("session_memory", owner, ref, limit, cursor)

    async def session_history(self, owner: str, ref: str) -> Any:
        return self._reply("session_history", owner, ref)

    async def run(
        self,
        owner: str,
        ref: str | None,
        program: Any,
        values: str,
        dry_run: bool,
        explain: bool = False,
        once: tuple[str, str] | None = None,
    ) -> tuple[Any, Timing]:
        rest = (*(("explain",) if explain else ()), *(() if once is None else (once,)))
        asked = ("run", owner, ref, program, values, dry_run, *rest)
        return self._reply(*asked), Timing(1.5, 2.5)

    async def query(self, owner: str, ref: str | None, q: Any, values: str) -> tuple[Any, Timing]:
        return self._reply("query", owner, ref, q, values), Timing(1.5, 2.5)


@pytest.fixture
def fake() -> FakeService:
    return FakeService()


@pytest.fixture
def make_client(fake: FakeService) -> Iterator[Callable[..., httpx.Client]]:
    """A client of the application around the fake service, with these settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(served(create_app(Settings(**settings), fake)))  # type: ignore[arg-type]


@pytest.fixture
def client(make_client: Callable[..., httpx.Client]) -> httpx.Client:
    return make_client()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in WITH_FRONTS:
        fronts = pytest.param("fronts", marks=pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets"))
        metafunc.parametrize("real", ["inline", fronts], indirect=True, scope="session")


@contextmanager
def scattered(url: str) -> Iterator[httpx.Client]:
    """A client that makes a connection for each request, so that with several fronts each request meets another."""
    with httpx.Client(base_url=url, limits=httpx.Limits(max_keepalive_connections=0), timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the application around the real engine, its worker in this process; in the files of `WITH_FRONTS`
    once more of a service with two workers and three fronts, another of which serves each request."""
    if getattr(request, "param", "inline") == "inline":
        with served(create_app(Settings(workers="inline"))) as client:
            yield client
        return
    folder = tmp_path_factory.mktemp("fronts")
    with (
        serving(folder, "--fronts", "3", "--workers", "cpu:2", "--log-level", "error") as service,
        scattered(service.url) as client,
    ):
        yield client
        assert not service.bugs


@pytest.fixture
def http(real: httpx.Client) -> Iterator[httpx.Client]:
    """The real application, in a session of the test's own."""
    session = real.post("/v1/sessions", json={}).json()["id"]
    real.headers["Curlgrad-Session"] = session
    yield real
    del real.headers["Curlgrad-Session"]
    assert real.delete(f"/v1/sessions/{session}").status_code == 204

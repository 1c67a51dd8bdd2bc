"""What an operator sees: /metrics, the log of requests, and traces."""

from __future__ import annotations

import json
import logging
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import keys
from app.main import create_app
from app.metrics import Metrics
from app.settings import Settings
from engine.errors import Invalid
from engine.logs import JsonLines
from tests.app.conftest import FakeService, served, tensor

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return samples_of(response.text)


def of(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


# ---------------------------------------------------------------- metrics


def test_requests_are_counted_by_template_and_never_by_path(client: httpx.Client, fake: FakeService) -> None:
    fake.answer = tensor([1.0])
    for name in ("a", "b", "secret"):
        client.get(f"/v1/tensors/{name}")
    fake.answer = {"results": {"r": None}}
    client.post("/v1/ops/add", json={"input": 1, "other": 2})
    client.post("/v1/ops/add", json={"input": 1}, headers={"Origin": "https://elsewhere.example"})
    client.get("/v1/nothing/here")
    client.request("BREW", "/v1/info")
    found = read(client)
    assert of(found, "curlgrad_requests_total", method="GET", route="/v1/tensors/{ref}", status="200") == 3
    assert of(found, "curlgrad_requests_total", method="POST", route="/v1/ops/{op}", status="200") == 1
    assert of(found, "curlgrad_requests_total", method="POST", route="(none)", status="403") == 1
    assert of(found, "curlgrad_requests_total", method="GET", route="(none)", status="404") == 1
    assert of(found, "curlgrad_requests_total", method="other", route="/v1/info", status="405") == 1
    assert of(found, "curlgrad_requests_in_flight") == 1  # this one
    assert of(found, "curlgrad_request_seconds_count", route="/v1/tensors/{ref}") == 3
    assert of(found, "curlgrad_request_seconds_bucket", route="/v1/tensors/{ref}", le="+Inf") == 3
    assert not any("secret" in str(key) or "nothing" in str(key) for key in found)
    assert of(read(client), "curlgrad_requests_total", method="GET", route="/metrics", status="200") == 1


def test_a_histogram_counts_up_to_each_bound() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.02, 100.0):
        metrics.begun({})
        metrics.done(types.SimpleNamespace(method="GET", route="/x", status=200, seconds=seconds))  # type: ignore[arg-type]
    found = samples_of(metrics.text((), {}).decode())
    buckets = {le: of(found, "curlgrad_request_seconds_bucket", route="/x", le=le) for le in ("0.001", "0.025", "60.0")}
    assert buckets == {"0.001": 2, "0.025": 3, "60.0": 3}
    assert of(found, "curlgrad_request_seconds_bucket", route="/x", le="+Inf") == 4
    assert of(found, "curlgrad_request_seconds_sum", route="/x") == pytest.approx(100.0215)


def test_the_workers_say_what_they_did() -> None:
    with served(create_app(Settings(workers="inline", op_times=True))) as client:
        client.post("/v1/tensors", json={"data": [1.0] * 10, "requires_grad": True, "name": "w"})
        client.post("/v1/ops/mul", json={"input": "w", "other": "w", "out_name": "y"})
        client.post("/v1/ops/mul", json={"input": "w", "other": "nothing"})
        found = read(client)
        steps = [{"op": op, "args": {"input": "w"}, "out": "y"} for op in ("exp", "tanh", "neg", "sum")]
        for _ in range(5):
            client.post("/v1/programs", json={"steps": steps, "return": ["y"]})
        planned = read(client)
    worker = {"worker": "inline"}
    counts = {o: of(planned, "curlgrad_plans_total", **worker, outcome=o) for o in ("made", "replayed", "unfit")}
    assert counts == {"made": 1, "replayed": 2, "unfit": 0}
    assert of(planned, "curlgrad_plan_bytes", **worker) > 0
    assert of(found, "curlgrad_programs_total", **worker, outcome="done") == 2
    assert of(found, "curlgrad_programs_total", **worker, outcome="failed") == 1
    assert of(found, "curlgrad_steps_total", **worker) == 1
    assert of(found, "curlgrad_operations_total", **worker, op="mul") == 1
    assert of(found, "curlgrad_operation_seconds_total", **worker, op="mul") > 0
    assert of(found, "curlgrad_memory_bytes", **worker, device="cpu", kind="tensors") == 80
    assert of(found, "curlgrad_memory_bytes", **worker, device="cpu", kind="undo") == 0
    assert of(found, "curlgrad_sessions", **worker) == 1
    assert of(found, "curlgrad_worker_up", **worker) == 1
    assert of(found, "curlgrad_worker_answered", **worker) == 1
    assert of(found, "curlgrad_worker_restarts_total", **worker) == 0
    assert of(found, "curlgrad_queue_length", **worker) == 0
    assert of(found, "curlgrad_memory_limit_bytes") > 0
    assert not any(name.startswith("curlgrad_journal") for name, _ in found)  # there is none


def test_a_journal_shows_how_far_behind_it_is_and_a_silent_worker_its_last_numbers() -> None:
    worker = {"name": "cpu-0", "sessions": 3, "state": "restarting", "restarts": 2}
    numbers = {"waiting": 7, "answered": False, "journal": {"lag_bytes": 10, "lag_seconds": 0.5}}
    found = samples_of(Metrics().text([{**worker, "numbers": numbers}], {}).decode())
    assert of(found, "curlgrad_journal_lag_bytes", worker="cpu-0") == 10
    assert of(found, "curlgrad_journal_lag_seconds", worker="cpu-0") == 0.5
    assert of(found, "curlgrad_worker_up", worker="cpu-0") == 0
    assert of(found, "curlgrad_worker_answered", worker="cpu-0") == 0
    assert of(found, "curlgrad_worker_restarts_total", worker="cpu-0") == 2
    assert of(found, "curlgrad_queue_length", worker="cpu-0") == 7


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """Every series in the example dashboard is one that /metrics has, with labels that it has."""
    worker = {"name": "cpu-0", "sessions": 1, "state": "ready", "restarts": 0}
    tally = {"programs": 1, "failed": 0, "steps": 1, "ops": {"add": 1}, "seconds": {"add": 1.0}}
    numbers = {**tally, "waiting": 0, "answered": True, "resident_bytes": 1, "memory": {"cpu": {"tensors": 1}},
               "plans": {"made": 1, "replayed": 1, "unfit": 0, "dropped": 0, "programs": 1, "bytes": 1},
               "journal": {"lag_bytes": 1, "lag_seconds": 1.0}}  # fmt: skip
    metrics = Metrics()
    metrics.begun({})
    metrics.done(types.SimpleNamespace(method="GET", route="/x", status=200, seconds=0.1))  # type: ignore[arg-type]
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text([{**worker, "numbers": numbers}], {}).decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    path = Path(__file__).parents[2] / "examples/grafana/curlgrad.json"
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    assert len(asked) >= 10
    used = set()
    for text in asked:
        series = re.findall(r"\b((?:curlgrad|process)_\w+)", text)
        assert series, text
        used |= set(series)
        for name in series:
            assert name in labels, text
        for group in re.findall(r"by \(([^)]*)\)", text):
            known = {"le"} | set().union(*(labels[name] for name in series))
            assert {part.strip() for part in group.split(",")} <= known, text
    own = {
        name for name in labels if name.startswith("curlgrad_") and not name.endswith(("_count", "_sum", "_created"))
    }
    assert own - used <= {"curlgrad_info", "curlgrad_worker_answered", "curlgrad_steps_total"}


# ---------------------------------------------------------------- logs


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The access log so far, as JSON lines say it."""
    caplog.set_level(logging.DEBUG, logger="curlgrad.access")
    form = JsonLines()
    return lambda: [json.loads(form.format(r)) for r in caplog.records if r.name == "curlgrad.access"]


def test_a_request_is_one_line_with_its_id_route_status_and_phases(
    client: httpx.Client, fake: FakeService, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    fake.answer = {"results": {"r": None}}
    response = client.post("/v1/ops/add", json={"input": 1}, headers={"Curlgrad-Session": "lesson"})
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("ms")["run"] == 2.5
    message = line.pop("message")
    assert line == {
        "level": "debug",
        "logger": "curlgrad.access",
        "request_id": response.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/ops/{op}",
        "status": 200,
        "session": "lesson",
        "key": None,
    }
    assert response.headers["x-request-id"] in message


@pytest.mark.parametrize(
    "answer, slow, level",
    [
        ({"results": {"r": None}}, 0, "debug"),
        ({"results": {"r": None}}, 1e-9, "warning"),
        (Invalid("no"), 0, "info"),
        (RuntimeError("a bug"), 0, "error"),
    ],
)
def test_failures_and_slow_requests_are_told_by_level(
    make_client: Callable[..., httpx.Client],
    fake: FakeService,
    lines: Callable[[], list[dict[str, Any]]],
    answer: Any,
    slow: float,
    level: str,
) -> None:
    client = make_client(slow_request=slow)
    fake.answer = answer
    client.post("/v1/ops/add", json={"input": 1})
    assert [line["level"] for line in lines()] == [level]


def test_keys_bodies_and_queries_are_in_no_line(
    fake: FakeService, lines: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    ((key, text),) = keys.create(tmp_path / "keys.json", ["ann"], ("read", "write"))
    fake.answer = tensor([1.0])
    with served(create_app(Settings(keys_file=tmp_path / "keys.json"), fake)) as client:  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {text}"}
        client.get("/v1/tensors/hidden?session=mine&index=0:7777", headers=headers)
        client.post("/v1/ops/add", json={"input": [12345.5]}, headers={"Authorization": "Bearer wrong-wrong"})
    first, second = lines()
    assert (first["key"], first["session"], second["key"]) == (key.id, "mine", None)
    told = json.dumps([first, second])
    for secret in (text, "wrong-wrong", "12345.5", "hidden", "7777"):
        assert secret not in told


def test_a_session_that_a_caller_makes_up_is_cut_short(
    client: httpx.Client, fake: FakeService, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    client.get("/v1/tensors", headers={"Curlgrad-Session": "x" * 5000})
    client.get(f"/v1/sessions/{'y' * 5000}")
    assert [line["session"] for line in lines()] == ["x" * 80, "y" * 80]


def test_a_line_is_json_whatever_is_in_it() -> None:
    record = logging.LogRecord("a", logging.ERROR, "", 0, 'quote " and\nline %s', ("é",), None)
    try:
        raise ValueError("inside")
    except ValueError:
        record.exc_info = sys.exc_info()
    (text,) = JsonLines(worker="cpu-0").format(record).splitlines()
    line = json.loads(text)
    assert (line["message"], line["worker"], line["level"]) == ('quote " and\nline é', "cpu-0", "error")
    assert "ValueError: inside" in line["error"]


# ---------------------------------------------------------------- traces


class Provider:
    """As much of OpenTelemetry as app.tracing asks for; the spans that ended are in `spans`."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.current: Any = None
        self.closed = False

    def add_span_processor(self, processor: Any) -> None:
        self.exporter = processor

    def shutdown(self) -> None:
        self.closed = True


class Span:
    def __init__(self, name: str) -> None:
        self.name, self.attributes = name, dict[str, Any]()

    def is_recording(self) -> bool:
        return True

    def update_name(self, name: str) -> None:
        self.name = name

    def set_attribute(self, name: str, value: Any) -> None:
        self.attributes[name] = value


@pytest.fixture
def otel(monkeypatch: pytest.MonkeyPatch) -> Provider:
    """Stand-ins for OpenTelemetry's modules."""
    provider = Provider()

    class Middleware:
        def __init__(self, app: Any, **options: Any) -> None:
            assert options["tracer_provider"] is provider
            self.app, self.details = app, options["default_span_details"]

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            provider.current = span = Span(self.details(scope)[0])
            span.set_attribute("http.target", scope["path"])
            span.set_attribute("seen", (scope["query_string"], scope["raw_path"]))
            provider.spans.append(span)
            await self.app(scope, receive, send)

    modules: dict[str, dict[str, Any]] = {
        "opentelemetry": {"trace": types.SimpleNamespace(get_current_span=lambda: provider.current)},
        "opentelemetry.instrumentation.asgi": {"OpenTelemetryMiddleware": Middleware},
        "opentelemetry.sdk.resources": {"Resource": types.SimpleNamespace(create=lambda facts: facts)},
        "opentelemetry.sdk.trace": {"TracerProvider": lambda resource: provider},
        "opentelemetry.sdk.trace.export": {"BatchSpanProcessor": lambda exporter: exporter},
        "opentelemetry.exporter.otlp.proto.http.trace_exporter": {"OTLPSpanExporter": lambda: "otlp"},
    }
    for name, members in modules.items():
        parts = name.split(".")
        for i in range(1, len(parts) + 1):
            parent = ".".join(parts[:i])
            if parent not in sys.modules or i == len(parts):
                monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
        for member, value in members.items():
            setattr(sys.modules[name], member, value)
    return provider


def test_traces_are_imported_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, fake: FakeService) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # an import would fail
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.asgi", None)
    create_app(Settings(), fake)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="curlgrad\\[otel\\]"):
        create_app(Settings(otel=True), fake)  # type: ignore[arg-type]


def test_a_span_is_named_after_the_route_and_holds_nothing_of_the_caller(otel: Provider, fake: FakeService) -> None:
    fake.answer = tensor([1.0])
    with served(create_app(Settings(otel=True), fake)) as client:  # type: ignore[arg-type]
        response = client.get("/v1/tensors/hidden?session=mine")
        for path in ("/healthz", "/metrics"):
            client.get(path)
    (span,) = otel.spans
    assert span.name == "GET /v1/tensors/{ref}"
    assert span.attributes == {
        "http.target": "/v1/tensors/{ref}",
        "seen": (b"", b"/"),
        "http.route": "/v1/tensors/{ref}",
        "curlgrad.request_id": response.headers["x-request-id"],
        "curlgrad.queue_ms": 1.5,
        "curlgrad.run_ms": 2.5,
        "curlgrad.encode_ms": span.attributes["curlgrad.encode_ms"],
    }
    assert (otel.exporter, otel.closed) == ("otlp", True)


def test_the_variable_of_opentelemetry_asks_for_traces_too(
    otel: Provider, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    mine = object()
    create_app(Settings(), fake, span_exporter=mine)  # type: ignore[arg-type]
    assert otel.exporter is mine

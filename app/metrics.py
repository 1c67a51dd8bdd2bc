"""Numbers for Prometheus: what the front counts itself, and what the workers say when they are asked.

The front counts in plain dictionaries, in the thread of its event loop; a collector of prometheus_client shows them.
Label values are bounded: methods and route templates that there are, never a path.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.types import Scope

from app.watch import Done

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
KINDS = ("tensors", "grads", "tape", "undo")
_KIND_NAMES = {"grads": "gradients"}
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

Workers = Sequence[Mapping[str, Any]]


class _Histogram:
    """How many requests took how long. `counts` has one more than there are bounds: what is above them all."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """(upper bound, requests up to it), as Prometheus has them."""
    found, running = [], 0
    for bound, count in zip((*map(str, SECONDS), "+Inf"), counts, strict=True):
        running += count
        found.append((bound, float(running)))
    return found


def merged(all_counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of several processes, added up."""
    requests: dict[tuple[str, str, int], int] = {}
    seconds: dict[str, list[Any]] = {}
    for one in all_counts:
        for *key, number in one.get("requests", ()):
            method, route, status = key
            requests[method, route, status] = requests.get((method, route, status), 0) + number
        for route, (counts, total) in one.get("seconds", {}).items():
            before = seconds.get(route, [[0] * len(counts), 0.0])
            seconds[route] = [[a + b for a, b in zip(before[0], counts, strict=True)], before[1] + total]
    return {
        "requests": [[*key, number] for key, number in requests.items()],
        "seconds": seconds,
        "now": sum(one.get("now", 0) for one in all_counts),
    }


class Metrics(Collector):
    """The numbers of one server, or of one of its fronts. A watcher of the Guard.

    `server`: the process that runs it all, where that is another than this.
    """

    def __init__(self, server: int | None = None) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, _Histogram] = {}
        self._flying = 0
        self._workers: Workers = ()
        self._facts: Mapping[str, Any] = {}
        self._all: Mapping[str, Any] = self.counts()
        self._fronts: Sequence[Mapping[str, Any]] = ()
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry, pid=lambda: "self" if server is None else server)

    # ------------------------------------------------ counting

    def begun(self, scope: Scope) -> None:
        self._flying += 1

    def done(self, done: Done) -> None:
        self._flying -= 1
        method = done.method if done.method in _METHODS else "other"
        key = (method, done.route, done.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        histogram = self._seconds.get(done.route)
        if histogram is None:
            histogram = self._seconds[done.route] = _Histogram()
        histogram.observe(done.seconds)

    # ------------------------------------------------ telling

    def counts(self) -> dict[str, Any]:
        """What this process counted, as plain data; `now` is of the moment, and ends with the process."""
        return {
            "requests": [[*key, number] for key, number in self._requests.items()],
            "seconds": {route: [one.counts, one.total] for route, one in self._seconds.items()},
            "now": self._flying,
        }

    def text(self, workers: Workers, facts: Mapping[str, Any], everyone: Mapping[str, Any] | None = None) -> bytes:
        """All numbers in Prometheus' text format. `workers`: Service.numbers(); `facts`: Service.info(); `everyone`:
        Front.everyone(), where there are several fronts."""
        self._workers, self._facts = workers, facts
        self._all = self.counts() if everyone is None else everyone["counts"]
        self._fronts = () if everyone is None else everyone["fronts"]
        return generate_latest(self.registry)

    def collect(self) -> Iterable[Metric]:
        yield from self._of_requests()
        yield from self._of_work()
        yield from self._of_plans()
        yield from self._of_memory()
        yield from self._of_workers()
        if self._fronts:
            yield from self._of_fronts()

    def _of_requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "curlgrad_requests", "Requests by method, route template and status.", labels=("method", "route", "status")
        )
        for method, route, status, count in self._all["requests"]:
            requests.add_metric((method, route, str(status)), count)
        yield requests
        seconds = HistogramMetricFamily(
            "curlgrad_request_seconds", "How long requests took, by route template.", labels=("route",)
        )
        for route, (counts, total) in self._all["seconds"].items():
            seconds.add_metric((route,), _buckets(counts), total)
        yield seconds
        flying = GaugeMetricFamily("curlgrad_requests_in_flight", "Requests that are being answered.")
        flying.add_metric((), self._all["now"])
        yield flying

    def _of_work(self) -> Iterable[Metric]:
        programs = CounterMetricFamily(
            "curlgrad_programs",
            "Programs that ended, each operation called alone being one.",
            labels=("worker", "outcome"),
        )
        steps = CounterMetricFamily(
            "curlgrad_steps", "Steps of programs that were done, each round's counted.", labels=("worker",)
        )
        runs = CounterMetricFamily(
            "curlgrad_operations", "Steps of programs that were done, by operation.", labels=("worker", "op")
        )
        spent = CounterMetricFamily(
            "curlgrad_operation_seconds", "Time of steps, by operation (--op-times).", labels=("worker", "op")
        )
        for name, _, numbers in self._each():
            if "programs" not in numbers:
                continue
            programs.add_metric((name, "done"), numbers["programs"])
            programs.add_metric((name, "failed"), numbers["failed"])
            steps.add_metric((name,), numbers["steps"])
            for op, count in numbers["ops"].items():
                runs.add_metric((name, op), count)
            for op, seconds in (numbers["seconds"] or {}).items():
                spent.add_metric((name, op), seconds)
        yield from (programs, steps, runs, spent)

    def _of_plans(self) -> Iterable[Metric]:
        counts = CounterMetricFamily(
            "curlgrad_plans",
            "Plans made, replayed in a later request, unfit for the inputs that came, dropped for lack of memory.",
            labels=("worker", "outcome"),
        )
        programs = GaugeMetricFamily(
            "curlgrad_plan_programs", "Programs that are kept with their plans.", labels=("worker",)
        )
        held = GaugeMetricFamily("curlgrad_plan_bytes", "Memory of the plans that are kept.", labels=("worker",))
        for name, _, numbers in self._each():
            plans = numbers.get("plans")
            if plans is None:
                continue
            for outcome in ("made", "replayed", "unfit", "dropped"):
                counts.add_metric((name, outcome), plans[outcome])
            programs.add_metric((name,), plans["programs"])
            held.add_metric((name,), plans["bytes"])
        yield from (counts, programs, held)

    def _of_memory(self) -> Iterable[Metric]:
        memory = GaugeMetricFamily(
            "curlgrad_memory_bytes",
            "Memory of sessions by device and what holds it: tensors, gradients, tape, undo.",
            labels=("worker", "device", "kind"),
        )
        for name, _, numbers in self._each():
            for device, kinds in numbers.get("memory", {}).items():
                for kind in KINDS:
                    memory.add_metric((name, device, _KIND_NAMES.get(kind, kind)), kinds.get(kind, 0))
        yield memory
        limit = self._facts.get("limits", {}).get("server_bytes", 0)
        yield GaugeMetricFamily("curlgrad_memory_limit_bytes", "What all sessions together may hold.", limit)

    def _of_workers(self) -> Iterable[Metric]:
        by_worker = ("worker",)
        sessions = GaugeMetricFamily("curlgrad_sessions", "Sessions that there are.", labels=by_worker)
        queue = GaugeMetricFamily("curlgrad_queue_length", "Calls waiting or running.", labels=by_worker)
        up = GaugeMetricFamily("curlgrad_worker_up", "1 where the worker takes calls.", labels=by_worker)
        answered = GaugeMetricFamily(
            "curlgrad_worker_answered",
            "1 where the worker's numbers are of now; 0 where a long step kept it from answering.",
            labels=by_worker,
        )
        restarts = CounterMetricFamily("curlgrad_worker_restarts", "Deaths of the worker.", labels=by_worker)
        resident = GaugeMetricFamily(
            "curlgrad_worker_resident_bytes", "Memory of the worker's process.", labels=by_worker
        )
        lag_bytes = GaugeMetricFamily(
            "curlgrad_journal_lag_bytes", "Journal that is written but not yet synced.", labels=by_worker
        )
        lag_seconds = GaugeMetricFamily(
            "curlgrad_journal_lag_seconds", "Age of the oldest journal entry that is not yet synced.", labels=by_worker
        )
        for name, worker, numbers in self._each():
            sessions.add_metric((name,), worker["sessions"])
            queue.add_metric((name,), numbers.get("waiting", 0))
            up.add_metric((name,), worker["state"] == "ready")
            answered.add_metric((name,), bool(numbers.get("answered")))
            restarts.add_metric((name,), worker["restarts"])
            if numbers.get("resident_bytes") is not None:
                resident.add_metric((name,), numbers["resident_bytes"])
            journal = numbers.get("journal")
            if journal is not None:
                lag_bytes.add_metric((name,), journal["lag_bytes"])
                lag_seconds.add_metric((name,), journal["lag_seconds"])
        yield from (sessions, queue, up, answered, restarts, resident, lag_bytes, lag_seconds)
        info = GaugeMetricFamily("curlgrad_info", "The version that runs.", labels=("version",))
        info.add_metric((str(self._facts.get("version", "")),), 1)
        yield info

    def _of_fronts(self) -> Iterable[Metric]:
        by_front = ("front",)
        up = GaugeMetricFamily("curlgrad_front_up", "1 where the front takes connections.", labels=by_front)
        restarts = CounterMetricFamily("curlgrad_front_restarts", "Deaths of the front.", labels=by_front)
        cpu = GaugeMetricFamily(
            "curlgrad_front_cpu_seconds", "CPU time of the front's process, since its start.", labels=by_front
        )
        resident = GaugeMetricFamily("curlgrad_front_resident_bytes", "Memory of the front's process.", labels=by_front)
        for front in self._fronts:
            labels = (front["name"],)
            up.add_metric(labels, front["up"])
            restarts.add_metric(labels, front["restarts"])
            if front["cpu_s"] is not None:
                cpu.add_metric(labels, front["cpu_s"])
            if front["resident"] is not None:
                resident.add_metric(labels, front["resident"])
        yield from (up, restarts, cpu, resident)

    def _each(self) -> Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        for worker in self._workers:
            yield worker["name"], worker, worker.get("numbers", {})

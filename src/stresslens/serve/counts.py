"""What the service counts of itself, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Counts:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "stresslens_requests", "Requests, by path and status.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "stresslens_request_seconds",
            "Time until a request was answered.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "stresslens_batch_images",
            "Images that were computed together.",
            buckets=SIZES,
            registry=self.registry,
        )
        self.restarts = Counter(
            "stresslens_worker_restarts", "Worker processes that were replaced.", registry=self.registry
        )

    def watch(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """A value that is read whenever the metrics are."""
        Gauge(f"stresslens_{name}", help_, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)

"""What a service counts, for Prometheus; several worker processes add up."""

import os
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The figures of one worker process.

    The folder that workers share is that of the environment variable ``PROMETHEUS_MULTIPROC_DIR``,
    set before `prometheus_client` is imported; without it a process counts for itself.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        shared = FOLDER_VARIABLE in os.environ
        self.requests = Counter(
            "twopm_inference_requests",
            "Requests for predictions, by HTTP status.",
            ["status"],
            registry=self._registry,
        )
        self.rows = Counter(
            "twopm_inference_rows", "Rows that were predicted.", registry=self._registry
        )
        self.seconds = Histogram(
            "twopm_inference_seconds",
            "From the last byte of a request to the first of its answer.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "twopm_inference_in_flight",
            "Requests that are being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        if shared:
            self._registry = CollectorRegistry()
            MultiProcessCollector(self._registry)

    def render(self) -> bytes:
        """Return the figures of all workers in the text format."""
        return generate_latest(self._registry)


def forget_process(folder: Path, pid: int) -> None:
    """Take the gauges of a process that ended out of the sums."""
    mark_process_dead(pid, str(folder))

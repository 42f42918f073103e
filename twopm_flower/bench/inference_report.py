"""The outcome of ``twopm bench inference``: records with a stable JSON form."""

import statistics
from typing import Literal

from pydantic import BaseModel, ConfigDict

from twopm_flower.bench.machine import Machine


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DesignFigures(_Record):
    """What one prediction takes by one design; seconds of each repeat.

    Attributes
    ----------
    design : str
        ``tenseal-dot``, ``latency`` (weights public) or ``latency-secret``.
    encrypt_s, service_s, open_s : tuple of float
        By the requester; by the service, from the bytes of a request to those of its answer;
        by the requester again.
    request_bytes, answer_bytes : int
    setup_bytes : int
        Evaluation keys that a requester sends once.
    error : float
        Largest difference of an opened score to the exact one.
    """

    design: str
    encrypt_s: tuple[float, ...]
    service_s: tuple[float, ...]
    open_s: tuple[float, ...]
    request_bytes: int
    answer_bytes: int
    setup_bytes: int
    error: float

    @property
    def service_ms(self) -> float:
        """The median of the service's time, in milliseconds."""
        return 1000 * statistics.median(self.service_s)


class BatchFigures(_Record):
    """What many predictions in one request take.

    Attributes
    ----------
    policy : str
        Whether weights are ``public`` or ``secret``.
    rows : int
    encrypt_s, service_s, open_s : tuple of float
        Seconds of each repeat, for all rows.
    request_bytes, answer_bytes : int
    error : float
    """

    policy: str
    rows: int
    encrypt_s: tuple[float, ...]
    service_s: tuple[float, ...]
    open_s: tuple[float, ...]
    request_bytes: int
    answer_bytes: int
    error: float

    @property
    def per_second(self) -> float:
        """Predictions a second of the service's time, by the median."""
        return self.rows / statistics.median(self.service_s)


class LoadFigures(_Record):
    """How a service answered requests that came at a fixed rate, whatever became of earlier ones.

    Attributes
    ----------
    rate : float
        Requests a second.
    seconds : float
        How long they came.
    workers : int
        Processes of the service.
    latencies_s : tuple of float
        From the moment at which a request was due to the last byte of its answer, sorted.
    lost : int
        Requests without an answer that opens to the right score.
    """

    rate: float
    seconds: float
    workers: int
    latencies_s: tuple[float, ...]
    lost: int

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latencies, in milliseconds; of nothing it is infinite."""
        if not self.latencies_s:
            return float("inf")
        last = len(self.latencies_s) - 1
        return 1000 * self.latencies_s[min(last, int(percent / 100 * len(self.latencies_s)))]


class InferenceReport(_Record):
    """A whole run.

    Attributes
    ----------
    machine : Machine
    date : str
        UTC, ISO 8601.
    command : str
    features : int
    designs : tuple of DesignFigures
    batches : tuple of BatchFigures
    load : LoadFigures or None
        None where no service was asked.
    """

    format: Literal["twopm-flower/bench-inference/v1"] = "twopm-flower/bench-inference/v1"
    machine: Machine
    date: str
    command: str
    features: int
    designs: tuple[DesignFigures, ...]
    batches: tuple[BatchFigures, ...]
    load: LoadFigures | None

    def design(self, name: str) -> DesignFigures:
        """Return the figures of one design."""
        return next(figures for figures in self.designs if figures.design == name)

    @property
    def ratio(self) -> float:
        """How many times less of a service's time a prediction takes than by TenSEAL's dot."""
        return self.design("tenseal-dot").service_ms / self.design("latency").service_ms

    def to_json(self) -> str:
        """Return the JSON form."""
        return self.model_dump_json(indent=2) + "\n"

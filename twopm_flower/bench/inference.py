"""``twopm bench inference``: what a private prediction takes, beside TenSEAL's ``dot``."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from twopm_flower.bench.inference_report import (
    BatchFigures,
    DesignFigures,
    InferenceReport,
    LoadFigures,
)
from twopm_flower.bench.machine import this_machine
from twopm_flower.bench.progress import Progress
from twopm_flower.inference.base import PredictionClient, PredictionService
from twopm_flower.inference.linear import LinearClient, LinearService
from twopm_flower.inference.tenseal_dot import TensealClient, TensealService
from twopm_flower.privacy import linear_numba
from twopm_flower.privacy.linear_model import PreparedLinear, QuantisedLinear
from twopm_flower.privacy.linear_parameters import LinearParameters, Preset, WeightsPolicy

FEATURES: Final = 40
RANGE: Final = 1.0
SEED: Final = 2026
WARM_UP: Final = 3

_MODEL: Final = "0x" + "01" * 32
_MASK_KEY: Final = bytes(32)

Floats = npt.NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class InferenceOptions:
    """What is measured.

    Attributes
    ----------
    repeats : int
        Timed predictions of each design.
    rows : int
        Rows of a batch.
    command : str
    """

    repeats: int
    rows: int
    command: str


@dataclass
class _Times:
    """Seconds of each repeat, and what else one of them tells."""

    encrypt: list[float] = field(default_factory=list)
    service: list[float] = field(default_factory=list)
    open: list[float] = field(default_factory=list)
    request_bytes: int = 0
    answer_bytes: int = 0
    error: float = 0.0


@dataclass(frozen=True)
class _Design:
    name: str
    client: PredictionClient[Any]
    service: PredictionService


@dataclass(frozen=True, eq=False)
class MadeUpModel:
    """A model of one class and rows to ask it about, from a fixed seed.

    Attributes
    ----------
    weight, bias : ndarray of float32, shapes (1, 40) and (1,)
    rows : ndarray of float64, shape (rows, 40)
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    rows: Floats

    @classmethod
    def of(cls, rows: int) -> "MadeUpModel":
        """Return the model, with so many rows."""
        generator = np.random.default_rng(SEED)
        weight = generator.normal(0.0, 0.3, (1, FEATURES)).astype(np.float32)
        bias = generator.normal(0.0, 0.3, 1).astype(np.float32)
        return cls(weight, bias, generator.uniform(-RANGE, RANGE, (rows, FEATURES)))

    def scores(self, rows: Floats) -> Floats:
        """Return the exact scores of rows, shape (n, 1)."""
        exact: Floats = rows @ self.weight.T.astype(np.float64) + self.bias.astype(np.float64)
        return exact


def run_inference(
    options: InferenceOptions,
    progress: Progress,
    load: Callable[[Progress], LoadFigures] | None = None,
) -> InferenceReport:
    """Measure one prediction by several designs in turn, then batches, then a service.

    Parameters
    ----------
    options : InferenceOptions
    progress : Progress
    load : callable, optional
        Measures a service under load; it is left out if not given.
    """
    steps = 4
    progress.doing(f"one prediction of {FEATURES} features, {options.repeats} times", 0, steps)
    designs = _one_prediction(options)
    batches = []
    policies: tuple[WeightsPolicy, ...] = ("public", "secret")
    for done, policy in enumerate(policies, 1):
        progress.doing(f"a batch of {options.rows:,} rows, {policy} weights", done, steps)
        batches.append(_batch(options, policy))
    if load is not None:
        progress.doing("a service under load", 3, steps)
    return InferenceReport(
        machine=this_machine(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        features=FEATURES,
        designs=designs,
        batches=tuple(batches),
        load=None if load is None else load(progress),
    )


def _one_prediction(options: InferenceOptions) -> tuple[DesignFigures, ...]:
    model = MadeUpModel.of(options.repeats + WARM_UP)
    reference = TensealClient()
    designs = (
        _Design(
            "tenseal-dot", reference, TensealService(model.weight, model.bias, reference.setup())
        ),
        _ours("latency", model, "public", "latency", 1),
        _ours("latency-secret", model, "secret", "latency", 1),
    )
    times = {design.name: _Times() for design in designs}
    for number, row in enumerate(model.rows):
        # Each starts with another: what the machine does beside meets all of them alike.
        for turn in range(len(designs)):
            design = designs[(number + turn) % len(designs)]
            found = _Times() if number < WARM_UP else times[design.name]
            _ask(design, row[None], model.scores(row[None]), found)
    return tuple(
        DesignFigures(
            design=design.name,
            encrypt_s=tuple(times[design.name].encrypt),
            service_s=tuple(times[design.name].service),
            open_s=tuple(times[design.name].open),
            request_bytes=times[design.name].request_bytes,
            answer_bytes=times[design.name].answer_bytes,
            setup_bytes=design.service.setup_bytes,
            error=times[design.name].error,
        )
        for design in designs
    )


def _batch(options: InferenceOptions, policy: WeightsPolicy) -> BatchFigures:
    model = MadeUpModel.of(options.rows)
    design = _ours("batch", model, policy, "batch", options.rows)
    scores = model.scores(model.rows)
    _ask(design, model.rows, scores, _Times())
    times = _Times()
    for _ in range(max(3, options.repeats // 20)):
        _ask(design, model.rows, scores, times)
    return BatchFigures(
        policy=policy,
        rows=options.rows,
        encrypt_s=tuple(times.encrypt),
        service_s=tuple(times.service),
        open_s=tuple(times.open),
        request_bytes=times.request_bytes,
        answer_bytes=times.answer_bytes,
        error=times.error,
    )


def _ours(
    name: str, model: MadeUpModel, policy: WeightsPolicy, preset: Preset, max_rows: int
) -> _Design:
    parameters = LinearParameters.derive(model.weight, model.bias, np.full(FEATURES, RANGE), policy)
    prepared = PreparedLinear.of(
        QuantisedLinear.of(model.weight, model.bias, parameters), parameters
    )
    return _Design(
        name,
        LinearClient(parameters, _MODEL, preset),
        LinearService(
            prepared,
            _MODEL,
            mask_key=_MASK_KEY if policy == "secret" else None,
            max_rows=max_rows,
            ring=linear_numba,
        ),
    )


def _ask(design: _Design, rows: Floats, scores: Floats, times: _Times) -> None:
    (request, key), encrypt_s = _timed(lambda: design.client.encrypt(rows))
    answer, service_s = _timed(lambda: design.service.answer(request))
    opened, open_s = _timed(lambda: design.client.open(answer, key))
    times.encrypt.append(encrypt_s)
    times.service.append(service_s)
    times.open.append(open_s)
    times.request_bytes, times.answer_bytes = len(request), len(answer)
    times.error = max(times.error, float(np.abs(opened - scores).max()))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def medians_ms(seconds: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the median of each list of seconds, in milliseconds."""
    return tuple(1000 * float(np.median(list(times))) for times in seconds)

"""What a strategy holds while a run is under way, and the metrics that it reports."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import MetricRecord
from flwr.serverapp.strategy import Result

from twopm_flower.config import Settings
from twopm_flower.federated import wire
from twopm_flower.federated.callbacks import RoundCallback
from twopm_flower.federated.prepared import PreparedRun
from twopm_flower.federated.run_store import RoundTiming, RunStore
from twopm_flower.federated.server_run import ServerRun
from twopm_flower.records.manifest import RoundManifest

log = logging.getLogger(__name__)


@dataclass
class LiveRun:
    """What exists only while a run is under way."""

    prepared: PreparedRun
    run: ServerRun
    store: RunStore
    settings: Settings
    callbacks: tuple[RoundCallback, ...]
    timeout: float | None
    attempt: int = 1
    asked: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    download_bytes: int = 0

    def __post_init__(self) -> None:
        self.result = Result()
        self.timings: list[RoundTiming] = []
        self.upload_bytes: dict[str, int] = {}


def means_of(sums: Mapping[str, float]) -> MetricRecord:
    """Return the sums, and beside each its mean over the evaluated rows."""
    rows = sums.get(wire.SAMPLES, 0)
    means = {
        f"mean-{name}": value / rows
        for name, value in sums.items()
        if rows and name != wire.SAMPLES
    }
    return MetricRecord({**sums, **means})


def log_manifest(manifest: RoundManifest) -> None:
    """Log what was added and what was left out."""
    log.info(
        "round %d, attempt %d: added %d encrypted updates, manifest %s",
        manifest.round,
        manifest.attempt,
        len(manifest.survivors),
        manifest.digest,
    )
    for exclusion in manifest.exclusions:
        log.warning(
            "round %d: %s left out (%s): %s",
            manifest.round,
            exclusion.node,
            exclusion.reason,
            exclusion.detail,
        )

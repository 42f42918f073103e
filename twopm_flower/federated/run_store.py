"""What the server keeps of a run: the bundle, the timings and the ciphertexts it added.

Layout of ``$TWOPM_HOME/runs/<task id>/``::

    bundle.json     the public bundle, rewritten after each round
    timings.json    seconds and bytes of each round, which no digest covers
    outbox.sqlite   chain records on their way
    ciphertexts/    expanded updates, for an auditor; never handed to nodes
"""

import base64
from pathlib import Path
from typing import Annotated

from pydantic import Field

from twopm_flower.errors import ConfigError
from twopm_flower.federated.home import write_atomically
from twopm_flower.records.bundle import ChainRecord, Finalisation, RoundBundle, RunBundle
from twopm_flower.records.fields import Record, Uint53


class RoundTiming(Record):
    """Measured figures of one round."""

    round: Uint53
    attempts: Uint53
    upload_bytes: dict[str, Uint53]
    download_bytes: Uint53
    train_s: Annotated[float, Field(ge=0)]
    evaluate_s: Annotated[float, Field(ge=0)]
    own_s: Annotated[float, Field(ge=0)]


class Timings(Record):
    """Measured figures of a run; honest, but nothing that anyone signed."""

    rounds: tuple[RoundTiming, ...] = ()


class RunStore:
    """The server's folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def bundle_path(self) -> Path:
        """Where the public bundle stands."""
        return self.folder / "bundle.json"

    @property
    def outbox_path(self) -> Path:
        """Where chain records wait."""
        return self.folder / "outbox.sqlite"

    def save_bundle(self, bundle: RunBundle) -> None:
        """Replace the public bundle."""
        write_atomically(self.bundle_path, bundle.to_bytes())

    def load_bundle(self) -> RunBundle:
        """Return the public bundle.

        Raises
        ------
        ConfigError
            No round of this task has ended here.
        """
        if not self.bundle_path.exists():
            raise ConfigError(
                f"{self.folder} holds no bundle: no round of this task has ended here",
                hint="Run the task first, or pass the path of a bundle.",
            )
        return RunBundle.from_bytes(self.bundle_path.read_bytes())

    def save_ciphertext(self, update_digest: str, frame: bytes) -> None:
        """Keep one expanded update, readable by this user alone."""
        write_atomically(self.folder / "ciphertexts" / update_digest, frame, mode=0o600)

    def ciphertexts(self, bundle: RunBundle) -> dict[str, str]:
        """Return update digest to base64 frame, for all updates of a bundle."""
        return {
            survivor.update_digest: base64.b64encode(
                (self.folder / "ciphertexts" / survivor.update_digest).read_bytes()
            ).decode()
            for entry in bundle.rounds
            for survivor in entry.manifest.survivors
        }

    def save_timings(self, timings: Timings) -> None:
        """Replace the timings."""
        write_atomically(self.folder / "timings.json", timings.to_bytes())

    def load_timings(self) -> Timings:
        """Return the timings, empty when there are none."""
        file = self.folder / "timings.json"
        return Timings.from_bytes(file.read_bytes()) if file.exists() else Timings()


def with_chain_records(
    bundle: RunBundle,
    records: dict[tuple[int, int], ChainRecord],
    finalisation: Finalisation | None,
) -> RunBundle:
    """Return the bundle with what is known of the chain filled in."""

    def filled(entry: RoundBundle) -> RoundBundle:
        key = (entry.manifest.round, entry.manifest.attempt)
        superseded = tuple(
            old.model_copy(
                update={"record": records.get((old.manifest.round, old.manifest.attempt))}
            )
            for old in entry.superseded
        )
        return entry.model_copy(update={"record": records.get(key), "superseded": superseded})

    return bundle.model_copy(
        update={
            "rounds": tuple(filled(entry) for entry in bundle.rounds),
            "finalisation": finalisation or bundle.finalisation,
        }
    )

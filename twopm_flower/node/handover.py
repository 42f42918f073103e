"""Handing over what a run left: the bundle to a verifier, the model to whoever may have it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.node.runs import load_run, open_chain, refreshed
from twopm_flower.records.bundle import RunBundle

MODEL_PREFIX = "model-"


@dataclass(frozen=True)
class ExportedModel:
    """Which model was handed over.

    Attributes
    ----------
    path : Path
    round : int
        The round whose aggregate gave it; 0 is the initial model.
    digest : str
        As the nodes signed it.
    """

    path: Path
    round: int
    digest: str


def export_bundle(
    home: Path, named: str | None, out: Path, *, with_ciphertexts: bool = False
) -> RunBundle:
    """Write one file that holds all a stranger needs to check a run.

    Ciphertexts are part of it where they may be seen by all, in ``one-time-key`` mode.
    What was delivered to the chain since the run ended is filled in, if the chain answers.

    Raises
    ------
    ConfigError
        No such run, or its ciphertexts were not kept; or `out` cannot be written.
    """
    _require_place(out)
    run = load_run(home, named, with_ciphertexts=True)
    mode = run.bundle.terms.trust_mode
    if mode != "one-time-key" and not with_ciphertexts:
        run = replace(run, bundle=run.bundle.model_copy(update={"ciphertexts": {}}))
    if with_ciphertexts and not run.bundle.ciphertexts:
        raise ConfigError(
            f"the ciphertexts of task {run.bundle.task_id} are not all in {run.path.parent}",
            hint="Export without --with-ciphertexts: sums are then checked by fingerprints.",
        )
    reader, _ = open_chain(home, run.bundle.deployment)
    bundle = run.bundle if reader is None else refreshed(run.bundle, reader)
    secret = with_ciphertexts and mode == "shared-key"
    write_atomically(out, bundle.to_bytes(), mode=0o600 if secret else 0o644)
    return bundle


def export_model(home: Path, task_id: str, out: Path) -> ExportedModel:
    """Copy the model that a node opened last.

    Raises
    ------
    ConfigError
        This home opened none, or `out` cannot be written.
    """
    _require_place(out)
    folder = NodeHome(home).task(task_id)
    found = {
        int(file.stem.removeprefix(MODEL_PREFIX)): file
        for file in folder.path.glob(f"{MODEL_PREFIX}*.safetensors")
    }
    if not found:
        raise ConfigError(
            f"no model of task {task_id} is in {home}",
            hint="Nodes open models, the coordinator never does: run this in a node's home.",
        )
    round_ = max(found)
    data = found[round_].read_bytes()
    write_atomically(out, data, mode=0o600)
    return ExportedModel(out, round_, _digest_in(data, found[round_]))


def _require_place(out: Path) -> None:
    if not out.parent.is_dir():
        raise ConfigError(
            f"{out} cannot be written: there is no folder {out.parent}",
            hint="Make the folder first, or name another file with --out.",
        )
    if out.is_dir():
        raise ConfigError(f"{out} is a folder", hint="Name a file in it with --out.")


def _digest_in(data: bytes, path: Path) -> str:
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        return str(metadata["twopm.digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is not a model that this package wrote: {error!r}") from error

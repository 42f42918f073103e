"""What is left of a run: its bundle and chain, its model, and records still to be delivered."""

import json
from dataclasses import dataclass
from pathlib import Path

from twopm_flower.chain.base import ChainReader, FinaliseCall
from twopm_flower.config import ChainSettings, load_settings
from twopm_flower.errors import (
    ChainUnavailable,
    ConfigError,
    RecordError,
    WrongChain,
)
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.federated.run_store import RunStore, Timings, with_chain_records
from twopm_flower.node.chain_file import open_any_reader, read_chain_file
from twopm_flower.node.provision import coordinator_signer
from twopm_flower.node.tasks import resolve_run
from twopm_flower.records.bundle import Deployment, RunBundle
from twopm_flower.verify.checklist import load_bundle

MODEL_PREFIX = "model-"


@dataclass(frozen=True)
class Run:
    """A bundle, and what else this machine has of its run.

    Attributes
    ----------
    bundle : RunBundle
    path : Path
        The file that the bundle was read from.
    timings : Timings
        Measured figures; empty unless the run was coordinated here.
    """

    bundle: RunBundle
    path: Path
    timings: Timings


@dataclass(frozen=True)
class Delivery:
    """What a delivery did.

    Attributes
    ----------
    delivered, pending : int
        How many records are on chain now, and how many still wait.
    """

    delivered: int
    pending: int


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


def load_run(home: Path, named: str | None, *, with_ciphertexts: bool = False) -> Run:
    """Return a run by the path of a bundle, or by its task; the latest one by default.

    Parameters
    ----------
    home : Path
    named : str or None
        A file, a task id, or its first digits.
    with_ciphertexts : bool
        Add the ciphertexts that the coordinator kept, so that sums can be redone.

    Raises
    ------
    RecordError
        Not a bundle.
    ConfigError
        No such run.
    """
    if named is not None and (Path(named).suffix or Path(named).exists()):
        return Run(load_bundle(named), Path(named), Timings())
    store = RunStore(resolve_run(home, named))
    bundle = store.load_bundle()
    if with_ciphertexts:
        bundle = add_ciphertexts(store, bundle)
    return Run(bundle, store.bundle_path, store.load_timings())


def add_ciphertexts(store: RunStore, bundle: RunBundle) -> RunBundle:
    """Return the bundle with all ciphertexts of the run, or as it is where one is missing."""
    folder = store.folder / "ciphertexts"
    wanted = [s.update_digest for entry in bundle.rounds for s in entry.manifest.survivors]
    if not all((folder / digest).exists() for digest in wanted):
        return bundle
    return bundle.model_copy(update={"ciphertexts": store.ciphertexts(bundle)})


def find_chain(
    home: Path, deployment: Deployment, chain_file: Path | None = None
) -> ChainSettings | None:
    """Return the chain to compare a run with.

    That is the one of `chain_file`, else the one that the home pins, else this machine's own
    embedded chain if the run was simulated here. A bundle's word alone is never enough: it
    names a deployment, and no endpoint.

    Raises
    ------
    WrongChain
        The home pins another chain than the one that the run is anchored in.
    """
    if chain_file is not None:
        return read_chain_file(chain_file)
    simulated = _simulation_chain(home, deployment)
    if simulated is not None:
        return simulated
    pinned = load_settings(home).chain
    if pinned is not None and pinned.genesis_hash.lower() != deployment.genesis_hash:
        raise WrongChain(
            f"the run is anchored in the chain with genesis {deployment.genesis_hash}; this home "
            f"pins {pinned.genesis_hash}",
            hint="Pass --chain chain.toml of the run, after checking where it comes from.",
        )
    return pinned


def open_chain(
    home: Path, deployment: Deployment, chain_file: Path | None = None
) -> tuple[ChainReader | None, str | None]:
    """Return a reader of the run's chain, or None and why there is none.

    Raises
    ------
    WrongChain
        The endpoint serves another chain than the pinned one.
    """
    chain = find_chain(home, deployment, chain_file)
    if chain is None:
        return None, "no chain is configured here; pass --chain chain.toml"
    try:
        return open_any_reader(chain), None
    except ChainUnavailable as error:
        return None, str(error)


def refreshed(bundle: RunBundle, reader: ChainReader) -> RunBundle:
    """Return the bundle with what the chain holds by now filled in."""
    # The callbacks of a run bring the chain connector with them, which takes a second.
    from twopm_flower.federated.callbacks import records_on_chain  # noqa: PLC0415

    records, final = records_on_chain(reader, bundle.task_id)
    return with_chain_records(bundle, records, final)


def export_bundle(
    home: Path, named: str | None, out: Path, *, with_ciphertexts: bool = False
) -> RunBundle:
    """Write one file that holds all a stranger needs to check a run.

    What was delivered to the chain since the run ended is filled in, if the chain answers.

    Raises
    ------
    ConfigError
        No such run, or its ciphertexts were not kept.
    """
    run = load_run(home, named, with_ciphertexts=with_ciphertexts)
    if with_ciphertexts and not run.bundle.ciphertexts:
        raise ConfigError(
            f"the ciphertexts of task {run.bundle.task_id} are not all in {run.path.parent}",
            hint="Export without --with-ciphertexts: sums are then checked by fingerprints.",
        )
    reader, _ = open_chain(home, run.bundle.deployment)
    bundle = run.bundle if reader is None else refreshed(run.bundle, reader)
    mode = 0o600 if with_ciphertexts and bundle.terms.trust_mode == "shared-key" else 0o644
    write_atomically(out, bundle.to_bytes(), mode=mode)
    return bundle


def export_model(home: Path, task_id: str, out: Path) -> ExportedModel:
    """Copy the model that a node opened last.

    Raises
    ------
    ConfigError
        This home opened none.
    """
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


def deliver(home: Path, named: str | None, *, chain_file: Path | None = None) -> Delivery:
    """Bring the records of a run that still wait to the chain.

    Raises
    ------
    ChainUnavailable, TransactionReverted, RecordConflict
        Something could not be delivered.
    """
    from twopm_flower.chain.outbox import Outbox  # noqa: PLC0415
    from twopm_flower.federated.chain_access import open_connector  # noqa: PLC0415

    store = RunStore(resolve_run(home, named))
    chain = find_chain(home, store.load_bundle().deployment, chain_file)
    if chain is None:
        raise ConfigError(
            "no chain is configured here", hint="Pass --chain chain.toml, or run 'twopm chain use'."
        )
    coordinator_signer(home)
    connector = open_connector(chain, home / load_settings(home).coordinator.key)
    outbox = Outbox(store.outbox_path)
    try:
        outbox.retry_failed()
        delivered = outbox.deliver(connector)
        pending = len(outbox.pending())
    finally:
        outbox.close()
    store.save_bundle(refreshed(store.load_bundle(), connector))
    return Delivery(delivered, pending)


def undelivered(folder: Path) -> tuple[str, ...]:
    """Return what of a run is not on chain yet, in words."""
    from twopm_flower.chain.outbox import Outbox  # noqa: PLC0415

    store = RunStore(folder)
    if not store.outbox_path.exists():
        return ()
    outbox = Outbox(store.outbox_path)
    try:
        calls = [entry.call for entry in outbox.pending()]
    finally:
        outbox.close()
    return tuple(
        "the final model"
        if isinstance(call, FinaliseCall)
        else f"round {call.round}, attempt {call.attempt}"
        for call in calls
    )


def _simulation_chain(home: Path, deployment: Deployment) -> ChainSettings | None:
    folder = home / "simulation"
    file = folder / "deployment.json"
    if not file.exists() or Deployment.from_bytes(file.read_bytes()) != deployment:
        return None
    return ChainSettings(
        # Nobody listens there: a simulation's chain stops with it, and its database is read.
        rpc_url="http://127.0.0.1:9",
        devnet_folder=folder / "chain",
        **deployment.to_json(),
    )


def _digest_in(data: bytes, path: Path) -> str:
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        return str(metadata["twopm.digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is not a model that this package wrote: {error!r}") from error

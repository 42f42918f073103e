"""Finding a run and the chain to compare it with."""

from dataclasses import dataclass
from pathlib import Path

from twopm_flower.chain.base import ChainReader
from twopm_flower.config import ChainSettings, load_settings
from twopm_flower.errors import ChainUnavailable, WrongChain
from twopm_flower.federated.run_store import RunStore, Timings, with_chain_records
from twopm_flower.node.chain_file import open_any_reader, read_chain_file
from twopm_flower.node.handed_over import BUNDLE, read_handed_over
from twopm_flower.node.tasks import resolve_run
from twopm_flower.records.bundle import Deployment, RunBundle


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
        return Run(read_handed_over(Path(named), BUNDLE, RunBundle), Path(named), Timings())
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

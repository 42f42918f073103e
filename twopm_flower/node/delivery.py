"""Bringing records that still wait to the chain."""

from dataclasses import dataclass
from pathlib import Path

from twopm_flower.chain.outbox import Outbox
from twopm_flower.chain.outbox_calls import words_for
from twopm_flower.config import load_settings
from twopm_flower.errors import ConfigError
from twopm_flower.federated.chain_access import open_connector
from twopm_flower.federated.run_store import RunStore
from twopm_flower.node.runs import find_chain, refreshed
from twopm_flower.node.tasks import resolve_run


@dataclass(frozen=True)
class Delivery:
    """What a delivery did.

    Attributes
    ----------
    delivered, pending, settling : int
        How many records were brought to the chain, how many still wait, and how many are in
        a block that can still be undone.
    """

    delivered: int
    pending: int
    settling: int


def deliver(home: Path, named: str | None, *, chain_file: Path | None = None) -> Delivery:
    """Bring the records of a run that still wait to the chain.

    Raises
    ------
    ChainUnavailable, TransactionReverted, RecordConflict
        Something could not be delivered.
    """
    store = RunStore(resolve_run(home, named))
    chain = find_chain(home, store.load_bundle().deployment, chain_file)
    if chain is None:
        raise ConfigError(
            "no chain is configured here", hint="Pass --chain chain.toml, or run 'twopm chain use'."
        )
    connector = open_connector(load_settings(home), chain)
    outbox = Outbox(store.outbox_path, confirmations=chain.confirmations)
    try:
        outbox.retry_failed()
        delivered = outbox.deliver(connector)
        pending, settling = len(outbox.pending()), len(outbox.settling())
    finally:
        outbox.close()
    store.save_bundle(refreshed(store.load_bundle(), connector))
    return Delivery(delivered, pending, settling)


def undelivered(folder: Path) -> tuple[str, ...]:
    """Return what of a run is not on chain yet, in words."""
    store = RunStore(folder)
    if not store.outbox_path.exists():
        return ()
    outbox = Outbox(store.outbox_path)
    try:
        calls = [entry.call for entry in outbox.pending()]
    finally:
        outbox.close()
    return tuple(words_for(call) for call in calls)

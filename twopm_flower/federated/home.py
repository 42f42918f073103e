"""A node's home: its keys, the peers it trusts, and what it knows of each task.

Layout under ``$TWOPM_HOME``::

    config.toml                     operator settings
    identity.key  sealing.key       0600
    peers/<address>.json            node cards that the operator trusts
    tasks/<task id>/terms.json      what was agreed
                    roster.json     the frozen roster, checked against chain and peers
                    shared.key      0600, in shared-key mode
                    progress.json   what was opened and signed
                    guard.sqlite    which sums were permitted to be opened
                    local.safetensors  0600, own values of excluded arrays
                    model-<r>.safetensors  update-<r>-<a>.frame, .json
                    reader-<r>-<a>.key  share-<r>-<a>.bin    0600, gone once opened
                    opening-<r>-<a>.bin
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from twopm_flower.config import Settings, load_settings
from twopm_flower.errors import ConfigError, ProtocolViolation
from twopm_flower.federated.exchange import Arrays, SealedShare
from twopm_flower.federated.progress import Progress
from twopm_flower.privacy.keys import SealingKey, SharedKey
from twopm_flower.records.bundle import NodeCard
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import Signed, UpdateStatement, signed_type
from twopm_flower.records.terms import TaskTerms
from twopm_flower.signer.base import Signer
from twopm_flower.signer.keystore import LocalSigner
from twopm_flower.signer.opening import open_signer

FloatArray = npt.NDArray[np.float32]


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file so that a reader or a crash sees the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable: a power cut must not bring old ones back."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class KeptUpdate:
    """An update of this node as it left, to be shown again and to take fingerprints of."""

    frame: bytes
    statement: Signed[UpdateStatement]
    shares: tuple[SealedShare, ...] = ()


class TaskFolder:
    """What a node keeps of one task."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def task_id(self) -> str:
        """The task's id, which is the folder's name."""
        return self.path.name

    @cached_property
    def terms(self) -> TaskTerms:
        """The terms that the operator agreed to."""
        return TaskTerms.from_bytes(self._read("terms.json"))

    @cached_property
    def roster(self) -> Roster:
        """The frozen roster."""
        return Roster.from_bytes(self._read("roster.json"))

    @cached_property
    def shared_key(self) -> SharedKey:
        """The shared key.

        Raises
        ------
        ConfigError
            It was not accepted yet.
        """
        file = self.path / "shared.key"
        if not file.exists():
            raise ConfigError(
                f"task {self.task_id} has no shared key yet",
                hint="Get the dealt key from the first member and run 'twopm keys accept FILE'.",
            )
        return SharedKey.load(file)

    def _read(self, name: str) -> bytes:
        file = self.path / name
        if not file.exists():
            raise ConfigError(
                f"{file} is missing: this node has not joined the task completely",
                hint="Run 'twopm task join' and, once it has started, 'twopm task confirm'.",
            )
        return file.read_bytes()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the task exclusively: one message at a time, whatever processes run."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever wrote these was killed: in a run only holders of this lock write here.
            for draft in self.path.glob(".?*"):
                if draft.name != ".lock":
                    draft.unlink()
            yield

    def load_progress(self) -> Progress:
        """Return how far the node is; a fresh one before the first round."""
        file = self.path / "progress.json"
        return Progress.from_bytes(file.read_bytes()) if file.exists() else Progress()

    def save_progress(self, progress: Progress) -> None:
        """Store how far the node is, durably."""
        write_atomically(self.path / "progress.json", progress.to_bytes(), mode=0o600)

    def save_model(self, round_: int, arrays: dict[str, FloatArray], digest: str) -> None:
        """Store the model of a round and forget those before the last one."""
        # One entry only: safetensors writes several in no fixed order, and nodes compare files.
        data = save(arrays, metadata={"twopm.digest": digest})
        write_atomically(self.path / f"model-{round_}.safetensors", data, mode=0o600)
        for old in self.path.glob("model-*.safetensors"):
            if int(old.stem.removeprefix("model-")) < round_ - 1:
                old.unlink()

    def load_model(self, round_: int) -> dict[str, FloatArray]:
        """Return the model of a round.

        Raises
        ------
        ProtocolViolation
            This node never opened that round.
        """
        file = self.path / f"model-{round_}.safetensors"
        if not file.exists():
            raise ProtocolViolation(
                f"this node does not have the model of round {round_}",
                hint="It missed an opening; the server sends it again in the next round.",
            )
        return dict(load_file(file))

    def save_local(self, arrays: Arrays) -> None:
        """Store this node's own values of the arrays that are excluded from the task."""
        write_atomically(self.path / "local.safetensors", save(arrays), mode=0o600)

    def load_local(self) -> Arrays:
        """Return this node's own values of the excluded arrays; empty where there are none."""
        file = self.path / "local.safetensors"
        return dict(load_file(file)) if file.exists() else {}

    def save_report(self, round_: int, data: bytes) -> None:
        """Store the report of the last opening, to send it again if asked."""
        write_atomically(
            self.path / "report.json", canonical_bytes({"round": round_}) + b"\n" + data
        )

    def load_report(self, round_: int) -> bytes:
        """Return the report of the last opening.

        Raises
        ------
        ProtocolViolation
            There is none for this round.
        """
        file = self.path / "report.json"
        header, _, data = file.read_bytes().partition(b"\n") if file.exists() else (b"", b"", b"")
        if header != canonical_bytes({"round": round_}):
            raise ProtocolViolation(f"this node has no report of round {round_}")
        return data

    def save_update(self, round_: int, attempt: int, update: KeptUpdate) -> None:
        """Store the own update as it is about to leave, and forget the one before."""
        for old in self.path.glob("update-*"):
            old.unlink()
        write_atomically(self.path / f"update-{round_}-{attempt}.frame", update.frame, mode=0o600)
        shares = canonical_bytes({share.node: share.sealed.hex() for share in update.shares})
        data = update.statement.to_bytes() + b"\n" + shares
        write_atomically(self.path / f"update-{round_}-{attempt}.json", data, mode=0o600)

    def load_update(self, round_: int, attempt: int) -> KeptUpdate:
        """Return the own update as it left.

        Raises
        ------
        ProtocolViolation
            This node sent no update for that round and attempt.
        """
        file = self.path / f"update-{round_}-{attempt}.json"
        if not file.exists():
            raise ProtocolViolation(
                f"this node sent no update for round {round_}, attempt {attempt}"
            )
        statement, _, shares = file.read_bytes().partition(b"\n")
        sealed = parse_canonical(shares, what="kept shares")
        return KeptUpdate(
            frame=file.with_suffix(".frame").read_bytes(),
            statement=signed_type(UpdateStatement).from_bytes(statement),
            # In the order in which they were dealt: what is sent again has the same bytes.
            shares=tuple(
                SealedShare(node, bytes.fromhex(sealed[node]))
                for node in sorted(sealed, key=str.lower)
            ),
        )


class NodeHome:
    """A node's home folder.

    Parameters
    ----------
    path : Path
        The folder; created by ``twopm node init``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def settings(self) -> Settings:
        """The operator's settings."""
        return load_settings(self.path)

    @cached_property
    def signer(self) -> Signer:
        """The signer with the node's identity key, which another process may hold."""
        node = self.settings.node
        if node.signer is not None:
            return open_signer(node.signer, self.path)
        return LocalSigner.from_file(
            self.path / node.identity_key,
            password_file=self.settings.in_home(node.identity_password_file),
        )

    @cached_property
    def sealing_key(self) -> SealingKey:
        """The node's X25519 key."""
        return SealingKey.load(self.path / self.settings.node.sealing_key)

    @property
    def exists(self) -> bool:
        """Whether a node was set up here."""
        node = self.settings.node
        own = node.identity_key if node.signer is None else node.sealing_key
        return (self.path / own).exists()

    def peers(self) -> dict[str, NodeCard]:
        """Return the cards of the nodes that the operator trusts, by address."""
        cards = [
            NodeCard.from_bytes(file.read_bytes())
            for file in sorted((self.path / "peers").glob("*.json"))
        ]
        return {card.registration.node: card for card in cards}

    def task(self, task_id: str) -> TaskFolder:
        """Return the folder of a task, whether or not it was joined."""
        return TaskFolder(self.path / "tasks" / task_id)

    def task_ids(self) -> tuple[str, ...]:
        """Return the tasks that this node knows."""
        return tuple(sorted(file.parent.name for file in self.path.glob("tasks/*/terms.json")))

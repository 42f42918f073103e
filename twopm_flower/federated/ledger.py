"""What a node holds against the server: its ledger of a task and the checks that rest on it."""

import logging
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from twopm_flower.config import NodeSettings
from twopm_flower.errors import (
    ConfigError,
    FrameError,
    NodeBehind,
    ProtocolViolation,
    RecordError,
    VerificationError,
)
from twopm_flower.federated.anchor import RecordReader, await_anchor
from twopm_flower.federated.exchange import Arrays, FloatArrays
from twopm_flower.federated.excluded import check_local, split
from twopm_flower.federated.home import TaskFolder
from twopm_flower.federated.progress import Pending, Progress, is_forgotten
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.guard import Guard
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import Signed, UpdateStatement
from twopm_flower.verify.round import check_manifest, check_updates

log = logging.getLogger(__name__)
T = TypeVar("T")
NO_MODEL = "this node has not seen the initial model yet"


class TaskLedger:
    """One node's progress in one task, stored at each change.

    Parameters
    ----------
    task : TaskContext
        Terms and roster as this node's operator accepted them.
    folder : TaskFolder
        Where progress and models are kept; the caller holds its lock.
    node : str
        This node's address.
    chain : RecordReader
        The operator's own chain endpoint.
    policy : NodeSettings
        How long a missing record is tolerated, and when an exclusion is an alarm.
    app_bundle : str
        Digest of the app that this node unpacked.
    run_config : dict
        The Flower run configuration that this node sees.

    Raises
    ------
    ProtocolViolation
        The node stopped in this task before.
    """

    def __init__(
        self,
        *,
        task: TaskContext,
        folder: TaskFolder,
        node: str,
        chain: RecordReader,
        policy: NodeSettings,
        app_bundle: str,
        run_config: dict[str, Any],
    ) -> None:
        self.task = task
        self.folder = folder
        self.node = node
        self.policy = policy
        self.app_bundle = app_bundle
        self.run_config = run_config
        self._chain = chain
        self.progress = folder.load_progress()
        if self.progress.halted:
            raise ProtocolViolation(
                f"this node stopped in task {task.task_id}: {self.progress.halted}",
                hint="Its keys are deleted: leave it, and join a new task."
                if is_forgotten(self.progress.halted)
                else "Look into it; then 'twopm node resume' lets the node go on.",
            )

    def guarded(self, step: Callable[[], T]) -> T:
        """Run a step; a violation by another party halts this node for good, and is stored."""
        try:
            return step()
        except (ProtocolViolation, VerificationError, RecordError, FrameError) as error:
            self.store(self.progress.changed(halted=str(error)))
            log.exception("this node stops")
            raise

    def store(self, progress: Progress) -> None:
        """Store the progress, then go on from it."""
        self.folder.save_progress(progress)
        self.progress = progress

    def model(self, round_: int) -> FloatArrays:
        """Return the model of a round in the order of the layout."""
        return self.task.ordered(self.folder.load_model(round_))

    def accept_initial(self, initial: Arrays) -> None:
        """Keep the public initial model, and the values of excluded arrays to start from, once.

        Raises
        ------
        ProtocolViolation
            Not the one that was agreed.
        NodeBehind
            None was sent, and this node was not there when it was.
        """
        if self.progress.model_digest is not None:
            return
        if not initial:
            raise NodeBehind(NO_MODEL, opened_round=0)
        terms = self.task.terms
        federated, local = split(initial, terms.excluded)
        digest = self.task.model_digest(federated)
        if digest != self.task.terms.initial_model:
            raise ProtocolViolation(
                f"the initial model has digest {digest}, agreed was {self.task.terms.initial_model}"
            )
        check_local(local, terms.initial_excluded)
        if local:
            self.folder.save_local(local)
        self.folder.save_model(0, self.task.ordered(federated), digest)
        self.store(self.progress.changed(model_digest=digest))

    def accept_manifest(
        self, manifest: RoundManifest, updates: tuple[Signed[UpdateStatement], ...]
    ) -> None:
        """Check a round's manifest and remember it: no other one for the same attempt after it.

        Raises
        ------
        ProtocolViolation, VerificationError, SignatureError
            What :meth:`check_round` finds, or another manifest for the same attempt.
        NodeBehind
            The node has not opened the round before.
        QuorumError
            Too many rounds are not on chain.
        """
        self.check_round(manifest, updates)
        progress = self.progress.with_fingerprint(manifest.round, manifest.attempt, manifest.digest)
        entry = Pending(
            round=manifest.round,
            attempt=manifest.attempt,
            manifest_digest=manifest.digest,
            updates_root=manifest.updates_root,
        )
        pending = progress.pending if entry in progress.pending else (*progress.pending, entry)
        self.store(progress.changed(pending=pending))
        self.check_chain()

    def check_setting(self, config: dict[str, Any], agreed: dict[str, Any], round_: int) -> None:
        """Check app, run configuration and configuration against the terms."""
        task = self.task
        if self.app_bundle != task.terms.app_bundle:
            raise ProtocolViolation(
                f"the unpacked app has digest {self.app_bundle}, the task's is "
                f"{task.terms.app_bundle}: somebody submitted another app"
            )
        if self.run_config != task.terms.run_config:
            raise ProtocolViolation(
                f"the run configuration is {self.run_config}, agreed was {task.terms.run_config}"
            )
        if config != {**agreed, "server-round": round_}:
            raise ProtocolViolation(
                f"the server sent the configuration {config}, agreed was {agreed}"
            )

    def check_evaluate_config(self, config: dict[str, Any], round_: int) -> None:
        """Check the setting of an evaluate or closing exchange."""
        self.check_setting(config, self.task.terms.evaluate_config, round_)

    def check_round(
        self, manifest: RoundManifest, updates: tuple[Signed[UpdateStatement], ...]
    ) -> None:
        """Check a manifest against this node's own progress, and its update statements."""
        task, progress = self.task, self.progress
        check_manifest(manifest, task_id=task.task_id, terms=task.terms, roster=task.roster)
        self.require_round(manifest.round - 1)
        if progress.model_digest is None:
            raise NodeBehind(NO_MODEL, opened_round=0)
        expected = {
            "previous_manifest": progress.opened_manifest,
            "base_model": progress.model_digest,
            "key_id": task.key_id,
            "config_digest": task.configuration(manifest.round, self.run_config).digest,
        }
        for field, value in expected.items():
            if getattr(manifest, field) != value:
                raise ProtocolViolation(
                    f"the manifest of round {manifest.round} has {field} "
                    f"{getattr(manifest, field)}, this node has {value}"
                )
        check_updates(manifest, updates, task.domain)
        self._check_inclusion(manifest)

    def _check_inclusion(self, manifest: RoundManifest) -> None:
        own = self.progress.update
        sent = own is not None and (own.round, own.attempt) == (manifest.round, manifest.attempt)
        for survivor in manifest.survivors:
            if survivor.node != self.node:
                continue
            if own is None or not sent or survivor.update_digest != own.update_digest:
                raise ProtocolViolation(
                    f"the manifest of round {manifest.round} lists update "
                    f"{survivor.update_digest} as this node's; it sent "
                    f"{own.update_digest if own and sent else 'none'}"
                )
        if not self.survives(manifest) and sent:
            exclusion = next(e for e in manifest.exclusions if e.node == self.node)
            log.warning(
                "round %d, attempt %d: this node's update was left out (%s: %s)",
                manifest.round,
                manifest.attempt,
                exclusion.reason,
                exclusion.detail,
            )

    def permit(self, manifest: RoundManifest) -> None:
        """Have the guard remember that this sum, and no other of the round, is opened.

        Raises
        ------
        ProtocolViolation
            The guard refuses: too few contributors, or another sum of the round before.
        ConfigError
            The guard's file is gone, damaged or locked, or the key has opened its most sums.
        """
        file = self.folder.path / "guard.sqlite"
        if self.progress.guarded and not file.exists():
            raise ConfigError(
                f"{file} is gone: this node cannot tell which sums it let be opened",
                hint="This node has to leave the task; an older copy would have forgotten some.",
            )
        guard = Guard(
            file,
            min_contributors=self.task.fewest_contributors,
            cap=self.policy.key_cap,
        )
        with closing(guard):
            if not self.progress.guarded:
                self.store(self.progress.changed(guarded=True))
            guard.permit(
                key_id=manifest.key_id,
                round_=manifest.round,
                attempt=manifest.attempt,
                manifest_digest=manifest.digest,
                survivors=manifest.nodes,
            )

    def check_chain(self) -> None:
        """Look for the accepted manifests on chain, and wait as the policy says."""
        policy = self.policy
        if self.task.shares_keys:
            # The record commits to the set of survivors: nothing opens before it is seen.
            policy = policy.model_copy(update={"anchor": "strict"})
        missing = await_anchor(self.task.task_id, self.progress.pending, self._chain, policy)
        if missing != self.progress.pending:
            self.store(self.progress.changed(pending=missing))
        if missing:
            log.warning("not on chain yet: rounds %s", sorted({entry.round for entry in missing}))

    def survives(self, manifest: RoundManifest) -> bool:
        """Tell whether this node's update is in the sum."""
        return self.node in manifest.nodes

    def require_round(self, opened: int) -> None:
        """Check that the server goes on from the round that this node opened last."""
        if self.progress.opened_round < opened:
            raise NodeBehind(
                f"the server goes on from round {opened}, "
                f"this node opened round {self.progress.opened_round} last",
                opened_round=self.progress.opened_round,
            )
        if self.progress.opened_round > opened:
            raise ProtocolViolation(
                f"the server goes back to round {opened}, "
                f"this node opened round {self.progress.opened_round}"
            )

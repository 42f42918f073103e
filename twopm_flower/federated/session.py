"""The node's side of a round: everything it checks, opens and signs. Knows no Flower."""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from twopm_flower.config import NodeSettings
from twopm_flower.errors import (
    ConfigError,
    HeadroomError,
    ProtocolViolation,
    StartedOver,
    UnreadableShares,
    UnsignedShare,
)
from twopm_flower.federated.anchor import RecordReader
from twopm_flower.federated.exchange import (
    Arrays,
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    FloatArrays,
    ModelReport,
    PrepareOrder,
    PrepareReply,
    SealedShare,
    TrainOrder,
    TrainReply,
)
from twopm_flower.federated.excluded import kept_values, merged, split
from twopm_flower.federated.home import KeptUpdate, TaskFolder
from twopm_flower.federated.key_sharing import KeySharing
from twopm_flower.federated.ledger import TaskLedger
from twopm_flower.federated.opening import Opener
from twopm_flower.federated.progress import OwnUpdate, Progress
from twopm_flower.federated.task import TaskContext, weighted_values
from twopm_flower.privacy.frame import encode_update, parse_update
from twopm_flower.privacy.keys import SealingKey, SharedKey
from twopm_flower.privacy.masking import mask, mask_context
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.residues import challenges, fingerprints_at
from twopm_flower.privacy.update import encrypt_update
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ReaderKey,
    Signed,
    TypedDataSigner,
    UpdateStatement,
    sign,
)

log = logging.getLogger(__name__)
T = TypeVar("T")


class NodeSession:
    """One node in one task; every step checks first, stores second and signs last.

    Parameters
    ----------
    task : TaskContext
        Terms and roster as this node's operator accepted them.
    folder : TaskFolder
        Where progress and models are kept; the caller holds its lock.
    signer : TypedDataSigner
        Signs with the node's identity key.
    sealing_key : SealingKey
        The node's X25519 key, for the masks of its evaluation.
    key : SharedKey or None
        The shared key, or the group key that one-time keys are opened under; None in
        plaintext mode.
    pinned : collection of str
        The nodes that this node's operator trusts to be who they say.
    chain : RecordReader
        The operator's own chain endpoint.
    policy : NodeSettings
        How long a missing record is tolerated, and when an exclusion is an alarm.
    app_bundle : str
        Digest of the app that this node unpacked.
    run_config : dict
        The Flower run configuration that this node sees.
    """

    def __init__(
        self,
        *,
        task: TaskContext,
        folder: TaskFolder,
        signer: TypedDataSigner,
        sealing_key: SealingKey,
        key: SharedKey | None,
        pinned: Collection[str],
        chain: RecordReader,
        policy: NodeSettings,
        app_bundle: str,
        run_config: dict[str, Any],
    ) -> None:
        self._task = task
        self._folder = folder
        self._signer = signer
        self._sealing_key = sealing_key
        self._key = key
        self._ledger = TaskLedger(
            task=task,
            folder=folder,
            node=signer.address,
            chain=chain,
            policy=policy,
            app_bundle=app_bundle,
            run_config=run_config,
        )
        self._sharing: KeySharing | None = None
        if key is not None and task.shares_keys:
            self._sharing = KeySharing(self._ledger, signer, key, pinned)
        self._opener = Opener(self._ledger, signer, key, self._sharing)

    @property
    def progress(self) -> Progress:
        """How far the node is."""
        return self._ledger.progress

    def guarded(self, step: Callable[[], T]) -> T:
        """Run a step; see :meth:`TaskLedger.guarded`."""
        return self._ledger.guarded(step)

    # --- prepare -------------------------------------------------------------------------

    def prepare(self, order: PrepareOrder) -> PrepareReply:
        """Publish the key for the shares of the first round; none once that has gone on.

        Raises
        ------
        ProtocolViolation
            The task deals no shares.
        """
        self._ledger.check_evaluate_config(order.config, 0)
        if self._sharing is None:
            raise ProtocolViolation(
                "the server asks for a reader key, and this task deals no shares"
            )
        if self.progress.fingerprinted or self.progress.opened_round:
            # A run that starts anew, too late for this node: its next reply says where it is.
            return PrepareReply(readers=())
        return PrepareReply(readers=(self._sharing.publish(1, 1),))

    # --- train ---------------------------------------------------------------------------

    def begin_train(self, order: TrainOrder) -> tuple[FloatArrays, tuple[ModelReport, ...]]:
        """Open what is to be opened and return the model to train on, with the reports.

        Raises
        ------
        StartedOver
            The first order of all again, after this node has gone on from it.
        ProtocolViolation, VerificationError, SignatureError, NodeBehind
            As :meth:`Opener.advance`, or an attempt or round that cannot follow.
        """
        self._ledger.check_setting(order.config, self._task.terms.train_config, order.round)
        if order.round > self._task.terms.rounds:
            raise ProtocolViolation(
                f"the server goes on with round {order.round}, the task has "
                f"{self._task.terms.rounds}"
            )
        self._refuse_to_start_over(order)
        own = self.progress.update
        if own is not None and own.round == order.round and own.attempt > order.attempt:
            raise ProtocolViolation(
                f"the server goes back to attempt {order.attempt} of round {order.round}; this "
                f"node sent an update for attempt {own.attempt}"
            )
        reports = self._opener.advance(order.initial, order.openings, upto=order.round - 1)
        kept = own is not None and (own.round, own.attempt) == (order.round, order.attempt)
        if self._sharing is not None and not kept:
            # Before the app trains, and not after.
            self._sharing.check_readers(order.round, order.attempt, order.readers)
        return self._ledger.model(order.round - 1), reports

    def _refuse_to_start_over(self, order: TrainOrder) -> None:
        if (order.round, order.attempt) != (1, 1):
            return
        opened, own = self.progress.opened_round, self.progress.update
        if opened or (own is not None and (own.round, own.attempt) > (1, 1)):
            done = f"opened round {opened}" if opened else "sent a second attempt of round 1"
            raise StartedOver(
                f"the server starts task {self._task.task_id} anew, and this node {done} of it "
                "already; nothing is trained",
                hint="A task runs once: the coordinator makes a new one.",
            )

    def whole(self, model: FloatArrays) -> Arrays:
        """Return the model as the app sees it, with this node's own excluded arrays."""
        return merged(model, self._folder.load_local())

    def kept_reply(self, order: TrainOrder, reports: tuple[ModelReport, ...]) -> TrainReply | None:
        """Return the update that this node signed for the attempt before, if it did.

        The same order again gets the same answer: a second signed update of one attempt, or a
        second encryption of nearly the same values, would only serve an attacker.
        """
        own = self.progress.update
        if own is None or (own.round, own.attempt) != (order.round, order.attempt):
            return None
        kept = self._folder.load_update(order.round, order.attempt)
        return TrainReply(
            frame=kept.frame, update=kept.statement, reports=reports, shares=kept.shares
        )

    def finish_train(
        self,
        order: TrainOrder,
        trained: Arrays,
        metrics: dict[str, float],
        reports: tuple[ModelReport, ...],
    ) -> TrainReply:
        """Encrypt the difference between the trained and the given model and sign it.

        Excluded arrays stay here, and the app gets them back the next time.
        """
        task, terms = self._task, self._task.terms
        base = self._ledger.model(order.round - 1)
        federated, returned = split(trained, terms.excluded)
        local = kept_values(returned, self._folder.load_local())
        trained = task.ordered(federated)
        self._check_samples(metrics)
        if order.attempt > 1:
            # Two attempts of a round hold almost the same nodes: were both opened, the
            # difference of the sums would be one node's. So only the first carries metrics.
            metrics = dict.fromkeys((m.name for m in terms.train_metrics), 0.0)
        member = task.roster.member(self._signer.address)
        delta = {
            name: trained[name].astype(np.float64) - base[name].astype(np.float64) for name in base
        }
        one_time = None
        if task.shares_keys:
            one_time = OneTimeKey.fresh(task.one_time_seed(order.round, order.attempt))
        encrypted, clipped = encrypt_update(
            delta,
            weighted_values(terms.train_metrics, metrics, member.samples),
            layout=task.layout,
            parameters=task.parameters,
            backend=task.backend,
            key=one_time or self._key,
            clip=terms.clip,
            samples=member.samples,
            max_samples=terms.max_samples,
        )
        context = task.frame(order.round, order.attempt, member.node)
        update_digest = task.backend.expand(encrypted).digest(context)
        root = ZERO_DIGEST
        shares: tuple[SealedShare, ...] = ()
        if self._sharing is not None and one_time is not None:
            root, shares = self._sharing.deal(one_time, order.round, order.attempt, order.readers)
        statement = UpdateStatement(
            task_id=task.task_id,
            round=order.round,
            attempt=order.attempt,
            node=member.node,
            terms_digest=terms.digest,
            roster_digest=task.roster.digest,
            app_bundle=self._ledger.app_bundle,
            config_digest=task.configuration(order.round, self._ledger.run_config).digest,
            previous_manifest=self.progress.opened_manifest,
            base_model=task.model_digest(base),
            key_id=task.key_id,
            parameters_id=terms.parameters_id,
            layout_digest=terms.layout_digest,
            update_digest=update_digest,
            shares_root=root,
        )
        kept = KeptUpdate(
            frame=encode_update(context, encrypted, task.parameters.backend),
            statement=sign(statement, self._signer, task.domain),
            shares=shares,
        )
        if local:
            self._folder.save_local(local)
        self._folder.save_update(order.round, order.attempt, kept)
        self._ledger.store(
            self.progress.changed(
                update=OwnUpdate(
                    round=order.round, attempt=order.attempt, update_digest=update_digest
                )
            )
        )
        if clipped:
            log.warning(
                "round %d: %d of %d values were clipped to ±%g",
                order.round,
                clipped,
                task.layout.array_size,
                terms.clip,
            )
        return TrainReply(
            frame=kept.frame, update=kept.statement, reports=reports, shares=kept.shares
        )

    def _check_samples(self, metrics: dict[str, float]) -> None:
        member = self._task.roster.member(self._signer.address)
        trained_on = metrics.get("num-examples")
        if trained_on != member.samples:
            raise ConfigError(
                f"the app trained on {trained_on} samples, not on the {member.samples} that "
                "this node committed to when it joined",
                hint="Restore the data as they were then; the weights of the sum rest on it.",
            )

    # --- evaluate ------------------------------------------------------------------------

    def begin_evaluate(self, order: EvaluateOrder) -> tuple[FloatArrays, EvaluateReply]:
        """Check a round's manifest; return the model opened last, and what this node signs.

        The reply has the own fingerprints and, in ``one-time-key`` mode, the opened share of
        the key sum and the reader keys for what may come next; the evaluation comes later.
        """
        manifest = order.manifest
        self._ledger.check_evaluate_config(order.config, manifest.round)
        self._ledger.accept_manifest(manifest, order.updates)
        signed = self._fingerprint(manifest) if self._ledger.survives(manifest) else None
        reply = EvaluateReply(fingerprint=signed, evaluation=None)
        if self._sharing is not None:
            reply = replace(reply, readers=self._publish_next(self._sharing, manifest))
            try:
                key = self._sharing.open(manifest, order.updates, order.shares)
                reply = replace(reply, key=key)
            except UnreadableShares as error:
                reply = replace(reply, bad_dealers=error.dealers)
            except UnsignedShare as error:
                log.error("ALARM: %s", error)  # noqa: TRY400  # the text says it all
        return self._ledger.model(self.progress.opened_round), reply

    def _publish_next(
        self, sharing: KeySharing, manifest: RoundManifest
    ) -> tuple[Signed[ReaderKey], ...]:
        again = sharing.publish(manifest.round, manifest.attempt + 1)
        if manifest.round == self._task.terms.rounds:
            return (again,)
        return (again, sharing.publish(manifest.round + 1, 1))

    def finish_evaluate(
        self, manifest: RoundManifest, metrics: dict[str, float], *, closing: bool = False
    ) -> Signed[EvaluationStatement] | None:
        """Mask the evaluation of the model opened last, for the survivors of `manifest`.

        Returns None when this node is not among them, or when it sent this evaluation
        before: a second sum over almost the same nodes would give one away.
        """
        model_round = self.progress.opened_round
        if not self._ledger.survives(manifest) or model_round in self.progress.evaluated:
            return None
        task = self._task
        member = task.roster.member(self._signer.address)
        declared = task.terms.evaluation_metrics
        weighted = weighted_values(declared, metrics, int(metrics.get("num-examples", 0)))
        values = []
        for metric in declared:
            value = weighted[metric.name]
            if not 0 <= value <= metric.maximum:
                raise HeadroomError(
                    f"evaluation metric {metric.name!r} is {value}, outside [0, {metric.maximum}]",
                    hint="Raise its declared maximum in the task's terms, or correct the metric.",
                )
            values.append(round(metric.scale * value))
        peers = [
            (node, task.roster.member(node).sealing_key)
            for node in manifest.nodes
            if node != member.node
        ]
        masked = mask(
            values,
            own_address=member.node,
            own_key=self._sealing_key,
            peers=peers,
            context=mask_context(task.task_id, manifest.digest, model_round, closing=closing),
        )
        statement = EvaluationStatement(
            task_id=task.task_id,
            model_round=model_round,
            node=member.node,
            manifest_digest=manifest.digest,
            closing=closing,
            masked=tuple(int(word) for word in masked),
        )
        self._ledger.store(self.progress.changed(evaluated=(*self.progress.evaluated, model_round)))
        return sign(statement, self._signer, task.domain)

    # --- close ---------------------------------------------------------------------------

    def begin_close(self, order: CloseOrder) -> tuple[FloatArrays, tuple[ModelReport, ...]]:
        """Open the last round and return its model, with the reports."""
        last = order.openings[-1].manifest.round if order.openings else None
        if last != self._task.terms.rounds:
            raise ProtocolViolation(
                f"the closing exchange opens round {last}, the task has {self._task.terms.rounds}"
            )
        self._ledger.check_evaluate_config(order.config, last)
        reports = self._opener.advance(order.initial, order.openings, upto=last)
        return self._ledger.model(last), reports

    def _fingerprint(self, manifest: RoundManifest) -> Signed[FingerprintStatement]:
        task = self._task
        kept = self._folder.load_update(manifest.round, manifest.attempt)
        context = task.frame(manifest.round, manifest.attempt, self._signer.address)
        seeded = parse_update(kept.frame, context, task.parameters, task.layout)
        residues = task.backend.expand(seeded).residues()
        statement = FingerprintStatement(
            task_id=manifest.task_id,
            round=manifest.round,
            attempt=manifest.attempt,
            node=self._signer.address,
            manifest_digest=manifest.digest,
            fingerprints=fingerprints_at(residues, challenges(manifest.digest)),
        )
        return sign(statement, self._signer, task.domain)

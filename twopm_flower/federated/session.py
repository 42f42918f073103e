"""The node's side of a round: everything it checks, opens and signs. Knows no Flower."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from twopm_flower.config import NodeSettings
from twopm_flower.errors import (
    FrameError,
    HeadroomError,
    NodeBehind,
    ProtocolViolation,
    RecordError,
    VerificationError,
)
from twopm_flower.federated.anchor import RecordReader, await_anchor
from twopm_flower.federated.exchange import (
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    FloatArrays,
    ModelReport,
    Opening,
    TrainOrder,
    TrainReply,
)
from twopm_flower.federated.home import TaskFolder
from twopm_flower.federated.progress import OwnUpdate, Pending, Progress
from twopm_flower.federated.task import TaskContext, weighted_values
from twopm_flower.privacy.frame import encode_update, parse_aggregate
from twopm_flower.privacy.keys import SealingKey, SharedKey
from twopm_flower.privacy.masking import mask
from twopm_flower.privacy.residues import challenges, fingerprint
from twopm_flower.privacy.update import encrypt_update, open_aggregate
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.manifest import OpenedMetrics, RoundManifest
from twopm_flower.records.statements import (
    EvaluationStatement,
    FingerprintStatement,
    ModelStatement,
    Signed,
    TypedDataSigner,
    UpdateStatement,
    sign,
)
from twopm_flower.verify.round import check_fingerprints, check_manifest, check_updates

log = logging.getLogger(__name__)


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
        The shared key; None in plaintext mode.
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
        self._chain = chain
        self._policy = policy
        self._app_bundle = app_bundle
        self._run_config = run_config
        self._progress = folder.load_progress()
        if self._progress.halted:
            raise ProtocolViolation(
                f"this node stopped in task {task.task_id}: {self._progress.halted}",
                hint="Look into it; then 'twopm node resume' lets the node go on.",
            )

    @property
    def progress(self) -> Progress:
        """How far the node is."""
        return self._progress

    def guarded(self, step: Callable[[], Any]) -> Any:
        """Run a step; a violation by another party halts this node for good, and is stored."""
        try:
            return step()
        except (ProtocolViolation, VerificationError, RecordError, FrameError) as error:
            self._store(self._progress.changed(halted=str(error)))
            log.exception("this node stops")
            raise

    # --- train ---------------------------------------------------------------------------

    def begin_train(self, order: TrainOrder) -> tuple[FloatArrays, tuple[ModelReport, ...]]:
        """Open what is to be opened and return the model to train on, with the reports."""
        self._check_setting(order.config, self._task.terms.train_config, order.round)
        reports = self._advance(order.initial, order.openings, upto=order.round - 1)
        return self._model(order.round - 1), reports

    def finish_train(
        self,
        order: TrainOrder,
        trained: FloatArrays,
        metrics: dict[str, float],
        reports: tuple[ModelReport, ...],
    ) -> TrainReply:
        """Encrypt the difference between the trained and the given model and sign it."""
        task, terms = self._task, self._task.terms
        base = self._model(order.round - 1)
        trained = task.ordered(trained)
        member = task.roster.member(self._signer.address)
        delta = {
            name: trained[name].astype(np.float64) - base[name].astype(np.float64) for name in base
        }
        encrypted, clipped = encrypt_update(
            delta,
            weighted_values(terms.train_metrics, metrics, member.samples),
            layout=task.layout,
            parameters=task.parameters,
            backend=task.backend,
            key=self._key,
            clip=terms.clip,
            samples=member.samples,
            max_samples=terms.max_samples,
        )
        context = task.frame(order.round, order.attempt, member.node)
        ciphertext = task.backend.expand(encrypted)
        update_digest = ciphertext.digest(context)
        statement = UpdateStatement(
            task_id=task.task_id,
            round=order.round,
            attempt=order.attempt,
            node=member.node,
            terms_digest=terms.digest,
            roster_digest=task.roster.digest,
            app_bundle=self._app_bundle,
            config_digest=task.configuration(order.round, self._run_config).digest,
            previous_manifest=self._progress.opened_manifest,
            base_model=task.model_digest(base),
            key_id=task.key_id,
            parameters_id=terms.parameters_id,
            layout_digest=terms.layout_digest,
            update_digest=update_digest,
        )
        self._folder.save_update(order.round, order.attempt, ciphertext.residues())
        self._store(
            self._progress.changed(
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
            frame=encode_update(context, encrypted, task.parameters.backend),
            update=sign(statement, self._signer, task.domain),
            reports=reports,
            clipped=clipped,
        )

    # --- evaluate ------------------------------------------------------------------------

    def begin_evaluate(
        self, order: EvaluateOrder
    ) -> tuple[FloatArrays, Signed[FingerprintStatement] | None]:
        """Check a round's manifest; return the model opened last and the own fingerprints."""
        manifest = order.manifest
        self._check_evaluate_config(order.config, manifest.round)
        self._check_round(manifest, order.updates)
        fingerprinted = self._progress.with_fingerprint(
            manifest.round, manifest.attempt, manifest.digest
        )
        self._store(fingerprinted.changed(pending=_with_pending(fingerprinted.pending, manifest)))
        self._check_chain()
        signed = self._fingerprint(manifest) if self._survives(manifest) else None
        return self._model(self._progress.opened_round), signed

    def finish_evaluate(
        self, manifest: RoundManifest, metrics: dict[str, float], *, closing: bool = False
    ) -> Signed[EvaluationStatement] | None:
        """Mask the evaluation of the model opened last, for the survivors of `manifest`.

        Returns None when this node is not among them, or when it sent this evaluation
        before: a second sum over almost the same nodes would give one away.
        """
        model_round = self._progress.opened_round
        if not self._survives(manifest) or model_round in self._progress.evaluated:
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
        self._store(self._progress.changed(evaluated=(*self._progress.evaluated, model_round)))
        return sign(statement, self._signer, task.domain)

    # --- close ---------------------------------------------------------------------------

    def begin_close(self, order: CloseOrder) -> tuple[FloatArrays, tuple[ModelReport, ...]]:
        """Open the last round and return its model, with the reports."""
        last = order.openings[-1].manifest.round if order.openings else None
        if last != self._task.terms.rounds:
            raise ProtocolViolation(
                f"the closing exchange opens round {last}, the task has {self._task.terms.rounds}"
            )
        self._check_evaluate_config(order.config, last)
        reports = self._advance(order.initial, order.openings, upto=last)
        return self._model(last), reports

    def finish_close(
        self, order: CloseOrder, metrics: dict[str, float], reports: tuple[ModelReport, ...]
    ) -> EvaluateReply:
        """Mask the evaluation of the final model."""
        manifest = order.openings[-1].manifest
        evaluation = self.finish_evaluate(manifest, metrics, closing=True)
        return EvaluateReply(fingerprint=None, evaluation=evaluation, reports=reports)

    # --- checks --------------------------------------------------------------------------

    def _check_setting(self, config: dict[str, Any], agreed: dict[str, Any], round_: int) -> None:
        task = self._task
        if self._app_bundle != task.terms.app_bundle:
            raise ProtocolViolation(
                f"the unpacked app has digest {self._app_bundle}, the task's is "
                f"{task.terms.app_bundle}: somebody submitted another app"
            )
        if self._run_config != task.terms.run_config:
            raise ProtocolViolation(
                f"the run configuration is {self._run_config}, agreed was {task.terms.run_config}"
            )
        if config != {**agreed, "server-round": round_}:
            raise ProtocolViolation(
                f"the server sent the configuration {config}, agreed was {agreed}"
            )

    def _check_evaluate_config(self, config: dict[str, Any], round_: int) -> None:
        self._check_setting(config, self._task.terms.evaluate_config, round_)

    def _check_round(
        self, manifest: RoundManifest, updates: tuple[Signed[UpdateStatement], ...]
    ) -> None:
        task, progress = self._task, self._progress
        check_manifest(manifest, task_id=task.task_id, terms=task.terms, roster=task.roster)
        self._require_round(manifest.round - 1)
        expected = {
            "previous_manifest": progress.opened_manifest,
            "base_model": progress.model_digest,
            "key_id": task.key_id,
            "config_digest": task.configuration(manifest.round, self._run_config).digest,
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
        own = self._progress.update
        sent = own is not None and (own.round, own.attempt) == (manifest.round, manifest.attempt)
        for survivor in manifest.survivors:
            if survivor.node != self._signer.address:
                continue
            if own is None or not sent or survivor.update_digest != own.update_digest:
                raise ProtocolViolation(
                    f"the manifest of round {manifest.round} lists update "
                    f"{survivor.update_digest} as this node's; it sent "
                    f"{own.update_digest if own and sent else 'none'}"
                )
        if not self._survives(manifest) and sent:
            exclusion = next(e for e in manifest.exclusions if e.node == self._signer.address)
            log.warning(
                "round %d, attempt %d: this node's update was left out (%s: %s)",
                manifest.round,
                manifest.attempt,
                exclusion.reason,
                exclusion.detail,
            )

    def _check_chain(self) -> None:
        missing = await_anchor(
            self._task.task_id, self._progress.pending, self._chain, self._policy
        )
        if missing != self._progress.pending:
            self._store(self._progress.changed(pending=missing))
        if missing:
            log.warning("not on chain yet: rounds %s", sorted({entry.round for entry in missing}))

    def _survives(self, manifest: RoundManifest) -> bool:
        return self._signer.address in manifest.nodes

    def _require_round(self, opened: int) -> None:
        if self._progress.opened_round < opened:
            raise NodeBehind(
                f"the server goes on from round {opened}, "
                f"this node opened round {self._progress.opened_round} last",
                opened_round=self._progress.opened_round,
            )
        if self._progress.opened_round > opened:
            raise ProtocolViolation(
                f"the server goes back to round {opened}, "
                f"this node opened round {self._progress.opened_round}"
            )

    # --- opening -------------------------------------------------------------------------

    def _advance(
        self, initial: FloatArrays, openings: tuple[Opening, ...], *, upto: int
    ) -> tuple[ModelReport, ...]:
        self._accept_initial(initial)
        reports = []
        for opening in openings:
            if opening.manifest.round <= self._progress.opened_round:
                continue
            reports.append(self._open(opening))
        self._require_round(upto)
        return tuple(reports) or self._report_again(openings)

    def _accept_initial(self, initial: FloatArrays) -> None:
        if self._progress.model_digest is not None:
            return
        digest = self._task.model_digest(initial)
        if digest != self._task.terms.initial_model:
            raise ProtocolViolation(
                f"the initial model has digest {digest}, "
                f"agreed was {self._task.terms.initial_model}"
            )
        self._folder.save_model(0, initial, digest)
        self._store(self._progress.changed(model_digest=digest))

    def _open(self, opening: Opening) -> ModelReport:
        task, manifest = self._task, opening.manifest
        self._check_round(manifest, opening.updates)
        fingerprinted = self._progress.with_fingerprint(
            manifest.round, manifest.attempt, manifest.digest
        )
        self._store(fingerprinted.changed(pending=_with_pending(fingerprinted.pending, manifest)))
        aggregate = parse_aggregate(
            opening.aggregate,
            task.aggregate_frame(manifest.round, manifest.attempt),
            task.parameters,
            task.layout,
        )
        digest = aggregate.aggregate_digest(task.aggregate_frame(manifest.round, manifest.attempt))
        if digest != manifest.aggregate_digest:
            raise ProtocolViolation(
                f"the aggregate of round {manifest.round} has digest {digest}, "
                f"the manifest commits to {manifest.aggregate_digest}"
            )
        check_fingerprints(manifest, opening.fingerprints, aggregate, task.domain)
        self._check_chain()
        mean, sums = open_aggregate(
            aggregate,
            layout=task.layout,
            parameters=task.parameters,
            backend=task.backend,
            key=self._key,
            clip=task.terms.clip,
            samples_total=manifest.samples,
            max_samples=task.terms.max_samples,
            contributors=len(manifest.survivors),
        )
        base = self._model(manifest.round - 1)
        model = {
            name: (array.astype(np.float64) + mean[name]).astype(np.float32)
            for name, array in base.items()
        }
        model_digest = task.model_digest(model)
        self._folder.save_model(manifest.round, model, model_digest)
        metrics = OpenedMetrics(task_id=task.task_id, round=manifest.round, sums=sums)
        left_out = 0 if self._survives(manifest) else self._progress.excluded_in_a_row + 1
        if left_out >= self._policy.exclusion_alarm:
            log.error("ALARM: this node's updates were left out of %d rounds in a row", left_out)
        statement = ModelStatement(
            task_id=task.task_id,
            round=manifest.round,
            manifest_digest=manifest.digest,
            model_digest=model_digest,
            metrics_digest=metrics.digest,
        )
        report = ModelReport(model=sign(statement, self._signer, task.domain), metrics=metrics)
        self._folder.save_report(manifest.round, report.to_bytes())
        self._store(
            self._progress.changed(
                opened_round=manifest.round,
                opened_manifest=manifest.digest,
                model_digest=model_digest,
                excluded_in_a_row=left_out,
            )
        )
        return report

    def _report_again(self, openings: tuple[Opening, ...]) -> tuple[ModelReport, ...]:
        # A later attempt repeats an opening that this node has done: the same report again.
        if not openings or openings[-1].manifest.round != self._progress.opened_round:
            return ()
        if openings[-1].manifest.digest != self._progress.opened_manifest:
            raise ProtocolViolation(
                f"round {self._progress.opened_round} was opened under manifest "
                f"{self._progress.opened_manifest}; the server now shows another"
            )
        data = self._folder.load_report(self._progress.opened_round)
        return (ModelReport.from_bytes(data),)

    def _model(self, round_: int) -> FloatArrays:
        return self._task.ordered(self._folder.load_model(round_))

    def _fingerprint(self, manifest: RoundManifest) -> Signed[FingerprintStatement]:
        residues = self._folder.load_update(manifest.round, manifest.attempt)
        statement = FingerprintStatement(
            task_id=manifest.task_id,
            round=manifest.round,
            attempt=manifest.attempt,
            node=self._signer.address,
            manifest_digest=manifest.digest,
            fingerprints=tuple(
                fingerprint(residues, point) for point in challenges(manifest.digest)
            ),
        )
        return sign(statement, self._signer, self._task.domain)

    def _store(self, progress: Progress) -> None:
        self._folder.save_progress(progress)
        self._progress = progress


def mask_context(task_id: str, manifest_digest: str, model_round: int, *, closing: bool) -> bytes:
    """Return the bytes that bind masks to one exchange, so that no mask is used twice."""
    return canonical_bytes(
        {
            "closing": closing,
            "manifest": manifest_digest,
            "model_round": model_round,
            "task": task_id,
        }
    )


def _with_pending(pending: tuple[Pending, ...], manifest: RoundManifest) -> tuple[Pending, ...]:
    entry = Pending(
        round=manifest.round,
        attempt=manifest.attempt,
        manifest_digest=manifest.digest,
        updates_root=manifest.updates_root,
    )
    return pending if entry in pending else (*pending, entry)

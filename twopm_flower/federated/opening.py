"""Opening an aggregate: the last checks, the decryption, and the statement about the result."""

import logging

import numpy as np

from twopm_flower.errors import ImpossibleSum, PrivacyError, ProtocolViolation
from twopm_flower.federated.exchange import Arrays, ModelReport, Opening
from twopm_flower.federated.key_sharing import KeySharing
from twopm_flower.federated.ledger import TaskLedger
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.privacy.frame import parse_aggregate
from twopm_flower.privacy.keys import SharedKey
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.update import open_aggregate
from twopm_flower.records.manifest import OpenedMetrics
from twopm_flower.records.statements import ModelStatement, TypedDataSigner, sign
from twopm_flower.verify.expanded import parse_expanded
from twopm_flower.verify.round import check_fingerprints

log = logging.getLogger(__name__)


class Opener:
    """Opens aggregates that are tied to the listed updates, and no others.

    Parameters
    ----------
    ledger : TaskLedger
        The node's progress and checks.
    signer : TypedDataSigner
        Signs with the node's identity key.
    key : SharedKey or None
        The shared key; None in plaintext mode.
    sharing : KeySharing or None
        Adds up opened shares, in ``one-time-key`` mode.
    """

    def __init__(
        self,
        ledger: TaskLedger,
        signer: TypedDataSigner,
        key: SharedKey | None,
        sharing: KeySharing | None = None,
    ) -> None:
        self._ledger = ledger
        self._signer = signer
        self._key = key
        self._sharing = sharing

    def advance(
        self, initial: Arrays, openings: tuple[Opening, ...], *, upto: int
    ) -> tuple[ModelReport, ...]:
        """Open what is missing up to a round and return the reports, in the order of rounds.

        Raises
        ------
        ProtocolViolation, VerificationError, SignatureError
            Something is not tied together as it should be; nothing was decrypted then.
        NodeBehind
            Openings are missing.
        """
        rounds = [opening.manifest.round for opening in openings]
        if rounds != sorted(set(rounds)):
            raise ProtocolViolation(f"the server's openings are of rounds {rounds}, not in order")
        if self._sharing is not None:
            # A node that was killed right after an opening may not have come to this.
            self._sharing.forget(self._ledger.progress.opened_round)
        self._ledger.accept_initial(initial)
        reports = [
            self._open(opening)
            for opening in openings
            if opening.manifest.round > self._ledger.progress.opened_round
        ]
        self._ledger.require_round(upto)
        if openings and openings[-1].manifest.digest != self._ledger.progress.opened_manifest:
            raise ProtocolViolation(
                f"round {upto} was opened under manifest "
                f"{self._ledger.progress.opened_manifest}; the server now shows another"
            )
        return tuple(reports) or self._report_again(openings)

    def _open(self, opening: Opening) -> ModelReport:
        task, manifest = self._ledger.task, opening.manifest
        self._ledger.accept_manifest(manifest, opening.updates)
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
        check_fingerprints(
            manifest,
            opening.fingerprints,
            aggregate,
            task.domain,
            ciphertexts=self._substitutes(opening),
        )
        key: SharedKey | OneTimeKey | None = self._key
        false_openings: tuple[str, ...] = ()
        if self._sharing is not None:
            key, false_openings = self._sharing.summed_key(manifest, opening.keys)
        if key is not None:
            self._ledger.permit(manifest)
        try:
            mean, sums = open_aggregate(
                aggregate,
                layout=task.layout,
                parameters=task.parameters,
                backend=task.backend,
                key=key,
                clip=task.terms.clip,
                samples_total=manifest.samples,
                max_samples=task.terms.max_samples,
                contributors=len(manifest.survivors),
            )
        except PrivacyError as error:
            raise ImpossibleSum(
                f"the sum of round {manifest.round} opens to what no honest nodes add up to: "
                "a contributor is dishonest",
                hint="Ask the coordinator to cancel the task: 'twopm task cancel'.",
            ) from error
        base = self._ledger.model(manifest.round - 1)
        model = {
            name: (array.astype(np.float64) + mean[name]).astype(np.float32)
            for name, array in base.items()
        }
        model_digest = task.model_digest(model)
        self._ledger.folder.save_model(manifest.round, model, model_digest)
        metrics = OpenedMetrics(task_id=task.task_id, round=manifest.round, sums=sums)
        left_out = (
            0 if self._ledger.survives(manifest) else self._ledger.progress.excluded_in_a_row + 1
        )
        if left_out >= self._ledger.policy.exclusion_alarm:
            log.error("ALARM: this node's updates were left out of %d rounds in a row", left_out)
        statement = ModelStatement(
            task_id=task.task_id,
            round=manifest.round,
            manifest_digest=manifest.digest,
            model_digest=model_digest,
            metrics_digest=metrics.digest,
        )
        report = ModelReport(
            model=sign(statement, self._signer, task.domain),
            metrics=metrics,
            false_openings=false_openings,
        )
        self._ledger.folder.save_report(manifest.round, report.to_bytes())
        self._ledger.store(
            self._ledger.progress.changed(
                opened_round=manifest.round,
                opened_manifest=manifest.digest,
                model_digest=model_digest,
                excluded_in_a_row=left_out,
            )
        )
        if self._sharing is not None:
            self._sharing.forget(manifest.round)
        return report

    def _substitutes(self, opening: Opening) -> dict[str, Ciphertext]:
        # A survivor that vanished signed no fingerprints; its ciphertext is public in a mode
        # with one-time keys, and its digest is signed: `check_fingerprints` compares it.
        task, manifest = self._ledger.task, opening.manifest
        if not task.shares_keys:
            return {}
        return {
            node: parse_expanded(
                frame,
                task.frame(manifest.round, manifest.attempt, node),
                task.parameters,
                task.layout,
            )
            for node, frame in opening.ciphertexts.items()
        }

    def _report_again(self, openings: tuple[Opening, ...]) -> tuple[ModelReport, ...]:
        # A later attempt repeats an opening that this node has done: the same report again.
        if not openings:
            return ()
        data = self._ledger.folder.load_report(self._ledger.progress.opened_round)
        return (ModelReport.from_bytes(data),)

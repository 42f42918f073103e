"""The server's side of a run: what each exchange carries and what its replies lead to.

Holds public values only; knows no Flower.
"""

import base64
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from twopm_flower.errors import QuorumError, RecordError, VerificationError
from twopm_flower.federated.aggregator import (
    Aggregate,
    NodePins,
    RefusedReplyError,
    RoundAggregator,
    Setting,
)
from twopm_flower.federated.agreement import (
    agreed_base,
    collect_reports,
    raise_if_impossible,
)
from twopm_flower.federated.collected_round import CollectedRound
from twopm_flower.federated.evaluations import Evaluations, Evaluator, evaluation_sums
from twopm_flower.federated.exchange import (
    CloseOrder,
    EvaluateOrder,
    EvaluateReply,
    FloatArrays,
    Opening,
    PrepareOrder,
    PrepareReply,
    Reply,
    SealedShare,
    TrainOrder,
    TrainReply,
)
from twopm_flower.federated.fingerprints import Fingerprints
from twopm_flower.federated.key_relay import KeyRelay
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext
from twopm_flower.records.bundle import Deployment, RunBundle, SupersededAttempt
from twopm_flower.records.statements import (
    KeyDeal,
    ModelStatement,
    Signed,
)

log = logging.getLogger(__name__)


_MOST_ASKED_BACK = 3
_SPOILT = {True: "no valid fingerprints", False: "shares that do not open"}


class ServerRun:
    """The state of a run on the server.

    Parameters
    ----------
    task : TaskContext
        The task, with the id of its key and never the key.
    deployment : Deployment
        Where it is anchored, for the bundle.
    key_deal : Signed[KeyDeal] or None
        The dealer's public statement; None in plaintext mode.
    initial : dict
        The public initial model.
    late_limit : int
        Late replies of one node in a row that stop the run.
    expand : callable
        Grows an update's uniform half from its seeds, in a process of its own.
    """

    def __init__(
        self,
        *,
        task: TaskContext,
        deployment: Deployment,
        key_deal: Signed[KeyDeal] | None,
        initial: FloatArrays,
        late_limit: int,
        expand: Callable[[SeededCiphertext], Ciphertext],
    ) -> None:
        self.task = task
        self._deployment = deployment
        self._key_deal = key_deal
        self._initial = initial
        self._late_limit = late_limit
        self._expand = expand
        self._late: Counter[str] = Counter()
        self._pins = NodePins()
        self._rounds: list[CollectedRound] = []
        self._current: CollectedRound | None = None
        self._superseded: tuple[SupersededAttempt, ...] = ()
        self._barred: dict[str, str] = {}
        self._behind: int | None = None
        self._asked_back: Counter[int] = Counter()
        self._closing: Evaluations = ()
        self._relay = KeyRelay(task, self._pins) if task.shares_keys else None

    # --- orders --------------------------------------------------------------------------

    def train_order(self, round_: int, attempt: int) -> TrainOrder:
        """Return what nodes are asked in a train exchange."""
        if attempt == 1:
            self._superseded, self._barred = (), {}
        terms = self.task.terms
        return TrainOrder(
            task_id=self.task.task_id,
            round=round_,
            attempt=attempt,
            config={**terms.train_config, "server-round": round_},
            initial=self._initial if self._oldest_needed(round_) == 0 else {},
            openings=self._openings(round_),
            readers=self._relay.readers(round_, attempt) if self._relay else (),
        )

    def prepare_order(self) -> PrepareOrder:
        """Return what nodes are asked before the first round of a task that shares out keys."""
        return PrepareOrder(
            task_id=self.task.task_id,
            config={**self.task.terms.evaluate_config, "server-round": 0},
        )

    def evaluate_order(self) -> EvaluateOrder:
        """Return what nodes are asked in the evaluate exchange of the current attempt."""
        aggregate = self._require_current().aggregate
        round_ = aggregate.manifest.round
        return EvaluateOrder(
            task_id=self.task.task_id,
            config={**self.task.terms.evaluate_config, "server-round": round_},
            manifest=aggregate.manifest,
            updates=self._require_current().statements,
        )

    def shares_for(self, flower_node: int) -> tuple[SealedShare, ...]:
        """Return the sealed shares that one Flower node is to read in the current attempt."""
        if self._relay is None:
            return ()
        return self._relay.shares_for(flower_node, self._require_current().aggregate.manifest)

    def close_order(self) -> CloseOrder:
        """Return what nodes are asked in the closing exchange."""
        last = len(self._rounds)
        return CloseOrder(
            task_id=self.task.task_id,
            config={**self.task.terms.evaluate_config, "server-round": last},
            initial=self._initial if self._oldest_needed(last + 1) == 0 else {},
            openings=self._openings(last + 1),
        )

    def _oldest_needed(self, round_: int) -> int:
        # A node that trains in round r has opened r - 2 and opens r - 1 now.
        usual = max(round_ - 2, 0)
        return usual if self._behind is None else min(usual, self._behind)

    def _openings(self, round_: int) -> tuple[Opening, ...]:
        first = self._oldest_needed(round_)
        return tuple(entry.opening() for entry in self._rounds[first : round_ - 1])

    # --- replies -------------------------------------------------------------------------

    def accept_prepare(self, replies: Iterable[Reply]) -> None:
        """Collect the reader keys for the first round."""
        for reply in replies:
            if self._relay is None or not isinstance(reply.value, PrepareReply):
                log.warning("prepare: node %d: %s", reply.flower_node, reply.detail)
                continue
            try:
                self._relay.take_readers(reply.value.readers, {(1, 1)})
            except (RecordError, RefusedReplyError) as error:
                log.warning("prepare: node %d: %s", reply.flower_node, error)

    def accept_train(
        self,
        round_: int,
        attempt: int,
        replies: Iterable[Reply],
        *,
        asked: Collection[int],
        run_config: dict[str, Any],
    ) -> tuple[Aggregate, tuple[int, ...]]:
        """Add what is valid and commit to it.

        Returns
        -------
        aggregate : Aggregate
            Manifest and sum.
        flower_nodes : tuple of int
            The Flower nodes whose updates are in it.

        Raises
        ------
        QuorumError
            Too few valid updates, too few equal models of the round before, or one node was
            late too often in a row.
        """
        replies = tuple(replies)
        # Whoever was behind got older openings with this exchange, or asks again.
        self._behind = None
        self._note_behind(replies)
        if round_ > 1:
            collect_reports(self.task, self._rounds[-1], replies)
        self._refuse_impossible(replies)
        base, previous = agreed_base(self.task, self._rounds)
        setting = Setting(
            round=round_,
            attempt=attempt,
            previous_manifest=previous,
            base_model=base,
            config_digest=self.task.configuration(round_, run_config).digest,
        )
        if self._relay is not None:
            self._relay.start_attempt(round_)
        aggregator = RoundAggregator(
            self.task,
            setting,
            self._pins,
            asked=asked,
            barred=self._barred,
            expand=self._expand,
            take_shares=self._relay.take_shares if self._relay else None,
        )
        accepted = []
        for reply in replies:
            try:
                aggregator.receive(reply.flower_node, _update_in(reply))
            except RefusedReplyError as refusal:
                log.warning(
                    "round %d: the reply of Flower node %d is left out (%s): %s",
                    round_,
                    reply.flower_node,
                    refusal.reason,
                    refusal.detail,
                )
                aggregator.refuse(reply.flower_node, refusal)
            else:
                accepted.append(reply.flower_node)
        needed = self.task.fewest_contributors
        if aggregator.accepted < needed:
            reasons = "; ".join(f"{r.flower_node}: {r.detail}" for r in replies if r.value is None)
            raise QuorumError(
                f"round {round_}: {aggregator.accepted} valid updates, {needed} are needed"
                + (f" ({reasons})" if reasons else ""),
                hint="Look at the nodes' logs, start the missing nodes and run the task anew.",
            )
        aggregate = aggregator.finish()
        self._count_late(aggregate)
        self._current = CollectedRound(aggregate, superseded=self._superseded)
        return aggregate, tuple(accepted)

    def accept_evaluate(self, replies: Iterable[Reply]) -> tuple[str, ...]:
        """Collect what nodes sign about the manifest; return the nodes that spoil the attempt.

        The round is complete when every survivor signed its fingerprints; where keys are
        shared out, when enough nodes opened their share of the key sum. Otherwise a new
        attempt without the nodes returned is due; nothing has been opened.

        Raises
        ------
        QuorumError
            Too few nodes opened their shares, and some did: no other set may be opened.
        """
        current = self._require_current()
        manifest = current.aggregate.manifest
        replies = tuple(replies)
        self._note_behind(replies)
        evaluator = Evaluator(self.task, manifest, model_round=manifest.round - 1, closing=False)
        fingerprints = Fingerprints(self.task, self._pins, current)
        for reply in replies:
            if not isinstance(reply.value, EvaluateReply):
                continue
            try:
                fingerprints.take(reply.flower_node, reply.value.fingerprint)
                evaluator.take(reply.value.evaluation)
                self._take_keys(reply.flower_node, reply.value, current)
            except (RecordError, RefusedReplyError, VerificationError) as error:
                log.warning("round %d: node %d: %s", manifest.round, reply.flower_node, error)
        missing = fingerprints.missing
        if self._relay is not None:
            current.keep_ciphertexts(missing, self.task)
            missing = self._relay.spoilers(manifest, current.keys, replies)
        if missing:
            self._superseded = (
                *self._superseded,
                SupersededAttempt(manifest=manifest, record=None),
            )
            for node in missing:
                self._barred[node] = f"{_SPOILT[self._relay is None]} in attempt {manifest.attempt}"
            return missing
        current.fingerprints = fingerprints.in_order()
        current.evaluations = evaluator.complete()
        current.release_ciphertexts()
        self._rounds.append(current)
        return ()

    def _take_keys(self, flower_node: int, value: EvaluateReply, current: CollectedRound) -> None:
        if self._relay is None:
            return
        manifest = current.aggregate.manifest
        slots = {(manifest.round, manifest.attempt + 1), (manifest.round + 1, 1)}
        self._relay.take_readers(value.readers, slots)
        if value.key is not None:
            node = self._relay.take_opening(flower_node, value.key, manifest)
            current.keys[node] = value.key

    def accept_close(self, replies: Iterable[Reply]) -> tuple[ModelStatement, dict[str, str]]:
        """Collect the final model's statements; return the agreed one and its signatures.

        Raises
        ------
        QuorumError
            No quorum signed one model.
        """
        replies = tuple(replies)
        last = self._rounds[-1]
        collect_reports(self.task, last, replies)
        evaluator = Evaluator(
            self.task, last.aggregate.manifest, model_round=len(self._rounds), closing=True
        )
        for reply in replies:
            if isinstance(reply.value, EvaluateReply):
                try:
                    evaluator.take(reply.value.evaluation)
                except RecordError as error:
                    log.warning("closing: node %d: %s", reply.flower_node, error)
        self._closing = evaluator.complete()
        self._refuse_impossible(replies)
        agreed_base(self.task, self._rounds)
        agreed = last.agreed()
        if agreed is None:
            raise QuorumError("no node signed the final model")
        statement, _ = agreed
        signatures = {r.model.node: r.model.signature for r in last.supporters(statement)}
        return statement, signatures

    # --- results -------------------------------------------------------------------------

    def opened_metrics(self, round_: int) -> dict[str, float] | None:
        """Return the sums of a round's training metrics in their own units."""
        entry = self._rounds[round_ - 1]
        agreed = entry.agreed()
        if agreed is None or entry.aggregate.manifest.attempt > 1:
            # Nodes send zeros after the first attempt: see NodeSession.finish_train.
            return None
        scales = {metric.name: metric.scale for metric in self.task.terms.train_metrics}
        return {name: value / scales[name] for name, value in agreed[1].sums.items()}

    def evaluation_sums(self, model_round: int) -> Mapping[str, float] | None:
        """Return the evaluation sums of one model, or None when they cannot be opened."""
        if model_round == len(self._rounds) and self._closing:
            return evaluation_sums(self.task, self._closing)
        if model_round < len(self._rounds):
            return evaluation_sums(self.task, self._rounds[model_round].evaluations)
        return None

    def bundle(self) -> RunBundle:
        """Return the public bundle of all completed rounds."""
        return RunBundle(
            deployment=self._deployment,
            task_id=self.task.task_id,
            terms=self.task.terms,
            roster=self.task.roster,
            key_deal=self._key_deal,
            rounds=tuple(entry.bundle() for entry in self._rounds),
            closing=self._closing,
            finalisation=None,
            aggregates={
                entry.aggregate.manifest.aggregate_digest: base64.b64encode(
                    entry.aggregate.frame
                ).decode()
                for entry in self._rounds
            },
            ciphertexts={
                digest: base64.b64encode(frame).decode()
                for entry in self._rounds
                for digest, frame in entry.public_ciphertexts().items()
            },
        )

    # --- details -------------------------------------------------------------------------

    def _require_current(self) -> CollectedRound:
        if self._current is None:
            raise RecordError("no attempt is under way")
        return self._current

    def _refuse_impossible(self, replies: tuple[Reply, ...]) -> None:
        known = self._pins.address_of
        members = [reply for reply in replies if reply.flower_node in known]
        if self._rounds:
            raise_if_impossible(self.task, self._rounds[-1], members)

    def _note_behind(self, replies: Iterable[Reply]) -> None:
        behind = []
        for reply in replies:
            if reply.behind is None:
                continue
            # All nodes get what one asks for, so nobody may ask for ever.
            self._asked_back[reply.flower_node] += 1
            if self._asked_back[reply.flower_node] <= _MOST_ASKED_BACK:
                behind.append(reply.behind)
        if behind:
            self._behind = min(behind if self._behind is None else [*behind, self._behind])

    def _count_late(self, aggregate: Aggregate) -> None:
        late = {e.node for e in aggregate.manifest.exclusions if e.reason == "late"}
        for node in self.task.roster.nodes:
            self._late[node] = self._late[node] + 1 if node in late else 0
            if self._late[node] >= self._late_limit:
                raise QuorumError(
                    f"{node} was late {self._late[node]} times in a row",
                    hint="Raise coordinator.train_timeout_s, or find out what slows it down.",
                )


def _update_in(reply: Reply) -> TrainReply:
    if not isinstance(reply.value, TrainReply):
        raise RefusedReplyError(reply.reason, reply.detail)
    return reply.value

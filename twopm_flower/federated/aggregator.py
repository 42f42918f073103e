"""The server's side of one attempt: check each reply, add what is valid, list what is not.

The aggregator holds no key and cannot read what it adds.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from twopm_flower.errors import (
    BindingError,
    FrameError,
    PrivacyError,
    RecordError,
    SignatureError,
)
from twopm_flower.federated.exchange import TrainReply
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.ciphertext import Ciphertext, SeededCiphertext, add
from twopm_flower.privacy.frame import encode_aggregate, parse_update
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import (
    Exclusion,
    ExclusionReason,
    RoundManifest,
    Survivor,
    updates_root,
)
from twopm_flower.records.statements import Signed, UpdateStatement


class RefusedReplyError(Exception):
    """A reply that is left out of the sum, with its reason."""

    def __init__(self, reason: ExclusionReason, detail: str) -> None:
        super().__init__(detail)
        self.reason: ExclusionReason = reason
        self.detail = detail[:300]


@dataclass(frozen=True)
class Setting:
    """What every update of an attempt has to be bound to."""

    round: int
    attempt: int
    previous_manifest: str
    base_model: str
    config_digest: str


@dataclass(frozen=True)
class AcceptedUpdate:
    """One valid update."""

    statement: Signed[UpdateStatement]
    ciphertext: Ciphertext
    upload_bytes: int


@dataclass(frozen=True)
class Aggregate:
    """The outcome of an attempt."""

    manifest: RoundManifest
    updates: tuple[AcceptedUpdate, ...]
    frame: bytes


@dataclass
class NodePins:
    """One chain address per Flower node and the other way round, for a whole run."""

    address_of: dict[int, str] = field(default_factory=dict)

    def pin(self, flower_node: int, address: str) -> None:
        """Remember who is who.

        Raises
        ------
        RefusedReplyError
            The Flower node was another chain node before, or the other way round.
        """
        known = self.address_of.get(flower_node)
        if known is not None and known != address:
            raise RefusedReplyError("binding", f"Flower node {flower_node} was {known} before")
        if known is None and address in self.address_of.values():
            raise RefusedReplyError(
                "binding", f"{address} answered through another Flower node before"
            )
        self.address_of[flower_node] = address


class RoundAggregator:
    """Adds the valid updates of one attempt.

    Parameters
    ----------
    task : TaskContext
        The task.
    setting : Setting
        What updates must be bound to.
    pins : NodePins
        Who is who in this run.
    asked : collection of int
        The Flower nodes that were sent this attempt's order.
    barred : mapping of str to str
        Nodes that are left out of this round, with the reason: they signed false
        fingerprints, or vanished, in an earlier attempt.
    expand : callable
        Grows an update's uniform half from its seeds, in a process of its own.
    take_shares : callable, optional
        Checks and keeps the shares that come with an update, where keys are shared out.
    """

    def __init__(
        self,
        task: TaskContext,
        setting: Setting,
        pins: NodePins,
        *,
        asked: Collection[int],
        barred: Mapping[str, str],
        expand: Callable[[SeededCiphertext], Ciphertext],
        take_shares: Callable[[TrainReply], None] | None = None,
    ) -> None:
        self._task = task
        self._setting = setting
        self._pins = pins
        self._asked = asked
        self._barred = barred
        self._expand = expand
        self._take_shares = take_shares or _no_shares
        self._accepted: dict[str, AcceptedUpdate] = {}
        self._refused: list[tuple[int, RefusedReplyError]] = []
        self._excluded: dict[str, Exclusion] = {
            node: Exclusion(node=node, reason="binding", detail=detail)
            for node, detail in barred.items()
        }

    @property
    def accepted(self) -> int:
        """How many updates are valid so far."""
        return len(self._accepted)

    def receive(self, flower_node: int, reply: TrainReply) -> None:
        """Check one reply: frame, length, range, key, signature, membership, in this order.

        Raises
        ------
        RefusedReplyError
            The reply is left out, for the reason given.
        """
        task, setting, claimed = self._task, self._setting, reply.update.node
        context = task.frame(setting.round, setting.attempt, claimed)
        try:
            seeded = parse_update(reply.frame, context, task.parameters, task.layout)
        except FrameError as error:
            reason: ExclusionReason = "binding" if isinstance(error, BindingError) else "malformed"
            raise RefusedReplyError(reason, str(error)) from error
        try:
            statement = reply.update.check(task.domain)
        except SignatureError as error:
            raise RefusedReplyError("signature", str(error)) from error
        if claimed not in task.roster.nodes:
            raise RefusedReplyError("binding", f"{claimed} is not a member of the task")
        if claimed in self._barred:
            raise RefusedReplyError("binding", self._barred[claimed])
        self._check_binding(statement)
        try:
            ciphertext = self._expand(seeded)
        except PrivacyError as error:
            raise RefusedReplyError("error", str(error)) from error
        digest = ciphertext.digest(context)
        if digest != statement.update_digest:
            raise RefusedReplyError(
                "binding",
                f"the update has digest {digest}, the node signed {statement.update_digest}",
            )
        # Last of all: statements of earlier rounds and tasks are public, and whoever replays
        # one must not take its signer's place.
        self._pins.pin(flower_node, claimed)
        if claimed in self._accepted:
            raise RefusedReplyError("binding", f"{claimed} sent a second update")
        # After that check: a second update must not take the place of the first one's shares.
        self._take_shares(reply)
        self._accepted[claimed] = AcceptedUpdate(
            reply.update,
            ciphertext,
            len(reply.frame) + sum(len(share.sealed) for share in reply.shares),
        )

    def refuse(self, flower_node: int, refusal: RefusedReplyError) -> None:
        """Remember a reply that is left out; `finish` lists its sender."""
        self._refused.append((flower_node, refusal))

    def finish(self) -> Aggregate:
        """Add the accepted updates and commit to the sum.

        Raises
        ------
        RecordError
            Nothing was accepted.
        """
        if not self._accepted:
            raise RecordError(f"round {self._setting.round}: no valid update to add")
        task, setting = self._task, self._setting
        self._list_refused()
        self._list_silent()
        updates = tuple(self._accepted[node] for node in sorted(self._accepted, key=str.lower))
        context = task.aggregate_frame(setting.round, setting.attempt)
        total = add([update.ciphertext for update in updates], max_nodes=task.parameters.max_nodes)
        survivors = tuple(
            Survivor(node=u.statement.node, update_digest=u.statement.statement.update_digest)
            for u in updates
        )
        manifest = RoundManifest(
            task_id=task.task_id,
            round=setting.round,
            attempt=setting.attempt,
            previous_manifest=setting.previous_manifest,
            terms_digest=task.terms.digest,
            roster_digest=task.roster.digest,
            trust_mode=task.terms.trust_mode,
            app_bundle=task.terms.app_bundle,
            config_digest=setting.config_digest,
            base_model=setting.base_model,
            key_id=task.key_id,
            parameters_id=task.terms.parameters_id,
            layout_digest=task.terms.layout_digest,
            survivors=survivors,
            exclusions=tuple(
                sorted(
                    (e for e in self._excluded.values() if e.node not in self._accepted),
                    key=lambda exclusion: exclusion.node.lower(),
                )
            ),
            samples=task.roster.samples_of([survivor.node for survivor in survivors]),
            updates_root=updates_root(task.task_id, setting.round, setting.attempt, survivors),
            aggregate_digest=total.aggregate_digest(context),
        )
        return Aggregate(
            manifest=manifest,
            updates=updates,
            frame=encode_aggregate(context, total, task.parameters.backend),
        )

    def _list_refused(self) -> None:
        # Only a valid update, or valid fingerprints, of this run say who a Flower node is: an
        # unchecked reply can name anybody, and signed statements of the past are public.
        known = self._pins.address_of
        unknown: dict[int, RefusedReplyError] = {}
        for flower_node, refusal in self._refused:
            node = known.get(flower_node)
            if node is None:
                unknown[flower_node] = refusal
            else:
                self._exclude(node, refusal.reason, refusal.detail)
        # Where every Flower node that showed no address failed, and they are as many as the
        # members that are unaccounted for, those failures are the members'.
        seen = {*known.values(), *self._accepted, *self._excluded}
        members = [node for node in self._task.roster.nodes if node not in seen]
        unpinned = {flower_node for flower_node in self._asked if flower_node not in known}
        if not members or len(unpinned) != len(members) or unpinned != set(unknown):
            return
        reasons = {refusal.reason for refusal in unknown.values()}
        reason: ExclusionReason = reasons.pop() if len(reasons) == 1 else "error"
        for node in members:
            self._exclude(node, reason, "; ".join(refusal.detail for refusal in unknown.values()))

    def _list_silent(self) -> None:
        asked = {self._pins.address_of.get(flower_node) for flower_node in self._asked}
        for node in self._task.roster.nodes:
            if node in asked:
                self._exclude(node, "late", "no reply within the time-out")
            else:
                self._exclude(node, "unavailable", "not connected, or not sampled")

    def _exclude(self, node: str, reason: ExclusionReason, detail: str) -> None:
        # The first reason given stays.
        if node not in self._accepted:
            self._excluded.setdefault(
                node, Exclusion(node=node, reason=reason, detail=detail[:300])
            )

    def _check_binding(self, statement: UpdateStatement) -> None:
        task, setting = self._task, self._setting
        expected = {
            "task_id": task.task_id,
            "round": setting.round,
            "attempt": setting.attempt,
            "terms_digest": task.terms.digest,
            "roster_digest": task.roster.digest,
            "app_bundle": task.terms.app_bundle,
            "config_digest": setting.config_digest,
            "previous_manifest": setting.previous_manifest,
            "base_model": setting.base_model,
            "key_id": task.key_id,
            "parameters_id": task.terms.parameters_id,
            "layout_digest": task.terms.layout_digest,
        }
        for name, value in expected.items():
            if getattr(statement, name) != value:
                raise RefusedReplyError(
                    "binding",
                    f"{name} is {getattr(statement, name)}, expected {value}",
                )


def _no_shares(reply: TrainReply) -> None:
    if reply.shares or reply.update.statement.shares_root != ZERO_DIGEST:
        raise RefusedReplyError("malformed", f"{reply.update.node} dealt shares of a shared key")

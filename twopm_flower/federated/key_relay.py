"""The server's part in sharing out one-time keys: it relays boxes that it cannot open."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable

from twopm_flower.errors import KeyCeremonyError, QuorumError, RecordError
from twopm_flower.federated.aggregator import NodePins, RefusedReplyError
from twopm_flower.federated.exchange import (
    EvaluateReply,
    KeyOpening,
    Reply,
    SealedShare,
    TrainReply,
)
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.keys import check_public_key
from twopm_flower.privacy.sealed_shares import (
    SEALED_OPENING_BYTES,
    SEALED_SHARE_BYTES,
    opening_digest,
    sealed_share_digest,
    share_proof,
    shares_root,
)
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import ReaderKey, Signed, UpdateStatement
from twopm_flower.verify.one_time_keys import check_opening

log = logging.getLogger(__name__)


class KeyRelay:
    """What the server holds of shared-out keys in a run: public keys and sealed boxes.

    Parameters
    ----------
    task : TaskContext
        A task in ``one-time-key`` mode.
    pins : NodePins
        Who is who in this run.
    """

    def __init__(self, task: TaskContext, pins: NodePins) -> None:
        self._task = task
        self._pins = pins
        self._readers: dict[tuple[int, int], dict[str, Signed[ReaderKey]]] = {}
        self._dealt: dict[str, tuple[SealedShare, ...]] = {}
        self._digests: dict[str, dict[str, str]] = {}

    def take_readers(
        self,
        readers: Iterable[Signed[ReaderKey]],
        slots: Collection[tuple[int, int]],
    ) -> None:
        """Keep a node's keys for the attempts that may come next; `slots` names them.

        Raises
        ------
        RecordError, RefusedReplyError
            Not its own, for another attempt, or nothing can be sealed to it.
        """
        for signed in readers:
            statement = signed.check(self._task.domain)
            slot = (statement.round, statement.attempt)
            if statement.task_id != self._task.task_id or slot not in slots:
                raise RecordError(f"{signed.node} published a reader key for another attempt")
            if signed.node not in self._task.roster.nodes:
                raise RecordError(f"{signed.node} published a reader key and is not a member")
            try:
                check_public_key(statement.public_key)
            except KeyCeremonyError as error:
                raise RecordError(f"the reader key of {signed.node}: {error}") from error
            # Pins nobody: a key that was shown in a train order is public.
            self._readers.setdefault(slot, {}).setdefault(signed.node, signed)

    def readers(self, round_: int, attempt: int) -> tuple[Signed[ReaderKey], ...]:
        """Return the keys that shares of an attempt are sealed to, sorted by address."""
        found = self._readers.get((round_, attempt), {})
        return tuple(found[node] for node in sorted(found, key=str.lower))

    def start_attempt(self, round_: int) -> None:
        """Forget the boxes of the attempt before, and the keys of rounds that are over."""
        self._dealt.clear()
        self._digests.clear()
        for slot in [slot for slot in self._readers if slot[0] < round_]:
            del self._readers[slot]

    def take_shares(self, reply: TrainReply) -> None:
        """Keep a node's sealed shares: exactly one for each other reader, as it signed them.

        Raises
        ------
        RefusedReplyError
            Anything else.
        """
        statement = reply.update.statement
        dealer = statement.node
        public = {
            signed.node: signed.statement.public_key
            for signed in self.readers(statement.round, statement.attempt)
        }
        named = [share.node for share in reply.shares]
        others = set(public) - {dealer}
        # An update that a node kept from a run that stopped has shares for the readers of then.
        enough = len(named) + 1 >= self._task.threshold and len(named) >= 1
        if len(set(named)) != len(named) or not set(named) <= others or not enough:
            raise RefusedReplyError(
                "malformed",
                f"{dealer} dealt shares to {len(named)} nodes; {len(others)} can read them, "
                f"{self._task.threshold} must",
            )
        if len(named) < len(others):
            log.warning("%s dealt no shares to %d of the readers", dealer, len(others) - len(named))
        digests = {}
        for share in reply.shares:
            if len(share.sealed) != SEALED_SHARE_BYTES:
                raise RefusedReplyError(
                    "malformed", f"a sealed share of {len(share.sealed)} bytes from {dealer}"
                )
            digests[share.node] = self._digest(statement, share, public[share.node])
        if shares_root(list(digests.values())) != statement.shares_root:
            raise RefusedReplyError("binding", f"{dealer} signed other shares than it dealt")
        self._dealt[dealer] = reply.shares
        self._digests[dealer] = digests

    def shares_for(self, flower_node: int, manifest: RoundManifest) -> tuple[SealedShare, ...]:
        """Return the survivors' sealed shares for one Flower node; none where it is unknown."""
        reader = self._pins.address_of.get(flower_node)
        found = []
        for dealer in manifest.nodes:
            for share in self._dealt.get(dealer, ()):
                if share.node == reader:
                    digests = self._digests[dealer]
                    proof = share_proof(list(digests.values()), digests[reader])
                    found.append(SealedShare(node=dealer, sealed=share.sealed, proof=proof))
        return tuple(found)

    def take_opening(self, flower_node: int, opening: KeyOpening, manifest: RoundManifest) -> str:
        """Return which member opened; its opening is what it signed, for this manifest.

        Raises
        ------
        RecordError, RefusedReplyError, VerificationError
            Anything else.
        """
        task = self._task
        signed = opening.statement
        node = check_opening(manifest, signed, roster=task.roster, domain=task.domain).node
        context = self._task.opening_context(manifest, node)
        if len(opening.sealed) != SEALED_OPENING_BYTES:
            raise RecordError(f"{node} sent an opening of {len(opening.sealed)} bytes")
        if opening_digest(opening.sealed, context) != opening.statement.statement.opening_digest:
            raise RecordError(f"{node} signed another opening than it sent")
        self._pins.pin(flower_node, node)
        return node

    def spoilers(
        self, manifest: RoundManifest, openers: Collection[str], replies: Iterable[Reply]
    ) -> tuple[str, ...]:
        """Return the nodes without which a new attempt is due; none where the round is complete.

        A sum is opened for one set of survivors in a round, so only where nobody else opened
        anything may another attempt follow, without those whose shares do not open.

        Raises
        ------
        QuorumError
            Too few nodes opened, and some did.
        """
        convicted = self._convicted(replies)
        if len(openers) >= self._task.threshold:
            return ()
        if convicted and not set(openers) - set(convicted):
            return convicted
        detail = f"; {', '.join(convicted)} dealt shares that do not open" if convicted else ""
        raise QuorumError(
            f"round {manifest.round}: {len(openers)} nodes opened their share of the key sum, "
            f"{self._task.threshold} are needed{detail}",
            hint="Look at the nodes' logs; the sums of the rounds before are not affected.",
        )

    def _convicted(self, replies: Iterable[Reply]) -> tuple[str, ...]:
        # More nodes complain about a dealer than may be lying.
        complaints: Counter[str] = Counter()
        for reply in replies:
            node = self._pins.address_of.get(reply.flower_node)
            if node is None or not isinstance(reply.value, EvaluateReply):
                continue
            for dealer in set(reply.value.bad_dealers) & set(self._task.roster.nodes) - {node}:
                log.error("ALARM: %s says that the share dealt by %s does not open", node, dealer)
                complaints[dealer] += 1
        most = self._task.terms.colluders
        return tuple(sorted(dealer for dealer, count in complaints.items() if count > most))

    def _digest(self, statement: UpdateStatement, share: SealedShare, reader_key: str) -> str:
        context = self._task.share_context(
            statement.round,
            statement.attempt,
            dealer=statement.node,
            reader=share.node,
            reader_key=reader_key,
        )
        return sealed_share_digest(share.sealed, context)

"""A node's part in sharing out its one-time keys: publish, deal, open and add up.

What is dealt to others is sealed to keys of theirs that live for one attempt; what is opened
is a share of a sum, for one set of survivors, which the guard remembers before it is computed.
"""

import logging
from collections.abc import Collection, Iterable, Sequence

from twopm_flower.errors import (
    KeyCeremonyError,
    PrivacyError,
    ProtocolViolation,
    QuorumError,
    UnreadableShares,
    UnsignedShare,
)
from twopm_flower.federated.exchange import KeyOpening, SealedShare
from twopm_flower.federated.ledger import TaskLedger
from twopm_flower.federated.share_files import ShareFiles
from twopm_flower.privacy.keys import SealingKey, SharedKey, check_public_key
from twopm_flower.privacy.one_time_key import OneTimeKey
from twopm_flower.privacy.sealed_shares import (
    check_share_proof,
    open_opening,
    open_share,
    opening_digest,
    seal_opening,
    seal_share,
    sealed_share_digest,
    shares_root,
)
from twopm_flower.privacy.share_field import erase
from twopm_flower.privacy.sharing import Share, add_shares, reconstruct, share_secret
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import (
    OpeningStatement,
    ReaderKey,
    Signed,
    TypedDataSigner,
    UpdateStatement,
    sign,
)
from twopm_flower.verify.one_time_keys import check_opening

log = logging.getLogger(__name__)


class KeySharing:
    """Shares out one node's keys in one task.

    Parameters
    ----------
    ledger : TaskLedger
        The node's progress, checks and guard.
    signer : TypedDataSigner
        Signs with the node's identity key.
    group_key : SharedKey
        What openings are sealed with; every node has it and the server does not.
    pinned : collection of str
        The nodes that this node's operator trusts to be who they say.
    """

    def __init__(
        self,
        ledger: TaskLedger,
        signer: TypedDataSigner,
        group_key: SharedKey,
        pinned: Collection[str],
    ) -> None:
        self._ledger = ledger
        self._task = ledger.task
        self._files = ShareFiles(ledger.folder.path)
        self._signer = signer
        self._group_key = group_key
        self._pinned = frozenset(pinned)

    def publish(self, round_: int, attempt: int) -> Signed[ReaderKey]:
        """Return this node's signed key for the shares of one attempt; always the same one."""
        key = self._files.make_reader_key(round_, attempt)
        statement = ReaderKey(
            task_id=self._task.task_id,
            round=round_,
            attempt=attempt,
            node=self._signer.address,
            public_key=key.public,
        )
        return sign(statement, self._signer, self._task.domain)

    def deal(
        self, key: OneTimeKey, round_: int, attempt: int, readers: Sequence[Signed[ReaderKey]]
    ) -> tuple[str, tuple[SealedShare, ...]]:
        """Share out a key to the published readers; keep the own share.

        Returns
        -------
        root : str
            What the update statement commits to.
        shares : tuple of SealedShare
            One for each reader but this node.

        Raises
        ------
        ProtocolViolation, SignatureError, KeyCeremonyError, QuorumError
            What `check_readers` finds.
        """
        own, task = self._signer.address, self._task
        public = self.check_readers(round_, attempt, readers)
        nodes = sorted({*public, own}, key=str.lower)
        points = {node: task.point(node) for node in nodes}
        dealt = share_secret(key.secret, list(points.values()), task.threshold)
        sealed = {}
        try:
            self._files.save_own_share(round_, attempt, dealt[points[own]])
            for node in nodes:
                if node == own:
                    continue
                context = task.share_context(
                    round_, attempt, dealer=own, reader=node, reader_key=public[node]
                )
                box = seal_share(dealt[points[node]], public[node], context)
                sealed[node] = (box, sealed_share_digest(box, context))
        finally:
            # Any threshold of them are the key.
            erase(*dealt.values())
        root = shares_root([digest for _, digest in sealed.values()])
        return root, tuple(SealedShare(node, box) for node, (box, _) in sealed.items())

    def open(
        self,
        manifest: RoundManifest,
        updates: Sequence[Signed[UpdateStatement]],
        shares: Sequence[SealedShare],
    ) -> KeyOpening | None:
        """Return this node's share of the sum of the survivors' keys, sealed and signed.

        The manifest was accepted and seen on chain before. None where this node cannot read
        the shares of this attempt: it published no key for it, or the server left shares out.

        Raises
        ------
        ProtocolViolation
            Too few pinned peers among the survivors, or another sum was opened before.
        UnsignedShare
            A share that is not the one its dealer signed.
        UnreadableShares
            The dealer signed what does not open.
        """
        round_, attempt = manifest.round, manifest.attempt
        kept = self._files.load_opening(round_, attempt)
        if kept is not None and kept.statement.statement.manifest_digest == manifest.digest:
            return kept
        reader = self._files.reader_key(round_, attempt)
        own = self._signer.address
        by_dealer = {share.node: share for share in shares}
        lacking = [node for node in manifest.nodes if node != own and node not in by_dealer]
        if reader is None or lacking:
            log.warning(
                "round %d, attempt %d: nothing is opened: %s",
                round_,
                attempt,
                f"no shares of {lacking} came" if reader else "no key was published for it",
            )
            return None
        self._check_peers(manifest)
        parts = self._open_shares(manifest, updates, by_dealer, reader)
        # From here on no other set of survivors is ever opened in this round.
        self._ledger.permit(manifest)
        context = self._task.opening_context(manifest, own)
        total = add_shares(parts)
        sealed = seal_opening(total, self._group_key, context)
        erase(total, *parts)
        statement = OpeningStatement(
            task_id=manifest.task_id,
            round=round_,
            attempt=attempt,
            node=own,
            manifest_digest=manifest.digest,
            opening_digest=opening_digest(sealed, context),
        )
        opening = KeyOpening(sign(statement, self._signer, self._task.domain), sealed)
        self._files.save_opening(opening)
        self._files.forget_shares(round_, attempt)
        return opening

    def summed_key(
        self, manifest: RoundManifest, openings: Sequence[KeyOpening]
    ) -> tuple[OneTimeKey, tuple[str, ...]]:
        """Return the sum of the survivors' keys, and the nodes that opened a false share.

        Raises
        ------
        ProtocolViolation, VerificationError, SignatureError
            An opening that no member signed for this manifest, or one node's twice.
        SharingError
            Too few openings, or too many false ones.
        """
        task = self._task
        shares: dict[int, Share] = {}
        false: list[str] = []
        for opening in openings:
            signed = opening.statement
            node = check_opening(manifest, signed, roster=task.roster, domain=task.domain).node
            context = task.opening_context(manifest, node)
            if task.point(node) in shares or node in false:
                raise ProtocolViolation(f"round {manifest.round}: {node} opened twice")
            if (
                opening_digest(opening.sealed, context)
                != opening.statement.statement.opening_digest
            ):
                raise ProtocolViolation(
                    f"round {manifest.round}: the opening of {node} is not the one it signed"
                )
            try:
                shares[task.point(node)] = open_opening(opening.sealed, self._group_key, context)
            except PrivacyError:
                false.append(node)
        found = reconstruct(shares, task.threshold, summands=len(manifest.nodes))
        erase(*shares.values())
        false += [task.roster.nodes[point - 1] for point in found.liars]
        if false:
            log.error(
                "ALARM: round %d: the shares opened by %s do not fit: they lie, or a survivor "
                "dealt them wrong shares",
                manifest.round,
                ", ".join(false),
            )
        seed = task.one_time_seed(manifest.round, manifest.attempt)
        return OneTimeKey.of_sum(found.secret, seed), tuple(sorted(false, key=str.lower))

    def forget(self, round_: int) -> None:
        """Delete all that belongs to rounds up to one that was opened."""
        self._files.forget_shares(round_)
        self._files.forget_openings(round_)

    def check_readers(
        self, round_: int, attempt: int, readers: Iterable[Signed[ReaderKey]]
    ) -> dict[str, str]:
        """Return the readers' public keys by node.

        Raises
        ------
        ProtocolViolation, SignatureError
            A reader key that is not a member's own for this attempt.
        KeyCeremonyError
            A reader key that nothing can be sealed to.
        QuorumError
            Fewer readers than a key takes to open.
        """
        public: dict[str, str] = {}
        for signed in readers:
            statement = signed.check(self._task.domain)
            bound = (statement.task_id, statement.round, statement.attempt)
            if bound != (self._task.task_id, round_, attempt):
                raise ProtocolViolation(f"the reader key of {signed.node} is for another attempt")
            if signed.node not in self._task.roster.nodes or signed.node in public:
                raise ProtocolViolation(
                    f"the reader key of {signed.node} is not one member's only one"
                )
            check_public_key(statement.public_key)
            public[signed.node] = statement.public_key
        nodes = {*public, self._signer.address}
        if len(nodes) < self._task.threshold:
            raise QuorumError(
                f"round {round_}: {len(nodes)} nodes can read shares, {self._task.threshold} "
                "must, or the sum could never be opened",
                hint="Look at the nodes that did not answer the exchange before.",
            )
        return public

    def _check_peers(self, manifest: RoundManifest) -> None:
        needed = self._task.terms.colluders + 1
        peers = self._pinned.intersection(manifest.nodes) - {self._signer.address}
        if len(peers) < needed:
            raise ProtocolViolation(
                f"round {manifest.round}: {len(peers)} of the survivors are peers that this "
                f"node's operator trusts; {needed} are needed",
                hint="Get their cards out of band and run 'twopm node trust CARD'.",
            )

    def _open_shares(
        self,
        manifest: RoundManifest,
        updates: Sequence[Signed[UpdateStatement]],
        by_dealer: dict[str, SealedShare],
        reader: SealingKey,
    ) -> list[Share]:
        round_, attempt, own = manifest.round, manifest.attempt, self._signer.address
        parts: list[Share] = []
        unreadable: list[str] = []
        for update in updates:
            dealer = update.node
            if dealer == own:
                parts.append(self._files.load_own_share(round_, attempt))
                continue
            share = by_dealer[dealer]
            context = self._task.share_context(
                round_, attempt, dealer=dealer, reader=own, reader_key=reader.public
            )
            digest = sealed_share_digest(share.sealed, context)
            if not check_share_proof(digest, share.proof, update.statement.shares_root):
                raise UnsignedShare(
                    f"round {round_}: the share that is shown as {dealer}'s is not one that it "
                    "signed; nothing is opened",
                    hint="The server, or the dealer, mixes up two updates: ask both.",
                )
            try:
                parts.append(open_share(share.sealed, reader, context))
            except (KeyCeremonyError, PrivacyError) as error:
                log.error("ALARM: round %d: the share dealt by %s: %s", round_, dealer, error)  # noqa: TRY400
                unreadable.append(dealer)
        if unreadable:
            raise UnreadableShares(unreadable)
        return parts

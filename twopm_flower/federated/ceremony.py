"""How nodes come together: registrations, memberships, the trusted roster, the dealt key.

Pure over records and keys; files and chains are the callers'.
"""

from collections.abc import Mapping

from twopm_flower.errors import KeyCeremonyError, ProtocolViolation
from twopm_flower.privacy.backend import load_backend
from twopm_flower.privacy.key_deal import DealContext, KeyBox, Reader, accept, deal
from twopm_flower.privacy.keys import SealingKey, SharedKey
from twopm_flower.privacy.one_time_key import GROUP_KEY_BYTES
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.sharing import threshold_for
from twopm_flower.records.bundle import DealtKey, Deployment, NodeCard, SealedBoxes
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.roster import Member, Roster
from twopm_flower.records.statements import (
    KeyDeal,
    Membership,
    Registration,
    Signed,
    TypedDataSigner,
    sign,
)
from twopm_flower.records.terms import TaskTerms

CARD_DEADLINE = 4_102_444_800
"""2100-01-01 UTC, in seconds: a card may be relayed whenever the coordinator gets to it."""


def node_card(
    name: str,
    signer: TypedDataSigner,
    sealing_key: str,
    deployment: Deployment,
    *,
    nonce: int = 0,
) -> NodeCard:
    """Return a node's public card: its signed registration, ready to be relayed."""
    registration = Registration(
        node=signer.address, sealing_key=sealing_key, nonce=nonce, deadline=CARD_DEADLINE
    )
    return NodeCard(name=name, registration=sign(registration, signer, deployment.registry_domain))


def membership(
    signer: TypedDataSigner,
    sealing_key: str,
    *,
    task_id: str,
    terms: TaskTerms,
    samples: int,
    data_commitment: str,
    deployment: Deployment,
) -> Signed[Membership]:
    """Return a node's signed membership of a task.

    Raises
    ------
    ProtocolViolation
        The node has no samples, or more than the terms allow.
    """
    if not 0 < samples <= terms.max_samples:
        raise ProtocolViolation(
            f"this node has {samples} training samples, the task takes 1 to {terms.max_samples}"
        )
    statement = Membership(
        task_id=task_id,
        terms_digest=terms.digest,
        node=signer.address,
        samples=samples,
        data_commitment=data_commitment,
        sealing_key=sealing_key,
    )
    return sign(statement, signer, deployment.domain)


def member_of(signed: Signed[Membership]) -> Member:
    """Return the roster entry that a signed membership leads to."""
    statement = signed.statement
    return Member(
        node=statement.node,
        samples=statement.samples,
        data_commitment=statement.data_commitment,
        sealing_key=statement.sealing_key,
        signature=signed.signature,
    )


def check_roster(
    roster: Roster,
    *,
    task_id: str,
    terms: TaskTerms,
    deployment: Deployment,
    trusted: Mapping[str, NodeCard],
    own: str,
) -> None:
    """Check a frozen roster as a node's operator would: all signed, all known, oneself in it.

    Raises
    ------
    ProtocolViolation
        A member is not trusted, has another sealing key than its trusted card, or this
        node is not a member; or there are more members than the sums have room for.
    SignatureError
        A member did not sign its membership.
    ConfigError
        The members are too few to tolerate the colluders that the terms name.
    """
    roster.check(task_id, terms.digest, deployment.domain)
    parameters = AdditiveParameters.from_dict(terms.parameters)
    if len(roster.members) > parameters.max_nodes:
        raise ProtocolViolation(
            f"the roster has {len(roster.members)} members, "
            f"the task's sums have room for {parameters.max_nodes}"
        )
    if terms.trust_mode == "one-time-key":
        threshold_for(len(roster.members), terms.colluders)
    if own not in roster.nodes:
        raise ProtocolViolation(f"this node, {own}, is not in the roster")
    for member in roster.members:
        card = trusted.get(member.node)
        if member.node != own and card is None:
            raise ProtocolViolation(
                f"{member.node} is in the roster and not trusted here",
                hint="Get its card out of band and run 'twopm node trust CARD'.",
            )
        if card is not None and card.registration.statement.sealing_key != member.sealing_key:
            raise ProtocolViolation(
                f"{member.node} joined with the sealing key {member.sealing_key}, "
                f"its trusted card has {card.registration.statement.sealing_key}",
                hint="Ask its operator; a swapped key would hand the shared key to somebody else.",
            )


def deal_key(
    signer: TypedDataSigner,
    *,
    task_id: str,
    terms: TaskTerms,
    roster: Roster,
    deployment: Deployment,
) -> tuple[DealtKey, SharedKey]:
    """Make a fresh shared key and seal it to every member; the caller has checked the roster.

    Raises
    ------
    KeyCeremonyError
        The caller is not the first member, or the task's backend needs no key.
    """
    if signer.address != roster.dealer.node:
        raise KeyCeremonyError(
            f"the first member, {roster.dealer.node}, deals the key; this node is {signer.address}"
        )
    parameters = AdditiveParameters.from_dict(terms.parameters)
    key = load_backend(parameters.backend)(parameters).generate_key()
    if key is None:
        raise KeyCeremonyError(f"a task in {terms.trust_mode} mode has no key to deal")
    readers = [Reader(member.node, member.sealing_key) for member in roster.members]
    boxes = deal(key, readers, _context(task_id, roster, deployment))
    sealed = SealedBoxes(backend=parameters.backend, boxes={box.node: box.box for box in boxes})
    statement = KeyDeal(
        task_id=task_id,
        node=signer.address,
        roster_digest=roster.digest,
        key_id=key.key_id,
        boxes_digest=sealed.digest,
    )
    return DealtKey(deal=sign(statement, signer, deployment.domain), boxes=sealed), key


def check_deal(
    signed: Signed[KeyDeal], *, task_id: str, roster: Roster, deployment: Deployment
) -> KeyDeal:
    """Check that the first member of this roster signed a deal for this task.

    Raises
    ------
    KeyCeremonyError
        Another dealer, task or roster.
    SignatureError
        Not signed by the dealer.
    """
    statement = signed.check(deployment.domain)
    found = (statement.node, statement.task_id, statement.roster_digest)
    if found != (roster.dealer.node, task_id, roster.digest):
        raise KeyCeremonyError(
            f"the key was dealt by {statement.node} for task {statement.task_id}; expected is "
            f"the first member, {roster.dealer.node}, for task {task_id} and its frozen roster"
        )
    return statement


def accept_key(
    dealt: DealtKey,
    own_key: SealingKey,
    own: str,
    *,
    task_id: str,
    roster: Roster,
    deployment: Deployment,
) -> SharedKey:
    """Open this node's box of a dealt key.

    Raises
    ------
    KeyCeremonyError
        Not dealt by the first member for this roster, boxes altered, no box for this node, or
        the box does not open or holds another key than the one that was signed for.
    """
    statement = check_deal(dealt.deal, task_id=task_id, roster=roster, deployment=deployment)
    if dealt.boxes.digest != statement.boxes_digest:
        raise KeyCeremonyError("the sealed boxes are not the ones that the dealer signed")
    sealed = dealt.boxes.boxes.get(own)
    if sealed is None:
        raise KeyCeremonyError(f"the deal holds no box for this node, {own}")
    return accept(
        KeyBox(own, sealed),
        own_key=own_key,
        own_node=own,
        context=_context(task_id, roster, deployment),
        key_id=statement.key_id,
    )


def check_key(key: SharedKey, terms: TaskTerms) -> None:
    """Check that a dealt key is one of the task's backend, before anything rests on it.

    Raises
    ------
    KeyCeremonyError
        It is of another backend, or a group key of another length.
    """
    expected = AdditiveParameters.from_dict(terms.parameters).backend
    length = len(key.secret.reveal())
    group = terms.trust_mode == "one-time-key"
    if key.backend != expected or (group and length != GROUP_KEY_BYTES):
        raise KeyCeremonyError(
            f"the dealt key is of backend {key.backend!r} with {length} bytes; the task takes "
            f"{expected!r}" + (f" with {GROUP_KEY_BYTES}" if group else ""),
            hint="The first member dealt a wrong key: ask its operator, and make another task.",
        )


def key_id_of(terms: TaskTerms, signed: Signed[KeyDeal] | None) -> str:
    """Return the key id that frames carry; zero where nothing is encrypted.

    Raises
    ------
    KeyCeremonyError
        The task needs a key and none was dealt.
    """
    if terms.trust_mode == "plaintext":
        return ZERO_DIGEST
    if signed is None:
        raise KeyCeremonyError(
            "the task's key was not dealt yet",
            hint="The first member runs 'twopm keys deal'.",
        )
    return signed.statement.key_id


def _context(task_id: str, roster: Roster, deployment: Deployment) -> DealContext:
    return DealContext(
        chain_id=deployment.chain_id,
        contract=deployment.task_registry,
        task_id=task_id,
        roster_digest=roster.digest,
        dealer=roster.dealer.node,
    )

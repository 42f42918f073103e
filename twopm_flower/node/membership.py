"""A node's steps towards a task: join it, confirm its roster, deal or accept its key."""

import json
import logging
from pathlib import Path

from twopm_flower.chain.backends import deployment_of
from twopm_flower.chain.base import ChainReader, TaskState
from twopm_flower.errors import ConfigError, KeyCeremonyError, ProtocolViolation, QuorumError
from twopm_flower.federated import ceremony
from twopm_flower.federated.home import NodeHome, write_atomically
from twopm_flower.node.coordinate import Invitation
from twopm_flower.node.local_data import DataSource, choose_rows, load_choice
from twopm_flower.node.provision import make_card, require_node
from twopm_flower.node.terms import check_terms, quorum_warning
from twopm_flower.privacy.keys import SharedKey
from twopm_flower.records.bundle import DealtKey, JoinRequest
from twopm_flower.records.roster import Roster
from twopm_flower.records.terms import TaskTerms

log = logging.getLogger(__name__)


def join_task(
    home: Path, invitation: Invitation, source: DataSource, *, reader: ChainReader
) -> JoinRequest:
    """Agree to the terms of a task: commit to this node's rows and sign its membership.

    Parameters
    ----------
    home : Path
        The node's home.
    invitation : Invitation
        From the coordinator; what it says is compared with the node's own chain.
    source : DataSource
        Which rows.
    reader : ChainReader
        The operator's own endpoint.

    Returns
    -------
    JoinRequest
        For the coordinator, who relays it.

    Raises
    ------
    ConfigError
        The invitation is for another chain, or the terms contradict themselves.
    ProtocolViolation
        The chain holds other terms or settings, or the task is not open.
    DataError
        The rows cannot be used.
    """
    node = NodeHome(home)
    require_node(node)
    deployment = deployment_of(node.settings.require_chain())
    if invitation.deployment != deployment:
        raise ConfigError(
            f"the invitation is for the contract {invitation.deployment.task_registry} on chain "
            f"{invitation.deployment.chain_id}; this node pins {deployment.task_registry} on "
            f"chain {deployment.chain_id}",
            hint="Ask the coordinator for the chain.toml of this task, and compare.",
        )
    terms, task_id = invitation.terms, invitation.task_id
    check_terms(terms)
    state = check_on_chain(terms, task_id, reader)
    if state.state != "open":
        raise ProtocolViolation(f"task {task_id} is {state.state}; nobody can join it any more")
    folder = node.task(task_id)
    stored = folder.path / "terms.json"
    if stored.exists() and stored.read_bytes() != terms.to_bytes():
        raise ProtocolViolation(f"this node agreed to other terms for task {task_id} before")
    write_atomically(stored, terms.to_bytes())
    choice = choose_rows(folder, terms, source)
    signed = ceremony.membership(
        node.signer,
        node.sealing_key.public,
        task_id=task_id,
        terms=terms,
        samples=choice.samples,
        data_commitment=choice.commitment,
        deployment=deployment,
    )
    nonce = reader.registration_nonce(node.signer.address)
    card = make_card(home, nonce=nonce)
    return JoinRequest(registration=card.registration, membership=signed)


def check_on_chain(terms: TaskTerms, task_id: str, reader: ChainReader) -> TaskState:
    """Compare terms with what the chain holds of their task.

    Raises
    ------
    ProtocolViolation
        They differ.
    """
    state = reader.task(task_id)
    for what, agreed, stored in (
        ("terms digest", terms.digest, state.terms_digest),
        ("number of rounds", terms.rounds, state.rounds),
        ("min_contributors", terms.min_contributors, state.min_contributors),
        ("quorum", terms.quorum, state.quorum),
        ("max_samples", terms.max_samples, state.max_samples),
    ):
        if agreed != stored:
            raise ProtocolViolation(
                f"the {what} of task {task_id} is {stored} on chain; the terms have {agreed}",
                hint="These are not the terms that the coordinator created the task with.",
            )
    return state


def confirm_task(home: Path, task_id: str, roster: Roster, *, reader: ChainReader) -> Roster:
    """Accept the frozen roster, after checking every member of it.

    Warns in the log where the quorum is no majority of the members.

    Raises
    ------
    ProtocolViolation
        The chain has another roster or other terms, the task has not started, a member is
        not trusted or has another sealing key, or this node's own entry is not what it signed.
    SignatureError
        A member did not sign its membership.
    QuorumError
        Fewer members than the terms ask for.
    """
    node = NodeHome(home)
    require_node(node)
    folder = node.task(task_id)
    terms = folder.terms
    state = check_on_chain(terms, task_id, reader)
    if state.state not in ("running", "finalised"):
        raise ProtocolViolation(
            f"task {task_id} is {state.state}: its roster is not frozen",
            hint="The coordinator runs 'twopm task start' first.",
        )
    if roster.digest != state.roster_digest:
        raise ProtocolViolation(
            f"the roster has digest {roster.digest}; the chain froze {state.roster_digest}",
            hint="Ask the coordinator for the roster.json of this task.",
        )
    own = node.signer.address
    ceremony.check_roster(
        roster,
        task_id=task_id,
        terms=terms,
        deployment=deployment_of(node.settings.require_chain()),
        trusted=node.peers(),
        own=own,
    )
    entry, choice = roster.member(own), load_choice(folder)
    if (entry.samples, entry.data_commitment, entry.sealing_key) != (
        choice.samples,
        choice.commitment,
        node.sealing_key.public,
    ):
        raise ProtocolViolation(
            f"the roster has {entry.samples} samples and commitment {entry.data_commitment} for "
            f"this node; it last chose {choice.samples} and {choice.commitment}",
            hint="Restore data.json and data.salt of this task as they were when it joined.",
        )
    if len(roster.members) < terms.min_contributors:
        raise QuorumError(
            f"the roster has {len(roster.members)} members; "
            f"the terms ask for {terms.min_contributors}"
        )
    warning = quorum_warning(terms.quorum, len(roster.members))
    if warning is not None:
        log.warning("%s", warning)
    write_atomically(folder.path / "roster.json", roster.to_bytes())
    return roster


def supernode_config(home: Path, task_id: str) -> str:
    """Return what a SuperNode is started with, so that the app finds this home and its rows.

    Returns
    -------
    str
        The value of ``--node-config``.
    """
    choice = load_choice(NodeHome(home).task(task_id))
    values: dict[str, object] = {"twopm-home": str(home.absolute())}
    if choice.path is not None:
        values["data"] = choice.path
    if choice.partition is not None and choice.partitions is not None:
        values |= {"partition-id": choice.partition, "num-partitions": choice.partitions}
    return " ".join(f"{name}={json.dumps(value)}" for name, value in values.items())


def deal_key(home: Path, task_id: str) -> DealtKey:
    """Make the task's shared key and seal it to every member of the confirmed roster.

    Raises
    ------
    KeyCeremonyError
        This node is not the first member, the task needs no key, or one was dealt here before.
    """
    node = NodeHome(home)
    require_node(node)
    folder = node.task(task_id)
    key_file, deal_file = folder.path / "shared.key", folder.path / "deal.json"
    if key_file.exists() and deal_file.exists():
        return DealtKey.from_bytes(deal_file.read_bytes())
    if key_file.exists():
        raise KeyCeremonyError(
            f"{key_file} exists, and no deal of it",
            hint="Another node dealt this key, or dealing was interrupted before anybody saw "
            "it: in that case remove the file and deal again.",
        )
    dealt, key = ceremony.deal_key(
        node.signer,
        task_id=task_id,
        terms=folder.terms,
        roster=folder.roster,
        deployment=deployment_of(node.settings.require_chain()),
    )
    key.save(key_file)
    write_atomically(deal_file, dealt.to_bytes())
    return dealt


def accept_key(home: Path, dealt: DealtKey) -> SharedKey:
    """Open this node's box and keep the key.

    Accepting the same key again changes nothing.

    Raises
    ------
    KeyCeremonyError
        Not dealt by the first member for this roster, altered, or another key than the one
        that this node holds.
    SignatureError
        Not signed by the dealer.
    """
    node = NodeHome(home)
    require_node(node)
    task_id = dealt.deal.statement.task_id
    folder = node.task(task_id)
    if dealt.boxes.backend != folder.terms.parameters["backend"]:
        raise KeyCeremonyError(
            f"the key is for the backend {dealt.boxes.backend!r}; the task uses "
            f"{folder.terms.parameters['backend']!r}"
        )
    key = ceremony.accept_key(
        dealt,
        node.sealing_key,
        node.signer.address,
        task_id=task_id,
        roster=folder.roster,
        deployment=deployment_of(node.settings.require_chain()),
    )
    file = folder.path / "shared.key"
    if not file.exists():
        key.save(file)
    elif SharedKey.load(file).key_id != key.key_id:
        raise KeyCeremonyError(
            f"this node holds another key for task {task_id} than {key.key_id}",
            hint="Ask the first member which key it dealt; a key is never replaced.",
        )
    return key

"""The coordinator's steps: create a task, admit nodes, start, keep the public key deal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from twopm_flower.chain.backends import deployment_of
from twopm_flower.chain.base import ChainConnector, ChainReader, Joining, TaskState
from twopm_flower.config import load_settings
from twopm_flower.errors import (
    ConfigError,
    ProtocolViolation,
    QuorumError,
    RecordError,
    TransactionReverted,
)
from twopm_flower.federated.ceremony import check_deal
from twopm_flower.federated.exchange import Arrays
from twopm_flower.federated.excluded import local_digest, split
from twopm_flower.federated.home import NodeHome, TaskFolder, write_atomically
from twopm_flower.node.terms import check_terms, initial_model_digest
from twopm_flower.privacy.layout import layout_of
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.records.bundle import DealtKey, Deployment, JoinRequest
from twopm_flower.records.fields import Digest, Record
from twopm_flower.records.roster import Member, Roster
from twopm_flower.records.statements import KeyDeal, Signed, signed_type
from twopm_flower.records.terms import TaskTerms

INITIAL_MODEL_FILE = "initial-model.safetensors"
KEY_DEAL_FILE = "key-deal.json"


class Invitation(Record):
    """What the coordinator hands to operators whose nodes may join."""

    version: int = 1
    deployment: Deployment
    task_id: Digest
    terms: TaskTerms


def create_task(
    home: Path,
    connector: ChainConnector,
    terms: TaskTerms,
    initial: Mapping[str, npt.NDArray[Any]],
) -> Invitation:
    """Put the digest of the terms on chain and keep terms and initial model.

    Parameters
    ----------
    home : Path
        The coordinator's home.
    connector : ChainConnector
        Acts for the coordinator's account.
    terms : TaskTerms
    initial : mapping of str to ndarray
        The public initial model that the terms name: float32, but for excluded arrays.

    Raises
    ------
    ConfigError
        The terms contradict themselves, or name another initial model.
    ChainError
        The chain cannot be used, or refuses the task.
    """
    check_terms(terms)
    _check_initial(terms, initial)
    task_id, _ = connector.create_task(
        terms.digest,
        rounds=terms.rounds,
        min_contributors=terms.min_contributors,
        quorum=terms.quorum,
        max_samples=terms.max_samples,
    )
    folder = NodeHome(home).task(task_id).path
    write_atomically(
        folder / INITIAL_MODEL_FILE, save({n: np.asarray(initial[n]) for n in initial})
    )
    write_atomically(folder / "terms.json", terms.to_bytes())
    deployment = deployment_of(load_settings(home).require_chain())
    return Invitation(deployment=deployment, task_id=task_id, terms=terms)


def load_initial_model(folder: TaskFolder) -> Arrays:
    """Return the public initial model of a task in the order of its layout, excluded arrays last.

    Raises
    ------
    ConfigError
        It is missing, or not the one that the terms name.
    """
    file = folder.path / INITIAL_MODEL_FILE
    if not file.exists():
        raise ConfigError(
            f"{file} is missing",
            hint="'twopm task create' writes it into the coordinator's home.",
        )
    stored = load(file.read_bytes())
    terms = folder.terms
    names = [array.name for array in terms.arrays]
    federated, local = split(stored, terms.excluded)
    if sorted(federated) != sorted(names):
        raise ConfigError(f"{file} holds the arrays {sorted(federated)}, the terms name {names}")
    _check_initial(terms, stored)
    return {**{name: federated[name] for name in names}, **local}


def _check_initial(terms: TaskTerms, initial: Mapping[str, npt.NDArray[Any]]) -> None:
    federated, local = split(initial, terms.excluded)
    for what, digest, named in (
        ("model", initial_model_digest(layout_of(terms), federated), terms.initial_model),
        ("excluded arrays", local_digest(local), terms.initial_excluded),
    ):
        if digest != named:
            raise ConfigError(f"the initial {what} has digest {digest}; the terms name {named}")


def admit(home: Path, connector: ChainConnector, requests: Sequence[JoinRequest]) -> TaskState:
    """Register nodes where needed, and join them to their task, all together.

    Admitting a member again changes nothing. Nothing is sent to the chain before every request
    was found in order.

    Raises
    ------
    SignatureError
        A node did not sign its registration or its membership for this chain.
    ProtocolViolation
        A request is for another task or other terms, or names two nodes or keys.
    QuorumError
        The task has fewer places left in its encrypted sum than nodes want to join.
    ChainError
        The chain cannot be used, or refuses a node.
    """
    task_id = requests[0].membership.statement.task_id
    folder = NodeHome(home).task(task_id)
    deployment = deployment_of(load_settings(home).require_chain())
    for request in requests:
        _check_request(request, task_id, folder.terms, deployment)
    joined = {member.node: member for member in connector.members(task_id)}
    new: dict[str, JoinRequest] = {}
    for request in requests:
        membership = request.membership.statement
        known = joined.get(membership.node)
        if known is None:
            new[membership.node] = request
        elif (known.samples, known.data_commitment, known.sealing_key) != (
            membership.samples,
            membership.data_commitment,
            membership.sealing_key,
        ):
            raise ProtocolViolation(f"{membership.node} joined this task already, with other data")
    room = AdditiveParameters.from_dict(folder.terms.parameters).max_nodes
    if len(joined) + len(new) > room:
        raise QuorumError(
            f"the task has {len(joined)} members and room for {room}; {len(new)} want to join",
            hint="Create a task with a larger --max-nodes.",
        )
    for request in requests:
        node = request.membership.node
        if node in new:
            _register(connector, request)
        # Kept before the transaction: without the signature the roster could not be handed out.
        write_atomically(folder.path / "joins" / f"{node}.json", request.to_bytes())
    connector.admit(task_id, [_joining(request) for request in new.values()])
    return connector.task(task_id)


def _check_request(
    request: JoinRequest, task_id: str, terms: TaskTerms, deployment: Deployment
) -> None:
    registration = request.registration.check(deployment.registry_domain)
    membership = request.membership.check(deployment.domain)
    if membership.task_id != task_id:
        raise ProtocolViolation(
            f"{membership.node} wants to join {membership.task_id}, others {task_id}",
            hint="Admit the nodes of one task at a time.",
        )
    if membership.terms_digest != terms.digest:
        raise ProtocolViolation(
            f"{membership.node} agreed to terms {membership.terms_digest}; "
            f"the task's are {terms.digest}",
            hint="Send the invitation again.",
        )
    if (registration.node, registration.sealing_key) != (membership.node, membership.sealing_key):
        raise ProtocolViolation(
            f"the request registers {registration.node} with {registration.sealing_key} and "
            f"joins {membership.node} with {membership.sealing_key}"
        )


def _register(connector: ChainConnector, request: JoinRequest) -> None:
    registration = request.registration.statement
    node, key = registration.node, registration.sealing_key
    if connector.registered_key(node) == key:
        return
    try:
        connector.register_node(node, key, registration.deadline, request.registration.signature)
    except TransactionReverted:
        # Whoever saw it on its way may have sent it first: then it is as the node signed it.
        if connector.registered_key(node) != key:
            raise


def _joining(request: JoinRequest) -> Joining:
    membership = request.membership.statement
    return Joining(
        node=membership.node,
        samples=membership.samples,
        data_commitment=membership.data_commitment,
        sealing_key=membership.sealing_key,
        signature=request.membership.signature,
    )


def start_task(home: Path, connector: ChainConnector, task_id: str) -> Roster:
    """Freeze the roster on chain and return it with the members' signatures.

    Starting again returns the same roster.

    Raises
    ------
    QuorumError
        Too few members.
    ChainError
        The chain cannot be used, or refuses.
    """
    folder = NodeHome(home).task(task_id)
    terms, state = folder.terms, connector.task(task_id)
    if state.members < terms.min_contributors:
        raise QuorumError(
            f"the task has {state.members} members; it needs {terms.min_contributors}",
            hint="Admit more nodes: twopm task admit NAME.join.json",
        )
    if state.state == "open":
        connector.start_task(task_id)
    roster = collect_roster(folder, connector)
    deployment = deployment_of(load_settings(home).require_chain())
    roster.check(task_id, terms.digest, deployment.domain)
    write_atomically(folder.path / "roster.json", roster.to_bytes())
    return roster


def collect_roster(folder: TaskFolder, reader: ChainReader) -> Roster:
    """Return the members on chain with the signatures that were kept at admission.

    Raises
    ------
    ConfigError
        A member was admitted from another home.
    """
    members = []
    for entry in reader.members(folder.task_id):
        file = folder.path / "joins" / f"{entry.node}.json"
        if not file.exists():
            raise ConfigError(
                f"the signature of member {entry.node} is not in this home",
                hint="Run 'twopm task admit' with its join request here too.",
            )
        request = JoinRequest.from_bytes(file.read_bytes())
        members.append(
            Member(
                node=entry.node,
                samples=entry.samples,
                data_commitment=entry.data_commitment,
                sealing_key=entry.sealing_key,
                signature=request.membership.signature,
            )
        )
    return Roster(members=tuple(members))


def keep_key_deal(home: Path, task_id: str, dealt: DealtKey) -> Signed[KeyDeal]:
    """Keep the dealer's public statement, which names the key; the server needs no more.

    Raises
    ------
    KeyCeremonyError, SignatureError
        Not dealt by the first member, for this task and roster.
    RecordError
        Another deal is kept already.
    """
    folder = NodeHome(home).task(task_id)
    deployment = deployment_of(load_settings(home).require_chain())
    statement = check_deal(dealt.deal, task_id=task_id, roster=folder.roster, deployment=deployment)
    known = load_key_deal(folder)
    if known is not None and known.statement.key_id != statement.key_id:
        raise RecordError(
            f"key {known.statement.key_id} was dealt for this task already; "
            f"this deal is of {statement.key_id}",
            hint="Ask the first member which one the nodes accepted; remove the other.",
        )
    write_atomically(folder.path / KEY_DEAL_FILE, dealt.deal.to_bytes())
    return dealt.deal


def load_key_deal(folder: TaskFolder) -> Signed[KeyDeal] | None:
    """Return the public statement about the task's key, or None."""
    file = folder.path / KEY_DEAL_FILE
    if not file.exists():
        return None
    return signed_type(KeyDeal).from_bytes(file.read_bytes())

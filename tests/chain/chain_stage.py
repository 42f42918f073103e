"""A coordinator, some nodes and their tasks on a real chain, whatever chain it is."""

import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from twopm_flower.chain.base import ChainConnector, FinalRound, TaskState
from twopm_flower.errors import TransactionReverted
from twopm_flower.records.statements import (
    DataPublication,
    Departure,
    Domain,
    Membership,
    ModelStatement,
    Registration,
    sign,
)
from twopm_flower.signer.keystore import LocalSigner

FAR_FUTURE = 2**40


def digest(number: int) -> str:
    return f"0x{number:064x}"


@contextmanager
def refused(error_name):
    """Expect a refusal by the rule with this name."""
    with pytest.raises(TransactionReverted) as refusal:
        yield refusal
    assert refusal.value.error_name == error_name, str(refusal.value)


def new_node() -> LocalSigner:
    return LocalSigner(secrets.token_bytes(32))


def in_signing_order(nodes: list[LocalSigner]) -> list[LocalSigner]:
    return sorted(nodes, key=lambda node: int(node.address, 16))


@dataclass
class Stage:
    """Plays coordinator and nodes; `keys` remembers each node's sealing key."""

    connector: ChainConnector
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def node_domain(self) -> Domain:
        return self.connector.deployment().registry_domain

    @property
    def task_domain(self) -> Domain:
        return self.connector.deployment().domain

    def registration(self, node, *, sealing_key, nonce=0, deadline=FAR_FUTURE) -> str:
        statement = Registration(
            node=node.address, sealing_key=sealing_key, nonce=nonce, deadline=deadline
        )
        return sign(statement, node, self.node_domain).signature

    def register(self, node, sealing_key: str | None = None) -> str:
        key = sealing_key or digest(secrets.randbits(200) + 1)
        nonce = self.connector.registration_nonce(node.address)
        signature = self.registration(node, sealing_key=key, nonce=nonce)
        self.connector.register_node(node.address, key, FAR_FUTURE, signature)
        self.keys[node.address] = key
        return key

    def departure(self, node, *, nonce, deadline=FAR_FUTURE) -> str:
        statement = Departure(node=node.address, nonce=nonce, deadline=deadline)
        return sign(statement, node, self.node_domain).signature

    def depart(self, node):
        nonce = self.connector.registration_nonce(node.address)
        signature = self.departure(node, nonce=nonce)
        return self.connector.deregister_node(node.address, FAR_FUTURE, signature)

    def publication(self, node, version, **changes) -> dict:
        values = {"dataset": digest(50), "commitment": digest(500 + version), "samples": 20}
        statement = DataPublication(node=node.address, version=version, **values | changes)
        signed = sign(statement, node, self.connector.deployment().data_domain)
        return {**values, **changes, "version": version, "signature": signed.signature}

    def publish(self, node, version, **changes):
        values = self.publication(node, version, **changes)
        return self.connector.publish_data(node.address, **values)

    def registered_nodes(self, count: int) -> list[LocalSigner]:
        nodes = [new_node() for _ in range(count)]
        for node in nodes:
            self.register(node)
        return nodes

    def create(self, *, rounds=2, min_contributors=2, quorum=2, max_samples=1000) -> str:
        task_id, _ = self.connector.create_task(
            digest(77),
            rounds=rounds,
            min_contributors=min_contributors,
            quorum=quorum,
            max_samples=max_samples,
        )
        return task_id

    def membership(self, task_id, node, **changes) -> dict:
        terms = self.connector.task(task_id).terms_digest
        values = {
            "samples": 100,
            "data_commitment": digest(int(node.address, 16)),
            "sealing_key": self.keys.get(node.address, digest(5)),
        } | changes
        statement = Membership(task_id=task_id, terms_digest=terms, node=node.address, **values)
        return {**values, "signature": sign(statement, node, self.task_domain).signature}

    def join(self, task_id, node, **changes):
        values = self.membership(task_id, node, **changes)
        return self.connector.join_task(task_id, node.address, **values)

    def open_task(self, nodes, **terms) -> str:
        task_id = self.create(**terms)
        for node in nodes:
            self.join(task_id, node)
        return task_id

    def running_task(self, nodes, **terms) -> str:
        task_id = self.open_task(nodes, **terms)
        self.connector.start_task(task_id)
        return task_id

    def record(self, task_id, round_number, attempt=1):
        return self.connector.record_round(
            task_id, round_number, attempt, digest(1000 + round_number), digest(2000 + attempt)
        )

    def finished_rounds(self, nodes, **terms) -> str:
        task_id = self.running_task(nodes, **terms)
        for round_number in range(1, self.connector.task(task_id).rounds + 1):
            self.record(task_id, round_number)
        return task_id

    def last_record(self, task_id) -> FinalRound:
        records = self.connector.round_records(task_id)
        previous = records[-2].head if len(records) > 1 else digest(0)
        last = records[-1]
        return FinalRound(previous, last.attempt, last.manifest_digest, last.updates_root)

    def model_signature(self, task_id, node, /, **changes) -> str:
        records = self.connector.round_records(task_id)
        values = {
            "task_id": task_id,
            "round": records[-1].round,
            "manifest_digest": records[-1].manifest_digest,
            "model_digest": digest(7),
            "metrics_digest": digest(8),
        } | changes
        return sign(ModelStatement(**values), node, self.task_domain).signature

    def attest(self, task_id, nodes):
        signatures = {node.address: self.model_signature(task_id, node) for node in nodes}
        return self.connector.attest_model(
            task_id, self.last_record(task_id), digest(7), digest(8), signatures
        )

    def finalise(self, task_id, nodes):
        signatures = {node.address: self.model_signature(task_id, node) for node in nodes}
        return self.connector.finalise_task(
            task_id, self.last_record(task_id), digest(7), digest(8), signatures
        )

    def state(self, task_id) -> TaskState:
        return self.connector.task(task_id)

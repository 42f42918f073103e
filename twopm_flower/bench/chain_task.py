"""A task to record rounds of, with nodes that exist for a benchmark only."""

import secrets

from twopm_flower.chain.base import ChainConnector
from twopm_flower.records.statements import Membership, Registration, sign
from twopm_flower.signer.keystore import LocalSigner

FAR_FUTURE = 2**40


def digest(*numbers: int) -> str:
    """Return a digest that stands for these numbers."""
    value = 1
    for number in numbers:
        value = value * 2**40 + number + 1
    return f"0x{value:064x}"


def registered_nodes(connector: ChainConnector, count: int) -> dict[str, LocalSigner]:
    """Register nodes with fresh keys, and return them by their sealing key."""
    nodes = {}
    for _ in range(count):
        node, key = LocalSigner(secrets.token_bytes(32)), digest(secrets.randbits(200))
        statement = Registration(node=node.address, sealing_key=key, nonce=0, deadline=FAR_FUTURE)
        signed = sign(statement, node, connector.deployment().registry_domain)
        connector.register_node(node.address, key, FAR_FUTURE, signed.signature)
        nodes[key] = node
    return nodes


def running_task(connector: ChainConnector, nodes: dict[str, LocalSigner], rounds: int) -> str:
    """Create a task, let the nodes join it, and start it."""
    task_id, _ = connector.create_task(
        digest(rounds), rounds=rounds, min_contributors=2, quorum=2, max_samples=1
    )
    for key, node in nodes.items():
        statement = Membership(
            task_id=task_id,
            terms_digest=digest(rounds),
            node=node.address,
            samples=1,
            data_commitment=digest(1),
            sealing_key=key,
        )
        signed = sign(statement, node, connector.deployment().domain)
        connector.join_task(
            task_id,
            node.address,
            samples=1,
            data_commitment=digest(1),
            sealing_key=key,
            signature=signed.signature,
        )
    connector.start_task(task_id)
    return task_id

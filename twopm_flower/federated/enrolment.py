"""Enrolment in simulation: nodes make keys, join and get the shared key by messages.

On one machine there is no operator to run ``twopm node init`` for each node, so the server
relays what operators would hand over: cards, memberships, the roster and the sealed key.
Secrets stay in the nodes' homes all the same. A deployed node refuses these messages.
"""

import logging
import secrets
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tomli_w
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from twopm_flower.chain.backends import deployment_of
from twopm_flower.config import CONFIG_FILE, default_home, make_private_folder
from twopm_flower.errors import KeyCeremonyError, RecordError
from twopm_flower.federated import wire
from twopm_flower.federated.ceremony import (
    accept_key,
    check_roster,
    deal_key,
    membership,
    node_card,
)
from twopm_flower.federated.exchange import FloatArrays
from twopm_flower.federated.home import NodeHome, TaskFolder, write_atomically
from twopm_flower.federated.wire_fields import bytes_field, text_field
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.records.bundle import DealtKey, Deployment, NodeCard
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import Membership, Signed, signed_type
from twopm_flower.records.terms import TaskTerms, data_commitment
from twopm_flower.signer.keystore import create_key_file

log = logging.getLogger(__name__)
SIMULATION_KEY = "twopm-simulation"
DATASET_KEY = "dataset"
"""An app may describe its data in a ConfigRecord of this name, for the terms of a simulation."""


def simulated(node_config: Mapping[str, Any]) -> bool:
    """Tell whether this process plays a node of a simulation.

    True inside Flower's simulation engine, whose workers are Ray actors, and for nodes of
    :class:`~twopm_flower.federated.local.LocalGrid`; never for a deployed SuperNode, whose
    operator alone writes its node configuration.
    """
    if "twopm-home" in node_config:
        return False
    if node_config.get(SIMULATION_KEY):
        return True
    return "ray" in sys.modules and not NodeHome(default_home()).exists


def simulation_home(node_config: Mapping[str, Any], flower_node: int) -> NodeHome:
    """Return the home of one simulated node."""
    name = node_config.get("partition-id", flower_node)
    return NodeHome(default_home() / "simulation" / f"node-{name}")


def answer(
    content: RecordDict,
    home: NodeHome,
    *,
    run_config: dict[str, Any],
    app_bundle: str,
    run_app: Callable[[FloatArrays], RecordDict],
) -> RecordDict:
    """Answer one enrolment message on the node's side."""
    fields = content.config_records[wire.TWOPM]
    kind = wire.message_kind(content)
    if kind == "enrol":
        return _enrol(content, home, run_config=run_config, app_bundle=app_bundle, run_app=run_app)
    folder = home.task(text_field(fields, "task"))
    if kind == "join":
        return _join(fields, home, folder)
    if kind == "deal":
        return _store_roster(fields, home, folder)
    dealt = DealtKey.from_bytes(bytes_field(fields, "dealt"))
    key = accept_key(
        dealt,
        home.sealing_key,
        home.signer.address,
        task_id=folder.task_id,
        roster=folder.roster,
        deployment=_deployment(home),
    )
    if not (folder.path / "shared.key").exists():
        key.save(folder.path / "shared.key")
    return _reply({})


def _enrol(
    content: RecordDict,
    home: NodeHome,
    *,
    run_config: dict[str, Any],
    app_bundle: str,
    run_app: Callable[[FloatArrays], RecordDict],
) -> RecordDict:
    fields = content.config_records[wire.TWOPM]
    chain = parse_canonical(bytes_field(fields, "chain"), what="chain settings")
    deployment = Deployment.from_json({k: v for k, v in chain.items() if k != "rpc_url"})
    make_private_folder(home.path)
    write_atomically(home.path / CONFIG_FILE, tomli_w.dumps({"chain": chain}).encode())
    if not home.exists:
        node = home.settings.node
        create_key_file(
            home.path / node.identity_key,
            password_file=home.settings.in_home(node.identity_password_file),
        )
        SealingKey.create().save(home.path / home.settings.node.sealing_key)
    content_of_app = run_app(wire.initial_arrays(content))
    metrics = wire.reported_metrics(content_of_app)
    if wire.SAMPLES not in metrics:
        raise RecordError(
            f"the app reported no {wire.SAMPLES!r} in its MetricRecord",
            hint="Return the number of samples, as Flower's FedAvg needs it too.",
        )
    dataset = _dataset(content_of_app)
    kinds = {name: type(value).__name__ for name, value in metrics.items()}
    card = node_card(home.path.name, home.signer, home.sealing_key.public, deployment)
    return _reply(
        {
            "card": card.to_bytes(),
            "samples": int(metrics[wire.SAMPLES]),
            "metrics": canonical_bytes(kinds),
            "dataset": canonical_bytes(dataset),
            "run_config": canonical_bytes(run_config),
            "app_bundle": app_bundle,
        }
    )


def _dataset(content: RecordDict) -> dict[str, Any]:
    """Return what the app says of its data: a label, and whether they are made up."""
    said = content.config_records.get(DATASET_KEY, ConfigRecord())
    return {
        "label": str(said.get("label", "the app's own data"))[:100],
        "synthetic": said.get("synthetic") is True,
    }


def _join(fields: ConfigRecord, home: NodeHome, folder: TaskFolder) -> RecordDict:
    terms = TaskTerms.from_bytes(bytes_field(fields, "terms"))
    samples = parse_canonical(bytes_field(fields, "samples"), what="samples")
    own = int(samples[home.signer.address])
    salt_file = folder.path / "data.salt"
    if not salt_file.exists():
        write_atomically(salt_file, secrets.token_bytes(32), mode=0o600)
    signed = membership(
        home.signer,
        home.sealing_key.public,
        task_id=folder.task_id,
        terms=terms,
        samples=own,
        # The mod cannot see the app's rows: in simulation the commitment covers their number.
        data_commitment=data_commitment(salt_file.read_bytes(), own, b""),
        deployment=_deployment(home),
    )
    write_atomically(folder.path / "terms.json", terms.to_bytes())
    return _reply({"membership": signed.to_bytes()})


def _store_roster(fields: ConfigRecord, home: NodeHome, folder: TaskFolder) -> RecordDict:
    roster = Roster.from_bytes(bytes_field(fields, "roster"))
    cards = [
        NodeCard.from_json(value)
        for value in parse_canonical(bytes_field(fields, "cards"), what="cards")
    ]
    deployment = _deployment(home)
    for card in cards:
        card.registration.check(deployment.registry_domain)
        write_atomically(home.path / "peers" / f"{card.registration.node}.json", card.to_bytes())
    check_roster(
        roster,
        task_id=folder.task_id,
        terms=folder.terms,
        deployment=deployment,
        trusted=home.peers(),
        own=home.signer.address,
    )
    write_atomically(folder.path / "roster.json", roster.to_bytes())
    if folder.terms.trust_mode == "plaintext" or home.signer.address != roster.dealer.node:
        return _reply({"dealt": b""})
    dealt, key = deal_key(
        home.signer,
        task_id=folder.task_id,
        terms=folder.terms,
        roster=roster,
        deployment=deployment,
    )
    key.save(folder.path / "shared.key")
    return _reply({"dealt": dealt.to_bytes()})


def _deployment(home: NodeHome) -> Deployment:
    return deployment_of(home.settings.require_chain())


def _reply(fields: dict[str, Any]) -> RecordDict:
    content = RecordDict()
    content["metrics"] = MetricRecord({wire.SAMPLES: 1})
    content[wire.TWOPM] = ConfigRecord(fields)
    return content


def parse_membership(content: RecordDict) -> Signed[Membership]:
    """Return the signed membership of a join reply.

    Raises
    ------
    RecordError
        Not a membership.
    """
    fields = wire.reply_fields(content)
    return signed_type(Membership).from_bytes(bytes_field(fields, "membership"))


def parse_dealt(content: RecordDict) -> DealtKey | None:
    """Return the dealt key of a deal reply, or None from those who did not deal.

    Raises
    ------
    RecordError, KeyCeremonyError
        Not a deal.
    """
    data = bytes_field(wire.reply_fields(content), "dealt")
    if not data:
        return None
    try:
        return DealtKey.from_bytes(data)
    except RecordError as error:
        raise KeyCeremonyError(f"the dealer's answer is not a dealt key: {error}") from error

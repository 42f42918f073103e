"""A federation in this process: provisioned homes on a real embedded chain, the real mod and
strategy, and a grid that may lie."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result
from tiny_app import RUN_CONFIG, SAMPLES, TRAIN_CONFIG, initial_weights, tiny_app

from twopm_flower.chain.backends import LocalChain, backend, deployment_of
from twopm_flower.chain.base import ChainConnector, ChainReader
from twopm_flower.config import ChainSettings, load_settings
from twopm_flower.federated import EncryptedAggregation, LocalGrid, wire
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.federated.ceremony import (
    accept_key,
    deal_key,
    member_of,
    membership,
    node_card,
)
from twopm_flower.federated.home import NodeHome, TaskFolder
from twopm_flower.federated.progress import Progress
from twopm_flower.federated.run_store import RunStore
from twopm_flower.federated.terms import build_terms
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.records.bundle import DealtKey, Deployment, NodeCard, RunBundle
from twopm_flower.records.roster import Roster
from twopm_flower.records.terms import TaskTerms, data_commitment
from twopm_flower.signer.keystore import create_key_file

MAX_NODES = 5
IDENTITIES = 10
NOBODY = "http://127.0.0.1:9"
METRICS = {"correct": "int", "loss": "float", "num-examples": "int"}
Order = wire.Order
Deliver = Callable[[Message], Message | None]


@dataclass
class Stage:
    """One chain with our contracts and registered nodes, for many tasks."""

    devnet: LocalChain
    deployment: Deployment
    connector: ChainConnector
    identities: Path

    @classmethod
    def open(cls, folder: Path, family: str = "evm", *, identities: int = IDENTITIES) -> "Stage":
        kind = backend(family)
        devnet = kind.local_chain(folder / "chain").start()
        deployment = kind.deploy(devnet.url, devnet.signer)
        pinned = ChainSettings(rpc_url=devnet.url, **deployment.model_dump())
        connector = kind.open_connector(pinned, devnet.signer)
        stage = cls(devnet, deployment, connector, folder / "identities")
        for index in range(identities):
            stage._register(index)
        return stage

    def settings(self) -> ChainSettings:
        return ChainSettings(**self.chain_settings(), devnet_folder=self.devnet.folder)

    def reader(self) -> ChainReader:
        return backend(self.deployment.family).open_reader(self.settings())

    def offline(self) -> ChainReader | None:
        """Return a reader of the chain's files, which needs no process."""
        return backend(self.deployment.family).open_offline(self.settings())

    def card(self, index: int) -> NodeCard:
        home = NodeHome(self.identities / f"node-{index}")
        return node_card(f"node-{index}", home.signer, home.sealing_key.public, self.deployment)

    def chain_settings(self) -> dict[str, Any]:
        return {"rpc_url": self.devnet.url, **self.deployment.to_json()}

    def _register(self, index: int) -> None:
        folder = self.identities / f"node-{index}"
        folder.mkdir(parents=True)
        create_key_file(folder / "identity.key")
        SealingKey.create().save(folder / "sealing.key")
        signed = self.card(index).registration
        statement = signed.statement
        self.connector.register_node(
            signed.node, statement.sealing_key, statement.deadline, signed.signature
        )


@dataclass
class Node:
    """One node's home and what the tests want to know of it."""

    index: int
    home: NodeHome
    task_id: str

    @property
    def address(self) -> str:
        return self.home.signer.address

    @property
    def folder(self) -> TaskFolder:
        return self.home.task(self.task_id)

    @property
    def progress(self) -> Progress:
        return self.folder.load_progress()

    def model(self, round_: int) -> dict[str, np.ndarray]:
        return self.folder.load_model(round_)

    def model_rounds(self) -> set[int]:
        files = self.folder.path.glob("model-*.safetensors")
        return {int(file.stem.removeprefix("model-")) for file in files}

    def configure(self, **node_settings: Any) -> None:
        chain = load_settings(self.home.path).require_chain().model_dump(exclude_none=True)
        write_config(self.home.path, chain, node=node_settings)

    def lose_the_chain(self) -> None:
        """Point the node at an endpoint where nobody answers."""
        chain = load_settings(self.home.path).require_chain().model_dump(exclude_none=True)
        write_config(self.home.path, {**chain, "rpc_url": NOBODY, "timeout_s": 0.5})


@dataclass
class Federation:
    """A coordinator and nodes in homes of their own, with a task that is ready to run."""

    stage: Stage
    coordinator: Path
    nodes: list[Node]
    terms: TaskTerms
    roster: Roster
    task_id: str
    initial: dict[str, np.ndarray]
    dealt: DealtKey | None
    grid: "LyingGrid | None" = None
    coordinator_settings: dict[str, Any] = field(default_factory=dict)

    def make_grid(self, app: ClientApp | None = None, *, run_config: Any = None) -> "LyingGrid":
        configs = [
            {
                "partition-id": node.index,
                "num-partitions": len(self.nodes),
                "twopm-home": str(node.home.path),
            }
            for node in self.nodes
        ]
        self.grid = LyingGrid(
            app or tiny_app(),
            configs,
            dict(self.terms.run_config) if run_config is None else run_config,
        )
        return self.grid

    def run(
        self,
        app: ClientApp | None = None,
        *,
        grid: LocalGrid | None = None,
        base: FedAvg | None = None,
        callbacks: Sequence[Any] = (),
        **settings: Any,
    ) -> Result:
        """Run the task to its end; `settings` are the coordinator's."""
        defaults = {"nodes_wait_s": 1.0, "anchor_wait_s": 30.0}
        write_config(
            self.coordinator, self.stage.chain_settings(), coordinator={**defaults, **settings}
        )
        strategy = EncryptedAggregation(
            base or FedAvg(),
            task=self.task_id,
            home=self.coordinator,
            callbacks=callbacks,
        )
        config = {k: v for k, v in self.terms.train_config.items() if k != "proximal-mu"}
        return strategy.start(
            grid=grid or self.grid or self.make_grid(app),
            initial_arrays=ArrayRecord({n: Array(v) for n, v in self.initial.items()}),
            num_rounds=self.terms.rounds,
            train_config=ConfigRecord(config),
        )

    @property
    def store(self) -> RunStore:
        return RunStore(self.coordinator / "runs" / self.task_id)

    def bundle(self) -> RunBundle:
        return self.store.load_bundle()


def federation(
    stage: Stage,
    folder: Path,
    *,
    nodes: int = 4,
    rounds: int = 2,
    clip: float = 4.0,
    min_contributors: int = 3,
    quorum: int | None = None,
    trust_mode: str = "shared-key",
    proximal_mu: float | None = None,
    colluders: int = 1,
    room: int = MAX_NODES,
) -> Federation:
    """Provision everything that operators provision, without their command line."""
    initial = initial_weights()
    mu = {} if proximal_mu is None else {"proximal-mu": proximal_mu}
    terms = build_terms(
        initial,
        title="tiny",
        rounds=rounds,
        trust_mode=trust_mode,
        clip=clip,
        min_contributors=min_contributors,
        quorum=min_contributors if quorum is None else quorum,
        max_samples=max(SAMPLES),
        max_nodes=max(room, nodes),
        train_metrics=METRICS,
        evaluation_metrics=METRICS,
        train_config={**TRAIN_CONFIG, **mu},
        evaluate_config={},
        run_config=RUN_CONFIG,
        app_bundle=app_bundle_digest(None),
        dataset={"app": "tiny"},
        colluders=colluders,
    )
    return provision(stage, folder, terms, initial, SAMPLES[:nodes])


def provision(
    stage: Stage,
    folder: Path,
    terms: TaskTerms,
    initial: dict[str, np.ndarray],
    samples: Sequence[int],
) -> Federation:
    """Create a task on chain, have nodes join it, deal the key and write every home."""
    connector = stage.connector
    task_id, _ = connector.create_task(
        terms.digest,
        rounds=terms.rounds,
        min_contributors=terms.min_contributors,
        quorum=terms.quorum,
        max_samples=terms.max_samples,
    )
    nodes, members = [], []
    for index, count in enumerate(samples):
        home = NodeHome(folder / f"node-{index}")
        shutil.copytree(stage.identities / f"node-{index}", home.path)
        write_config(home.path, stage.chain_settings())
        signed = membership(
            home.signer,
            home.sealing_key.public,
            task_id=task_id,
            terms=terms,
            samples=count,
            data_commitment=data_commitment(bytes(32), count, b""),
            deployment=stage.deployment,
        )
        connector.join_task(
            task_id,
            signed.node,
            samples=count,
            data_commitment=signed.statement.data_commitment,
            sealing_key=signed.statement.sealing_key,
            signature=signed.signature,
        )
        members.append(member_of(signed))
        nodes.append(Node(index, home, task_id))
    connector.start_task(task_id)
    roster = Roster(members=tuple(members))
    dealt = None
    coordinator = folder / "coordinator"
    if terms.trust_mode != "plaintext":
        dealt, _ = deal_key(
            nodes[0].home.signer,
            task_id=task_id,
            terms=terms,
            roster=roster,
            deployment=stage.deployment,
        )
    for path in (coordinator, *(node.home.path for node in nodes)):
        task = path / "tasks" / task_id
        task.mkdir(parents=True)
        (task / "terms.json").write_bytes(terms.to_bytes())
        (task / "roster.json").write_bytes(roster.to_bytes())
    for node in nodes:
        (node.home.path / "peers").mkdir()
        for peer in nodes:
            card = stage.card(peer.index)
            (node.home.path / "peers" / f"{peer.address}.json").write_bytes(card.to_bytes())
        if dealt is not None:
            accept_key(
                dealt,
                node.home.sealing_key,
                node.address,
                task_id=task_id,
                roster=roster,
                deployment=stage.deployment,
            ).save(node.folder.path / "shared.key")
    if dealt is not None:
        (coordinator / "tasks" / task_id / "key-deal.json").write_bytes(dealt.deal.to_bytes())
    shutil.copy(stage.devnet.folder / "account.key", coordinator / "coordinator.key")
    write_config(coordinator, stage.chain_settings())
    assert deployment_of(load_settings(coordinator).require_chain()) == stage.deployment
    return Federation(stage, coordinator, nodes, terms, roster, task_id, initial, dealt)


def write_config(home: Path, chain: dict[str, Any], **sections: Any) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(tomli_w.dumps({"chain": chain, **sections}))


class LyingGrid(LocalGrid):
    """A local grid that shows every message to the lies told on the way, and keeps a copy.

    ``orders`` get (order, node index) and return what the node is shown instead; ``messages``
    wrap the whole delivery: (deliver, message, node index) to a reply, or None for silence.
    """

    def __init__(self, app: ClientApp, configs: Sequence[Any], run_config: Any) -> None:
        super().__init__(app, configs, run_config)
        self.orders: list[Callable[[Order, int], Order]] = []
        self.messages: list[Callable[[Deliver, Message, int], Message | None]] = []
        self.sent: list[tuple[int, RecordDict]] = []
        self.replied: list[tuple[int, Message | None]] = []

    def node_index(self, message: Message) -> int:
        return int(self.contexts[message.metadata.dst_node_id].node_config["partition-id"])

    def deliver(self, message: Message) -> Message | None:
        index = self.node_index(message)
        order = wire.parse_order(message.content)
        for lie in self.orders:
            order = lie(order, index)
        message.content = wire.order_content(order, arrays_key="arrays", config_key="config")
        deliver: Deliver = super().deliver
        for wrap in self.messages:
            deliver = wrapped(wrap, deliver, index)
        self.sent.append((index, message.content))
        reply = deliver(message)
        self.replied.append((index, reply))
        return reply


def wrapped(
    wrap: Callable[[Deliver, Message, int], Message | None], inner: Deliver, index: int
) -> Deliver:
    return lambda message: wrap(inner, message, index)


def tell(order: Order, **changes: Any) -> Order:
    """Return an order with some fields changed."""
    return replace(order, **changes)

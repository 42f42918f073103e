"""Before the first round: load a task that operators prepared, or make one in simulation."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from twopm_flower.chain.base import ChainConnector
from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.chain.evm import EvmConnector, deploy
from twopm_flower.chain.outbox import Outbox
from twopm_flower.config import Settings
from twopm_flower.errors import ConfigError, QuorumError
from twopm_flower.federated import enrolment, wire
from twopm_flower.federated.app_bundle import app_bundle_digest, running_app_folder
from twopm_flower.federated.callbacks import ChainRecorder
from twopm_flower.federated.ceremony import check_deal, key_id_of, member_of
from twopm_flower.federated.chain_access import deployment_of, on_chain, open_connector
from twopm_flower.federated.exchange import FloatArrays
from twopm_flower.federated.home import TaskFolder
from twopm_flower.federated.task import TaskContext
from twopm_flower.federated.terms import automatic_terms
from twopm_flower.records.bundle import DealtKey, Deployment, NodeCard
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.fields import checksum_address
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import KeyDeal, Signed, signed_type
from twopm_flower.records.terms import TaskTerms, TrustMode

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulationOptions:
    """Terms of a task that is made on the spot.

    Attributes
    ----------
    trust_mode : str
        ``shared-key``, or ``plaintext`` for comparison.
    clip : float
        Largest absolute change of one weight in one round.
    min_contributors : int
        Fewest updates in a sum.
    enrol_timeout_s : float
        Bound of each enrolment exchange, in seconds.
    """

    trust_mode: TrustMode = "shared-key"
    clip: float = 1.0
    min_contributors: int = 3
    enrol_timeout_s: float = 180.0


@dataclass
class PreparedRun:
    """A task that is ready for its first round."""

    task: TaskContext
    deployment: Deployment
    key_deal: Signed[KeyDeal] | None
    connector: ChainConnector
    run_config: dict[str, Any]
    runs_folder: Path
    _closers: list[Callable[[], None]] = field(default_factory=list)

    def recorder(self, outbox: Path, settings: Settings) -> ChainRecorder:
        """Return the callback that records this run."""
        return ChainRecorder(
            Outbox(outbox),
            self.connector,
            max_unrecorded_rounds=settings.coordinator.max_unrecorded_rounds,
            anchor_wait_s=settings.coordinator.anchor_wait_s,
        )

    def close(self) -> None:
        """Stop what was started for this run alone."""
        for closer in reversed(self._closers):
            closer()


def prepare(
    grid: Grid,
    *,
    settings: Settings,
    task: str | None,
    initial: FloatArrays,
    rounds: int,
    train_config: dict[str, Any],
    evaluate_config: dict[str, Any],
    options: SimulationOptions,
) -> PreparedRun:
    """Return a task that is ready to run.

    Raises
    ------
    ConfigError
        The named task was not prepared here, or differs from what the app wants to run.
    QuorumError
        In simulation: too few nodes enrol.
    """
    if task is not None:
        return _load(settings, task, initial, rounds, train_config, evaluate_config)
    return _Enrolment(grid, settings, options).run(initial, rounds, train_config, evaluate_config)


def _load(
    settings: Settings,
    task_id: str,
    initial: FloatArrays,
    rounds: int,
    train_config: dict[str, Any],
    evaluate_config: dict[str, Any],
) -> PreparedRun:
    folder = TaskFolder(settings.home / "tasks" / task_id)
    chain = settings.require_chain()
    deployment = deployment_of(chain)
    terms, roster = folder.terms, folder.roster
    roster.check(task_id, terms.digest, deployment.domain)
    key_deal = _load_deal(folder, deployment)
    context = TaskContext(
        task_id=task_id,
        domain=deployment.domain,
        terms=terms,
        roster=roster,
        key_id=key_id_of(terms, key_deal),
    )
    wanted = {
        "rounds": rounds,
        "train_config": train_config,
        "evaluate_config": evaluate_config,
        "initial_model": context.model_digest(initial),
        "app_bundle": app_bundle_digest(running_app_folder()),
    }
    for name, value in wanted.items():
        if getattr(terms, name) != value:
            raise ConfigError(
                f"the app wants {name} {value}, task {task_id} was created with "
                f"{getattr(terms, name)}",
                hint="Create a task for this app: twopm task create.",
            )
    return PreparedRun(
        task=context,
        deployment=deployment,
        key_deal=key_deal,
        connector=open_connector(chain, settings.home / settings.coordinator.key),
        run_config=terms.run_config,
        runs_folder=settings.home / "runs",
    )


def _load_deal(folder: TaskFolder, deployment: Deployment) -> Signed[KeyDeal] | None:
    file = folder.path / "key-deal.json"
    if not file.exists():
        return None
    signed = signed_type(KeyDeal).from_bytes(file.read_bytes())
    check_deal(signed, task_id=folder.task_id, roster=folder.roster, deployment=deployment)
    return signed


class _Enrolment:
    """Makes a task with all connected nodes, on an embedded chain of this machine's own."""

    def __init__(self, grid: Grid, settings: Settings, options: SimulationOptions) -> None:
        self._grid = grid
        self._options = options
        self._folder = settings.home / "simulation"
        self._runs = settings.home / "runs"

    def run(
        self,
        initial: FloatArrays,
        rounds: int,
        train_config: dict[str, Any],
        evaluate_config: dict[str, Any],
    ) -> PreparedRun:
        log.warning("ALL ROLES ON ONE MACHINE: keys, nodes and chain of this run are simulated")
        devnet = DevnetProcess(self._folder / "chain").start()
        try:
            return self._run(devnet, initial, rounds, train_config, evaluate_config)
        except BaseException:
            devnet.stop()
            raise

    def _run(
        self,
        devnet: DevnetProcess,
        initial: FloatArrays,
        rounds: int,
        train_config: dict[str, Any],
        evaluate_config: dict[str, Any],
    ) -> PreparedRun:
        deployment = self._deployment(devnet)
        connector = EvmConnector(devnet.url, on_chain(deployment), devnet.signer)
        trained = self._ask(
            "enrol",
            {"chain": _chain_fields(devnet, deployment)},
            initial,
            {**train_config, "server-round": 1},
        )
        evaluated = self._ask(
            "enrol",
            {"chain": _chain_fields(devnet, deployment)},
            initial,
            {**evaluate_config, "server-round": 1},
            MessageType.EVALUATE,
        )
        cards = {node: _card(content, deployment) for node, content in trained.items()}
        samples = {
            cards[node].registration.node: wire.integer_field(
                content.config_records[wire.TWOPM], "samples"
            )
            for node, content in trained.items()
        }
        run_config = _same(trained, "run_config")
        terms = automatic_terms(
            initial,
            rounds=rounds,
            samples=tuple(samples.values()),
            train_metrics=_same(trained, "metrics"),
            evaluation_metrics=_same(evaluated, "metrics"),
            train_config=train_config,
            evaluate_config=evaluate_config,
            run_config=run_config,
            app_bundle=_same_text(trained, "app_bundle"),
            trust_mode=self._options.trust_mode,
            clip=self._options.clip,
            min_contributors=self._options.min_contributors,
        )
        task_id, roster = self._join(connector, terms, cards, samples, initial)
        key_deal = self._deal(task_id, terms, roster, cards, deployment, initial)
        context = TaskContext(
            task_id=task_id,
            domain=deployment.domain,
            terms=terms,
            roster=roster,
            key_id=key_id_of(terms, key_deal),
        )
        return PreparedRun(
            task=context,
            deployment=deployment,
            key_deal=key_deal,
            connector=connector,
            run_config=run_config,
            runs_folder=self._runs,
            _closers=[devnet.stop],
        )

    def _deployment(self, devnet: DevnetProcess) -> Deployment:
        file = self._folder / "deployment.json"
        if file.exists():
            deployment = Deployment.from_bytes(file.read_bytes())
            if deployment.chain_id == devnet.chain_id:
                return deployment
        placed = deploy(devnet.url, devnet.signer)
        deployment = Deployment(
            chain_id=placed.chain_id,
            genesis_hash=placed.genesis_hash,
            node_registry=checksum_address(placed.node_registry),
            task_registry=checksum_address(placed.task_registry),
        )
        file.write_bytes(deployment.to_bytes())
        return deployment

    def _join(
        self,
        connector: EvmConnector,
        terms: TaskTerms,
        cards: dict[int, NodeCard],
        samples: dict[str, int],
        initial: FloatArrays,
    ) -> tuple[str, Roster]:
        task_id, _ = connector.create_task(
            terms.digest,
            rounds=terms.rounds,
            min_contributors=terms.min_contributors,
            quorum=terms.quorum,
            max_samples=terms.max_samples,
        )
        replies = self._ask(
            "join",
            {"task": task_id, "terms": terms.to_bytes(), "samples": canonical_bytes(samples)},
            initial,
            {},
        )
        members = []
        for node in sorted(replies, key=lambda n: cards[n].registration.node.lower()):
            registration = cards[node].registration
            signed = enrolment.parse_membership(replies[node])
            statement = signed.statement
            if connector.registered_key(statement.node) != statement.sealing_key:
                connector.register_node(
                    registration.node,
                    registration.statement.sealing_key,
                    registration.statement.deadline,
                    registration.signature,
                )
            connector.join_task(
                task_id,
                statement.node,
                samples=statement.samples,
                data_commitment=statement.data_commitment,
                sealing_key=statement.sealing_key,
                signature=signed.signature,
            )
            members.append(member_of(signed))
        connector.start_task(task_id)
        return task_id, Roster(members=tuple(members))

    def _deal(
        self,
        task_id: str,
        terms: TaskTerms,
        roster: Roster,
        cards: dict[int, NodeCard],
        deployment: Deployment,
        initial: FloatArrays,
    ) -> Signed[KeyDeal] | None:
        all_cards = canonical_bytes([card.to_json() for card in cards.values()])
        fields = {"task": task_id, "roster": roster.to_bytes(), "cards": all_cards}
        replies = self._ask("deal", fields, initial, {})
        deals: list[DealtKey] = []
        for content in replies.values():
            dealt = enrolment.parse_dealt(content)
            if dealt is not None:
                deals.append(dealt)
        if terms.trust_mode == "plaintext":
            return None
        if len(deals) != 1:
            raise QuorumError(f"{len(deals)} nodes dealt a key, exactly one has to")
        check_deal(deals[0].deal, task_id=task_id, roster=roster, deployment=deployment)
        self._ask("accept", {"task": task_id, "dealt": deals[0].to_bytes()}, initial, {})
        return deals[0].deal

    def _ask(
        self,
        kind: str,
        fields: dict[str, Any],
        initial: FloatArrays,
        config: dict[str, Any],
        message_type: str = MessageType.TRAIN,
    ) -> dict[int, RecordDict]:
        content = RecordDict()
        content["arrays"] = ArrayRecord(wire.flower_arrays(initial))
        content["config"] = ConfigRecord(config)
        content[wire.TWOPM] = ConfigRecord({"kind": kind, **fields})
        nodes = list(self._grid.get_node_ids())
        messages = [Message(content, dst_node_id=n, message_type=message_type) for n in nodes]
        answers: dict[int, RecordDict] = {}
        for reply in self._grid.send_and_receive(messages, timeout=self._options.enrol_timeout_s):
            node = reply.metadata.src_node_id
            if reply.has_error():
                raise QuorumError(f"node {node} does not enrol: {reply.error.reason}")
            answers[node] = reply.content
        if len(answers) < max(self._options.min_contributors, len(nodes)):
            raise QuorumError(
                f"{len(answers)} of {len(nodes)} nodes answered the enrolment, "
                f"{self._options.min_contributors} are needed",
                hint="Simulate more: --federation-config 'num-supernodes=3'.",
            )
        return answers


def _chain_fields(devnet: DevnetProcess, deployment: Deployment) -> bytes:
    return canonical_bytes({**deployment.to_json(), "rpc_url": devnet.url})


def _card(content: RecordDict, deployment: Deployment) -> NodeCard:
    fields = content.config_records[wire.TWOPM]
    card = NodeCard.from_bytes(wire.bytes_field(fields, "card"))
    card.registration.check(deployment.registry_domain)
    return card


def _same(replies: dict[int, RecordDict], name: str) -> dict[str, Any]:
    values = {wire.bytes_field(r.config_records[wire.TWOPM], name) for r in replies.values()}
    if len(values) != 1:
        raise QuorumError(f"the nodes disagree about {name}: {sorted(values)}")
    value: dict[str, Any] = parse_canonical(values.pop(), what=name)
    return value


def _same_text(replies: dict[int, RecordDict], name: str) -> str:
    values = {wire.text_field(r.config_records[wire.TWOPM], name) for r in replies.values()}
    if len(values) != 1:
        raise QuorumError(f"the nodes disagree about {name}: {sorted(values)}")
    return values.pop()

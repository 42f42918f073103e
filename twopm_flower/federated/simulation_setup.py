"""Makes a task on the spot: all roles on this machine, on an embedded chain of its own."""

import logging
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from twopm_flower.chain.backends import LocalChain, backend
from twopm_flower.chain.base import ChainConnector, Joining
from twopm_flower.config import ChainSettings, Settings
from twopm_flower.errors import QuorumError, RecordError
from twopm_flower.federated import enrolment, wire
from twopm_flower.federated.ceremony import check_deal, key_id_of, member_of
from twopm_flower.federated.exchange import Arrays
from twopm_flower.federated.prepared import PreparedRun, SimulationOptions
from twopm_flower.federated.task import TaskContext
from twopm_flower.federated.terms import automatic_terms
from twopm_flower.federated.wire_fields import bytes_field, integer_field, text_field
from twopm_flower.records.bundle import DealtKey, Deployment, NodeCard
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.printable import printable
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import KeyDeal, Signed
from twopm_flower.records.terms import TaskTerms

log = logging.getLogger(__name__)


class SimulationSetup:
    """Makes a task with all connected nodes, on an embedded chain of this machine's own."""

    def __init__(self, grid: Grid, settings: Settings, options: SimulationOptions) -> None:
        self._grid = grid
        self._options = options
        self._backend = backend("evm")
        self._folder = settings.home / "simulation"
        self._runs = settings.home / "runs"

    def run(
        self,
        *,
        initial: Arrays,
        rounds: int,
        train_config: dict[str, Any],
        evaluate_config: dict[str, Any],
    ) -> PreparedRun:
        """Enrol all connected nodes and start a task with them.

        Raises
        ------
        QuorumError
            Too few nodes, or they disagree about the app or its configuration.
        """
        log.warning("ALL ROLES ON ONE MACHINE: keys, nodes and chain of this run are simulated")
        devnet = self._backend.local_chain(self._folder / "chain").start()
        try:
            return self._run(devnet, initial, rounds, train_config, evaluate_config)
        except BaseException:
            devnet.stop()
            raise

    def _run(
        self,
        devnet: LocalChain,
        initial: Arrays,
        rounds: int,
        train_config: dict[str, Any],
        evaluate_config: dict[str, Any],
    ) -> PreparedRun:
        deployment = self._deployment(devnet)
        chain = ChainSettings(rpc_url=devnet.url, **deployment.model_dump())
        connector = self._backend.open_connector(chain, devnet.signer)
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
            cards[node].registration.node: integer_field(wire.reply_fields(content), "samples")
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
            dataset=_same(trained, "dataset"),
            min_contributors=self._options.min_contributors,
            colluders=self._options.colluders,
            excluded=self._options.excluded,
        )
        task_id, roster = self._join(connector, terms, cards, samples, initial)
        _warn_of_minority(terms.quorum, len(roster.members))
        key_deal = self._deal(
            task_id=task_id,
            terms=terms,
            roster=roster,
            cards=cards,
            deployment=deployment,
            initial=initial,
        )
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

    def _deployment(self, devnet: LocalChain) -> Deployment:
        file = self._folder / "deployment.json"
        if file.exists():
            try:
                deployment = Deployment.from_bytes(file.read_bytes())
            except RecordError:
                # Written by another version, whose contracts are not these.
                deployment = None
            if deployment is not None and deployment.chain_id == devnet.chain_id:
                return deployment
        deployment = self._backend.deploy(devnet.url, devnet.signer)
        file.write_bytes(deployment.to_bytes())
        return deployment

    def _join(
        self,
        connector: ChainConnector,
        terms: TaskTerms,
        cards: dict[int, NodeCard],
        samples: dict[str, int],
        initial: Arrays,
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
        members, joinings = [], []
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
            joinings.append(
                Joining(
                    node=statement.node,
                    samples=statement.samples,
                    data_commitment=statement.data_commitment,
                    sealing_key=statement.sealing_key,
                    signature=signed.signature,
                )
            )
            members.append(member_of(signed))
        connector.admit(task_id, joinings)
        connector.start_task(task_id)
        return task_id, Roster(members=tuple(members))

    def _deal(
        self,
        *,
        task_id: str,
        terms: TaskTerms,
        roster: Roster,
        cards: dict[int, NodeCard],
        deployment: Deployment,
        initial: Arrays,
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
        initial: Arrays,
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
                raise QuorumError(f"node {node} does not enrol: {printable(reply.error.reason)}")
            answers[node] = reply.content
        if len(answers) < max(self._options.min_contributors, len(nodes)):
            raise QuorumError(
                f"{len(answers)} of {len(nodes)} nodes answered the enrolment, "
                f"{self._options.min_contributors} are needed",
                hint="Simulate more: --federation-config 'num-supernodes=3'.",
            )
        return answers


def _warn_of_minority(quorum: int, members: int) -> None:
    if 2 * quorum <= members:
        log.warning(
            "a quorum of %d is no majority of %d nodes: models that others signed can be left "
            "out unseen; set min-contributors to %d or more",
            quorum,
            members,
            members // 2 + 1,
        )


def _chain_fields(devnet: LocalChain, deployment: Deployment) -> bytes:
    return canonical_bytes({**deployment.to_json(), "rpc_url": devnet.url})


def _card(content: RecordDict, deployment: Deployment) -> NodeCard:
    fields = wire.reply_fields(content)
    card = NodeCard.from_bytes(bytes_field(fields, "card"))
    card.registration.check(deployment.registry_domain)
    return card


def _same(replies: dict[int, RecordDict], name: str) -> dict[str, Any]:
    values = {bytes_field(wire.reply_fields(r), name) for r in replies.values()}
    if len(values) != 1:
        raise QuorumError(f"the nodes disagree about {name}: {sorted(values)}")
    value: dict[str, Any] = parse_canonical(values.pop(), what=name)
    return value


def _same_text(replies: dict[int, RecordDict], name: str) -> str:
    values = {text_field(wire.reply_fields(r), name) for r in replies.values()}
    if len(values) != 1:
        raise QuorumError(f"the nodes disagree about {name}: {sorted(values)}")
    return values.pop()

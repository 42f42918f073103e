"""The task that simulated runs are of: nodes with real keys, terms, roster, key deal."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from memory_chain import MemoryChain, word

from twopm_flower.chain.base import Member as ChainMember
from twopm_flower.chain.base import TaskState
from twopm_flower.privacy.binding import ZERO_NODE, FrameContext
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.roster import Member, Roster
from twopm_flower.records.statements import KeyDeal, Membership, sign
from twopm_flower.records.terms import ArrayTerm, MetricTerm, TaskTerms
from twopm_flower.signer.keystore import LocalSigner


@dataclass
class SimulatedNode:
    """One node: its keys and its rows."""

    signer: LocalSigner
    sealing: SealingKey
    samples: int

    @property
    def address(self):
        return self.signer.address


METRICS = (
    MetricTerm(name="correct", scale=1, maximum=1000.0),
    MetricTerm(name="rows", scale=1, maximum=1000.0),
    MetricTerm(name="loss", scale=1000, maximum=2000.0, weighted=True),
)
BACKENDS = {"plaintext": "plaintext", "shared-key": "bfv", "one-time-key": "one-time-key"}
ARRAYS = (ArrayTerm(name="weight", shape=(1, 3)), ArrayTerm(name="bias", shape=(1,)))


class SimulatedTask:
    """A task whose roster is frozen, before its first round."""

    def __init__(self, *, nodes, planned, trust_mode, colluders, dealer, room, max_samples):
        self.dealer = dealer
        self.nodes = [
            SimulatedNode(
                LocalSigner(bytes([1 + number]) * 32),
                SealingKey(X25519PrivateKey.from_private_bytes(bytes([101 + number]) * 32)),
                50 + 10 * number,
            )
            for number in range(nodes)
        ]
        self.deployment = Deployment(
            chain_id=2_718_281_828,
            genesis_hash=word("genesis"),
            node_registry="0x" + "00" * 19 + "11",
            data_registry="0x" + "00" * 19 + "44",
            receipt_registry="0x" + "00" * 19 + "55",
            task_registry="0x" + "00" * 19 + "22",
        )
        self.task_id = word("task")
        self.parameters = AdditiveParameters.derive(BACKENDS[trust_mode], max_nodes=room)
        self.layout = Layout(
            tuple((array.name, array.shape) for array in ARRAYS),
            tuple(Metric(m.name, m.scale, m.maximum) for m in METRICS),
        )
        self.terms = TaskTerms(
            title="Simulated",
            trust_mode=trust_mode,
            rounds=planned,
            min_contributors=3,
            quorum=2,
            colluders=colluders,
            max_samples=max_samples,
            clip=1.0,
            parameters=self.parameters.to_dict(),
            parameters_id=self.parameters.identifier,
            arrays=ARRAYS,
            train_metrics=METRICS,
            evaluation_metrics=METRICS,
            layout_digest=self.layout.digest,
            initial_model=word("model 0"),
            train_config={"lr": 0.1, "epochs": 2},
            evaluate_config={},
            run_config={"setup": "A"},
            app_bundle=word("app"),
            dataset={"name": "simulated", "real": False},
        )
        self.roster = Roster(members=tuple(self._member(node) for node in self.nodes))
        self.key_id = ZERO_DIGEST if trust_mode == "plaintext" else word("key")

    @property
    def domain(self):
        return self.deployment.domain

    def frame(self, number, attempt, node=ZERO_NODE):
        return FrameContext(
            task_id=self.task_id,
            round=number,
            attempt=attempt,
            node=node,
            key_id=self.key_id,
            parameters_id=self.terms.parameters_id,
            layout_digest=self.terms.layout_digest,
        )

    def _member(self, node):
        statement = Membership(
            task_id=self.task_id,
            terms_digest=self.terms.digest,
            node=node.address,
            samples=node.samples,
            data_commitment=word(f"data of {node.address}"),
            sealing_key=node.sealing.public,
        )
        signed = sign(statement, node.signer, self.domain)
        return Member(
            node=node.address,
            samples=node.samples,
            data_commitment=statement.data_commitment,
            sealing_key=statement.sealing_key,
            signature=signed.signature,
        )

    def key_deal(self):
        if self.terms.trust_mode == "plaintext":
            return None
        dealer = self.nodes[self.dealer]
        statement = KeyDeal(
            task_id=self.task_id,
            node=dealer.address,
            roster_digest=self.roster.digest,
            key_id=self.key_id,
            boxes_digest=word("boxes"),
        )
        return sign(statement, dealer.signer, self.domain)

    def empty_chain(self):
        return MemoryChain(
            pinned=self.deployment,
            state=TaskState(
                task_id=self.task_id,
                coordinator="0x" + "00" * 19 + "33",
                terms_digest=self.terms.digest,
                state="running",
                rounds=self.terms.rounds,
                last_round=0,
                last_attempt=0,
                head=ZERO_DIGEST,
                roster_digest=self.roster.digest,
                members=len(self.roster.members),
                min_contributors=self.terms.min_contributors,
                quorum=self.terms.quorum,
                max_samples=self.terms.max_samples,
                model_digest=None,
            ),
            roster=tuple(
                ChainMember(m.node, m.samples, m.data_commitment, m.sealing_key, index)
                for index, m in enumerate(self.roster.members)
            ),
        )

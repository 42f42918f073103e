"""Whatever is tried in whatever order: every chain allows and refuses the same, and ends up the
same, as the ledger's rules."""

from dataclasses import replace

import pytest
from chain_stage import FAR_FUTURE, Stage, digest, new_node
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_chains import open_chain

from twopm_flower.chain.base import FinalRound
from twopm_flower.errors import ChainError, RecordConflict, TransactionReverted

NODES, TASKS = 3, 2

# Where several rules refuse at once, these chains name the same one first.
IN_THE_CONTRACTS_ORDER = {"evm", "anvil", "ledger", "paper"}
REASONS = {
    *("AlreadyAnchored", "AlreadyMember", "BadTerms", "EmptyBatch", "HeadMismatch"),
    *("NotCoordinator", "NotMember", "NotRegistered", "OutOfOrder", "QuorumMissed"),
    *("RoundsMissing", "SamplesOutOfRange", "SealingKeyMismatch", "SignersNotIncreasing"),
    *("TooFewMembers", "TooManyRounds", "UnknownTask", "WrongSigner", "WrongState"),
    *("WrongVersion", "ZeroDigest", "ZeroSamples", "ZeroSealingKey"),
}
node = st.integers(0, NODES - 1)
task = st.integers(0, TASKS)
caller = st.sampled_from(["owner"] * 7 + ["stranger"])
honest = st.sampled_from([True] * 7 + [False])
signing = st.sets(node, max_size=NODES)

actions = st.one_of(
    st.tuples(st.just("register"), node, honest, st.integers(0, 3)),
    st.tuples(st.just("depart"), node, honest),
    st.tuples(st.just("publish"), node, honest, st.integers(1, 3), st.integers(0, 2)),
    st.tuples(st.just("create"), caller, st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("join"), caller, task, node, honest, st.sampled_from([0, 5, 20, 21])),
    st.tuples(st.just("join"), st.just("owner"), task, node, st.just(True), st.just(7)),
    st.tuples(st.just("start"), caller, task),
    st.tuples(st.just("record"), caller, task, st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("record"), st.just("owner"), task, st.integers(1, 2), st.just(1)),
    st.tuples(st.just("attest"), caller, task, signing, st.integers(0, 2)),
    st.tuples(st.just("finalise"), caller, task, signing, st.integers(1, 2)),
    st.tuples(st.just("cancel"), caller, task),
    st.tuples(st.just("anchor"), caller, st.integers(0, 2), st.integers(0, 2)),
)


def sequences(longest):
    """Lists of actions, none of them of a few kinds only."""
    listed = st.lists(actions, min_size=20, max_size=longest)
    return listed.filter(lambda tried: len({action[0] for action in tried}) >= 6)


class World:
    """A chain with nodes and tasks of its own, known by their numbers."""

    def __init__(self, stage, stranger):
        self.nodes = sorted((new_node() for _ in range(NODES)), key=lambda n: int(n.address, 16))
        self.stages = {"owner": Stage(stage.connector), "stranger": Stage(stranger.connector)}
        self.stages["stranger"].keys = self.stages["owner"].keys
        self.owner = self.stages["owner"]
        self.salt = int(self.nodes[0].address, 16)
        for one in self.nodes:
            self.owner.register(one, digest(9))
        self.tasks = [self.owner.open_task(self.nodes[:2], max_samples=500)]
        self.tasks.append(self.owner.running_task(self.nodes, rounds=1, max_samples=500))
        self.tasks.append(digest(4))

    def do(self, action):
        """Return what became of an action: a name that means the same on every chain."""
        what, *arguments = action
        try:
            getattr(self, what)(*arguments)
        except TransactionReverted as refusal:
            return refusal.error_name
        except RecordConflict:
            return "conflict"
        except ChainError as error:
            return type(error).__name__
        return "done"

    def register(self, number, honest, key):
        mine = self.nodes[number]
        nonce = self.owner.connector.registration_nonce(mine.address)
        signer = mine if honest else self.nodes[number - 1]
        signature = self.owner.registration(signer, sealing_key=digest(key), nonce=nonce)
        self.owner.connector.register_node(mine.address, digest(key), FAR_FUTURE, signature)
        self.owner.keys[mine.address] = digest(key)

    def depart(self, number, honest):
        mine = self.nodes[number]
        nonce = self.owner.connector.registration_nonce(mine.address) + (not honest)
        signature = self.owner.departure(mine, nonce=nonce)
        self.owner.connector.deregister_node(mine.address, FAR_FUTURE, signature)

    def publish(self, number, honest, version, commitment):
        values = self.owner.publication(
            self.nodes[number if honest else number - 1], version, commitment=digest(commitment)
        )
        self.owner.connector.publish_data(self.nodes[number].address, **values)

    def create(self, caller, rounds, contributors):
        made = self.stages[caller].create(
            rounds=rounds, min_contributors=contributors, quorum=1, max_samples=20
        )
        self.tasks[len(self.tasks) % TASKS] = made

    def join(self, caller, task, number, honest, samples):
        task_id = self.tasks[task]
        values = self.owner.membership(task_id, self.nodes[number], samples=samples)
        if not honest:
            values["data_commitment"] = digest(3)
        connector = self.stages[caller].connector
        connector.join_task(task_id, self.nodes[number].address, **values)

    def start(self, caller, task):
        self.stages[caller].connector.start_task(self.tasks[task])

    def cancel(self, caller, task):
        self.stages[caller].connector.cancel_task(self.tasks[task], "no longer needed")

    def record(self, caller, task, round_number, attempt):
        self.stages[caller].record(self.tasks[task], round_number, attempt)

    def attest(self, caller, task, signing, model):
        self._bring("attest_model", caller, task, signing, model)

    def finalise(self, caller, task, signing, model):
        self._bring("finalise_task", caller, task, signing, model)

    def anchor(self, caller, number, count):
        root = digest((self.salt << 8) + number) if number else digest(0)
        self.stages[caller].connector.anchor_receipts(root, count)

    def _bring(self, how, caller, task, signing, model):
        task_id = self.tasks[task]
        recorded = bool(self.owner.connector.round_records(task_id))
        last = FinalRound(digest(0), 1, digest(1), digest(2))
        given = {}
        if recorded:
            last = self.owner.last_record(task_id)
            chosen = [self.nodes[number] for number in sorted(signing)]
            given = {
                one.address: self.owner.model_signature(task_id, one, model_digest=digest(model))
                for one in chosen
            }
        connector = self.stages[caller].connector
        getattr(connector, how)(task_id, last, digest(model), digest(8), given)

    def sight(self):
        """Everything that can be read of this world, with numbers for what differs."""
        read = self.owner.connector
        numbers = {one.address: number for number, one in enumerate(self.nodes)}
        named = {stage.connector.account: name for name, stage in self.stages.items()}
        seen = []
        for one in self.nodes:
            data = read.data_commitments(one.address)
            seen.append((read.registered_key(one.address), read.registration_nonce(one.address)))
            seen.append([(d.version, d.commitment, d.samples) for d in data])
        for task_id in self.tasks[:TASKS]:
            state = read.task(task_id)
            ended = read.finalisation(task_id)
            roster = [(numbers[m.node], m.samples, m.index) for m in read.members(task_id)]
            records = read.round_records(task_id)
            attested = read.attestations(task_id)
            seen.append(named[state.coordinator])
            seen.append(replace(state, task_id="", coordinator="", head="", roster_digest=""))
            seen.append((roster, [(r.round, r.attempt, r.manifest_digest) for r in records]))
            seen.append([(a.round, a.model_digest, a.signers) for a in attested])
            seen.append(ended and (ended.model_digest, ended.metrics_digest, ended.signers))
        return seen


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with open_chain("paper", tmp_path_factory.mktemp("reference")) as chain:
        accounts = chain.local.signer, chain.local.new_account()
        yield [Stage(chain.connector(account)) for account in accounts]


def compare(name, stage, stranger, reference, tried):
    world, expected = World(stage, stranger), World(*reference)
    assert world.sight() == expected.sight()
    for action in tried:
        outcomes = world.do(action), expected.do(action)
        if name not in IN_THE_CONTRACTS_ORDER:
            outcomes = tuple("refused" if one in REASONS else one for one in outcomes)
        assert (action, outcomes[0]) == (action, outcomes[1])
    assert world.sight() == expected.sight()


def searched(examples):
    return settings(
        max_examples=examples,
        database=None,
        report_multiple_bugs=False,
        phases=[__import__("hypothesis").Phase.generate],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@searched(2)
@given(tried=sequences(30))
def test_some_actions_have_the_same_outcome_as_by_the_rules(
    name, stage, stranger, reference, tried
):
    compare(name, stage, stranger, reference, tried)


@searched(50)
@given(tried=sequences(50))
def test_many_actions_have_the_same_outcome_as_by_the_rules(
    name, stage, stranger, reference, tried
):
    compare(name, stage, stranger, reference, tried)

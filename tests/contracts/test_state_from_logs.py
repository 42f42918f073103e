"""All that the contracts store can be told from their logs, whatever was done."""

import pytest
from contract_calls import (
    ZERO,
    Contracts,
    departure,
    joining,
    model,
    publication,
    registration,
    signer,
    word,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_replay import Replay

from twopm_flower.chain.contracts import CONTRACTS, load_contract
from twopm_flower.chain.devnet import Devnet
from twopm_flower.errors import TransactionReverted

NODES = [signer(number) for number in range(40, 44)]
COORDINATOR = signer(50)
DATASETS = [word(number) for number in (60, 61)]
ROOTS = [word(number) for number in (70, 71)]
TERMS, MODEL, METRICS = word(80), word(81), word(82)


class Actor:
    """Does what it is told with arguments that mostly make sense, and shrugs at refusals."""

    def __init__(self, contracts):
        self.contracts = contracts
        self.accounts = [contracts.devnet.signer, COORDINATOR]
        self.tasks = []
        self.last = {}

    def act(self, action, first, second):
        try:
            getattr(self, action)(first, second)
        except TransactionReverted as refusal:
            if refusal.error_name is None:
                raise

    def register(self, first, second):
        node = NODES[first % 4]
        nonce = self.contracts.get("NodeRegistry", "nonceOf", node.address)
        arguments = registration(self.contracts, node, word(second), nonce)
        self.contracts.do("NodeRegistry", "register", *arguments)

    def depart(self, first, _):
        node = NODES[first % 4]
        nonce = self.contracts.get("NodeRegistry", "nonceOf", node.address)
        self.contracts.do("NodeRegistry", "depart", *departure(self.contracts, node, nonce))

    def publish(self, first, second):
        node, dataset = NODES[first % 4], DATASETS[second % 2]
        version = self.contracts.get("DataRegistry", "versionOf", node.address, dataset) + 1
        arguments = publication(self.contracts, node, dataset, version, word(second), 1 + first)
        self.contracts.do("DataRegistry", "publish", *arguments)

    def create(self, first, second):
        self.contracts.do(
            "TaskRegistry", "createTask", TERMS, 1 + first % 2, 2, 1 + second % 3, 50,
            caller=self.accounts[second % 2],
        )  # fmt: skip
        self.tasks.append(self.contracts.logs("TaskRegistry")[-1]["args"])

    def join(self, first, second):
        if not self.tasks:
            return
        task_id = self.tasks[-1]["taskId"]
        joinings = [
            joining(
                self.contracts,
                task_id,
                TERMS,
                node,
                1 + second,
                self.contracts.get("NodeRegistry", "sealingKeyOf", node.address),
            )
            for node in NODES[first % 4 : first % 4 + 1 + second % 3]
        ]
        self.on_task("join", joinings)

    def start(self, _, __):
        self.on_task("start")

    def record(self, first, second):
        if not self.tasks:
            return
        task_id = self.tasks[-1]["taskId"]
        task = self.contracts.get("TaskRegistry", "getTask", task_id)
        again = task[7] > 0 and first % 3 == 0
        round_, attempt = (task[7], task[8] + 1) if again else (task[7] + 1, 1 + first % 2)
        record = (attempt, word(first), word(second))
        self.on_task("recordRound", round_, *record)
        self.last[task_id] = (task[9], *record)

    def attest(self, first, second):
        self.conclude("attest", first, second)

    def finalise(self, first, second):
        self.conclude("finalise", first, second)

    def conclude(self, function, first, second):
        if not self.tasks:
            return
        task_id = self.tasks[-1]["taskId"]
        last = self.last.get(task_id, (ZERO, 1, word(1), word(1)))
        round_ = max(1, self.contracts.get("TaskRegistry", "getTask", task_id)[7])
        nodes = NODES[first % 2 : 2 + second % 3]
        values = model(self.contracts, task_id, round_, last, MODEL, METRICS, nodes)
        self.on_task(function, *values[1:])

    def cancel(self, first, _):
        if first % 4 == 0:  # or hardly any task would live long enough to end well
            self.on_task("cancel", "a reason " * first)

    def anchor(self, first, second):
        root, account = ROOTS[first % 2], self.accounts[second % 2]
        self.contracts.do("ReceiptRegistry", "anchor", root, second, caller=account)

    def on_task(self, function, *arguments):
        if not self.tasks:
            return
        task = self.tasks[-1]
        account = next(a for a in self.accounts if a.address == task["coordinator"])
        self.contracts.do("TaskRegistry", function, task["taskId"], *arguments, caller=account)


ACTIONS = [name for name in vars(Actor) if name not in ("act", "conclude", "on_task")]
ACTIONS = [name for name in ACTIONS if not name.startswith("_")]
A_WHOLE_LIFE = [
    *[("register", place, place + 1) for place in range(4)],
    *[("publish", 0, 1), ("publish", 0, 3), ("publish", 1, 2)],
    *[("create", 1, 0), ("join", 0, 2), ("join", 3, 0), ("start", 0, 0)],
    *[("record", 1, 2), ("record", 3, 4), ("attest", 0, 1), ("record", 4, 5)],
    *[("finalise", 0, 2), ("record", 1, 1), ("anchor", 0, 5), ("anchor", 0, 5)],
    *[("create", 0, 1), ("cancel", 4, 0), ("depart", 2, 0), ("register", 2, 7)],
]


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("logs")) as devnet:
        Contracts(devnet).fund(COORDINATOR)
        yield devnet


def replayed(contracts):
    events = [event for name in CONTRACTS for event in contracts.logs(name)]
    replay = Replay()
    for event in sorted(events, key=lambda event: (event["blockNumber"], event["logIndex"])):
        block = contracts.rpc.web3.eth.get_block(event["blockNumber"])
        replay.take(event, int(block["timestamp"]))
    return replay


def agree(contracts, replay, accounts):
    """Compare every getter, for every argument that could tell something, with the logs."""

    def tells(contract, function, *arguments):
        told = contracts.get(contract, function, *arguments)
        return tuple(told) if isinstance(told, list) else told

    for node in NODES:
        address = node.address
        assert tells("NodeRegistry", "sealingKeyOf", address) == replay.keys[address]
        assert tells("NodeRegistry", "nonceOf", address) == replay.nonces[address]
        registered = replay.keys[address] != ZERO
        assert tells("NodeRegistry", "isRegistered", address) == registered
        for dataset in DATASETS:
            versions = replay.commitments[address, dataset]
            assert tells("DataRegistry", "versionOf", address, dataset) == len(versions)
            for version, commitment in enumerate([ZERO, *versions, ZERO]):
                stored = tells("DataRegistry", "commitmentOf", address, dataset, version)
                assert stored == commitment
        for task_id in replay.tasks:
            samples = replay.samples_of(task_id, address)
            assert tells("TaskRegistry", "samplesOf", task_id, address) == samples
    for task_id, task in replay.tasks.items():
        assert tells("TaskRegistry", "getTask", task_id) == task.stored()
    for account in accounts:
        address = account.address
        assert tells("TaskRegistry", "tasksCreatedBy", address) == replay.created_by(address)
        for root in ROOTS:
            anchor = replay.anchors.get((address, root), (0, 0, 0))
            assert tells("ReceiptRegistry", "anchorOf", address, root) == anchor
            anchored = anchor != (0, 0, 0)
            assert tells("ReceiptRegistry", "includes", address, root, root, []) == anchored


STEP = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7), st.integers(0, 7))
INTERRUPTIONS = st.lists(st.tuples(st.integers(0, len(A_WHOLE_LIFE)), STEP), max_size=20)


def check(devnet, steps):
    contracts = Contracts(devnet)
    actor = Actor(contracts)
    for step in steps:
        actor.act(*step)
    replay = replayed(contracts)
    agree(contracts, replay, actor.accounts)
    return replay


def test_the_logs_of_a_whole_life_tell_what_is_stored_and_no_kind_is_missing(devnet):
    declared = {
        entry["name"]
        for name in CONTRACTS
        for entry in load_contract(name).abi
        if entry["type"] == "event" and entry["name"] != "EIP712DomainChanged"
    }
    assert check(devnet, A_WHOLE_LIFE).seen == declared


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(interruptions=INTERRUPTIONS)
def test_the_logs_tell_what_is_stored_whatever_comes_between(devnet, interruptions):
    steps = list(A_WHOLE_LIFE)
    for place, step in interruptions:
        steps.insert(place, step)
    check(devnet, steps)

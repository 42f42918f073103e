"""Who may do what with a task, wherever it stands: every state, function and caller."""

import pytest
from contract_calls import (
    ZERO,
    Contracts,
    joining,
    model,
    registration,
    signer,
    task_id_of,
    word,
)

from twopm_flower.chain.devnet import Devnet
from twopm_flower.errors import TransactionReverted

TERMS, MODEL, METRICS = word(1), word(2), word(3)
MEMBER, LATECOMER, OTHER_COORDINATOR = signer(10), signer(12), signer(13)
NODES = (MEMBER, signer(11), LATECOMER)
RECORD = (ZERO, 1, word(5), word(6))
STATES = {"unknown": 0, "open": 1, "running": 2, "finalised": 3, "cancelled": 4}
ALLOWED = {
    "unknown": set(),
    "open": {"join", "start", "cancel"},
    "running": {"recordRound", "attest", "finalise", "cancel"},
    "finalised": set(),
    "cancelled": set(),
    "cancelled while running": set(),
}
FUNCTIONS = ("join", "start", "recordRound", "attest", "finalise", "cancel")
CALLERS = ("coordinator", "member", "other coordinator")


def arguments(contracts, function, task_id):
    """Return what the function takes in a task where it is allowed."""
    if function == "join":
        return task_id, [joining(contracts, task_id, TERMS, LATECOMER, 5, word(22))]
    if function == "start":
        return (task_id,)
    if function == "recordRound":
        return task_id, 1, 2, word(7), word(8)
    if function == "cancel":
        return task_id, "no longer needed"
    return model(contracts, task_id, 1, RECORD, MODEL, METRICS, NODES[:2])


def new_task(contracts, caller=None):
    coordinator = caller or contracts.devnet.signer
    registry = contracts.address("TaskRegistry")
    number = contracts.get("TaskRegistry", "tasksCreatedBy", coordinator.address)
    contracts.do("TaskRegistry", "createTask", TERMS, 1, 2, 2, 100, caller=caller)
    return task_id_of(contracts.devnet.chain_id, registry, coordinator.address, number)


def task_in(contracts, state):
    """Take a new task to a state by the way that leads there."""
    if state == "unknown":
        return word(99)
    task_id = new_task(contracts)
    members = [
        joining(contracts, task_id, TERMS, node, 5, word(20 + place))
        for place, node in enumerate(NODES[:2])
    ]
    contracts.do("TaskRegistry", "join", task_id, members)
    if state not in ("open", "cancelled"):
        contracts.do("TaskRegistry", "start", task_id)
        contracts.do("TaskRegistry", "recordRound", task_id, 1, *RECORD[1:])
    if state == "finalised":
        ending = arguments(contracts, "finalise", task_id)
        contracts.do("TaskRegistry", "finalise", *ending)
    if state.startswith("cancelled"):
        contracts.do("TaskRegistry", "cancel", task_id, "because")
    return task_id


@pytest.fixture(scope="module")
def contracts(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("states")) as devnet:
        contracts = Contracts(devnet)
        contracts.fund(OTHER_COORDINATOR)
        for place, node in enumerate(NODES):
            arguments_ = registration(contracts, node, word(20 + place), 0)
            contracts.do("NodeRegistry", "register", *arguments_)
        yield contracts


@pytest.fixture(scope="module")
def tasks(contracts):
    return {state: task_in(contracts, state) for state in ALLOWED}


@pytest.fixture(scope="module")
def callers(contracts):
    return dict(zip(CALLERS, (contracts.devnet.signer, MEMBER, OTHER_COORDINATOR), strict=True))


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("state", ALLOWED)
def test_who_may_do_what(contracts, tasks, callers, state, function, caller):
    task_id = tasks[state]

    def attempt():
        values = arguments(contracts, function, task_id)
        contracts.try_out("TaskRegistry", function, *values, caller=callers[caller])

    if caller == "coordinator" and function in ALLOWED[state]:
        attempt()
        return
    with pytest.raises(TransactionReverted) as refusal:
        attempt()
    if state == "unknown":
        assert refusal.value.error_name == "UnknownTask"
    elif caller != "coordinator":
        assert refusal.value.error_name == "NotCoordinator"
        assert refusal.value.arguments["caller"] == callers[caller].address
    else:
        assert refusal.value.error_name == "WrongState"
        assert refusal.value.arguments["state"] == STATES[state.split()[0]]


@pytest.mark.parametrize("state", ALLOWED)
def test_a_task_stands_where_its_history_left_it(contracts, tasks, state):
    if state == "unknown":
        with pytest.raises(TransactionReverted, match="UnknownTask"):
            contracts.get("TaskRegistry", "getTask", tasks[state])
    else:
        assert contracts.get("TaskRegistry", "getTask", tasks[state])[1] == STATES[state.split()[0]]


def test_a_round_can_be_recorded_before_it_is_signed_but_not_signed_before_it_is_recorded(
    contracts,
):
    task_id = new_task(contracts)
    members = [
        joining(contracts, task_id, TERMS, node, 5, word(20 + place))
        for place, node in enumerate(NODES[:2])
    ]
    contracts.do("TaskRegistry", "join", task_id, members)
    contracts.do("TaskRegistry", "start", task_id)
    for function, error in (("attest", "HeadMismatch"), ("finalise", "RoundsMissing")):
        for record in (RECORD, (ZERO, 0, word(5), word(6))):
            values = model(contracts, task_id, 1, record, MODEL, METRICS, NODES[:2])
            with pytest.raises(TransactionReverted) as refusal:
                contracts.do("TaskRegistry", function, *values)
            assert refusal.value.error_name == error


def test_a_batch_of_joinings_is_taken_whole_or_not_at_all(contracts):
    task_id = new_task(contracts)
    good = joining(contracts, task_id, TERMS, NODES[0], 5, word(20))
    for bad, error in (
        (joining(contracts, task_id, TERMS, NODES[1], 5, word(77)), "SealingKeyMismatch"),
        (good, "AlreadyMember"),
    ):
        with pytest.raises(TransactionReverted) as refusal:
            contracts.do("TaskRegistry", "join", task_id, [good, bad])
        assert refusal.value.error_name == error
    assert contracts.get("TaskRegistry", "getTask", task_id)[2] == 0
    assert contracts.get("TaskRegistry", "samplesOf", task_id, NODES[0].address) == 0


def test_an_identifier_depends_on_chain_contract_coordinator_and_number_alone(contracts):
    """So tasks with the same terms in the same block, or on two chains, never share one."""
    ours, theirs = contracts.devnet.signer, OTHER_COORDINATOR
    made = [new_task(contracts, caller) for caller in (ours, ours, theirs, theirs)]
    created = contracts.logs("TaskRegistry")[-4:]
    assert [bytes(event["args"]["taskId"]) for event in created] == made
    assert len(set(made)) == 4


def test_what_a_member_signed_on_another_chain_or_for_another_contract_does_not_count(contracts):
    task_id = new_task(contracts)
    good = joining(contracts, task_id, TERMS, NODES[0], 5, word(20))

    class Elsewhere:
        def __init__(self, **changes):
            self.changes = changes

        def domain(self, name):
            return contracts.domain(name).model_copy(update=self.changes)

    for elsewhere in (
        Elsewhere(chain_id=contracts.devnet.chain_id + 1),
        Elsewhere(verifying_contract=contracts.address("NodeRegistry")),
    ):
        foreign = joining(elsewhere, task_id, TERMS, NODES[0], 5, word(20))
        with pytest.raises(TransactionReverted) as refusal:
            contracts.do("TaskRegistry", "join", task_id, [foreign])
        assert refusal.value.error_name == "WrongSigner"
    contracts.do("TaskRegistry", "join", task_id, [good])

"""Every statement that the Solana program refuses, and the error that says why."""

from collections.abc import Callable

import pytest
from solana_machine import (
    CHAIN_ID,
    ZERO,
    Machine,
    Node,
    digest,
    node_of,
    opened,
    raw,
    recorded,
    running,
)
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.rent import Rent

from twopm_flower.records.statements import Domain, ModelStatement, Registration

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
A, B, OUTSIDER = node_of(0), node_of(1), node_of(99)
Case = Callable[[Machine], Instruction]


def fresh() -> Machine:
    machine = Machine()
    machine.all_well(machine.initialise(), machine.register(A))
    return machine


def registration(machine: Machine, domain: Domain | None = None) -> bytes:
    statement = Registration(node=B.address, sealing_key=B.sealing_key, nonce=0, deadline=2**40)
    return B.sign(statement, domain or machine.domain("node"))


def high_s(signature: bytes) -> bytes:
    other = ORDER - int.from_bytes(signature[32:64])
    return signature[:32] + other.to_bytes(32) + bytes([55 - signature[64]])


def now(machine: Machine) -> int:
    return machine.svm.get_clock().unix_timestamp


def elsewhere(machine: Machine, **changed: object) -> Domain:
    return machine.domain("node").model_copy(update=changed)


NODES: list[tuple[str, Case]] = [
    ("AlreadyInitialised", lambda m: m.initialise()),
    ("ZeroSealingKey", lambda m: m.register(B, sealing_key=ZERO)),
    ("DeadlinePassed", lambda m: m.register(B, deadline=now(m) - 1)),
    ("WrongSigner", lambda m: m.register(A, 0)),
    ("WrongSigner", lambda m: m.register(B, 1)),
    ("WrongSigner", lambda m: m.register(B, sealing_key=digest("x"), signature=registration(m))),
    ("WrongSigner", lambda m: m.register(B, deadline=2**40 + 1, signature=registration(m))),
    ("WrongSigner", lambda m: m.register(A, signature=registration(m))),
    ("WrongSigner", lambda m: m.register(
        B, signature=registration(m, elsewhere(m, chain_id=CHAIN_ID + 1)))),
    ("WrongSigner", lambda m: m.register(B, signature=registration(m, m.domain("task")))),
    ("BadSignature", lambda m: m.register(B, signature=high_s(registration(m)))),
    ("BadSignature", lambda m: m.register(B, signature=registration(m)[:64] + b"\0")),
    ("BadSignature", lambda m: m.register(B, signature=registration(m)[:64] + b"\x1d")),
    ("BadSignature", lambda m: m.register(B, signature=bytes(64) + b"\x1b")),
    ("BadSignature", lambda m: m.register(
        B, signature=b"\xff" * 32 + registration(m)[32:])),
    ("NotRegistered", lambda m: m.depart(B, 0)),
    ("DeadlinePassed", lambda m: m.depart(A, 1, deadline=now(m) - 1)),
    ("WrongSigner", lambda m: m.depart(A, 0)),
    ("WrongSigner", lambda m: m.depart(A, 2)),
    ("WrongSigner", lambda m: m.depart(A, 1, signature=registration(m))),
    ("NotRegistered", lambda m: m.publish(B)),
    ("ZeroDigest", lambda m: m.publish(A, dataset=ZERO)),
    ("ZeroDigest", lambda m: m.publish(A, commitment=ZERO)),
    ("ZeroSamples", lambda m: m.publish(A, samples=0)),
    ("WrongVersion", lambda m: m.publish(A, 0)),
    ("WrongVersion", lambda m: m.publish(A, 2)),
    ("WrongSigner", lambda m: m.publish(A, signature=registration(m))),
    ("BadTerms", lambda m: m.create_task(terms_digest=ZERO)),
    ("BadTerms", lambda m: m.create_task(rounds=0)),
    ("BadTerms", lambda m: m.create_task(min_contributors=1)),
    ("BadTerms", lambda m: m.create_task(quorum=0)),
    ("BadTerms", lambda m: m.create_task(max_samples=0)),
    ("WrongAddress", lambda m: m.create_task(1)),
    ("UnknownTask", lambda m: m.of_task("start")),
    ("UnknownTask", lambda m: m.record(1)),
    ("UnknownTask", lambda m: m.join(A)),
    ("UnknownTask", lambda m: m.cancel()),
    ("ZeroDigest", lambda m: m.anchor(ZERO)),
    ("EmptyBatch", lambda m: m.anchor(digest("receipts"), 0)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "case"), NODES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_false_or_stale_statement_is_refused(error: str, case: Case) -> None:
    machine = fresh()
    assert machine.send(case(machine)).error == error


def test_a_statement_holds_until_its_deadline_and_no_longer() -> None:
    machine = fresh()
    assert machine.send(machine.register(B, deadline=now(machine))).error is None
    assert machine.send(machine.depart(B, 1, deadline=now(machine))).error is None


def test_a_statement_cannot_be_replayed() -> None:
    machine = fresh()
    once = machine.register(B)
    machine.all_well(once)
    assert machine.send(once).error == "WrongSigner"
    leave = machine.depart(B, 1)
    machine.all_well(leave)
    assert machine.send(leave).error == "NotRegistered"
    published = machine.publish(A)
    machine.all_well(published)
    assert machine.send(published).error == "WrongVersion"


def test_a_root_is_anchored_once_by_each_issuer() -> None:
    machine = fresh()
    machine.all_well(machine.anchor(digest("receipts")))
    assert machine.send(machine.anchor(digest("receipts"))).error == "AlreadyAnchored"
    machine.coordinator = other_coordinator(machine)
    machine.all_well(machine.anchor(digest("receipts")))


def other_coordinator(machine: Machine) -> Keypair:
    other = Keypair.from_seed(b"o" * 32)
    machine.svm.airdrop(other.pubkey(), 10**11)
    return other


@pytest.mark.parametrize(
    "changed",
    [{"chain_id": 0}, {"chain_id": 2**53}]
    + [{f"{name}_registry": bytes(20)} for name in ("node", "task", "data")],
)
def test_a_config_that_no_chain_has_is_refused(changed: dict[str, object]) -> None:
    assert Machine().send(Machine().initialise(**changed)).error == "BadConfig"


def test_nothing_works_before_the_config_is_written() -> None:
    machine = Machine()
    for case in (
        machine.register(A),
        machine.depart(A, 0),
        machine.publish(A),
        machine.create_task(),
    ):
        assert machine.send(case).error == "NotInitialised"


JOINS: list[tuple[str, Case]] = [
    ("AlreadyMember", lambda m: m.join(A)),
    ("SamplesOutOfRange", lambda m: m.join(node_of(3), samples=0)),
    ("SamplesOutOfRange", lambda m: m.join(node_of(3), samples=1001)),
    ("ZeroDigest", lambda m: m.join(node_of(3), data_commitment=ZERO)),
    ("SealingKeyMismatch", lambda m: m.join(node_of(3), sealing_key=digest("x"))),
    ("SealingKeyMismatch", lambda m: m.join(OUTSIDER)),
    ("SealingKeyMismatch", lambda m: m.join(OUTSIDER, sealing_key=ZERO)),
    ("WrongSigner", lambda m: m.join(node_of(3), terms_digest=digest("other terms"))),
    ("WrongSigner", lambda m: m.join(node_of(3), signature=registration(m))),
]


@pytest.mark.parametrize(("error", "case"), JOINS, ids=lambda v: v if isinstance(v, str) else "")
def test_who_may_not_join_does_not(error: str, case: Case) -> None:
    machine = opened(3)
    machine.all_well(machine.register(node_of(3)))
    assert machine.send(case(machine)).error == error
    machine.all_well(machine.join(node_of(3), samples=1000))


def test_a_node_that_left_cannot_join() -> None:
    machine = opened(3)
    machine.all_well(machine.register(node_of(3)), machine.depart(node_of(3), 1))
    assert machine.send(machine.join(node_of(3))).error == "SealingKeyMismatch"


@pytest.mark.parametrize(("members", "quorum"), [(2, 2), (3, 4)])
def test_a_task_waits_for_its_members_and_its_quorum(members: int, quorum: int) -> None:
    machine = opened(members, quorum=quorum)
    assert machine.send(machine.of_task("start")).error == "TooFewMembers"
    machine.all_well(machine.register(node_of(9)), machine.join(node_of(9)))
    machine.all_well(machine.of_task("start"))


ROUNDS: list[tuple[str, Case]] = [
    ("OutOfOrder", lambda m: m.record(0)),
    ("OutOfOrder", lambda m: m.record(1, 9)),
    ("OutOfOrder", lambda m: m.record(2, 2)),
    ("OutOfOrder", lambda m: m.record(2, 3, manifest_digest=digest("x"))),
    ("OutOfOrder", lambda m: m.record(2, 3, updates_root=digest("x"))),
    ("OutOfOrder", lambda m: m.record(3, 0)),
    ("OutOfOrder", lambda m: m.record(4)),
    ("TooManyRounds", lambda m: m.record(5)),
    ("AlreadyRecorded", lambda m: m.record(2, 3)),
    ("ZeroDigest", lambda m: m.record(3, manifest_digest=ZERO)),
    ("ZeroDigest", lambda m: m.record(3, updates_root=ZERO)),
]


@pytest.mark.parametrize(("error", "case"), ROUNDS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_record_out_of_place_is_refused(error: str, case: Case) -> None:
    machine = running(rounds=4)
    machine.all_well(machine.record(1), machine.record(2, 3))
    assert machine.send(case(machine)).error == error
    machine.all_well(machine.record(3))


def test_the_first_record_is_the_first_round() -> None:
    machine = running()
    for number, attempt in ((0, 0), (0, 1), (1, 0), (2, 1)):
        assert machine.send(machine.record(number, attempt)).error == "OutOfOrder"


def state_machines() -> dict[str, Machine]:
    """A task in each of its states, with a tally wherever one can be."""
    machines = {"open": opened(3), "running": recorded(3)}
    for name, last in (("finalised", "finalise"), ("cancelled", "cancel")):
        machine = recorded(3)
        statements = [machine.model(), machine.model(model="rival")]
        for statement in statements:
            machine.all_well(machine.open_tally(statement))
            machine.all_well(machine.add_signatures(statement, [A, B]))
        machine.all_well(
            machine.cancel() if last == "cancel" else machine.with_tally(last, statements[0])
        )
        machines[name] = machine
    rival = machines["running"].model(model="rival")
    machines["running"].all_well(machines["running"].open_tally(rival))
    machines["running"].all_well(machines["running"].add_signatures(rival, [A, B]))
    return machines


STEPS: dict[str, tuple[Case, set[str]]] = {
    "join": (lambda m: m.join(node_of(3)), {"open"}),
    "start": (lambda m: m.of_task("start"), {"open"}),
    "record_round": (lambda m: m.record(2, 2), {"running"}),
    "open_tally": (lambda m: m.open_tally(m.model(model="third")), {"running"}),
    "add_signatures": (lambda m: m.add_signatures(m.model(model="rival"), [A]), {"running"}),
    "attest": (lambda m: m.with_tally("attest", m.model(model="rival")), {"running"}),
    "finalise": (lambda m: m.with_tally("finalise", m.model(model="rival")), {"running"}),
    "cancel": (lambda m: m.cancel("done"), {"open", "running"}),
    "close_tally": (
        lambda m: m.with_tally("close_tally", m.model(model="rival")),
        {"running", "finalised", "cancelled"},
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_possible_in_its_states_only_and_for_the_coordinator_only(name: str) -> None:
    case, allowed = STEPS[name]
    for state, machine in state_machines().items():
        machine.all_well(machine.register(node_of(3)))
        step = case(machine)
        refused = (
            "UnknownTally"
            if state == "open" and name in ("add_signatures", "close_tally")
            else "WrongState"
        )
        thief = other_coordinator(machine)
        metas = [type(step.accounts[0])(thief.pubkey(), True, True), *step.accounts[1:]]
        stolen = Instruction(step.program_id, step.data, metas)
        assert machine.send(stolen, thief).error == "NotCoordinator"
        assert machine.send(step).error == (None if state in allowed else refused), state


def test_a_final_model_needs_all_rounds() -> None:
    machine = running(rounds=3)
    machine.all_well(machine.record(1), machine.record(2))
    statement = machine.model()
    machine.all_well(machine.open_tally(statement), machine.add_signatures(statement, [A, B]))
    assert machine.send(machine.with_tally("finalise", statement)).error == "RoundsMissing"


def resigned(machine: Machine, statement: ModelStatement, *signers: int) -> list[bytes]:
    return [node_of(n).sign(statement, machine.domain("task")) for n in signers]


def in_order(
    machine: Machine, statement: ModelStatement, *signers: int
) -> tuple[list[Node], list[bytes]]:
    return [node_of(n) for n in signers], resigned(machine, statement, *signers)


def ordered(*numbers: int) -> list[int]:
    return sorted(numbers, key=lambda n: raw(node_of(n).address))


TALLIES: list[tuple[str, Case]] = [
    ("HeadMismatch", lambda m: m.open_tally(m.model(), manifest_digest=digest("x"))),
    ("HeadMismatch", lambda m: m.open_tally(m.model(), updates_root=digest("x"))),
    ("HeadMismatch", lambda m: m.open_tally(m.model(1))),
    ("ZeroDigest", lambda m: m.open_tally(m.model(), model_digest=ZERO)),
    ("ZeroDigest", lambda m: m.open_tally(m.model(), metrics_digest=ZERO)),
    ("WrongAddress", lambda m: m.open_tally(m.model(), model_digest=digest("x"))),
    ("WrongAddress", lambda m: m.open_tally(m.model(model="new"), model_digest=digest("newer"))),
    ("UnknownTally", lambda m: m.add_signatures(m.model(model="rival"), [A])),
    ("UnknownTally", lambda m: m.with_tally("attest", m.model(model="rival"))),
    ("UnknownTally", lambda m: m.with_tally("finalise", m.model(model="rival"))),
    ("UnknownTally", lambda m: m.with_tally("close_tally", m.model(model="rival"))),
    ("QuorumMissed", lambda m: m.with_tally("attest", m.model())),
    ("QuorumMissed", lambda m: m.with_tally("finalise", m.model())),
    ("NotMember", lambda m: m.add_signatures(m.model(), [OUTSIDER])),
    ("NotMember", lambda m: m.add_signatures(m.model(), [A], resigned(m, m.model(), 1))),
    ("NotMember", lambda m: m.add_signatures(
        m.model(), [A], resigned(m, m.model(model="rival"), 0))),
    ("NotMember", lambda m: m.add_signatures(
        m.model(), [A], [A.sign(m.model(), m.domain("node"))])),
    ("BadSignature", lambda m: m.add_signatures(
        m.model(), [A], [high_s(resigned(m, m.model(), 0)[0])])),
    ("SignersNotIncreasing", lambda m: m.add_signatures(m.model(), [A, A])),
    ("SignersNotIncreasing", lambda m: m.add_signatures(
        m.model(), *in_order(m, m.model(), *reversed(ordered(0, 1))))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "case"), TALLIES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_tally_counts_nothing_but_members_over_the_head(error: str, case: Case) -> None:
    machine = recorded(3)
    machine.all_well(machine.open_tally(machine.model()))
    before = machine.read("tally", machine.tally_at(machine.model()))
    assert machine.send(case(machine)).error == error
    assert machine.read("tally", machine.tally_at(machine.model())) == before


def test_a_member_of_another_task_does_not_count() -> None:
    machine = recorded(3)
    machine.all_well(machine.register(node_of(3)), machine.create_task(1))
    machine.all_well(machine.join(node_of(3), machine.task_id(1)))
    statement = machine.model()
    machine.all_well(machine.open_tally(statement))
    own = machine.add_signatures(statement, [node_of(3)])
    foreign = machine.member_at(machine.task_id(1), node_of(3))
    metas = [*own.accounts[:3], type(own.accounts[0])(foreign, False, False)]
    assert machine.send(own).error == "NotMember"
    assert machine.send(Instruction(own.program_id, own.data, metas)).error == "NotMember"


def test_a_tally_of_another_task_or_an_earlier_attempt_is_stale() -> None:
    machine = recorded(3)
    statement = machine.model()
    machine.all_well(machine.open_tally(statement), machine.add_signatures(statement, [A, B]))
    machine.all_well(machine.create_task(1))
    crossed = machine.with_tally("close_tally", statement)
    metas = list(crossed.accounts)
    metas[1] = type(metas[1])(machine.task_at(machine.task_id(1)), False, False)
    assert machine.send(Instruction(crossed.program_id, crossed.data, metas)).error == "StaleTally"
    # The same manifest under another attempt is another record, though the statement is the same.
    machine.all_well(
        machine.record(
            2, 2, manifest_digest=digest("manifest 2 1"), updates_root=digest("root 2 1")
        )
    )
    for step in (
        machine.with_tally("finalise", statement),
        machine.with_tally("attest", statement),
        machine.add_signatures(statement, [A]),
        machine.open_tally(statement),
    ):
        assert machine.send(step).error == "StaleTally"
    machine.all_well(machine.with_tally("close_tally", statement), machine.open_tally(statement))
    assert machine.send(machine.with_tally("finalise", statement)).error == "QuorumMissed"


def test_a_reason_is_short() -> None:
    machine = opened(2)
    assert machine.send(machine.cancel("x" * 257)).error == "ReasonTooLong"
    machine.all_well(machine.cancel("x" * 256))


def rent(lamports_per_byte: int, threshold: float) -> Rent:
    return Rent(lamports_per_byte, threshold, 50)


def test_rent_is_paid_as_the_cluster_computes_it_today_and_after_simd_0194() -> None:
    paid = []
    for of_cluster in (rent(3480, 2.0), rent(6960, 1.0)):
        machine = Machine()
        machine.svm.set_rent(of_cluster)
        machine.all_well(machine.anchor(digest("receipts")))
        paid.append(machine.svm.get_balance(machine.anchor_at(digest("receipts"))))
    assert paid == [(128 + 96) * 6960] * 2


@pytest.mark.parametrize("of_cluster", [rent(3480, 1.5), rent(3480, 4.0)])
def test_a_rent_that_nobody_foresaw_stops_the_program(of_cluster: Rent) -> None:
    machine = Machine()
    machine.svm.set_rent(of_cluster)
    assert machine.send(machine.anchor(digest("receipts"))).error == "UnsupportedRent"


def test_a_payer_without_lamports_creates_nothing() -> None:
    machine = Machine()
    machine.coordinator = Keypair.from_seed(b"p" * 32)
    machine.svm.airdrop(machine.coordinator.pubkey(), 1_000_000)
    # The system program's own refusal, which is none of our codes.
    assert "Custom" in str(machine.send(machine.anchor(digest("receipts"))).error)
    assert machine.read("anchor", machine.anchor_at(digest("receipts"))) is None

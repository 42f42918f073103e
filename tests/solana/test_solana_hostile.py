"""What a coordinator tries who puts several instructions into one transaction."""

import random
from collections.abc import Callable

import pytest
from solana_machine import ERROR_NAMES, INTERFACE, SYSTEM, Machine, digest, node_of, recorded
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import AccountMeta, Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import Transaction
from solders.transaction_metadata import FailedTransactionMetadata

from twopm_flower.records.statements import ModelStatement

MEMBERS = [node_of(number) for number in range(3)]
Attempt = Callable[[Machine, ModelStatement], list[Instruction]]


def at_once(machine: Machine, *instructions: Instruction) -> str | None:
    """Send instructions in one transaction and return the name of the error, or None."""
    machine.svm.expire_blockhash()
    recent, payer = machine.svm.latest_blockhash(), machine.fee_payer
    message = Message.new_with_blockhash(
        [set_compute_unit_limit(1_400_000), *instructions], payer.pubkey(), recent
    )
    result = machine.svm.send_transaction(
        Transaction([payer, machine.coordinator], message, recent)
    )
    if not isinstance(result, FailedTransactionMetadata):
        return None
    code = getattr(getattr(result.err(), "err", None), "code", None)
    return ERROR_NAMES.get(code, str(result.err()))


def counted() -> tuple[Machine, ModelStatement]:
    """Return a task that only needs its end, and what all members signed."""
    machine = recorded(3)
    statement = machine.model()
    machine.all_well(machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, MEMBERS))
    return machine, statement


def kept_alive(machine: Machine, statement: ModelStatement) -> Instruction:
    where = machine.tally_at(statement)
    return transfer(
        TransferParams(from_pubkey=machine.fee_payer.pubkey(), to_pubkey=where, lamports=10**7)
    )


ATTEMPTS: dict[str, tuple[str, Attempt]] = {
    "a tally that is closed and opened again has forgotten its signatures": (
        "QuorumMissed",
        lambda m, s: [
            m.with_tally("close_tally", s), m.open_tally(s), m.with_tally("finalise", s),
        ],
    ),
    "lamports do not keep the signatures of a closed tally": (
        "QuorumMissed",
        lambda m, s: [
            m.with_tally("close_tally", s), kept_alive(m, s), m.open_tally(s),
            m.with_tally("attest", s),
        ],
    ),
    "a closed tally is none": (
        "UnknownTally",
        lambda m, s: [m.with_tally("close_tally", s), m.with_tally("finalise", s)],
    ),
    "signatures do not outlast the record": (
        "StaleTally",
        lambda m, s: [m.record(2, 2), m.with_tally("finalise", s)],
    ),
    "what is final is final": (
        "WrongState",
        lambda m, s: [m.with_tally("finalise", s), m.open_tally(s)],
    ),
    "what is final is not cancelled": (
        "WrongState",
        lambda m, s: [m.with_tally("finalise", s), m.cancel("no")],
    ),
    "what is cancelled is not finalised": (
        "WrongState",
        lambda m, s: [m.cancel("no"), m.with_tally("finalise", s)],
    ),
    "what is cancelled does not start again": (
        "WrongState",
        lambda m, _: [m.cancel("no"), m.of_task("start")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "attempt"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_one_transaction_is_no_way_around_a_rule(error: str, attempt: Attempt) -> None:
    machine, statement = counted()
    before = machine.svm.get_account(machine.task_at(machine.task_id()))
    assert at_once(machine, *attempt(machine, statement)) == error
    assert machine.svm.get_account(machine.task_at(machine.task_id())) == before
    machine.all_well(machine.with_tally("finalise", statement))


def test_a_tally_that_is_closed_and_opened_again_counts_from_nothing() -> None:
    machine, statement = counted()
    again = [
        machine.with_tally("close_tally", statement),
        kept_alive(machine, statement),
        machine.open_tally(statement),
        machine.add_signatures(statement, MEMBERS[:2]),
        machine.with_tally("finalise", statement),
    ]
    assert at_once(machine, *again) is None
    task = machine.read("task", machine.task_at(machine.task_id()))
    assert task is not None
    assert task["model_digest"] == statement.model_digest
    assert machine.read("tally", machine.tally_at(statement)) is None


@pytest.mark.parametrize("recovery", [0, 1, 26, 29, 30, 31, 35, 255])
def test_a_recovery_number_that_ethereum_does_not_know_is_no_signature(recovery: int) -> None:
    # 29 and 30 name points whose x is r plus the order of the curve: r = 2 has one.
    machine = Machine()
    machine.all_well(machine.initialise())
    signature = (2).to_bytes(32) + (1).to_bytes(32) + bytes([recovery])
    refused = machine.send(machine.register(MEMBERS[0], signature=signature))
    assert refused.error == "BadSignature"


@pytest.mark.parametrize("length", [0, 1])
def test_no_instruction_reads_beyond_its_own_bytes(length: int) -> None:
    # What follows an instruction's data in memory is the program's own key.
    machine, _ = counted()
    good = machine.cancel("why")
    for name in ("cancel", "add_signatures"):
        tag = INTERFACE["instructions"][name]["tag"]
        short = Instruction(good.program_id, bytes([tag]) + bytes(length), good.accounts)
        assert machine.send(short).error == "WrongDataLength"


def bent(good: Instruction, accounts: list[Pubkey], chance: random.Random) -> Instruction:
    """Return a call with other bytes, lengths, accounts, orders or rights."""
    data, metas = bytearray(good.data), list(good.accounts)
    signers = [meta.pubkey for meta in metas if meta.is_signer]
    for _ in range(chance.randint(1, 3)):
        how = chance.randrange(5)
        if how == 0 and data:
            data[chance.randrange(len(data))] = chance.choice((0, 1, 127, 128, 255))
        elif how == 1:
            data = data[: chance.randrange(len(data) + 1)] + chance.randbytes(chance.randrange(9))
        elif how == 2:
            chance.shuffle(metas)
        else:
            key = chance.choice(accounts)
            meta = AccountMeta(key, key in signers, chance.random() < 0.6)
            metas[chance.randrange(len(metas))] = meta
    return Instruction(good.program_id, bytes(data), metas)


def test_no_bytes_and_no_accounts_make_the_program_fail_without_a_word() -> None:
    machine, statement = counted()
    node = MEMBERS[0]
    calls = [
        machine.initialise(), machine.register(node, 1), machine.depart(node, 1),
        machine.publish(node), machine.create_task(1), machine.join(node),
        machine.of_task("start"), machine.record(2, 2), machine.open_tally(statement),
        machine.add_signatures(statement, MEMBERS), machine.anchor(digest("receipts")),
        *(machine.with_tally(name, statement) for name in ("attest", "finalise", "close_tally")),
    ]  # fmt: skip
    accounts = [meta.pubkey for call in calls for meta in call.accounts] + [SYSTEM, machine.program]
    known = {None, *ERROR_NAMES.values()}
    held = {key: machine.svm.get_account(key) for key in accounts}
    chance = random.Random(1)
    for _ in range(600):
        outcome = machine.send(bent(chance.choice(calls), accounts, chance))
        assert outcome.error in known
        if outcome.error is None:
            for key, account in held.items():
                if account is not None and account.owner == machine.program:
                    machine.svm.set_account(key, account)

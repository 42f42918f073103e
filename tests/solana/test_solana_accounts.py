"""What happens to every instruction when the accounts or the bytes it is given are not right."""

from collections.abc import Callable
from itertools import permutations

import pytest
from solana_machine import INTERFACE, Machine, digest, node_of, opened, recorded
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from twopm_flower.records.statements import ModelStatement

A, NEW = node_of(0), node_of(7)
SHAPES = INTERFACE["instructions"]
# What is wrong with an empty account at another address depends on what should stand there.
ABSENT = {"task": "UnknownTask", "tally": "UnknownTally"}


def ready(name: str) -> tuple[Machine, Instruction]:
    """A machine, and an instruction that it would carry out."""
    machine = PREPARED[name]()
    return machine, STEPS[name](machine)


def initialised() -> Machine:
    machine = Machine()
    machine.all_well(machine.initialise())
    return machine


def registered() -> Machine:
    machine = initialised()
    machine.all_well(machine.register(A))
    return machine


def joinable() -> Machine:
    machine = opened(3)
    machine.all_well(machine.register(NEW))
    return machine


def counted() -> Machine:
    machine = recorded(3)
    statement = machine.model()
    machine.all_well(machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, [node_of(1), node_of(2)]))
    return machine


def model(machine: Machine) -> ModelStatement:
    return machine.model()


PREPARED: dict[str, Callable[[], Machine]] = {
    "initialise": Machine, "register": initialised, "depart": registered, "publish": registered,
    "create_task": initialised, "join": joinable, "start": lambda: opened(3),
    "record_round": counted, "open_tally": lambda: recorded(3), "add_signatures": counted,
    "attest": counted, "finalise": counted, "close_tally": counted, "cancel": lambda: opened(3),
    "anchor": Machine,
}  # fmt: skip
STEPS: dict[str, Callable[[Machine], Instruction]] = {
    "initialise": lambda m: m.initialise(),
    "register": lambda m: m.register(A),
    "depart": lambda m: m.depart(A, 1),
    "publish": lambda m: m.publish(A),
    "create_task": lambda m: m.create_task(),
    "join": lambda m: m.join(NEW),
    "start": lambda m: m.of_task("start"),
    "record_round": lambda m: m.record(2, 2),
    "open_tally": lambda m: m.open_tally(model(m)),
    "add_signatures": lambda m: m.add_signatures(model(m), [A, node_of(1)]),
    "attest": lambda m: m.with_tally("attest", model(m)),
    "finalise": lambda m: m.with_tally("finalise", model(m)),
    "close_tally": lambda m: m.with_tally("close_tally", model(m)),
    "cancel": lambda m: m.cancel("why"),
    "anchor": lambda m: m.anchor(digest("receipts")),
}
every_instruction = pytest.mark.parametrize("name", SHAPES)


def roles(name: str, instruction: Instruction) -> list[tuple[str, str]]:
    fixed = [(role, flags) for role, flags in SHAPES[name]["accounts"]]
    return fixed + [("member", "")] * (len(instruction.accounts) - len(fixed))


def with_account(instruction: Instruction, index: int, meta: AccountMeta) -> Instruction:
    metas = list(instruction.accounts)
    metas[index] = meta
    return Instruction(instruction.program_id, instruction.data, metas)


def test_every_instruction_is_tried() -> None:
    assert set(PREPARED) == set(STEPS) == set(SHAPES)


@every_instruction
def test_bytes_too_many_or_too_few_are_refused(name: str) -> None:
    machine, good = ready(name)
    for data in (good.data[:-1], good.data + b"\0", good.data + bytes(64)):
        bad = Instruction(good.program_id, data, good.accounts)
        expected = "WrongDataLength" if data else "UnknownInstruction"
        assert machine.send(bad).error == expected
    assert machine.send(good).error is None


@every_instruction
def test_accounts_too_many_or_too_few_are_refused(name: str) -> None:
    machine, good = ready(name)
    extra = AccountMeta(Pubkey(b"x" * 32), False, False)
    for metas in (good.accounts[:-1], [*good.accounts, extra], [*good.accounts] + [extra] * 20, []):
        bad = Instruction(good.program_id, good.data, metas)
        assert machine.send(bad).error == "WrongAccountCount"


@every_instruction
def test_who_must_sign_must_sign_and_what_is_written_must_be_writable(name: str) -> None:
    machine, good = ready(name)
    for index, (role, flags) in enumerate(roles(name, good)):
        meta = good.accounts[index]
        if "s" in flags:
            silent = with_account(good, index, AccountMeta(meta.pubkey, False, meta.is_writable))
            assert machine.send(silent).error == "MissingSigner", role
        if "w" in flags:
            fixed = with_account(good, index, AccountMeta(meta.pubkey, meta.is_signer, False))
            assert machine.send(fixed).error == "NotWritable", role
    assert machine.send(good).error is None


@every_instruction
def test_an_account_that_is_not_ours_or_not_there_or_of_another_kind_is_refused(name: str) -> None:
    machine, good = ready(name)
    for index, (role, flags) in enumerate(roles(name, good)):
        if "s" in flags:
            continue
        meta = good.accounts[index]
        held = machine.svm.get_account(meta.pubkey)
        absent = Pubkey(bytes([index]) * 31 + b"a")
        empty = with_account(good, index, AccountMeta(absent, False, meta.is_writable))
        if role == "system":
            assert machine.send(empty).error == "WrongSystemProgram"
            continue
        expected = (
            "NotMember"
            if name == "add_signatures" and role == "member"
            else ABSENT.get(role, "WrongAddress")
        )
        created = held is None
        assert machine.send(empty).error == ("WrongAddress" if created else expected), role
        if held is None:
            continue
        data, rent = bytes(held.data), held.lamports
        copies = {
            "WrongOwner": [(data, Pubkey(b"z" * 32)), (data, Pubkey.default())],
            "WrongAddress": [(data, machine.program)],
            "WrongAccountKind": [
                (bytes([data[0] % 8 + 1]) + data[1:], machine.program),
                (data[:1] + b"\2" + data[2:], machine.program),
                (data[:-1] if role != "tally" else data[:207], machine.program),
                (b"", machine.program),
            ],
        }
        if role != "tally":
            copies["WrongAccountKind"].append((data + b"\0", machine.program))
        for number, (error, forgeries) in enumerate(copies.items()):
            for place, (content, owner) in enumerate(forgeries):
                fake = Pubkey(bytes([index, number, place]) + b"f" * 29)
                machine.svm.set_account(fake, Account(10 * rent, content, owner, False, 0))
                bad = with_account(good, index, AccountMeta(fake, False, meta.is_writable))
                assert machine.send(bad).error == error, (role, place)
        # At its own place, but with another bump: the address is not the one that the bump gives.
        other = data[:2] + bytes([data[2] ^ 1]) + data[3:]
        machine.svm.set_account(meta.pubkey, Account(rent, other, held.owner, False, 0))
        assert machine.send(good).error == "WrongAddress", role
        machine.svm.set_account(meta.pubkey, held)
    assert machine.send(good).error is None


@every_instruction
def test_one_account_in_two_places_is_refused(name: str) -> None:
    machine, good = ready(name)
    payer = good.accounts[0].pubkey
    for there, here in permutations(range(len(good.accounts)), 2):
        meta = good.accounts[there]
        twice = AccountMeta(good.accounts[here].pubkey, meta.is_signer, meta.is_writable)
        if meta.is_signer:
            # Nobody has the key of a program's account: the payer signs, and stands in its place.
            bad = with_account(good, here, AccountMeta(payer, True, True))
        else:
            bad = with_account(good, there, twice)
        assert machine.send(bad).error is not None, (there, here)
    assert machine.send(good).error is None


def test_a_tag_that_means_nothing_is_refused() -> None:
    machine = Machine()
    for data in (b"", bytes([15]), bytes([255]) + bytes(68)):
        assert machine.send(Instruction(machine.program, data, [])).error == "UnknownInstruction"


def test_signatures_are_counted_as_many_as_are_announced() -> None:
    machine, good = ready("add_signatures")
    for count in (0, 1, 3, 17, 255):
        bad = Instruction(good.program_id, bytes([9, count]) + good.data[2:], good.accounts)
        assert machine.send(bad).error == "WrongDataLength"
    nothing = Instruction(good.program_id, bytes([9, 0]), good.accounts[:3])
    assert machine.send(nothing).error == "WrongDataLength"


def test_only_the_issuer_anchors_in_its_own_name() -> None:
    machine = Machine()
    other = Keypair.from_seed(b"o" * 32)
    machine.svm.airdrop(other.pubkey(), 10**10)
    good = machine.anchor(digest("receipts"))
    bad = with_account(good, 0, AccountMeta(other.pubkey(), True, True))
    assert machine.send(bad, other).error == "WrongAddress"


def test_the_rent_of_a_tally_goes_to_nobody_but_the_coordinator() -> None:
    machine, good = ready("close_tally")
    thief = Keypair.from_seed(b"t" * 32)
    machine.svm.airdrop(thief.pubkey(), 10**10)
    bad = with_account(good, 0, AccountMeta(thief.pubkey(), True, True))
    assert machine.send(bad, thief).error == "NotCoordinator"

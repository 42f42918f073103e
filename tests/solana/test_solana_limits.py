"""Counters at their last value: states that no test could reach, written into the accounts."""

from solana_machine import INTERFACE, SIZES, Machine, digest, node_of, opened, recorded
from solders.account import Account
from solders.pubkey import Pubkey

A = node_of(0)


def force(machine: Machine, kind: str, address: Pubkey, field: str, value: int) -> None:
    """Overwrite one number of an account."""
    held = machine.svm.get_account(address)
    assert held is not None
    offset, of = next(
        (offset, of) for name, offset, of in INTERFACE["accounts"][kind]["fields"] if name == field
    )
    data = bytearray(held.data)
    data[offset : offset + SIZES[of]] = value.to_bytes(SIZES[of], "little")
    forced = Account(held.lamports, bytes(data), held.owner, False, held.rent_epoch)
    machine.svm.set_account(address, forced)


def test_a_task_takes_as_many_members_as_a_tally_has_room_for() -> None:
    machine = opened(2)
    task = machine.task_at(machine.task_id())
    machine.all_well(machine.register(node_of(2)), machine.register(node_of(3)))
    force(machine, "task", task, "members", 8191)
    machine.all_well(machine.join(node_of(2)))
    assert machine.send(machine.join(node_of(3))).error == "TooManyMembers"
    machine.all_well(machine.of_task("start"), machine.record(1), machine.record(2))
    statement = machine.model()
    machine.all_well(machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, [node_of(2), A]))
    tally = machine.read("tally", machine.tally_at(statement))
    assert tally is not None
    assert tally["bitmap"] == (1 | 1 << 8191).to_bytes(1024, "little")


def test_a_nonce_never_wraps() -> None:
    machine = Machine()
    machine.all_well(machine.initialise(), machine.register(A))
    force(machine, "node", machine.node_at(A), "nonce", 2**64 - 1)
    assert machine.send(machine.register(A)).error == "Overflow"
    assert machine.send(machine.depart(A, 1)).error == "Overflow"


def test_a_counter_of_tasks_never_wraps() -> None:
    machine = Machine()
    machine.all_well(machine.initialise(), machine.create_task())
    force(machine, "coordinator", machine.counter, "count", 2**64 - 1)
    assert machine.send(machine.create_task(2**64 - 1)).error == "Overflow"


def test_the_version_after_the_last_one_is_none() -> None:
    machine = Machine()
    machine.all_well(machine.initialise(), machine.register(A), machine.publish(A))
    address = machine.dataset_at(A, digest("pupils"))
    force(machine, "dataset", address, "version", 2**32 - 2)
    machine.all_well(machine.publish(A, 2**32 - 1))
    assert machine.send(machine.publish(A, 0)).error == "WrongVersion"


def test_the_round_after_the_last_one_is_none() -> None:
    machine = recorded(3)
    task = machine.task_at(machine.task_id())
    force(machine, "task", task, "rounds", 2**32 - 1)
    force(machine, "task", task, "last_round", 2**32 - 1)
    force(machine, "task", task, "last_attempt", 2**32 - 1)
    assert machine.send(machine.record(0)).error == "OutOfOrder"
    assert machine.send(machine.record(2**32 - 1, 0)).error == "OutOfOrder"


def test_a_member_without_samples_or_beyond_the_bitmap_does_not_count() -> None:
    machine = recorded(3)
    statement, member = machine.model(), machine.member_at(machine.task_id(), A)
    machine.all_well(machine.open_tally(statement))
    force(machine, "member", member, "index", 64)
    assert machine.send(machine.add_signatures(statement, [A])).error == "Overflow"
    force(machine, "member", member, "index", 0)
    force(machine, "member", member, "samples", 0)
    assert machine.send(machine.add_signatures(statement, [A])).error == "NotMember"

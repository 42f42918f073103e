"""What the Solana program does when everybody behaves, compared with what records compute."""

from dataclasses import dataclass

import pytest
from solana_machine import ZERO, Machine, digest, node_of, opened, raw, recorded, running
from solders.pubkey import Pubkey

from twopm_flower.records.chaining import roster_digest, round_head


@dataclass(frozen=True)
class Joined:
    node: str
    samples: int
    data_commitment: str
    sealing_key: str


def test_the_config_holds_the_domains_of_the_registries() -> None:
    machine = Machine()
    machine.all_well(machine.initialise())
    config = machine.read("config", machine.config)
    assert config is not None
    for name in ("node", "task", "data"):
        assert config[f"{name}_registry"] == machine.registry(name)
        assert config[f"{name}_domain"] == "0x" + machine.domain(name).separator.hex()


def test_a_node_registers_changes_its_key_leaves_and_comes_back() -> None:
    machine, node = Machine(), node_of(0)
    machine.all_well(machine.initialise(), machine.register(node))
    machine.all_well(machine.register(node, 1, sealing_key=digest("other")))
    assert machine.read("node", machine.node_at(node)) == {
        "node": node.address, "nonce": 2, "sealing_key": digest("other"),
    }  # fmt: skip
    machine.all_well(machine.depart(node, 2))
    assert machine.read("node", machine.node_at(node)) == {
        "node": node.address, "nonce": 3, "sealing_key": ZERO,
    }  # fmt: skip
    machine.all_well(machine.register(node, 3))


def test_the_versions_of_a_dataset_follow_one_another() -> None:
    machine, node = Machine(), node_of(0)
    machine.all_well(machine.initialise(), machine.register(node))
    machine.all_well(machine.publish(node, 1), machine.publish(node, 2, samples=7))
    machine.all_well(machine.publish(node, 1, dataset=digest("teachers")))
    held = machine.read("dataset", machine.dataset_at(node, digest("pupils")))
    assert held == {
        "node": node.address, "dataset": digest("pupils"), "version": 2, "samples": 7,
        "commitment": digest("commitment 2"),
    }  # fmt: skip


def test_two_tasks_of_one_coordinator_with_the_same_terms_have_different_ids() -> None:
    machine = Machine()
    machine.all_well(machine.initialise(), machine.create_task(0), machine.create_task(1))
    first, second = (machine.read("task", machine.task_at(machine.task_id(n))) for n in (0, 1))
    assert first is not None
    assert second is not None
    assert (first["task_id"], second["task_id"]) == (machine.task_id(0), machine.task_id(1))
    counter = machine.read("coordinator", machine.counter)
    assert counter is not None
    assert counter["count"] == 2


def test_the_roster_digest_is_the_one_that_records_compute() -> None:
    machine = opened(5)
    task = machine.read("task", machine.task_at(machine.task_id()))
    assert task is not None
    assert task["members"] == 5
    assert task["state"] == 1
    members = []
    for number in range(5):
        node = node_of(number)
        member = machine.read("member", machine.member_at(machine.task_id(), node))
        assert member is not None
        assert member["index"] == number
        members.append(Joined(node.address, 100, digest("data " + node.address), node.sealing_key))
        assert member["data_commitment"] == members[-1].data_commitment
    assert task["roster_digest"] == roster_digest(members)


def test_the_head_is_the_one_that_records_compute_with_superseded_attempts() -> None:
    machine = running(rounds=3)
    head = previous = ZERO
    for number, attempt in ((1, 1), (2, 2), (2, 5), (3, 1)):
        machine.all_well(machine.record(number, attempt))
        previous, head = head, round_head(
            head, machine.task_id(), number, attempt,
            manifest_digest=digest(f"manifest {number} {attempt}"),
            updates_root=digest(f"root {number} {attempt}"),
        )  # fmt: skip
        task = machine.read("task", machine.task_at(machine.task_id()))
        assert task is not None
        assert (task["head"], task["previous_head"]) == (head, previous)
        assert (task["last_round"], task["last_attempt"]) == (number, attempt)
        assert machine.events[-1][1]["head"] == head


def test_ten_members_finalise_over_two_transactions() -> None:
    machine = recorded(10, quorum=10)
    members = sorted((node_of(n) for n in range(10)), key=lambda node: node.address.lower())
    statement = machine.model()
    before = machine.svm.get_balance(machine.coordinator.pubkey())
    machine.all_well(machine.open_tally(statement), machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, members[:8]))
    assert machine.send(machine.with_tally("finalise", statement)).error == "QuorumMissed"
    machine.all_well(machine.add_signatures(statement, members[:8]))
    assert machine.send(machine.with_tally("attest", statement)).error == "QuorumMissed"
    machine.all_well(machine.add_signatures(statement, members[8:]))
    tally = machine.read("tally", machine.tally_at(statement))
    assert tally is not None
    assert tally["signers"] == 10
    assert tally["bitmap"] == (2**10 - 1).to_bytes(8, "little")
    machine.all_well(machine.with_tally("attest", statement))
    machine.all_well(machine.with_tally("finalise", statement))
    task = machine.read("task", machine.task_at(machine.task_id()))
    assert task is not None
    assert task["state"] == 3
    assert task["model_digest"] == statement.model_digest
    assert [name for name, _ in machine.events[-2:]] == ["ModelAttested", "TaskFinalised"]
    assert machine.events[-1][1]["signers"] == machine.events[-2][1]["signers"] == 10
    # The rent of the tally came back: it cost the coordinator nothing in the end.
    assert machine.svm.get_balance(machine.coordinator.pubkey()) == before
    assert machine.read("tally", machine.tally_at(statement)) is None


def test_a_round_is_attested_while_the_task_goes_on() -> None:
    machine = running()
    machine.all_well(machine.record(1))
    statement = machine.model(1)
    members = [node_of(0), node_of(2)]
    machine.all_well(machine.open_tally(statement), machine.add_signatures(statement, members))
    machine.all_well(machine.with_tally("attest", statement))
    assert machine.events[-1][0] == "ModelAttested"
    assert machine.events[-1][1]["round"] == 1
    machine.all_well(machine.record(2))
    assert machine.send(machine.with_tally("attest", statement)).error == "StaleTally"
    machine.all_well(machine.with_tally("close_tally", statement))
    assert machine.read("tally", machine.tally_at(statement)) is None


def test_a_tally_and_its_events_tell_what_the_members_signed() -> None:
    machine = recorded(3)
    statement = machine.model()
    signed = {
        name: getattr(statement, name)
        for name in ("task_id", "round", "manifest_digest", "model_digest", "metrics_digest")
    }
    machine.all_well(machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, [node_of(0), node_of(1)]))
    tally = machine.read("tally", machine.tally_at(statement))
    assert tally is not None
    assert {name: tally[name] for name in signed} == signed
    assert raw(tally["statement_digest"]) == statement.signing_hash(machine.domain("task"))
    machine.all_well(machine.with_tally("attest", statement))
    assert machine.events[-1] == ("ModelAttested", signed | {"signers": 2})
    machine.all_well(machine.with_tally("finalise", statement))
    told = {name: signed[name] for name in ("task_id", "model_digest", "metrics_digest")}
    task = machine.read("task", machine.task_at(machine.task_id()))
    assert task is not None
    assert machine.events[-1] == ("TaskFinalised", told | {"head": task["head"], "signers": 2})


def test_a_bitmap_has_room_for_every_member() -> None:
    machine = recorded(65, rounds=1)
    statement = machine.model(1)
    machine.all_well(machine.open_tally(statement))
    machine.all_well(machine.add_signatures(statement, [node_of(64), node_of(63)]))
    tally = machine.read("tally", machine.tally_at(statement))
    assert tally is not None
    assert tally["bitmap"] == (3 << 63).to_bytes(16, "little")
    machine.all_well(machine.with_tally("finalise", statement))


def test_receipts_are_anchored_with_the_slot_and_time() -> None:
    machine = Machine()
    machine.svm.warp_to_slot(77)
    machine.all_well(machine.anchor(digest("receipts"), 9))
    clock = machine.svm.get_clock()
    assert machine.read("anchor", machine.anchor_at(digest("receipts"))) == {
        "issuer": "0x" + bytes(machine.coordinator.pubkey()).hex(), "root": digest("receipts"),
        "slot": 77, "time": clock.unix_timestamp, "count": 9,
    }  # fmt: skip


@pytest.mark.parametrize("lamports", [1, 10**9])
def test_lamports_sent_ahead_stop_nobody(lamports: int) -> None:
    machine = Machine()
    machine.svm.airdrop(machine.anchor_at(digest("receipts")), lamports)
    machine.all_well(machine.anchor(digest("receipts")))
    held = machine.svm.get_balance(machine.anchor_at(digest("receipts")))
    assert held == max(lamports, machine.svm.minimum_balance_for_rent_exemption(96))


def test_an_account_is_worth_its_rent_and_no_more() -> None:
    machine = opened()
    for address in (machine.config, machine.counter, machine.task_at(machine.task_id())):
        account = machine.svm.get_account(address)
        assert account is not None
        needed = machine.svm.minimum_balance_for_rent_exemption(len(account.data))
        assert account.lamports == needed


def test_state_can_be_rebuilt_from_the_events_alone() -> None:
    machine = recorded(4, rounds=2)
    machine.all_well(machine.publish(node_of(1), 1), machine.publish(node_of(1), 2))
    machine.all_well(machine.depart(node_of(3), 1), machine.record(2, 2))
    machine.all_well(machine.anchor(digest("receipts"), 4))
    statement = machine.model(2, 2)
    machine.all_well(machine.open_tally(statement, 2))
    machine.all_well(machine.add_signatures(statement, [node_of(n) for n in range(3)]))
    machine.all_well(machine.with_tally("finalise", statement))
    machine.all_well(machine.create_task(1))
    reason = "no node came " + "x" * 200
    machine.all_well(machine.of_task("cancel", machine.task_id(1), reason=reason))
    assert machine.events[-1][1]["reason"] == reason

    rebuilt = rebuild(machine)
    for (kind, address), expected in rebuilt.items():
        held = machine.read(kind, address)
        assert held is not None
        # When a batch was anchored is the transaction's to say, not the event's.
        for name in ("slot", "time"):
            held.pop(name, None)
        assert held == expected, kind
    ours = {kind for kind, _ in rebuilt}
    assert ours == {"config", "node", "dataset", "coordinator", "task", "member", "anchor"}


def rebuild(machine: Machine) -> dict[tuple[str, Pubkey], dict[str, object]]:
    state: dict[tuple[str, Pubkey], dict[str, object]] = {}

    def bytes_of(text: object) -> bytes:
        return bytes.fromhex(str(text)[2:])

    for name, event in machine.events:
        if "task_id" in event:
            task_key = ("task", machine.at(b"task", bytes_of(event["task_id"])))
            task = state.setdefault(task_key, {})
        if name == "Initialised":
            domains = {
                f"{n}_domain": "0x" + machine.domain(n).separator.hex()
                for n in ("node", "task", "data")
            }
            state["config", machine.config] = event | domains
        elif name in ("NodeRegistered", "NodeLeft"):
            held = {"sealing_key": ZERO} | event | {"nonce": event["nonce"] + 1}
            state["node", machine.at(b"node", bytes_of(event["node"]))] = held
        elif name == "DataPublished":
            seeds = (b"dataset", bytes_of(event["node"]), bytes_of(event["dataset"]))
            state["dataset", machine.at(*seeds)] = event
        elif name == "TaskCreated":
            zeros = dict.fromkeys(("roster_digest", "head", "model_digest", "previous_head"), ZERO)
            counts = dict.fromkeys(("last_round", "last_attempt", "members"), 0)
            task.update(event | zeros | counts | {"state": 1})
            key = ("coordinator", machine.counter)
            count = int(str(state.get(key, {"count": 0})["count"])) + 1
            state[key] = {"coordinator": event["coordinator"], "count": count}
        elif name == "MemberJoined":
            task.update(roster_digest=event["roster_digest"], members=event["index"] + 1)
            address = machine.at(b"member", bytes_of(event["task_id"]), bytes_of(event["node"]))
            state["member", address] = {k: v for k, v in event.items() if k != "roster_digest"}
        elif name == "TaskStarted":
            task["state"] = 2
        elif name == "RoundRecorded":
            task.update(previous_head=task["head"], head=event["head"])
            task.update(last_round=event["round"], last_attempt=event["attempt"])
        elif name == "TaskFinalised":
            task.update(state=3, model_digest=event["model_digest"])
        elif name == "TaskCancelled":
            task["state"] = 4
        elif name == "ReceiptsAnchored":
            seeds = (b"anchor", bytes_of(event["issuer"]), bytes_of(event["root"]))
            state["anchor", machine.at(*seeds)] = event
    return state

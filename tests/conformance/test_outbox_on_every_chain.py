from chain_stage import digest

from twopm_flower.chain.base import AnchorCall, AttestCall, FinaliseCall, FinalRound, RoundCall
from twopm_flower.chain.events import EventStream
from twopm_flower.chain.outbox import Outbox
from twopm_flower.records.chaining import round_head


def test_a_whole_task_goes_through_an_outbox_and_its_events_come_once(stage, nodes, tmp_path):
    task_id, other = stage.running_task(nodes), stage.running_task(nodes, rounds=1)
    with EventStream(stage.connector, tmp_path / "events.sqlite") as stream:
        for item in stream:
            stream.ack(item)
        outbox = Outbox(tmp_path / "outbox.sqlite")
        rounds = [
            RoundCall(task_id, number, 1, digest(1000 + number), digest(2001)) for number in (1, 2)
        ]
        for call in (*rounds, RoundCall(other, 1, 1, digest(3), digest(4)), AnchorCall(task_id, 3)):
            outbox.enqueue(call)
        assert outbox.deliver(stage.connector) == 4
        head = round_head(
            digest(0), task_id, 1, 1, manifest_digest=digest(1001), updates_root=digest(2001)
        )
        last = FinalRound(head, 1, digest(1002), digest(2001))
        given = {node.address: stage.model_signature(task_id, node) for node in nodes}
        outbox.enqueue(AttestCall(task_id, last, digest(7), digest(8), given, 2))
        outbox.enqueue(FinaliseCall(task_id, last, digest(7), digest(8), given))
        assert outbox.deliver(stage.connector) == 2
        assert outbox.deliver(stage.connector) == 0
        assert outbox.pending() == ()
        assert stage.state(task_id).state == "finalised"
        for entry in outbox.entries():
            found = stage.connector.inclusion(entry.transaction_hash)
            assert (found.block_number, found.block_hash) == (entry.block_number, entry.block_hash)
        outbox.close()
        told = [item.event for item in stream]
    assert [(event.name, event.values["round"]) for event in told if "round" in event.values] == [
        (event.name, event.values["round"])
        for event in stage.connector.events(told[0].block_number, told[-1].block_number)
        if "round" in event.values
    ]
    names = [event.name for event in told if event.values.get("task_id") == task_id]
    assert names == ["round_recorded", "round_recorded", "model_attested", "task_finalised"]
    assert len({event.transaction_hash for event in told}) == 6

"""Somebody makes the log of a transaction overflow, so that an event is lost for good."""

import pytest
from chain_stage import digest
from solana_stage import Lying, open_stage, pay
from solders.compute_budget import set_compute_unit_limit

from twopm_flower.chain.base import FinalRound
from twopm_flower.chain.events import EventStream
from twopm_flower.chain.solana_history import signature_of
from twopm_flower.chain.solana_identity import Accounts
from twopm_flower.chain.solana_program import PROGRAM_ID
from twopm_flower.chain.solana_wire import Instructions
from twopm_flower.errors import WrongChain
from twopm_flower.records.statements import ModelStatement

AT = Accounts(PROGRAM_ID)
ENOUGH = 27
"""So often an attestation fills the 10,000 bytes of a transaction's log."""


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    chain = open_stage(tmp_path_factory.mktemp("overflow") / "chain")
    with chain.local:
        yield chain


def overflow(chain, task_id, node, last):
    """Attest again and again, and then record a round, whose event no log has room for."""
    write = Instructions(AT, chain.local.signer.public_key)
    stage = chain.stage
    record = FinalRound(digest(0), 1, last.manifest_digest, last.updates_root)
    statement = ModelStatement(
        task_id=task_id,
        round=1,
        manifest_digest=last.manifest_digest,
        model_digest=digest(7),
        metrics_digest=digest(8),
    )
    tally = AT.tally(statement.signing_hash(stage.task_domain))
    signed = [(node.address, stage.model_signature(task_id, node))]
    instructions = [
        set_compute_unit_limit(1_400_000),
        write.open_tally(task_id, tally, record, digest(7), digest(8)),
        write.add_signatures(task_id, tally, signed),
        *[write.attest(task_id, tally)] * ENOUGH,
        write.record_round(task_id, 2, 1, digest(5), digest(6)),
    ]
    pay(chain, chain.local.signer, instructions)


def test_a_task_whose_events_were_kept_from_the_log_stops_no_other(chain, tmp_path):
    stage = chain.stage
    nodes = stage.registered_nodes(2)
    spoilt, other = (stage.running_task(nodes, quorum=1, rounds=4) for _ in range(2))
    with EventStream(stage.connector, tmp_path / "events.sqlite") as stream:
        for item in stream:
            stream.ack(item)
        overflow(chain, spoilt, nodes[0], stage.record(spoilt, 1))
        assert stage.state(spoilt).last_round == 2
        write = Instructions(AT, chain.local.signer.public_key)
        pay(chain, chain.local.signer, [write.record_round(spoilt, 3, 1, digest(5), digest(6))])
        stage.record(other, 1)
        told = [item.event for item in stream]
        rounds = [
            (event.values["task_id"], event.values["round"])
            for event in told
            if event.name == "round_recorded"
        ]
        assert rounds == [(spoilt, 1), (spoilt, 3), (other, 1)]
    with pytest.raises(WrongChain, match="do not add up to its head"):
        stage.connector.round_records(spoilt)

    # What an endpoint hides is still an error, of this and of any other task.
    stage.record(other, 2)
    stage.record(other, 3)
    hidden = signature_of(stage.connector.round_records(other)[1].transaction_hash)

    def hide(listed, _parameters):
        return [entry for entry in listed if entry["signature"] != hidden]

    lying = chain.connector(Lying(chain.local.rpc, "getSignaturesForAddress", hide))
    with (
        EventStream(lying, tmp_path / "others.sqlite") as stream,
        pytest.raises(WrongChain, match=f"hides events of task {other}"),
    ):
        list(stream)

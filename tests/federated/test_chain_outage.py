"""The chain goes away in the middle of a run, and comes back or does not."""

import pytest
from federation import Stage, federation

from twopm_flower.chain.outbox import Outbox
from twopm_flower.errors import ChainUnavailable
from twopm_flower.federated import RoundCallback
from twopm_flower.verify import verify_bundle

pytestmark = pytest.mark.slow


@pytest.fixture
def own_stage(tmp_path):
    stage = Stage.open(tmp_path / "stage")
    yield stage
    stage.devnet.stop()


class Outage(RoundCallback):
    """Kills the chain before one round, and starts it again after another one."""

    def __init__(self, stage, *, before, until=None):
        self.stage, self.before, self.until = stage, before, until

    def before_round(self, round_):
        if round_ == self.before:
            self.stage.devnet.kill()

    def round_completed(self, bundle):
        if len(bundle.rounds) == self.until:
            self.stage.devnet.start()


def recorded(made):
    records = made.stage.connector.round_records(made.task_id)
    return [(record.round, record.attempt) for record in records]


def test_after_an_outage_of_two_rounds_every_round_is_on_chain_exactly_once(own_stage, tmp_path):
    made = federation(own_stage, tmp_path / "nodes", nodes=3, rounds=4)
    for node in made.nodes:
        # Round 1 may not have been seen on chain yet when it goes away.
        node.configure(max_unrecorded_rounds=3)
    made.run(callbacks=[Outage(own_stage, before=2, until=3)], max_unrecorded_rounds=3)

    assert recorded(made) == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert own_stage.connector.task(made.task_id).state == "finalised"
    report = verify_bundle(made.bundle(), chain=own_stage.reader())
    assert report.exit_code == 0, report.first_failure
    for node in made.nodes:
        assert node.progress.halted is None
        assert node.progress.opened_round == 4


def test_a_chain_that_stays_away_ends_the_run_with_what_is_missing_and_how_to_deliver_it(
    own_stage, tmp_path
):
    made = federation(own_stage, tmp_path / "nodes", nodes=3, rounds=2)
    outage = Outage(own_stage, before=2)
    with pytest.raises(ChainUnavailable) as caught:
        made.run(callbacks=[outage], anchor_wait_s=1.0)
    text = str(caught.value)
    assert "the run is complete, but its finalisation and rounds [2] are not on chain" in text
    assert f"twopm chain deliver {made.task_id}" in text

    # Nothing is lost: the model is with the nodes, and the records wait to be delivered.
    for node in made.nodes:
        assert node.progress.opened_round == 2
    own_stage.devnet.start()
    outbox = Outbox(made.store.outbox_path)
    assert outbox.deliver(own_stage.connector) == 2
    assert outbox.deliver(own_stage.connector) == 0
    outbox.close()
    assert recorded(made) == [(1, 1), (2, 1)]
    task = own_stage.connector.task(made.task_id)
    assert task.state == "finalised"
    assert task.model_digest == made.nodes[0].progress.model_digest

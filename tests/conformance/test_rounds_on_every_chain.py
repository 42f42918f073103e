import pytest
from chain_stage import digest, refused

from twopm_flower.chain.base import RoundCall
from twopm_flower.errors import RecordConflict
from twopm_flower.records.chaining import round_head


def test_records_are_chained_and_found_again(stage, nodes):
    task_id = stage.running_task(nodes)
    made = [stage.record(task_id, 1), stage.record(task_id, 2)]
    assert list(stage.connector.round_records(task_id)) == made
    assert stage.connector.round_record(task_id, 2, 1) == made[1]
    assert stage.connector.round_record(task_id, 2, 2) is None
    task = stage.state(task_id)
    assert (task.last_round, task.last_attempt, task.head) == (2, 1, made[1].head)
    head = digest(0)
    for record in made:
        head = round_head(
            head,
            task_id,
            record.round,
            record.attempt,
            manifest_digest=record.manifest_digest,
            updates_root=record.updates_root,
        )
        assert record.head == head
        assert record.block_hash == stage.connector.block_hash(record.block_number)


def test_a_later_attempt_supersedes_an_earlier_one_and_both_stay_visible(stage, nodes):
    task_id = stage.running_task(nodes)
    stage.record(task_id, 1, attempt=1)
    stage.record(task_id, 1, attempt=3)
    records = stage.connector.round_records(task_id)
    assert [(record.round, record.attempt) for record in records] == [(1, 1), (1, 3)]
    assert stage.state(task_id).last_attempt == 3
    with refused("OutOfOrder"):
        stage.record(task_id, 1, attempt=2)
    stage.record(task_id, 2, attempt=1)
    with refused("OutOfOrder"):
        stage.record(task_id, 1, attempt=4)


@pytest.mark.parametrize(("round_number", "attempt"), [(0, 1), (1, 0), (2, 1), (3, 5)])
def test_the_first_record_is_of_round_one(stage, started, round_number, attempt):
    with refused("OutOfOrder"):
        stage.record(started, round_number, attempt)


@pytest.fixture(scope="session")
def started(stage, nodes):
    return stage.running_task(nodes, rounds=3)


@pytest.mark.parametrize(("round_number", "attempt"), [(1, 9), (0, 9), (3, 0), (2, 1)])
def test_a_round_is_neither_skipped_nor_gone_back_to(stage, running, round_number, attempt):
    with refused("OutOfOrder") as refusal:
        stage.record(running, round_number, attempt)
    assert refusal.value.arguments == {
        "round": round_number,
        "attempt": attempt,
        "lastRound": 2,
        "lastAttempt": 2,
    }
    assert "recordRound" in str(refusal.value)


def test_no_round_beyond_the_last_is_recorded(stage, finished):
    with refused("TooManyRounds"):
        stage.record(finished, 3)


@pytest.mark.parametrize("digests", [(digest(0), digest(1)), (digest(1), digest(0))])
def test_a_record_of_nothing_is_refused(stage, started, digests):
    with refused("ZeroDigest"):
        stage.connector.record_round(started, 1, 1, *digests)


def test_recording_the_same_again_is_success_and_something_else_an_alarm(stage, running):
    first = stage.connector.round_records(running)[0]
    assert stage.record(running, 1) == first
    with pytest.raises(RecordConflict):
        stage.connector.record_round(running, 1, 1, digest(1), first.updates_root)
    with pytest.raises(RecordConflict):
        stage.connector.record_round(running, 1, 1, first.manifest_digest, digest(1))
    # The rules say the same to a coordinator that does not look first.
    with refused("OutOfOrder"):
        stage.connector.sign_call(RoundCall(running, 1, 1, digest(1), first.updates_root))
    assert len(stage.connector.round_records(running)) == 2


def test_two_tasks_do_not_share_records(stage, running, started):
    assert stage.connector.round_records(started) == ()
    assert len(stage.connector.round_records(running)) == 2

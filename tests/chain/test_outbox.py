import json
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import asdict, replace

import pytest
from chain_stage import Stage, digest

from twopm_flower.chain.base import FinaliseCall, RoundCall
from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.chain.evm import EvmConnector, deploy
from twopm_flower.chain.outbox import Outbox
from twopm_flower.chain.outbox_store import OutboxStore
from twopm_flower.chain.outbox_worker import OutboxWorker
from twopm_flower.chain.sqlite_writing import writing
from twopm_flower.errors import (
    ChainError,
    ChainUnavailable,
    RecordConflict,
    SignerRefused,
    SignerUnavailable,
    TransactionReverted,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def outbox(path):
    outbox = Outbox(path)
    yield outbox
    outbox.close()


def calls(task_id, rounds=2):
    return [
        RoundCall(task_id, n, 1, digest(100 + n), digest(200 + n)) for n in range(1, rounds + 1)
    ]


def recorded(stage, task_id):
    return [
        RoundCall(task_id, r.round, r.attempt, r.manifest_digest, r.updates_root)
        for r in stage.connector.round_records(task_id)
    ]


class Cut:
    """A connector whose line is cut before or after a method has done its work."""

    def __init__(self, connector, method, *, after):
        self._connector, self._method, self._after = connector, method, after
        self.cut = True

    def __getattr__(self, name):
        wrapped = getattr(self._connector, name)
        if name != self._method:
            return wrapped

        def cut(*arguments, **settings):
            if self.cut and not self._after:
                raise ChainUnavailable("cut")
            answer = wrapped(*arguments, **settings)
            if self.cut:
                raise ChainUnavailable("cut")
            return answer

        return cut


def test_what_is_queued_is_recorded_in_order(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    for call in calls(task_id):
        outbox.enqueue(call)
    assert [entry.call for entry in outbox.pending()] == calls(task_id)
    assert outbox.deliver(stage.connector) == 2
    assert recorded(stage, task_id) == calls(task_id)
    assert outbox.pending() == ()
    hashes = [record.transaction_hash for record in stage.connector.round_records(task_id)]
    assert [entry.transaction_hash for entry in outbox.entries()] == hashes


def test_delivering_again_delivers_nothing(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    outbox.enqueue(calls(task_id)[0])
    outbox.deliver(stage.connector)
    block = stage.connector.head_block()
    outbox.enqueue(calls(task_id)[0])
    assert outbox.deliver(stage.connector) == 0
    assert stage.connector.head_block() == block


def test_a_queue_survives_its_process(path, stage, nodes):
    task_id = stage.running_task(nodes)
    first = Outbox(path)
    first.enqueue(calls(task_id)[0])
    first.close()
    second = Outbox(path)
    assert [entry.call for entry in second.pending()] == calls(task_id)[:1]
    second.deliver(stage.connector)
    second.close()
    assert recorded(stage, task_id) == calls(task_id)[:1]


def test_queueing_the_same_twice_is_once_and_something_else_is_an_alarm(outbox):
    call = calls(digest(1))[0]
    assert outbox.enqueue(call) == outbox.enqueue(call)
    assert len(outbox.entries()) == 1
    for change in ({"manifest_digest": digest(9)}, {"updates_root": digest(9)}):
        with pytest.raises(RecordConflict, match="new attempt"):
            outbox.enqueue(replace(call, **change))
    outbox.enqueue(replace(call, attempt=2, manifest_digest=digest(9)))
    assert [entry.call.attempt for entry in outbox.entries()] == [1, 2]


def test_what_can_never_be_delivered_is_not_queued(outbox):
    with pytest.raises(ChainError, match="hexadecimal"):
        outbox.enqueue(RoundCall(digest(1), 1, 1, "0x12", digest(2)))
    assert outbox.entries() == ()


def test_a_task_ends_through_the_outbox(stage, nodes, outbox):
    task_id = stage.finished_rounds(nodes)
    signatures = {node.address: stage.model_signature(task_id, node) for node in nodes}
    call = FinaliseCall(task_id, stage.last_record(task_id), digest(7), digest(8), signatures)
    outbox.enqueue(call)
    assert outbox.pending()[0].call == call
    outbox.deliver(stage.connector)
    assert stage.state(task_id).state == "finalised"
    with pytest.raises(RecordConflict):
        outbox.enqueue(replace(call, model_digest=digest(9)))


@pytest.mark.parametrize(
    "method", ["already_done", "next_nonce", "sign_call", "broadcast", "inclusion"]
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_line_cut_at_any_point_records_once(stage, nodes, outbox, method, after):
    task_id = stage.running_task(nodes)
    outbox.enqueue(calls(task_id)[0])
    line = Cut(stage.connector, method, after=after)
    with pytest.raises(ChainUnavailable):
        outbox.deliver(line)
    assert len(outbox.pending()) == 1
    line.cut = False
    outbox.deliver(line)
    assert recorded(stage, task_id) == calls(task_id)[:1]


def test_the_bytes_stored_first_are_the_bytes_sent_again(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    outbox.enqueue(calls(task_id)[0])
    line = Cut(stage.connector, "broadcast", after=False)
    with pytest.raises(ChainUnavailable):
        outbox.deliver(line)
    stored = outbox.pending()[0]
    assert stored.state == "signed"
    line.cut = False
    outbox.deliver(line)
    [record] = stage.connector.round_records(task_id)
    assert record.transaction_hash == stored.transaction.transaction_hash


def test_bytes_whose_nonce_is_taken_are_signed_anew(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    outbox.enqueue(calls(task_id)[0])
    line = Cut(stage.connector, "broadcast", after=False)
    with pytest.raises(ChainUnavailable):
        outbox.deliver(line)
    dead = outbox.pending()[0].transaction_hash
    stage.create()
    outbox.deliver(stage.connector)
    [record] = stage.connector.round_records(task_id)
    assert record.transaction_hash != dead
    assert outbox.entries()[0].transaction_hash == record.transaction_hash


def test_what_another_hand_recorded_is_success(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    [call] = calls(task_id, 1)
    record = stage.connector.record_round(task_id, 1, 1, call.manifest_digest, call.updates_root)
    outbox.enqueue(call)
    outbox.deliver(stage.connector)
    assert outbox.entries()[0].transaction_hash == record.transaction_hash
    assert recorded(stage, task_id) == [call]


def test_another_record_on_the_chain_is_an_alarm_that_holds_back_its_task_only(
    stage, nodes, outbox
):
    usurped, other = stage.running_task(nodes), stage.running_task(nodes)
    stage.connector.record_round(usurped, 1, 1, digest(66), digest(66))
    for call in [*calls(usurped), *calls(other)]:
        outbox.enqueue(call)
    with pytest.raises(RecordConflict):
        outbox.deliver(stage.connector)
    outbox.deliver(stage.connector)
    assert recorded(stage, other) == calls(other)
    assert [(e.call.round, e.state) for e in outbox.pending()] == [(1, "failed"), (2, "queued")]
    assert digest(66) in outbox.pending()[0].problem
    assert len(stage.connector.round_records(usurped)) == 1


def test_what_is_usurped_after_it_was_mined_holds_back_its_task_only(stage, nodes, outbox):
    usurped, other = stage.running_task(nodes), stage.running_task(nodes)

    class Unsettled(Cut):
        def inclusion(self, transaction_hash):
            found = stage.connector.inclusion(transaction_hash)
            return None if found is None else replace(found, final=False)

    outbox.enqueue(calls(usurped, 1)[0])
    outbox.deliver(Unsettled(stage.connector, "none", after=False))
    [entry] = outbox.settling()
    outbox.enqueue(calls(other, 1)[0])

    class Reorganised(Cut):
        """Another branch: our block is gone, and somebody else's record stands there."""

        def inclusion(self, transaction_hash):
            if transaction_hash == entry.transaction_hash:
                return None
            return stage.connector.inclusion(transaction_hash)

        def already_done(self, call):
            if call.task_id == usurped:
                raise RecordConflict("another record stands there")
            return stage.connector.already_done(call)

    branch = Reorganised(stage.connector, "none", after=False)
    with pytest.raises(RecordConflict):
        outbox.deliver(branch)
    assert outbox.deliver(branch) == 1
    assert recorded(stage, other) == calls(other, 1)
    assert [(e.call.task_id, e.state) for e in outbox.pending()] == [(usurped, "failed")]


def test_what_the_contract_refuses_fails_and_can_be_tried_again(stage, nodes, outbox):
    task_id = stage.open_task(nodes)
    outbox.enqueue(calls(task_id)[0])
    with pytest.raises(TransactionReverted, match="WrongState"):
        outbox.deliver(stage.connector)
    assert outbox.deliver(stage.connector) == 0
    stage.connector.start_task(task_id)
    assert outbox.retry_failed() == 1
    outbox.deliver(stage.connector)
    assert recorded(stage, task_id) == calls(task_id)[:1]


def test_one_process_at_a_time_delivers(path, stage, nodes):
    task_id = stage.running_task(nodes)
    first, second = Outbox(path), Outbox(path)
    first.enqueue(calls(task_id)[0])

    class Meanwhile(Cut):
        def __init__(self):
            super().__init__(stage.connector, "none", after=False)

        def sign_call(self, call, **settings):
            with pytest.raises(ChainUnavailable, match="in use"):
                second.deliver(stage.connector)
            return stage.connector.sign_call(call, **settings)

    first.deliver(Meanwhile())
    assert recorded(stage, task_id) == calls(task_id)[:1]
    first.close()
    second.close()


@pytest.mark.parametrize(
    "outage_s", [pytest.param(0.3, id="short"), pytest.param(60, id="60", marks=pytest.mark.full)]
)
def test_records_wait_out_an_outage_of_the_chain(tmp_path, path, outage_s):
    process = DevnetProcess(tmp_path / "chain").start()
    deployment = deploy(process.url, process.signer)
    connector = EvmConnector(process.url, deployment, process.signer, request_timeout_s=5)
    stage = Stage(connector)
    task_id = stage.running_task(stage.registered_nodes(2))
    outbox = Outbox(path)
    with OutboxWorker(outbox, connector, first_pause_s=0.05, longest_pause_s=0.2) as worker:
        worker.enqueue(calls(task_id)[0])
        worker.flush(timeout_s=30)
        process.kill()
        worker.enqueue(calls(task_id)[1])
        with pytest.raises(ChainUnavailable, match="1 entries"):
            worker.flush(timeout_s=outage_s)
        assert worker.unrecorded() == 1
        with DevnetProcess(tmp_path / "chain", port=process.port):
            worker.flush(timeout_s=60)
            assert worker.unrecorded() == 0
            assert worker.alarm is None
            assert recorded(stage, task_id) == calls(task_id)
    outbox.close()


def test_the_worker_delivers_without_being_asked(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    done = threading.Event()
    outbox_seen = Outbox(outbox._path, observe=lambda step, _: step == "mined" and done.set())
    with OutboxWorker(outbox_seen, stage.connector) as worker:
        worker.enqueue(calls(task_id)[0])
        assert done.wait(30)
    outbox_seen.close()
    assert recorded(stage, task_id) == calls(task_id)[:1]


def test_the_worker_raises_its_alarm_where_it_is_waited_for(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    stage.connector.record_round(task_id, 1, 1, digest(66), digest(66))
    with OutboxWorker(outbox, stage.connector, first_pause_s=0.01) as worker:
        worker.enqueue(calls(task_id)[0])
        with pytest.raises(RecordConflict):
            worker.flush(timeout_s=30)
        assert isinstance(worker.alarm, RecordConflict)


def test_what_nobody_thought_of_is_an_alarm_and_ends_no_delivery(stage, nodes, outbox):
    class Line(Cut):
        def __getattr__(self, name):
            if self.cut and name == "sign_call":
                raise ZeroDivisionError("nobody thought of it")
            return getattr(self._connector, name)

    task_id = stage.running_task(nodes)
    line = Line(stage.connector, "sign_call", after=False)
    with OutboxWorker(outbox, line, first_pause_s=0.01) as worker:
        worker.enqueue(calls(task_id)[0])
        with pytest.raises(ChainError, match="nobody thought of it"):
            worker.flush(timeout_s=30)
        line.cut = False
        while outbox.pending():
            time.sleep(0.01)
    assert recorded(stage, task_id) == calls(task_id)[:1]


def test_whoever_waits_does_not_wait_for_a_pause_to_end(stage, nodes, outbox):
    task_id = stage.running_task(nodes)
    tried = threading.Event()

    class Line(Cut):
        def __getattr__(self, name):
            tried.set()
            return super().__getattr__(name)

    line = Line(stage.connector, "sign_call", after=False)
    with OutboxWorker(outbox, line, first_pause_s=600, longest_pause_s=600) as worker:
        worker.enqueue(calls(task_id)[0])
        assert tried.wait(30)
        line.cut = False
        worker.flush(timeout_s=60)
    assert recorded(stage, task_id) == calls(task_id)[:1]


def test_stopping_does_not_wait_for_a_chain_that_is_gone(path, deployment, devnet):
    connector = EvmConnector("http://127.0.0.1:9", deployment, devnet.signer)
    outbox = Outbox(path)
    worker = OutboxWorker(outbox, connector, first_pause_s=600).start()
    worker.enqueue(calls(digest(1))[0])
    with pytest.raises(ChainUnavailable):
        worker.flush(timeout_s=0.1)
    worker.stop()
    outbox.close()


FIRST_FORMAT = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, task_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    payload TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
    raw BLOB, transaction_hash TEXT, problem TEXT,
    UNIQUE (kind, task_id, round, attempt)
);
"""


def test_an_outbox_of_the_first_format_is_delivered_with_its_own_bytes(path, stage, nodes):
    task_id = stage.running_task(nodes)
    mined, sent, queued = calls(task_id, 2) + calls(digest(9), 1)
    record = stage.connector.record_round(task_id, 1, 1, mined.manifest_digest, mined.updates_root)
    signed = stage.connector.sign_call(sent)
    rows = [
        (mined, "mined", None, record.transaction_hash),
        (sent, "broadcast", signed.raw, signed.transaction_hash),
        (queued, "queued", None, None),
    ]
    with closing(sqlite3.connect(path)) as first:
        first.executescript(FIRST_FORMAT)
        for call, state, raw, transaction_hash in rows:
            first.execute(
                "INSERT INTO entries (kind, task_id, round, attempt, payload, state, raw,"
                " transaction_hash) VALUES ('round', ?, ?, ?, ?, ?, ?, ?)",
                (
                    call.task_id,
                    call.round,
                    call.attempt,
                    json.dumps(asdict(call), sort_keys=True),
                    state,
                    raw,
                    transaction_hash,
                ),
            )
        first.commit()
    outbox = Outbox(path)
    assert [entry.call for entry in outbox.entries()] == [mined, sent, queued]
    assert [entry.call for entry in outbox.pending()] == [sent, queued]
    with pytest.raises(TransactionReverted, match="UnknownTask"):
        outbox.deliver(stage.connector)
    outbox.deliver(stage.connector)
    assert recorded(stage, task_id) == [mined, sent]
    assert stage.connector.round_records(task_id)[1].transaction_hash == signed.transaction_hash
    outbox.close()


def test_an_outbox_of_a_later_version_is_refused(path):
    Outbox(path).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 99")
    with pytest.raises(ChainError, match="later version"):
        Outbox(path)


def test_the_worker_looks_at_what_is_not_final_until_it_is(stage, nodes, path):
    task_id = stage.running_task(nodes)
    final = threading.Event()

    class NotYetFinal(Cut):
        def inclusion(self, transaction_hash):
            found = stage.connector.inclusion(transaction_hash)
            return None if found is None else replace(found, final=not self.cut)

    line = NotYetFinal(stage.connector, "none", after=False)
    outbox = Outbox(path, observe=lambda step, _: step == "final" and final.set())
    with OutboxWorker(outbox, line, settle_pause_s=0.05) as worker:
        worker.enqueue(calls(task_id)[0])
        worker.flush(timeout_s=30)
        assert [entry.state for entry in outbox.settling()] == ["confirmed"]
        assert not final.is_set()
        line.cut = False
        assert final.wait(30)
    assert outbox.settling() == ()
    outbox.close()


def test_a_signer_that_is_away_is_waited_for_and_one_that_refuses_is_an_alarm(stage, nodes, path):
    task_id = stage.running_task(nodes)
    answers = [SignerUnavailable("away"), SignerRefused("too dear")]

    class Signing(Cut):
        def sign_call(self, call, **settings):
            if answers:
                raise answers.pop(0)
            return stage.connector.sign_call(call, **settings)

    outbox = Outbox(path)
    line = Signing(stage.connector, "none", after=False)
    with OutboxWorker(outbox, line, first_pause_s=0.01) as worker:
        worker.enqueue(calls(task_id)[0])
        with pytest.raises(SignerRefused):
            worker.flush(timeout_s=30)
        assert isinstance(worker.alarm, SignerRefused)
    assert outbox.deliver(stage.connector) in {0, 1}
    assert recorded(stage, task_id) == calls(task_id)[:1]
    outbox.close()


def test_no_two_entries_that_wait_hold_one_nonce(path):
    store = OutboxStore(path)
    first, second = (store.add(call)[0] for call in calls(digest(1)))
    assert [store.reserve(number, 5) for number in (first, second)] == [5, 6]
    assert store.reserve(first, 5) == 5
    store.release(first)
    assert store.reserve(second, 5) == 5
    store.close()


def test_a_file_that_is_no_database_is_no_outbox(path):
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(ChainError, match="cannot be used as an outbox"):
        Outbox(path)


@pytest.mark.parametrize("version", [0, 2])
def test_a_database_of_another_kind_is_no_outbox_and_stays_as_it_is(path, version):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"CREATE TABLE recipes (name TEXT); PRAGMA user_version = {version}"
        )
    with pytest.raises(ChainError, match="of another kind"):
        Outbox(path)
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("recipes",)]


def test_a_damaged_outbox_is_refused_in_our_words(path):
    Outbox(path).close()
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)
    with pytest.raises(ChainError, match="cannot be used as an outbox"):
        Outbox(path)


def test_a_commit_that_fails_leaves_the_database_usable():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA foreign_keys = ON; CREATE TABLE parents (id INTEGER PRIMARY KEY);"
            "CREATE TABLE children (id REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)"
        )
        with pytest.raises(sqlite3.IntegrityError), writing(connection):
            connection.execute("INSERT INTO children VALUES (5)")
        with writing(connection):
            connection.execute("INSERT INTO parents VALUES (5)")

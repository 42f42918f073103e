import sqlite3
import stat
import threading
from contextlib import suppress

import pytest
from chain_stage import Stage, digest, new_node, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_stage import ask, connect, create_task, entries, read, small_history

from twopm_flower.chain import ledger_account
from twopm_flower.chain.backends import backend
from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.ledger_service import LedgerService
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ChainError, ChainUnavailable, RecordError


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def service(tmp_path, clock):
    with LedgerService(tmp_path / "ledger", clock=clock) as service:
        yield service


@pytest.fixture
def signer():
    return new_node()


def submit(service, signed):
    return ask(service, "ledger_submit", signed.to_json())


def test_an_action_is_one_entry_however_often_it_arrives(service, signer):
    signed = create_task(signer, service.replay.deployment, 1)
    answers = [submit(service, signed) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert service.replay.head == 1
    # Another signature by the same account over the same action adds nothing, either.
    other = signed.model_copy(update={"signature": other_signature(signed, signer, service)})
    assert other.signature != signed.signature
    assert submit(service, other) == answers[0]
    assert service.replay.head == 1


def other_signature(signed, signer, service):
    """A second valid signature: the first one's nonce was derived from key and message."""
    from coincurve import PrivateKey
    from coincurve._libsecp256k1 import ffi, lib

    action = signed.action
    message = action.signing_hash(action.domain(service.replay.deployment))
    key = PrivateKey(signer._key.to_bytes())
    made = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    extra = ffi.new("unsigned char[32]", b"\1" * 32)
    arguments = (made, message, key.secret, ffi.NULL, extra)
    assert lib.secp256k1_ecdsa_sign_recoverable(key.context.ctx, *arguments)
    raw, recovery = ffi.new("unsigned char[64]"), ffi.new("int *")
    lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(
        key.context.ctx, raw, recovery, made
    )
    return "0x" + (bytes(ffi.buffer(raw)) + bytes([27 + recovery[0]])).hex()


def test_an_action_is_dead_after_its_last_entry(service, signer):
    deployment = service.replay.deployment
    stage = Stage(connect(service))
    nodes = stage.registered_nodes(2)
    signed = create_task(signer, deployment, 1, expires_at=2)
    answer = submit(service, signed)
    assert answer["error"]["data"]["error"] == "Expired"
    assert service.replay.head == len(nodes)
    assert submit(service, create_task(signer, deployment, 1, expires_at=3))["result"]


def test_signed_bytes_that_expired_are_told_to_be_dead(service, monkeypatch):
    monkeypatch.setattr(ledger_account, "LIFETIME_ENTRIES", 5)
    stage, _nodes, task_id = small_history(service)
    signed = stage.connector.sign_call(RoundCall(task_id, 1, 1, digest(1), digest(2)))
    assert signed.expires_at == service.replay.head + 5
    other = Stage(connect(service, new_node()))
    for _ in range(5):
        other.create()
    assert stage.connector.broadcast(signed) is False
    assert stage.record(task_id, 1).round == 1


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "0x" + "11" * 65},
        {"signature": "0x11"},
        {"signature": 7},
        {"action": None},
        {"action": {}},
        {"action": {"function": "selfDestruct"}},
        {"more": 1},
    ],
    ids=str,
)
def test_an_action_of_another_form_is_refused(service, signer, change):
    value = create_task(signer, service.replay.deployment, 1).to_json() | change
    answer = ask(service, "ledger_submit", value)
    assert answer["error"]["code"] == -32602
    assert service.replay.head == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 2**32),
        ("rounds", -1),
        ("rounds", "1"),
        ("rounds", True),
        ("rounds", 1.5),
        ("quorum", 2**16),
        ("max_samples", 2**53),
        ("expires_at", 2**64),
        ("author", "0x" + "ab" * 20),
        ("salt", "0x" + "AB" * 32),
        ("terms_digest", None),
        ("unknown", 1),
    ],
)
def test_a_field_out_of_its_range_is_refused(service, signer, field, value):
    body = create_task(signer, service.replay.deployment, 1).to_json()
    body["action"][field] = value
    assert ask(service, "ledger_submit", body)["error"]["code"] == -32602
    assert service.replay.head == 0


def test_an_action_for_another_ledger_is_refused(service, signer, tmp_path):
    with LedgerService(tmp_path / "other") as other:
        signed = create_task(signer, other.replay.deployment, 1)
    assert "another ledger" in submit(service, signed)["error"]["message"]


def test_an_action_is_bounded_in_size(service, signer):
    body = create_task(signer, service.replay.deployment, 1).to_json()
    body["action"]["terms_digest"] = "0x" + "11" * 200_000
    assert "at most" in ask(service, "ledger_submit", body)["error"]["message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(method=st.sampled_from(["ledger_info", "ledger_entries", "ledger_submit"]), data=st.data())
def test_whatever_is_asked_is_answered_and_changes_nothing(service, method, data):
    answer = ask(service, method, *data.draw(st.lists(json_values, max_size=3)))
    assert answer.keys() & {"result", "error"}
    assert answer.get("error", {}).get("code") != -32603
    assert service.replay.head == 0


def test_pages_are_bounded_and_start_where_they_are_asked_to(service, signer):
    for number in range(5):
        submit(service, create_task(signer, service.replay.deployment, number))
    page = ask(service, "ledger_entries", 2, 2)["result"]
    assert [entry["number"] for entry in page["entries"]] == [2, 3]
    assert page["head"] == 5
    assert ask(service, "ledger_entries", 6)["result"] == {"head": 5, "entries": []}
    assert len(ask(service, "ledger_entries", 1, 2**52)["result"]["entries"]) == 5


def test_only_members_write_where_there_are_members(tmp_path, signer):
    folder = tmp_path / "closed"
    with LedgerService(folder, members=[signer.address.lower()]) as service:
        assert submit(service, create_task(signer, service.replay.deployment, 1))["result"]
        with pytest.raises(ChainError, match="may not write"):
            Stage(connect(service)).create()
        assert service.replay.head == 1


def test_an_account_that_writes_too_often_has_to_wait_and_others_do_not(tmp_path, clock, signer):
    with LedgerService(tmp_path / "l", clock=clock, writes_per_minute=3) as service:
        stage = Stage(connect(service))
        for _ in range(3):
            stage.create()
        with pytest.raises(ChainUnavailable, match="too often"):
            stage.create()
        Stage(connect(service, signer)).create()
        clock.now += 21
        stage.create()
        with pytest.raises(ChainUnavailable, match="too often"):
            stage.create()


def test_signatures_that_everybody_has_to_check_are_paid_for(tmp_path, clock):
    with LedgerService(tmp_path / "l", clock=clock, writes_per_minute=12) as service:
        stage = Stage(connect(service))
        nodes = stage.registered_nodes(2)
        task_id = stage.finished_rounds(nodes, rounds=1)
        stage.attest(task_id, nodes)
        # Seven entries, and one with two signatures: two of twelve are left.
        with pytest.raises(ChainUnavailable, match="too often"):
            stage.finalise(task_id, nodes)
        clock.now += 5.1
        stage.finalise(task_id, nodes)


def test_each_dataset_counts_its_own_versions(service):
    stage = Stage(connect(service))
    [node] = stage.registered_nodes(1)
    for version in (1, 2, 3):
        stage.publish(node, version)
    stage.publish(node, 1, dataset=digest(51))
    with refused("WrongVersion"):
        stage.publish(node, 3)


def test_a_clock_that_is_set_back_does_not_set_the_ledger_back(service, clock, signer):
    submit(service, create_task(signer, service.replay.deployment, 1))
    clock.now -= 5000
    submit(service, create_task(signer, service.replay.deployment, 2))
    first, second = entries(service)
    assert first.time == second.time
    assert read(service).head_block() == 2


def test_a_deadline_is_judged_by_the_ledgers_time(service, clock):
    stage = Stage(connect(service))
    node, deadline = new_node(), int(clock.now)
    signature = stage.registration(node, sealing_key=digest(1), deadline=deadline)
    clock.now += 1
    with refused("DeadlinePassed") as refusal:
        stage.connector.register_node(node.address, digest(1), deadline, signature)
    assert str(deadline) in str(refusal.value)
    clock.now -= 1
    stage.connector.register_node(node.address, digest(1), deadline, signature)


def test_threads_that_write_at_once_make_one_sequence(service):
    made = []

    def write():
        stage = Stage(connect(service, new_node()))
        made.extend(stage.create() for _ in range(4))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16 == service.replay.head
    assert read(service).head_block() == 16


def test_a_ledger_goes_on_where_it_stopped(tmp_path):
    folder = tmp_path / "ledger"
    with LedgerService(folder) as service:
        _stage, _nodes, task_id = small_history(service)
        events, deployment = service.replay.events, service.replay.deployment
    with LedgerService(folder) as service:
        assert service.replay.events == events
        assert service.replay.deployment == deployment
        assert Stage(connect(service)).record(task_id, 1).round == 1


def test_keys_are_for_the_operator_alone(service):
    for name in ("operator.key", "account.key"):
        path = service.folder / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(service.folder.stat().st_mode) == 0o700


def test_one_service_at_a_time_keeps_a_ledger(service):
    with pytest.raises(ChainError, match="in use by another process"):
        LedgerService(service.folder)


def test_another_operators_key_does_not_open_a_ledger(tmp_path):
    folder = tmp_path / "ledger"
    LedgerService(folder).close()
    (folder / "operator.key").unlink()
    with pytest.raises(ChainError, match="Put the operator's key back"):
        LedgerService(folder)


def change_entry(folder, change):
    connection = sqlite3.connect(folder / "ledger.sqlite")
    (body,) = connection.execute("SELECT body FROM entries WHERE number = 2").fetchone()
    connection.execute("UPDATE entries SET body = ? WHERE number = 2", (change(body),))
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:-1],
        lambda body: body.replace(b'"number":2', b'"number":3'),
        lambda body: body.replace(b'"time":1', b'"time":2'),
        lambda body: b"",
        lambda body: "text",
    ],
    ids=["cut", "renumbered", "redated", "empty", "text"],
)
def test_a_file_that_was_changed_is_not_served_and_not_believed(tmp_path, change):
    folder = tmp_path / "ledger"
    with LedgerService(folder) as service:
        small_history(service)
        deployment = service.replay.deployment
    change_entry(folder, change)
    with pytest.raises(ChainError):
        LedgerService(folder)
    pinned = ChainSettings(
        rpc_url="http://127.0.0.1:9", devnet_folder=folder, **deployment.model_dump()
    )
    with pytest.raises(ChainError):
        backend("ledger").open_offline(pinned).head_block()


def test_a_file_of_something_else_is_no_ledger(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ChainError, match="not a ledger"):
        LedgerService(tmp_path)


def test_a_reason_that_has_no_bytes_is_refused(service):
    stage = Stage(connect(service))
    task_id = stage.create()
    with pytest.raises((ChainError, RecordError)):
        stage.connector.cancel_task(task_id, "\ud800")
    assert stage.state(task_id).state == "open"


def test_a_kill_in_the_middle_of_writing_loses_nothing_that_was_answered(tmp_path):
    with backend("ledger").local_chain(tmp_path / "ledger") as local:
        deployment = backend("ledger").deploy(local.url, local.signer)
        pinned = ChainSettings(rpc_url=local.url, **deployment.model_dump())
        stage = Stage(backend("ledger").open_connector(pinned, local.signer))
        answered, enough = [], threading.Event()

        def write():
            with suppress(ChainUnavailable):
                while True:
                    answered.append(stage.create())
                    if len(answered) == 10:
                        enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(60)
        local.kill()
        writer.join()
        local.start()
        told = backend("ledger").open_reader(pinned).events(0, 2**40)
        made = [event.values["task_id"] for event in told]
        assert len(set(made)) == len(made)
        # The one that was on its way when the service died may be there, too.
        assert made in (answered, [*answered, made[-1]])
        assert stage.state(stage.create()).state == "open"

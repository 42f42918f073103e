import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from chain_stage import digest, new_node
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_stage import (
    Liar,
    connect,
    create_task,
    entries,
    read,
    sealed,
    small_history,
)

from twopm_flower.chain.ledger_connector import LedgerConnector
from twopm_flower.chain.ledger_reader import LedgerReader
from twopm_flower.chain.ledger_records import Entry, sign_action
from twopm_flower.chain.ledger_replay import Replay
from twopm_flower.chain.ledger_service import LedgerService
from twopm_flower.chain.ledger_source import FileSource, ServiceSource
from twopm_flower.errors import ChainError, ChainUnavailable, RecordError, WrongChain


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with LedgerService(tmp_path_factory.mktemp("ledger")) as service:
        small_history(service)
        yield service


@pytest.fixture
def liar(service):
    return Liar(service)


@pytest.fixture
def signer():
    return new_node()


def following(service, signer, number=1, **changes):
    """An entry after the last one that was never added."""
    signed = create_task(signer, service.replay.deployment, number)
    return sealed(service, entries(service)[-1], signed, **changes)


def test_an_entry_that_follows_is_believed_whoever_hands_it_out(service, liar, signer):
    more = following(service, signer)
    liar.shows(*entries(service), more)
    assert read(service, to=liar).head_block() == more.number


def test_another_ledger_is_not_believed(service, tmp_path):
    with LedgerService(tmp_path / "other") as other, pytest.raises(WrongChain, match="genesis"):
        read(service, to=other).head_block()


def test_addresses_that_do_not_follow_from_the_genesis_are_not_believed(service):
    changed = service.replay.deployment.model_copy(update={"task_registry": "0x" + "11" * 20})
    with pytest.raises(WrongChain, match="does not follow"):
        LedgerReader(ServiceSource([service]), changed).check()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_an_entry_can_be_changed_unnoticed(service, data):
    known = entries(service)
    place = data.draw(st.integers(0, len(known) - 1))
    raw = bytearray(known[place].to_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    replay = Replay(service.replay.genesis)
    for entry in known[:place]:
        replay.take(entry)
    with pytest.raises((RecordError, WrongChain)):
        replay.take(Entry.from_bytes(bytes(raw)))


def test_an_entry_sealed_by_somebody_else_is_not_believed(service, liar, signer):
    liar.shows(*entries(service), following(service, signer, operator=new_node()))
    with pytest.raises(WrongChain, match="not by the operator"):
        read(service, to=liar).head_block()


def test_the_operator_cannot_act_in_an_accounts_name(service, liar, signer):
    own = create_task(signer, service.replay.deployment, 1)
    action = own.action.model_copy(update={"author": service.signer.address})
    forged = own.model_copy(update={"action": action})
    liar.shows(*entries(service), sealed(service, entries(service)[-1], forged))
    with pytest.raises(WrongChain, match="is signed by"):
        read(service, to=liar).head_block()


def test_the_operator_cannot_break_the_rules(service, liar, signer):
    broken = create_task(signer, service.replay.deployment, 1)
    action = broken.action.model_copy(update={"rounds": 0})
    signed = sign_action(action, signer, service.replay.deployment)
    liar.shows(*entries(service), sealed(service, entries(service)[-1], signed))
    with pytest.raises(WrongChain, match="BadTerms"):
        read(service, to=liar).head_block()


def test_the_operator_cannot_use_an_action_twice_or_after_its_time(service, liar, signer):
    known = entries(service)
    again = sealed(service, known[-1], known[0].signed)
    late = create_task(signer, service.replay.deployment, 1, expires_at=len(known))
    for entry, words in (
        (again, "repeats"),
        (sealed(service, known[-1], late), "was to be done by"),
    ):
        liar.shows(*known, entry)
        with pytest.raises(WrongChain, match=words):
            read(service, to=liar).head_block()


def test_an_entry_after_another_branch_is_not_believed(service, liar, signer):
    known = entries(service)
    other = sealed(service, known[-2], create_task(signer, service.replay.deployment, 1))
    assert other.number == known[-1].number
    after = sealed(service, other, create_task(signer, service.replay.deployment, 2))
    liar.shows(*known, after)
    with pytest.raises(WrongChain, match="forked"):
        read(service, to=liar).head_block()


def test_time_does_not_go_back(service, liar, signer):
    last = entries(service)[-1]
    liar.shows(*entries(service), following(service, signer, time=last.time - 1))
    with pytest.raises(WrongChain, match="older"):
        read(service, to=liar).head_block()


@pytest.mark.parametrize("hidden", [0, 2, -2])
def test_an_entry_left_out_is_noticed(service, liar, hidden):
    known = entries(service)
    left = [entry for entry in known if entry is not known[hidden]]
    liar.shows(*left)
    with pytest.raises(WrongChain, match="forked"):
        read(service, to=liar).head_block()


def test_entries_that_are_announced_and_not_shown_are_missed(service, liar):
    known = entries(service)
    liar.shows(*known, head=len(known) + 1)
    with pytest.raises(WrongChain, match="says that there are"):
        read(service, to=liar).head_block()


def test_a_fork_is_noticed_by_whoever_saw_the_other_branch(service, liar, signer):
    known = entries(service)
    one, other = following(service, signer, 1), following(service, signer, 2)
    assert one.digest != other.digest
    reader = read(service, to=liar)
    liar.shows(*known, one)
    assert reader.head_block() == one.number
    liar.shows(*known, other)
    with pytest.raises(WrongChain, match="forked"):
        reader.head_block()
    after = sealed(service, other, create_task(signer, service.replay.deployment, 3))
    liar.shows(*known, other, after)
    with pytest.raises(WrongChain, match="forked"):
        reader.head_block()
    # Whoever comes now cannot tell which of the two is told to others.
    assert read(service, to=liar).head_block() == after.number


def test_a_ledger_that_became_shorter_is_noticed(service, liar):
    reader = read(service, to=liar)
    known = entries(service)
    assert reader.head_block() == len(known)
    liar.shows(*known[:-1])
    with pytest.raises(WrongChain, match="had"):
        reader.head_block()


def test_an_entry_that_was_promised_and_is_not_there_is_missed(service, liar):
    known = entries(service)
    liar.shows(*known)
    connector = connect(service, to=liar)
    with pytest.raises(WrongChain, match="do not show it"):
        connector.create_task(digest(1), rounds=1, min_contributors=2, quorum=1, max_samples=1)


def test_a_refusal_that_the_rules_do_not_know_is_not_believed(service, liar):
    liar.errors["ledger_submit"] = {"code": 3, "message": "no", "data": {"error": "OutOfOrder"}}
    connector = connect(service, to=liar)
    before = service.replay.head
    with pytest.raises(ChainUnavailable, match="refuses what the rules allow"):
        connector.create_task(digest(1), rounds=1, min_contributors=2, quorum=1, max_samples=1)
    assert service.replay.head == before


def test_a_refusal_of_what_was_done_is_not_believed(service, liar):
    def refused_afterwards(request, _answer):
        error = {"code": 3, "message": "no", "data": {"error": "AlreadyAnchored"}}
        return {"jsonrpc": "2.0", "id": request["id"], "error": error}

    liar.lies["ledger_submit"] = refused_afterwards
    anchor = connect(service, to=liar).anchor_receipts(digest(70), 3)
    assert anchor.block_number == service.replay.head


@pytest.mark.parametrize(
    "nonsense",
    [None, 7, [], {}, {"head": 3}, {"head": True, "entries": []}, {"head": 1, "entries": [5]}],
    ids=str,
)
def test_an_answer_that_makes_no_sense_is_ours_to_explain(service, liar, nonsense):
    liar.lies["ledger_entries"] = lambda _request, answer: answer | {"result": nonsense}
    with pytest.raises(ChainError):
        read(service, to=liar).head_block()


@pytest.mark.parametrize(
    "error", [5, {}, {"code": "x"}, {"code": -32603, "message": "no"}], ids=str
)
def test_an_error_that_makes_no_sense_is_ours_to_explain(service, liar, error):
    liar.errors["ledger_info"] = error
    with pytest.raises(ChainError, match="refused ledger_info"):
        read(service, to=liar).head_block()


def test_only_new_entries_are_fetched_and_in_pages(service, liar):
    asked = []

    def page(request, answer):
        asked.append(request["params"][0])
        answer["result"]["entries"] = answer["result"]["entries"][:3]
        return answer

    liar.lies["ledger_entries"] = page
    reader = read(service, to=liar)
    assert reader.head_block() == service.replay.head
    assert len(asked) >= 3
    del asked[:]
    reader.head_block()
    assert asked == [service.replay.head]


def test_the_file_alone_is_enough_for_a_stranger(service, tmp_path):
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        if (service.folder / name).exists():
            shutil.copy(service.folder / name, tmp_path / name)
    reader = LedgerReader(FileSource(tmp_path), service.replay.deployment)
    assert reader.events(0, 1000) == tuple(service.replay.events)
    assert not (tmp_path / "operator.key").exists()
    connector = LedgerConnector(FileSource(tmp_path), service.replay.deployment, service.signer)
    with pytest.raises(ChainUnavailable, match="only read"):
        connector.anchor_receipts(digest(1), 1)


def test_the_next_endpoint_is_asked_when_one_does_not_answer(service):
    class Silent:
        asked = 0

        def answer(self, request):
            self.asked += 1
            raise ConnectionRefusedError

    silent = Silent()
    source = ServiceSource([silent, service])
    reader = LedgerReader(source, service.replay.deployment)
    assert reader.head_block() == service.replay.head
    asked = silent.asked
    reader.head_block()
    assert silent.asked == asked


class Proxy(BaseHTTPRequestHandler):
    """Answers as a proxy does whose service is down, or as something else entirely."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.server.says
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A byte at a time where the service has all the time in the world.
        size = 1 if body.isspace() else len(body)
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.wfile.flush()
            time.sleep(0.05 if size == 1 else 0)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ((502, b"<html>bad gateway</html>"), ChainUnavailable),
        ((200, b"<html>hello</html>"), ChainError),
        ((200, b"[" * 100_000), ChainError),
        ((200, b"{}"), ChainError),
        ((200, b" " * 12), ChainUnavailable),
    ],
    ids=["down", "web page", "nested", "empty", "slow"],
)
def test_what_is_no_ledgers_service_is_said_so(service, says, error):
    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.says = says
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            source = ServiceSource([f"http://127.0.0.1:{server.server_port}"], timeout_s=0.2)
            with pytest.raises(error):
                LedgerReader(source, service.replay.deployment).head_block()
        finally:
            server.shutdown()
            thread.join()


def test_entries_are_their_canonical_bytes(service):
    for entry in entries(service):
        again = Entry.from_json(json.loads(entry.to_bytes()))
        assert (again, again.digest) == (entry, entry.digest)

"""Requests and answers that cost little to send, and should cost little to refuse."""

import json
import resource
import signal
import time

import pytest
from signer_stage import CANCEL, TASK, local_service, membership, transaction

from twopm_flower.errors import RecordError, SignerError
from twopm_flower.signer.audit import check_audit
from twopm_flower.signer.calls import Function, shown
from twopm_flower.signer.rpc import answer
from twopm_flower.signer.transaction import decode_signed, rlp_encode
from twopm_flower.signer.typed import TypedData

ATTEST = Function.parse("attest(bytes32 taskId, bytes[] signatures)")


def _word(number):
    return number.to_bytes(32)


def test_a_type_with_thousands_of_brackets_is_refused_at_once(tmp_path):
    service, state, _ = local_service(tmp_path)
    asked = membership(service.account)
    asked["types"]["Membership"][0]["type"] = "uint8" + "[]" * 100_000
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_signTypedData"}
    request["params"] = [service.account, asked]
    started = time.process_time()
    answered = answer(service, json.dumps(request).encode(), client="a thief")
    assert answered.status == 412
    assert time.process_time() - started < 2
    state.close()


@pytest.mark.parametrize("kind", ["uint" + "1" * 5000, "uint8[" + "1" * 5000 + "]"])
def test_a_type_with_thousands_of_digits_is_refused_with_a_reason(kind):
    asked = membership("0x" + "00" * 20)
    asked["types"]["Membership"][0]["type"] = kind
    with pytest.raises(RecordError, match="no type"):
        TypedData.read(asked)


def test_call_data_whose_pointers_all_lead_to_one_place_are_not_unfolded():
    count, size = 4000, 100 * 1024
    many = _word(count * 32) * count + _word(size) + b"\1" * size
    data = ATTEST.selector + bytes(32) + _word(64) + _word(count) + many
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RecordError, match="used twice"):
        ATTEST.decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("f((bytes32,bytes[])[] a, string b)", [[(bytes(32), [b"x" * 40, b""])], "é" * 20]),
        ("f(uint8[2][] a, (uint8,bool)[3] b)", [[(1, 2)], [(1, True)] * 3]),
        ("f(string[2] a, bytes[][] b)", [("", "x"), [[], [b"1"], []]]),
        ("f()", []),
    ],
)
def test_call_data_in_their_one_form_are_still_read(text, arguments):
    function = Function.parse(text)
    data = function.encode(arguments)
    assert function.encode(function.decode(data)) == data


def test_a_quote_in_a_text_does_not_end_it():
    assert shown('mnist", samples="1') == '"mnist\\", samples=\\"1"'


def test_a_signed_transaction_of_a_million_elements_is_not_read_to_its_end():
    started = time.process_time()
    with pytest.raises(RecordError, match="more than 12"):
        decode_signed(b"\x02" + rlp_encode([b"\1"] * 500_000))
    assert time.process_time() - started < 2


@pytest.mark.parametrize("spare", [0, 40])
def test_a_disk_that_fills_up_ends_signing_and_leaves_the_log_whole(tmp_path, spare):
    service, state, _ = local_service(tmp_path)
    service.call("eth_signTransaction", [transaction()], client="a test")
    log = tmp_path / "audit.jsonl"
    before, size = log.read_bytes(), log.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + spare, limits[1]))
        with pytest.raises(SignerError, match="cannot be written"):
            service._audit.append("now", "signed", "m", "c", "words")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert log.read_bytes() == before
    service.call("eth_signTransaction", [transaction(nonce="0x1")], client="a test")
    assert check_audit(log, state.head()).signed == 2
    state.close()


@pytest.mark.parametrize("left", [None, b"", b"another log\n"])
def test_a_log_that_is_cut_or_removed_under_the_signer_ends_signing(tmp_path, left):
    service, state, _ = local_service(tmp_path)
    service.call("eth_signTransaction", [transaction()], client="a test")
    log = tmp_path / "audit.jsonl"
    log.unlink() if left is None else log.write_bytes(left)
    with pytest.raises(SignerError, match="changed the log") as raised:
        service.call("eth_signTransaction", [transaction(nonce="0x1")], client="a test")
    assert "entry 2" in raised.value.message
    state.close()


def test_asking_for_one_large_transaction_again_and_again_does_not_fill_the_disk(tmp_path):
    service, state, _ = local_service(tmp_path)
    asked = transaction(data="0x" + CANCEL.encode([TASK, "a" * 200_000]).hex())
    log = tmp_path / "audit.jsonl"
    sizes = []
    for _ in range(3):
        service.call("eth_signTransaction", [asked], client="a thief")
        sizes.append(log.stat().st_size)
    assert sizes[0] > 400_000
    assert sizes[2] - sizes[0] < 4000
    assert check_audit(log, state.head()).signed == 3
    state.close()

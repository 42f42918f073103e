"""Somebody with a valid connection to the signer gains nothing outside its policy."""

import json
import signal

import pytest
from eth_account import Account
from signer_stage import (
    CANCEL,
    CHAIN,
    CONTRACT,
    GWEI,
    POLICY,
    START,
    TASK,
    Key,
    Serving,
    membership,
    transaction,
)

from twopm_flower.signer.transaction import decode_signed

OTHER = "0x" + "0d" * 20
CALL = "0x" + START.encode([TASK]).hex()


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signer")
    serving = Serving(folder, Key(folder / "account.key"))
    yield serving
    serving.stop()


def typed(change):
    def build(address):
        data = membership(address)
        change(data)
        return [address, data]

    return "eth_signTypedData", build


def sends(**changes):
    return "eth_signTransaction", lambda _: [transaction(**changes)]


def rename_type(data):
    data["types"] = {"Permit": data["types"]["Membership"]}
    data["primaryType"] = "Permit"


def retype_samples(data):
    data["types"]["Membership"][3]["type"] = "uint256"


def add_field(data):
    data["types"]["Membership"].append({"name": "spender", "type": "address"})
    data["message"]["spender"] = OTHER


# What the thief asks for, and a word of the reason why it is refused.
REFUSED = {
    "another contract": (sends(to=OTHER), "contract"),
    "another function": (sends(data="0xa9059cbb" + "00" * 64), "function"),
    "no function at all": (sends(data="0x"), "function"),
    "half a selector": (sends(data="0x015a"), "function"),
    "value beside a call": (sends(value="0x1"), "value"),
    "value to oneself": (
        ("eth_signTransaction", lambda me: [transaction(to=me, data="0x", value="0x1")]),
        "value",
    ),
    "another chain": (sends(chainId="0x1"), "chain 1"),
    "no chain id": (sends(chainId=...), "chainId"),
    "no nonce": (sends(nonce=...), "nonce"),
    "a deployment": (sends(to=..., data="0x6001600c60003960016000f300"), "deploying"),
    "a deployment with an empty recipient": (sends(to="0x", data="0x6001"), "deploying"),
    "a huge fee": (sends(maxFeePerGas=hex(10**6 * GWEI)), "maxFeePerGas"),
    "a tip above the fee": (sends(maxPriorityFeePerGas=hex(11 * GWEI)), "maxPriorityFeePerGas"),
    "huge gas": (sends(gas=hex(30_000_000)), "gas"),
    "a legacy transaction": (
        sends(gasPrice="0x1", maxFeePerGas=..., maxPriorityFeePerGas=..., chainId=...),
        "legacy",
    ),
    "an access list": (sends(accessList=[{"address": OTHER, "storageKeys": []}]), "access list"),
    "type 1": (sends(type="0x1"), "type"),
    "a blob transaction": (sends(type="0x3", blobVersionedHashes=["0x01"]), "blobs"),
    "a set-code transaction": (sends(type="0x4", authorizationList=[{}]), "authorisations"),
    "an unknown field": (sends(sidecar="0x"), "unknown field"),
    "data and input that differ": (sends(input="0xa9059cbb"), "both"),
    "bytes behind the arguments": (sends(data=CALL + "a9059cbb"), "hidden"),
    "too few arguments": (sends(data=CALL[:-2]), "cannot be read"),
    "text with a second tail": (
        sends(data="0x" + (CANCEL.encode([TASK, "x"]) + bytes(32)).hex()),
        "hidden",
    ),
    "a nonce below zero": (sends(nonce=-1), "nonce"),
    "a number that is none": (sends(gas="0x0x1"), "gas"),
    "somebody else's account": (
        ("eth_signTransaction", lambda _: [{**transaction(), "from": OTHER}]),
        "no key",
    ),
    "a blind hash": (("eth_sign", lambda me: [me, "0x" + "ab" * 32]), "blind"),
    "a personal message": (("personal_sign", lambda me: ["0x" + "ab" * 32, me]), "never"),
    "bare data": (("account_signData", lambda me: ["text/plain", me, "0x00"]), "never"),
    "the key itself": (("account_export", lambda me: [me]), "never"),
    "typed data for another domain": (
        typed(lambda d: d["domain"].update(name="Permit2")),
        "domain",
    ),
    "typed data of another version": (typed(lambda d: d["domain"].update(version="2")), "domain"),
    "typed data for another chain": (typed(lambda d: d["domain"].update(chainId=1)), "domain"),
    "typed data for another contract": (
        typed(lambda d: d["domain"].update(verifyingContract=OTHER)),
        "domain",
    ),
    "a domain with a salt": (typed(lambda d: d["domain"].update(salt="0x00")), "fields"),
    "another type": (typed(rename_type), "Permit are not allowed"),
    "other types under the same name": (typed(retype_samples), "other fields"),
    "a field more": (typed(add_field), "other fields"),
    "a field that the type does not have": (
        typed(lambda d: d["message"].update(note="x")),
        "fields",
    ),
    "a field less": (typed(lambda d: d["message"].pop("samples")), "fields"),
    "a value that its type cannot hold": (
        typed(lambda d: d["message"].update(samples=2**64)),
        "samples",
    ),
    "short bytes, to be padded": (typed(lambda d: d["message"].update(taskId="0x11")), "taskId"),
    "a type that is not used": (
        typed(lambda d: d["types"].update(Hidden=[{"name": "x", "type": "uint8"}])),
        "Hidden",
    ),
    "a domain type of its own": (
        typed(lambda d: d["types"].update(EIP712Domain=[{"name": "name", "type": "string"}])),
        "EIP712Domain",
    ),
}


@pytest.mark.parametrize("attempt", REFUSED)
def test_what_the_policy_does_not_list_is_refused_with_412_and_the_reason(signer, attempt):
    (method, build), reason = REFUSED[attempt]
    status, answer = signer.ask(method, *build(signer.key.address))
    assert status == 412
    assert reason in answer["error"]["message"]
    assert "result" not in answer
    last = signer.log[-1]
    assert (last["decision"], last["method"]) == ("refused", method)
    assert answer["error"]["message"] in signer.said


def head(*lines: str) -> bytes:
    return ("POST / HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


JSON = "Content-Type: application/json"
ASK = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_accounts", "params": []}).encode()
MALFORMED = {
    "no JSON": (lambda s: s.post(b"{"), 400),
    "several requests at once": (lambda s: s.post(b"[" + ASK + b"," + ASK + b"]"), 400),
    "nested beyond all bounds": (lambda s: s.post(b"[" * 200_000), 400),
    "another version of JSON-RPC": (lambda s: s.post(ASK.replace(b"2.0", b"1.0")), 400),
    "a request without a number": (lambda s: s.post(ASK.replace(b'"id": 1, ', b"")), 400),
    "fields beside the request": (lambda s: s.post(ASK.replace(b'"id"', b'"x": 1, "id"')), 400),
    "an unknown method": (lambda s: s.post(ASK.replace(b"eth_accounts", b"eth_rob")), 400),
    "two transactions in one": (
        lambda s: s.post(
            json.dumps(
                {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "eth_signTransaction",
                    "params": [transaction(), transaction()],
                }
            ).encode()
        ),
        400,
    ),
    "another path": (lambda s: s.post(ASK, "/../account.key"), 404),
    "a file": (lambda s: s.exchange(b"GET /../../account.key HTTP/1.1\r\n\r\n"), 404),
    "another verb": (lambda s: s.exchange(b"DELETE / HTTP/1.1\r\n\r\n"), 501),
    "too many bytes": (lambda s: s.exchange(head(JSON, "Content-Length: 1048577")), 413),
    "a length of many digits": (
        lambda s: s.exchange(head(JSON, f"Content-Length: {'9' * 99}")),
        413,
    ),
    "a negative length": (lambda s: s.exchange(head(JSON, "Content-Length: -1")), 400),
    "no length": (lambda s: s.exchange(head(JSON)), 411),
    "two lengths": (
        lambda s: s.exchange(head(JSON, "Content-Length: 1", "Content-Length: 70") + ASK),
        411,
    ),
    "chunks beside a length": (
        lambda s: s.exchange(
            head(JSON, f"Content-Length: {len(ASK)}", "Transfer-Encoding: chunked") + ASK
        ),
        411,
    ),
    "less than announced": (lambda s: s.exchange(head(JSON, "Content-Length: 999") + ASK), 400),
    "a form of a web page": (
        lambda s: s.exchange(head("Content-Type: text/plain", f"Content-Length: {len(ASK)}") + ASK),
        415,
    ),
}


@pytest.mark.parametrize("attempt", MALFORMED)
def test_what_is_no_request_is_answered_as_such_and_the_signer_goes_on(signer, attempt):
    send, expected = MALFORMED[attempt]
    status, body = send(signer)
    assert status == expected
    assert b"result" not in body
    assert signer.ask("eth_accounts")[1]["result"] == [signer.key.address]


def test_a_second_request_behind_the_first_is_not_looked_at(signer):
    one = head(JSON, f"Content-Length: {len(ASK)}") + ASK
    status, body = signer.exchange(one + one)
    assert status == 200
    assert body.count(b"jsonrpc") == 1


def test_the_signer_tells_that_it_is_up_and_who_it_signs_for(signer):
    assert signer.exchange(b"GET /upcheck HTTP/1.1\r\n\r\n")[0] == 200
    assert signer.ask("account_list")[1]["result"] == [signer.key.address]
    assert signer.ask("account_version")[0] == 200
    assert signer.told["account"] == signer.key.address


def test_the_socket_is_for_its_owner_alone(signer):
    assert signer.socket.stat().st_mode & 0o777 == 0o600


def test_what_is_allowed_is_signed_and_said_in_words(signer):
    status, answer = signer.ask("account_signTransaction", transaction(nonce="0x64"))
    assert status == 200
    signed, sender = decode_signed(bytes.fromhex(answer["result"]["raw"][2:]))
    assert sender == signer.key.address
    assert signed.to_fields() == {k: v for k, v in answer["result"]["tx"].items() if k != "hash"}
    words = f"TaskRegistry.start(taskId=0x{TASK.hex()}) on chain {CHAIN}, nonce 100"
    assert words in signer.said
    entry = signer.log[-1]
    assert words in entry["words"]
    assert entry["digest"] == signed.signing_hash.hex()
    assert entry["client"].startswith("uid ")


def test_a_thief_cannot_reuse_a_nonce_not_even_after_a_restart(signer):
    allowed = transaction(nonce="0x7")
    first = signer.ask("eth_signTransaction", allowed)[1]["result"]
    other = transaction(nonce="0x7", data="0x" + START.encode([b"\x33" * 32]).hex())
    small = transaction(nonce="0x7", maxFeePerGas=hex(10 * GWEI + 1))
    bump = transaction(
        nonce="0x7", maxFeePerGas=hex(11 * GWEI), maxPriorityFeePerGas=hex(11 * GWEI // 10)
    )
    for restarted in (False, True):
        if restarted:
            assert signer.stop() == 0
            signer.start()
        status, answer = signer.ask("eth_signTransaction", other)
        assert status == 412
        assert "another transaction was signed" in answer["error"]["message"]
        assert signer.ask("eth_signTransaction", small)[0] == 412
        # What was signed may be signed again: it is the same bytes.
        assert signer.ask("eth_signTransaction", allowed)[1]["result"] == first
    assert signer.ask("eth_signTransaction", bump)[0] == 200
    assert signer.ask("eth_signTransaction", {**bump, "gas": hex(200_000)})[0] == 412


def test_too_many_in_a_minute_are_refused_also_after_a_kill(tmp_path):
    policy = POLICY.replace("[limits]", "[limits]\ntransactions_per_minute = 3")
    signer = Serving(tmp_path, Key(tmp_path / "account.key"), policy)
    for nonce in range(3):
        assert signer.ask("eth_signTransaction", transaction(nonce=nonce))[0] == 200
    assert signer.ask("eth_signTransaction", transaction(nonce=3))[0] == 412
    signer.stop(signal.SIGKILL)
    signer.start()
    status, answer = signer.ask("eth_signTransaction", transaction(nonce=3))
    assert status == 412
    assert "in one minute" in answer["error"]["message"]
    assert signer.stop() == 0


def test_neither_log_nor_answer_nor_state_ever_holds_the_key(signer):
    looked = [signer.said.encode(), *(p.read_bytes() for p in signer.folder.glob("account.key.*"))]
    assert len(looked) >= 3
    for data in looked:
        assert signer.key.secret not in data
        assert signer.key.secret.hex().encode() not in data.lower()


def test_typed_data_that_the_policy_lists_are_signed(signer):
    data = membership(signer.key.address)
    status, answer = signer.ask("eth_signTypedData_v4", signer.key.address, json.dumps(data))
    assert status == 200
    signed = Account.from_key(signer.key.secret).sign_typed_data(full_message=data).signature
    assert answer["result"] == "0x" + bytes(signed).hex()
    assert f"Membership(taskId=0x{'22' * 32}" in signer.said
    assert CONTRACT.lower() in signer.said.lower()

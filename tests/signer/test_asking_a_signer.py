"""Whoever asks a signer compares what comes back, and never sees the key."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from eth_account import Account
from signer_stage import (
    CHAIN,
    CONTRACT,
    GWEI,
    MEMBERSHIP,
    POLICY,
    REGISTRY,
    START,
    Key,
    Serving,
    local_service,
    membership,
    transaction,
)

from twopm_flower.config import SignerSettings
from twopm_flower.errors import (
    ConfigError,
    RecordError,
    SignerError,
    SignerMismatch,
    SignerRefused,
    SignerUnavailable,
)
from twopm_flower.records.statements import Departure, Membership, sign
from twopm_flower.signer.certificates import create_certificates
from twopm_flower.signer.opening import open_signer
from twopm_flower.signer.remote import RemoteSigner
from twopm_flower.signer.rpc import answer
from twopm_flower.signer.transaction import Transaction, decode_signed

HALF = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signer")
    serving = Serving(folder, Key(folder / "account.key"))
    yield serving
    serving.stop()


def remote(serving, **settings):
    return open_signer(SignerSettings(url=serving.told["url"], **settings), serving.folder)


class Between:
    """Carries requests to a real service, and changes what comes back."""

    where = "between"

    def __init__(self, service, change):
        self._service, self._change = service, change

    def post(self, body):
        answered = answer(self._service, body, client="a test")
        value = json.loads(answered.body)
        if json.loads(body)["method"].endswith("accounts"):
            return answered.status, answered.body
        return answered.status, json.dumps(self._change(value)).encode()


def membership_of(signer):
    fields = membership(signer.address)["message"]
    return Membership(
        task_id=fields["taskId"],
        terms_digest=fields["termsDigest"],
        node=signer.address,
        samples=7,
        data_commitment=fields["dataCommitment"],
        sealing_key=fields["sealingKey"],
    )


def test_transactions_and_statements_are_signed_as_by_a_key_in_this_process(signer):
    there, here = remote(signer), Account.from_key(signer.key.secret)
    assert there.address == here.address
    fields = {name: value for name, value in transaction().items() if name != "type"}
    fields |= {"to": REGISTRY.verifying_contract, "type": 2}
    assert there.sign_transaction(fields) == bytes(here.sign_transaction(fields).raw_transaction)
    signed = sign(membership_of(there), there, REGISTRY)
    assert signed.check(REGISTRY).node == here.address


def test_a_refusal_reaches_who_asked_with_its_reason(signer):
    there = remote(signer)
    with pytest.raises(SignerRefused, match="Departure are not allowed"):
        sign(Departure(node=there.address, nonce=0, deadline=1), there, REGISTRY)
    with pytest.raises(SignerRefused, match="chain 5 is not allowed"):
        there.sign_transaction(transaction(chainId=5))


def test_another_account_than_the_expected_one_is_noticed_before_anything_is_signed(signer):
    with pytest.raises(SignerMismatch, match="not for"):
        remote(signer, account="0x" + "11" * 20).sign_transaction(transaction())


def test_a_call_whose_answer_was_lost_is_answered_with_what_was_signed_for_its_nonce(signer):
    there = remote(signer)
    lost = there.sign_transaction(transaction(nonce=50))
    # After a crash the same call is made again, with an estimate and fees of another moment.
    again = transaction(nonce=50, gas=101_000, maxFeePerGas=10 * GWEI + 5)
    assert there.sign_transaction(again) == lost
    bump = transaction(nonce=50, gas=99_000, maxFeePerGas=12 * GWEI, maxPriorityFeePerGas=2 * GWEI)
    replaced, _ = decode_signed(there.sign_transaction(bump))
    assert (replaced.gas, replaced.max_fee_per_gas) == (100_000, 12 * GWEI)
    with pytest.raises(SignerRefused, match="another transaction was signed"):
        there.sign_transaction(transaction(nonce=50, data=START.encode([b"\x44" * 32])))
    with pytest.raises(SignerRefused):
        there.sign_transaction({**bump, "gas": 300_000})


@pytest.mark.parametrize(
    "claimed",
    [
        {"gas": 200_001},
        {"gas": 89_999},
        {"maxFeePerGas": 20 * GWEI + 1},
        {"to": "0x" + "0d" * 20},
        {"nonce": 51},
        {"value": 1},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_what_a_signer_claims_to_have_signed_before_is_not_taken_for_what_is_wanted(
    tmp_path, claimed
):
    service, state, _ = local_service(tmp_path)
    error = {"code": -32003, "message": "no", "data": {"signed": transaction(**claimed)}}

    class Claiming(Between):
        def post(self, body):
            status, answered = super().post(body)
            return (412 if b"error" in answered else status), answered

    there = RemoteSigner(Claiming(service, lambda value: {"id": value["id"], "error": error}))
    with pytest.raises(SignerRefused):
        there.sign_transaction(transaction())
    assert all(entry["decision"] == "signed" for entry in map(json.loads, logged(tmp_path)))
    assert len(logged(tmp_path)) == 1
    state.close()


def logged(folder):
    return (folder / "audit.jsonl").read_text().splitlines()


RAW_CHANGES = {
    "another recipient": {"to": Account.from_key(b"\x07" * 32).address},
    "another nonce": {"nonce": 9},
    "another chain": {"chainId": CHAIN + 1},
    "more gas": {"gas": 100_001},
    "a higher fee": {"maxFeePerGas": 10 * GWEI + 1},
    "another tip": {"maxPriorityFeePerGas": GWEI - 1},
    "value": {"value": 1},
    "other data": {"data": "0x" + START.encode([b"\x12" * 32]).hex()},
    "no recipient": {"to": ...},
    "an access list": {"accessList": [{"address": "0x" + "0D" * 20, "storageKeys": []}]},
    "a legacy transaction": {
        "type": ...,
        "gasPrice": GWEI,
        "maxFeePerGas": ...,
        "maxPriorityFeePerGas": ...,
    },
    "a type before": {
        "type": 1,
        "gasPrice": GWEI,
        "maxFeePerGas": ...,
        "maxPriorityFeePerGas": ...,
    },
}


@pytest.mark.parametrize("changed", RAW_CHANGES)
def test_a_transaction_that_is_not_the_one_asked_for_is_an_alarm(tmp_path, changed):
    key = Key(tmp_path / "own.key")
    service, state, _ = local_service(tmp_path, key=key)
    fields = {**transaction(type=2), "to": REGISTRY.verifying_contract, **RAW_CHANGES[changed]}
    fields = {name: value for name, value in fields.items() if value is not ...}
    forged = "0x" + bytes(Account.sign_transaction(fields, key.secret).raw_transaction).hex()
    for shape in (forged, {"raw": forged, "tx": {}}):
        there = RemoteSigner(Between(service, lambda value, s=shape: {**value, "result": s}))
        with pytest.raises(SignerMismatch):
            there.sign_transaction(transaction())
    state.close()


def other_key(fields):
    signed = Account.sign_transaction(fields, b"\x07" * 32)
    return "0x" + bytes(signed.raw_transaction).hex()


ANSWERS = {
    "a transaction of another key": other_key(
        {**transaction(type=2), "to": REGISTRY.verifying_contract}
    ),
    "nothing": None,
    "an empty transaction": "0x",
    "no hexadecimal": "0xzz",
    "a list": ["0x"],
    "a transaction cut off": "0x02f8",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_what_is_no_transaction_of_the_account_is_an_alarm(tmp_path, what):
    service, state, _ = local_service(tmp_path)
    there = RemoteSigner(Between(service, lambda value: {**value, "result": ANSWERS[what]}))
    with pytest.raises(SignerMismatch):
        there.sign_transaction(transaction())
    state.close()


def high_s(signature):
    raw = bytes.fromhex(signature[2:])
    s = HALF - int.from_bytes(raw[32:64])
    return "0x" + (raw[:32] + s.to_bytes(32) + bytes([55 - raw[64]])).hex()


@pytest.mark.parametrize(
    "change",
    [high_s, lambda s: s[:-2] + "00", lambda s: "0x11" + s[4:], lambda s: s[:-2]],
    ids=["high s", "another v", "another r", "too short"],
)
def test_a_signature_over_typed_data_that_is_not_the_canonical_one_is_an_alarm(tmp_path, change):
    service, state, _ = local_service(tmp_path)
    honest = RemoteSigner(Between(service, lambda value: value))
    sign(membership_of(honest), honest, REGISTRY)
    lying = RemoteSigner(
        Between(service, lambda value: {**value, "result": change(value["result"])})
    )
    with pytest.raises(SignerMismatch):
        sign(membership_of(lying), lying, REGISTRY)
    state.close()


def test_an_answer_to_another_request_is_an_alarm(tmp_path):
    service, state, _ = local_service(tmp_path)
    there = RemoteSigner(Between(service, lambda value: {**value, "id": 99}))
    with pytest.raises(SignerMismatch, match="another request"):
        there.sign_transaction(transaction())
    state.close()


@pytest.mark.parametrize("broken", [{"gas": None}, {"data": "0x1"}, {"nonce": True}])
def test_a_malformed_transaction_is_not_even_sent(tmp_path, broken):
    there = RemoteSigner(Between(None, None), address="0x" + "11" * 20)
    with pytest.raises(RecordError):
        there.sign_transaction(transaction(**broken))


@pytest.mark.parametrize("speaks", [b"", b"HTTP/1.0 200 OK\r\n\r\n{}", b"220 mail\r\n", b"drip"])
def test_whoever_is_no_signer_is_told_apart_in_bounded_time(tmp_path, speaks):
    path = tmp_path / "s.sock"
    over = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def speak():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(speaks if speaks != b"drip" else b"HTTP/1.0 200 OK\r\n")
                while speaks == b"drip" and not over.wait(0.05):
                    try:
                        connection.sendall(b"X: y\r\n"[over.is_set() :])
                    except OSError:
                        return

        thread = threading.Thread(target=speak)
        thread.start()
        settings = SignerSettings(url=f"unix://{path}", timeout_s=0.5)
        with pytest.raises(SignerError):
            assert open_signer(settings, tmp_path).address
        over.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_signer_that_does_not_run_is_unavailable_and_says_what_to_do(tmp_path):
    settings = SignerSettings(url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(SignerUnavailable, match="twopm signer serve"):
        assert open_signer(settings, tmp_path).address


CLIENT = """
import sys
from pathlib import Path
from twopm_flower.signer.opening import open_signer
from twopm_flower.config import SignerSettings
signer = open_signer(SignerSettings(url=sys.argv[1]), Path())
signer.sign_transaction({"chainId": int(sys.argv[2]), "nonce": 70, "to": sys.argv[3],
    "value": 0, "data": sys.argv[4], "gas": 100000, "maxFeePerGas": 10**9,
    "maxPriorityFeePerGas": 0})
print("signed", flush=True)
sys.stdin.read()
"""


def memory_holds(pid: int, wanted: list[bytes]) -> bool:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, mode = line.split()[:2]
            if "r" not in mode or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, ValueError, OverflowError):
                continue
            if any(one in data for one in wanted):
                return True
    return False


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_the_key_is_in_the_memory_of_the_signer_and_not_of_who_asks_it(signer):
    call = "0x" + START.encode([b"\x55" * 32]).hex()
    asking = subprocess.Popen(
        [sys.executable, "-c", CLIENT, signer.told["url"], str(CHAIN), CONTRACT, call],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert asking.stdout.readline() == "signed\n"
        secret = signer.key.secret
        wanted = [secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode()]
        try:
            found = memory_holds(signer.process.pid, wanted)
        except PermissionError:
            pytest.skip("this system forbids reading the memory of a child")
        assert found, "the search would not find a key"
        assert not memory_holds(asking.pid, wanted)
    finally:
        asking.communicate("")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    create_certificates(folder / "ours", ("127.0.0.1",), days=1)
    create_certificates(folder / "theirs", ("127.0.0.1",), days=1)
    ours = folder / "ours"
    serving = Serving(
        folder,
        Key(folder / "account.key"),
        POLICY,
        *("--listen", "127.0.0.1:0", "--tls-cert", ours / "signer.pem"),
        *("--tls-key", ours / "signer.key", "--tls-client-ca", ours / "ca.pem"),
    )
    yield serving
    serving.stop()


def over_tls(serving, *, authority="ours", certificate="ours/client", url=None):
    return open_signer(
        SignerSettings(
            url=url or serving.told["url"],
            tls_cert=Path(f"{certificate}.pem"),
            tls_key=Path(f"{certificate}.key"),
            tls_ca=Path(f"{authority}/ca.pem"),
            timeout_s=5,
        ),
        serving.folder,
    )


def test_mutual_tls_signs_for_who_shows_a_certificate(tls):
    there = over_tls(tls)
    assert there.address == tls.key.address
    assert decode_signed(there.sign_transaction(transaction()))[1] == tls.key.address
    assert tls.log[-1]["client"] == "certificate twopm-flower client"


@pytest.mark.parametrize(
    "wrong",
    [
        {"certificate": "theirs/client"},
        {"certificate": "ours/signer"},
        {"authority": "theirs"},
    ],
    ids=["a foreign client", "the signer's own certificate", "a foreign signer"],
)
def test_without_the_right_certificates_nobody_gets_through(tls, wrong):
    with pytest.raises(SignerUnavailable):
        assert over_tls(tls, **wrong).address


def test_who_shows_no_certificate_at_all_gets_no_answer(tls):
    context = ssl.create_default_context(cafile=tls.folder / "ours/ca.pem")
    port = int(tls.told["url"].rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        answered = b""
        with suppress(OSError), context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
            secured.sendall(b"GET /upcheck HTTP/1.0\r\n\r\n")
            answered = secured.recv(100)
    assert answered == b""


def test_a_signer_under_another_name_is_refused(tls):
    port = tls.told["url"].rsplit(":", 1)[1]
    with pytest.raises(SignerUnavailable):
        assert over_tls(tls, url=f"https://localhost:{port}").address


def test_a_connection_that_says_nothing_does_not_keep_others_waiting(tls):
    port = int(tls.told["url"].rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    assert over_tls(tls).address == tls.key.address
    for connection in silent:
        connection.close()


def test_settings_that_cannot_work_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="tls_cert"):
        open_signer(SignerSettings(url="https://signer:9000"), tmp_path)
    with pytest.raises(ConfigError, match="needs no TLS"):
        open_signer(SignerSettings(url="unix:///s.sock", tls_ca=Path("ca.pem")), tmp_path)
    create_certificates(tmp_path / "tls", ("127.0.0.1",), days=1)
    (tmp_path / "tls/client.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_signer(
            SignerSettings(
                url="https://127.0.0.1:9",
                tls_cert=Path("tls/client.pem"),
                tls_key=Path("tls/client.key"),
                tls_ca=Path("tls/ca.pem"),
            ),
            tmp_path,
        )


def test_the_digest_of_the_policy_s_type_is_that_of_the_record():
    members = ",".join(f"{kind} {name}" for name, kind in Membership.TYPES.values())
    assert f"Membership({members})" == MEMBERSHIP
    assert Transaction.from_fields(transaction()).to == REGISTRY.verifying_contract

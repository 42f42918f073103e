"""Nonces, rates, fees and the audit log: across restarts, kills, and hands that change files."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from signer_stage import (
    GWEI,
    POLICY,
    START,
    Key,
    Serving,
    local_service,
    membership,
    transaction,
)

from twopm_flower.errors import ConfigError, SignerError, SignerRefused
from twopm_flower.signer.audit import AuditLog, Head, check_audit
from twopm_flower.signer.state import SignerState, read_head

OTHER_CALL = "0x" + START.encode([b"\x99" * 32]).hex()


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


def signs(service, **changes):
    return service.call("eth_signTransaction", [transaction(**changes)], client="a test")


# A signer whose process is killed once the nonce is on disk and before anything is signed.
VICTIM = """
import os, signal, sys
from pathlib import Path
from twopm_flower.signer.audit import AuditLog
from twopm_flower.signer.key_holder import LocalKeyHolder
from twopm_flower.signer.policy import load_policy
from twopm_flower.signer.server import UnixServer
from twopm_flower.signer.service import SigningService
from twopm_flower.signer.state import SignerState
from twopm_flower.signer.station import audit_beside, state_beside

class Dying(LocalKeyHolder):
    def unsafe_sign_digest(self, digest):
        os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
key = folder / "account.key"
state = SignerState(state_beside(key))
audit = AuditLog(audit_beside(key), state.head())
holder = Dying.from_file(key)
service = SigningService(holder, load_policy(folder / "policy.toml"), state, audit)
with UnixServer(service, folder / "s.sock") as server:
    print("up", flush=True)
    server.serve_forever(0.05)
"""


def test_a_kill_between_writing_the_nonce_down_and_answering_loses_nothing(tmp_path):
    key = Key(tmp_path / "account.key")
    (tmp_path / "policy.toml").write_text(POLICY)
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout.readline() == "up\n"
    asking = Serving.__new__(Serving)
    asking.socket = tmp_path / "s.sock"
    request = {"jsonrpc": "2.0", "id": 1, "method": "eth_signTransaction"}
    body = json.dumps({**request, "params": [transaction()]}).encode()
    assert asking.post(body) == (0, b"")
    assert victim.wait(20) == -signal.SIGKILL
    victim.stdout.close()
    signer = Serving(tmp_path, key)
    assert [entry["decision"] for entry in signer.log] == ["signed", "started"]
    assert signer.ask("eth_signTransaction", transaction(data=OTHER_CALL))[0] == 412
    assert signer.ask("eth_signTransaction", transaction())[0] == 200
    assert signer.stop() == 0
    log = Path(f"{key.path}.audit.jsonl")
    assert check_audit(log, read_head(Path(f"{key.path}.signer.sqlite"))).head.count == 4


def test_a_fee_bump_is_signed_from_ten_percent_on_both_fees(tmp_path):
    service, state, _ = local_service(tmp_path)
    signs(service)
    for fee, tip in ((11 * GWEI - 1, 11 * GWEI // 10), (11 * GWEI, 11 * GWEI // 10 - 1)):
        with pytest.raises(SignerRefused, match="10 %"):
            signs(service, maxFeePerGas=fee, maxPriorityFeePerGas=tip)
    signs(service, maxFeePerGas=11 * GWEI, maxPriorityFeePerGas=11 * GWEI // 10)
    # The next one has to outbid the last, not the first.
    with pytest.raises(SignerRefused):
        signs(service, maxFeePerGas=12 * GWEI, maxPriorityFeePerGas=12 * GWEI // 10)
    with pytest.raises(SignerRefused, match="maxFeePerGas"):
        signs(service, maxFeePerGas=101 * GWEI, maxPriorityFeePerGas=101 * GWEI)
    state.close()


@pytest.mark.parametrize("field", ["to", "value", "data", "gas"])
def test_a_nonce_belongs_to_one_call(tmp_path, field):
    policy = POLICY.replace("[limits]", "[limits]\nmax_value_wei = 10")
    other = {"to": None, "value": 1, "data": OTHER_CALL, "gas": 100_001}[field]
    service, state, _ = local_service(tmp_path, policy=policy)
    signs(service)
    if field == "to":
        other = service.account
        fields = {"to": other, "data": "0x"}
    else:
        fields = {field: other}
    more = {"maxFeePerGas": 20 * GWEI, "maxPriorityFeePerGas": 2 * GWEI}
    with pytest.raises(SignerRefused, match="another transaction was signed"):
        signs(service, **fields, **more)
    signs(service, **fields, nonce=1)
    state.close()


def test_a_filler_uses_up_a_nonce_only_where_the_policy_lets_it(tmp_path):
    service, state, told = local_service(tmp_path)
    signs(service, to=service.account, data="0x", gas=21_000)
    assert "to use up a nonce" in told[-1]
    state.close()
    (tmp_path / "strict").mkdir()
    strict = POLICY.replace("allow_fillers = true", "")
    service, state, _ = local_service(tmp_path / "strict", policy=strict)
    with pytest.raises(SignerRefused, match="allow_fillers"):
        signs(service, to=service.account, data="0x", gas=21_000)
    state.close()


def test_transactions_are_counted_by_minute_and_hour_and_a_clock_set_back_helps_nobody(tmp_path):
    policy = POLICY.replace(
        "[limits]", "[limits]\ntransactions_per_minute = 2\ntransactions_per_hour = 3"
    )
    clock = Clock()
    service, state, _ = local_service(tmp_path, policy=policy, clock=clock)
    signs(service, nonce=0)
    signs(service, nonce=1)
    signs(service, nonce=1)  # again: the same bytes
    with pytest.raises(SignerRefused, match="one minute"):
        signs(service, nonce=2)
    clock.now -= 7200
    with pytest.raises(SignerRefused, match="one minute"):
        signs(service, nonce=2)
    clock.now += 7200 + 61
    signs(service, nonce=2)
    with pytest.raises(SignerRefused, match="one hour"):
        signs(service, nonce=3)
    clock.now += 3600
    signs(service, nonce=3)
    state.close()


def test_the_fees_of_a_day_are_bounded_and_a_bump_counts_once(tmp_path):
    # 100,000 gas at 10 gwei: a thousandth of an ether each
    policy = POLICY.replace(
        f"max_fee_per_day_wei = {10**18}", f"max_fee_per_day_wei = {3 * 10**15}"
    )
    clock = Clock()
    service, state, _ = local_service(tmp_path, policy=policy, clock=clock)
    signs(service, nonce=0)
    signs(service, nonce=1)
    signs(service, nonce=1, maxFeePerGas=20 * GWEI, maxPriorityFeePerGas=2 * GWEI)
    with pytest.raises(SignerRefused, match="fees of one day"):
        signs(service, nonce=2)
    clock.now += 86_401
    signs(service, nonce=2)
    state.close()


def test_statements_have_a_rate_of_their_own(tmp_path):
    policy = POLICY.replace("[limits]", "[limits]\nstatements_per_minute = 1")
    service, state, _ = local_service(tmp_path, policy=policy)
    asked = [service.account, membership(service.account)]
    service.call("eth_signTypedData", asked, client="a test")
    with pytest.raises(SignerRefused, match="statements in one minute"):
        service.call("eth_signTypedData", asked, client="a test")
    signs(service)
    state.close()


def test_a_flood_of_requests_is_written_down_once(tmp_path):
    policy = POLICY.replace("[limits]", "[limits]\nrequests_per_minute = 5")
    clock = Clock()
    service, state, told = local_service(tmp_path, policy=policy, clock=clock)
    for _ in range(5):
        service.call("eth_accounts", [], client="a test")
    for _ in range(50):
        with pytest.raises(SignerRefused, match="requests in one minute"):
            service.call("eth_accounts", [], client="a test")
    assert len(told) == 1
    clock.now += 61
    assert service.call("eth_accounts", [], client="a test") == [service.account]
    state.close()


def test_one_state_has_one_signer(tmp_path):
    state = SignerState(tmp_path / "state.sqlite")
    with pytest.raises(ConfigError, match="another signer"):
        SignerState(tmp_path / "state.sqlite")
    state.close()
    SignerState(tmp_path / "state.sqlite").close()


@pytest.fixture
def logged(tmp_path):
    service, state, _ = local_service(tmp_path)
    for nonce in range(4):
        signs(service, nonce=nonce)
    with pytest.raises(SignerRefused):
        signs(service, chainId=1)
    head = state.head()
    state.close()
    return tmp_path / "audit.jsonl", head


def test_a_log_that_nobody_touched_holds_together(logged):
    path, head = logged
    found = check_audit(path, head)
    assert (found.head, found.signed, found.refused) == (head, 4, 1)
    assert path.stat().st_mode & 0o777 == 0o600


def change(place, old, new):
    def do(lines):
        assert old in lines[place]
        lines[place] = lines[place].replace(old, new)

    return do


TAMPERED = {
    "a word changed": (change(1, b"TaskRegistry.start", b"TaskRegistry.halt!"), 3),
    "a decision turned": (change(4, b'"refused"', b'"signed"'), 5),
    "a space added": (change(2, b'"number"', b' "number"'), 3),
    "an entry removed": (lambda lines: lines.pop(2), 3),
    "two entries exchanged": (lambda lines: lines.insert(1, lines.pop(2)), 2),
    "an entry twice": (lambda lines: lines.insert(1, lines[1]), 3),
    "an entry of nonsense": (lambda lines: lines.insert(3, b"{}\n"), 4),
    "the end cut off": (lambda lines: lines.pop(), 5),
    "all cut off": (lambda lines: lines.clear(), 1),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_the_first_entry_that_does_not_hold_is_named(logged, how):
    path, head = logged
    tamper, first = TAMPERED[how]
    lines = path.read_bytes().splitlines(keepends=True)
    tamper(lines)
    path.write_bytes(b"".join(lines))
    with pytest.raises(SignerError, match=f"entry {first} of"):
        check_audit(path, head)
    with pytest.raises(SignerError):
        AuditLog(path, head)


def test_a_log_rewritten_as_a_whole_is_noticed_by_the_state(logged, tmp_path):
    _, head = logged
    (tmp_path / "forged").mkdir()
    service, state, _ = local_service(tmp_path / "forged")
    for nonce in range(head.count):
        signs(service, nonce=nonce)
    state.close()
    forged = tmp_path / "forged" / "audit.jsonl"
    check_audit(forged)
    with pytest.raises(SignerError, match=f"entry {head.count} of"):
        check_audit(forged, head)


def test_a_line_torn_by_a_crash_is_dropped_and_the_log_goes_on(logged):
    path, head = logged
    with path.open("ab") as file:
        file.write(b'{"at":"2026')
    log = AuditLog(path, head)
    after = log.append("2026-01-01T00:00:00+00:00", "signed", "m", "c", "w")
    assert check_audit(path, after).head == after
    # What was written before the crash and not yet counted is taken over.
    assert AuditLog(path, head).head == after
    assert AuditLog(path, Head()).head == after


def test_nothing_is_signed_that_cannot_be_written_down(tmp_path):
    service, state, _ = local_service(tmp_path)
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(SignerError, match="directory"):
        signs(service)
    (tmp_path / "audit.jsonl").rmdir()
    # Nothing was reserved either.
    signs(service, data=OTHER_CALL)
    state.close()

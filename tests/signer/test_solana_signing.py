"""A Solana account whose key another process holds: what it signs, and what it refuses."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signer_stage import Key, Serving

from twopm_flower.config import SignerSettings
from twopm_flower.errors import ConfigError, RecordError, SignerMismatch, SignerRefused
from twopm_flower.signer.ed25519 import LocalSolanaSigner, create_solana_key_file, is_signature
from twopm_flower.signer.judge import Judge
from twopm_flower.signer.opening import open_signer
from twopm_flower.signer.policy import parse_policy
from twopm_flower.signer.remote import RemoteSolanaSigner
from twopm_flower.signer.solana_message import base58, from_base58, parse_message

solders = pytest.importorskip("solders.message")


def solana_message(payer, program, data, *, extra_signer=False, more=()):
    from solders.hash import Hash
    from solders.instruction import AccountMeta, Instruction
    from solders.message import Message
    from solders.pubkey import Pubkey

    accounts = [AccountMeta(Pubkey(payer), True, True)]
    if extra_signer:
        accounts.append(AccountMeta(Pubkey(b"\x09" * 32), True, False))
    made = [Instruction(Pubkey(program), data, accounts), *more]
    return bytes(Message.new_with_blockhash(made, Pubkey(payer), Hash(b"\x01" * 32)))


PROGRAM = b"\x21" * 32


def solana_policy(key: bytes) -> str:
    from solders.pubkey import Pubkey

    return f"""
version = 1
[solana]
fee_payer = "{Pubkey(key)}"
max_compute_unit_price = 5000
[[solana.programs]]
program = "{Pubkey(PROGRAM)}"
first_bytes = [1, 7]
[[solana.programs]]
program = "ComputeBudget111111111111111111111111111111"
first_bytes = [3]
"""


@pytest.fixture(scope="module")
def solana(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solana")
    local = create_solana_key_file(folder / "account.key")
    key = Key(folder / "unused.key")
    key.path = folder / "account.key"
    serving = Serving(folder, key, solana_policy(local.public_key))
    yield serving, local
    serving.stop()


def ask_solana(serving):
    settings = SignerSettings(url=serving.told["url"])
    return open_signer(settings, serving.folder, key_kind="ed25519")


def test_a_solana_message_is_signed_and_told_in_words(solana):
    serving, local = solana
    there = ask_solana(serving)
    assert there.public_key == local.public_key
    message = solana_message(local.public_key, PROGRAM, b"\x07record")
    assert there.sign_solana_message(message) == local.sign_solana_message(message)
    assert "instruction 7, 7 bytes, 1 accounts" in serving.said


def compute_price(price):
    from solders.instruction import Instruction
    from solders.pubkey import Pubkey

    budget = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
    return Instruction(budget, b"\x03" + price.to_bytes(8, "little"), [])


SOLANA_ATTEMPTS = {
    "another program": lambda me: solana_message(me, bytes(32), b"\x02\0\0\0" + b"\xff" * 8),
    "another instruction": lambda me: solana_message(me, PROGRAM, b"\x02"),
    "no instruction data": lambda me: solana_message(me, PROGRAM, b""),
    "another fee payer": lambda me: solana_message(b"\x08" * 32, PROGRAM, b"\x07"),
    "a second signer": lambda me: solana_message(me, PROGRAM, b"\x07", extra_signer=True),
    "a second instruction": lambda me: solana_message(
        me, PROGRAM, b"\x07", more=[compute_price(5001)]
    ),
    "bytes behind the end": lambda me: solana_message(me, PROGRAM, b"\x07") + b"\0",
    "a message cut off": lambda me: solana_message(me, PROGRAM, b"\x07")[:-1],
    "no message": lambda me: b"hello",
    "too many bytes": lambda me: solana_message(me, PROGRAM, b"\x07" * 1200),
    "lookup tables": lambda me: (
        b"\x80" + solana_message(me, PROGRAM, b"\x07") + b"\x01" + bytes(34)
    ),
}


@pytest.mark.parametrize("attempt", SOLANA_ATTEMPTS)
def test_another_solana_message_is_refused(solana, attempt):
    serving, local = solana
    there = ask_solana(serving)
    message = SOLANA_ATTEMPTS[attempt](local.public_key)
    with pytest.raises(SignerRefused):
        there.sign_solana_message(message)
    allowed = solana_message(
        local.public_key, PROGRAM, b"\x07" + os.urandom(4), more=[compute_price(5000)]
    )
    assert is_signature(local.public_key, allowed, there.sign_solana_message(allowed))


def test_a_policy_for_another_account_does_not_let_this_key_sign(solana):
    _, local = solana
    policy = parse_policy(solana_policy(b"\x31" * 32), source="a test")
    message = parse_message(solana_message(local.public_key, PROGRAM, b"\x07"))
    with pytest.raises(SignerRefused, match="the policy is for the fee payer"):
        Judge(policy, base58(local.public_key)).solana(message)


def test_a_solana_signature_over_something_else_is_an_alarm(solana):
    _, local = solana

    class Lying:
        where = "between"

        def post(self, body):
            request = json.loads(body)
            if request["method"] == "solana_accounts":
                result = [base58(local.public_key)]
            else:
                data = base64.b64decode(request["params"][0])
                result = {"signature": base58(local.sign_solana_message(data + b"\0"))}
            return 200, json.dumps(
                {"jsonrpc": "2.0", "id": request["id"], "result": result}
            ).encode()

    with pytest.raises(SignerMismatch):
        RemoteSolanaSigner(Lying()).sign_solana_message(b"anything")
    with pytest.raises(SignerMismatch, match="another key"):
        assert RemoteSolanaSigner(Lying(), public_key=bytes(32)).public_key


def test_a_solana_key_file_is_private_and_never_shown(tmp_path):
    path = tmp_path / "account.key"
    signer = create_solana_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    seed = path.read_text().strip().removeprefix("0x")
    assert LocalSolanaSigner.from_file(path).public_key == signer.public_key
    assert seed not in repr(signer)
    with pytest.raises(ConfigError, match="exists already"):
        create_solana_key_file(path)
    copy = shutil.copy(path, tmp_path / "open.key")
    Path(copy).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        LocalSolanaSigner.from_file(Path(copy))
    Path(copy).chmod(0o600)
    Path(copy).write_text(seed[:-2])
    with pytest.raises(ConfigError, match="64 hexadecimal digits") as caught:
        LocalSolanaSigner.from_file(Path(copy))
    assert seed[:-2] not in str(caught.value)


@given(st.binary(min_size=32, max_size=32))
def test_keys_are_shown_in_base_58_as_solana_does(key):
    from solders.pubkey import Pubkey

    assert base58(key) == str(Pubkey(key))
    assert from_base58(base58(key)) == key


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_a_message_or_an_error_of_ours(data):
    try:
        message = parse_message(data)
    except RecordError:
        return
    assert message.signers >= 1


def test_versions_of_messages_are_told_apart():
    from solders.hash import Hash
    from solders.instruction import Instruction
    from solders.message import MessageV0, to_bytes_versioned
    from solders.pubkey import Pubkey

    made = MessageV0.try_compile(
        Pubkey(b"\x05" * 32), [Instruction(Pubkey(PROGRAM), b"\x07", [])], [], Hash.default()
    )
    data = to_bytes_versioned(made)
    message = parse_message(data)
    assert (message.version, message.fee_payer) == (0, b"\x05" * 32)
    assert message.instructions[0].program == PROGRAM
    with pytest.raises(RecordError, match="version 1"):
        parse_message(b"\x81" + data[1:])

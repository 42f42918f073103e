"""Transactions, calls and typed data: read strictly, and as the rest of the world reads them."""

import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from signer_stage import POLICY, REGISTRY, START, membership, transaction

from twopm_flower.cli.signer_policy import (
    FeeLimits,
    Role,
    address_of,
    make_policy,
    our_functions,
    statement_types,
)
from twopm_flower.config import ChainSettings
from twopm_flower.errors import ConfigError, RecordError, SignerError, SignerMismatch, SignerRefused
from twopm_flower.records.fields import checksum_address
from twopm_flower.signer.calls import Function
from twopm_flower.signer.carried import SignedRequest, prepare
from twopm_flower.signer.judge import Judge
from twopm_flower.signer.policy import load_policy, parse_policy
from twopm_flower.signer.transaction import Transaction, decode_signed, rlp_decode, rlp_encode
from twopm_flower.signer.typed import TypedData, parts_as_request

KEY = secrets.token_bytes(32)
ADDRESS = Account.from_key(KEY).address

quantities = st.integers(0, 2**256 - 1)
addresses = st.binary(min_size=20, max_size=20).map(lambda b: checksum_address("0x" + b.hex()))
transactions = st.builds(
    Transaction,
    chain_id=st.integers(1, 2**53 - 1),
    nonce=st.integers(0, 2**64 - 2),
    max_priority_fee_per_gas=st.just(0) | st.integers(0, 2**70),
    max_fee_per_gas=st.integers(2**70, 2**80),
    gas=st.integers(0, 2**63),
    to=st.none()
    | st.binary(min_size=20, max_size=20).map(lambda b: checksum_address("0x" + b.hex())),
    value=quantities,
    data=st.binary(max_size=80) | st.binary(min_size=250, max_size=300),
)


@given(transactions)
def test_a_transaction_is_encoded_and_signed_as_eth_account_does(made):
    fields = made.to_fields()
    theirs = bytes(Account.sign_transaction({**fields, "type": 2}, KEY).raw_transaction)
    signature = bytes(Account.from_key(KEY).unsafe_sign_hash(made.signing_hash).signature)
    assert made.with_signature(signature) == theirs
    assert decode_signed(theirs) == (made, ADDRESS)
    assert Transaction.from_fields(fields) == made


@given(transactions, st.data())
def test_no_changed_byte_of_a_signed_transaction_reads_as_the_same(made, data):
    signature = bytes(Account.from_key(KEY).unsafe_sign_hash(made.signing_hash).signature)
    raw = bytearray(made.with_signature(signature))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with suppress(RecordError):
        assert decode_signed(bytes(raw)) != (made, ADDRESS)


@given(st.binary(max_size=60))
def test_bytes_are_rlp_in_one_form_or_not_at_all(data):
    try:
        item = rlp_decode(data)
    except RecordError:
        return
    assert rlp_encode(item) == data


@pytest.mark.parametrize(
    "raw", ["b90001" + "00", "8100", "c0c0", "b8", "f800", "", "83ffff"], ids=str
)
def test_other_spellings_of_a_number_or_length_are_refused(raw):
    with pytest.raises(RecordError):
        rlp_decode(bytes.fromhex(raw))


def test_functions_are_read_as_the_compiler_wrote_them():
    for functions in our_functions().values():
        for function in functions:
            assert Function.parse(function.text) == function
    erc20 = Function.parse("transfer(address to, uint amount)")
    assert erc20.selector.hex() == "a9059cbb"
    assert Function.parse("f((uint8,(bool b)[2] x)[] many)").signature == "f((uint8,(bool)[2])[])"


@pytest.mark.parametrize(
    "text",
    [
        "start",
        "start(",
        "start(bytes33 x)",
        "start(uint7 x)",
        "start(bytes32 x,)",
        "a b(uint8)",
        "start(bytes32 x) returns (bool)",
        "start((uint8)",
        "start(bytes32 x y)",
        "1(uint8)",
    ],
)
def test_what_is_no_signature_of_a_function_is_told(text):
    with pytest.raises(RecordError):
        Function.parse(text)


def test_a_call_is_told_with_names_and_nested_values():
    function = Function.parse("finalise(bytes32 id, (uint32 a, bytes b) last, string[] s)")
    data = function.encode([b"\x01" * 32, (7, b"\xff"), ["x", "\x1b[31m"]])
    assert function.explain(data) == (
        f'finalise(id=0x{"01" * 32}, last=(a=7, b=0xff), s=["x", "␛[31m"])'
    )
    with pytest.raises(RecordError, match="exactly 32 bytes"):
        function.encode([b"\x01" * 31, (7, b""), []])
    joined = Function.parse("join((bytes4 tag)[] many)")
    with pytest.raises(RecordError, match="exactly 4 bytes"):
        joined.encode([[(b"\x01",)]])


NESTED = {
    "Mail": [{"name": "to", "type": "Person[]"}, {"name": "n", "type": "int64"}],
    "Person": [{"name": "name", "type": "string"}, {"name": "keys", "type": "bytes8[2]"}],
}


def test_typed_data_have_the_digest_that_eth_account_computes():
    message = {"to": [{"name": "é", "keys": [b"\x01" * 8, "0x" + "02" * 8]}], "n": "-5"}
    data = TypedData.read(parts_as_request(REGISTRY.typed(), NESTED, "Mail", message))
    assert data.type_text == "Mail(Person[] to,int64 n)Person(string name,bytes8[2] keys)"
    plain = {"to": [{"name": "é", "keys": [b"\x01" * 8, b"\x02" * 8]}], "n": -5}
    signable = encode_typed_data(REGISTRY.typed(), NESTED, plain)
    assert data.digest == keccak(b"\x19" + signable.version + signable.header + signable.body)
    assert TypedData.read(data.to_json()) == data
    keys = f"0x{'01' * 8}, 0x{'02' * 8}"
    assert data.explain() == f'Mail(to=[(name="é", keys=[{keys}])], n=-5)'


@pytest.mark.parametrize("kind", sorted(statement_types()))
def test_the_policy_of_a_node_has_the_types_of_our_statements(kind):
    record, setting = statement_types()[kind]
    rules = {
        text.partition("(")[0]: (rule.verifying_contract, text)
        for rule in make_policy(CHAIN, Role.NODE, FEES).typed_data
        for text in rule.types
    }
    contract, text = rules[kind]
    members = ",".join(f"{solidity} {name}" for name, solidity in record.TYPES.values())
    assert text == f"{kind}({members})"
    assert contract == checksum_address(getattr(CHAIN, setting))


CHAIN = ChainSettings(
    rpc_url="http://127.0.0.1:1",
    chain_id=5,
    genesis_hash="0x" + "00" * 32,
    node_registry="0x" + "11" * 20,
    task_registry="0x" + "22" * 20,
    data_registry="0x" + "33" * 20,
    receipt_registry="0x" + "44" * 20,
)
FEES = FeeLimits(max_fee_per_gas_wei=10, max_gas=10, max_fee_per_day_wei=10)


def test_the_policy_of_a_coordinator_lists_every_function_of_our_contracts_that_writes():
    made = make_policy(CHAIN, Role.COORDINATOR, FEES)
    listed = {(rule.address, text) for rule in made.contracts for text in rule.functions}
    assert listed == {
        (address_of(CHAIN, name), function.text)
        for name, functions in our_functions().items()
        for function in functions
    }
    assert {rule.name for rule in made.contracts} >= {"NodeRegistry", "TaskRegistry"}
    assert not made.allow_deployments


def test_a_ledger_and_solana_have_policies_too():
    ledger = make_policy(CHAIN.model_copy(update={"family": "ledger"}), Role.COORDINATOR, FEES)
    names = {text.partition("(")[0] for rule in ledger.typed_data for text in rule.types}
    assert {"CreateTask", "RecordRound", "FinaliseTask"} <= names
    solana = CHAIN.model_copy(update={"family": "solana", "program": "1" * 32})
    with pytest.raises(ConfigError, match="--account"):
        make_policy(solana, Role.COORDINATOR, FEES)
    made = make_policy(solana, Role.COORDINATOR, FEES, account="1" * 32)
    assert made.key_kind == "ed25519"


BROKEN = {
    "an unknown setting": POLICY.replace("allow_fillers", "allow_filers"),
    "a misspelt limit": POLICY.replace("max_gas", "max_gaz"),
    "text for a number": POLICY.replace("max_gas = 500_000", 'max_gas = "500000"'),
    "no version": POLICY.replace("version = 1\nchain", "chain"),
    "another version": POLICY.replace("version = 1\nchain", "version = 2\nchain"),
    "no chain": POLICY.replace("chain_ids = [31337]", ""),
    "no TOML": POLICY + "]",
    "no function": POLICY.replace(START.text, "start"),
    "a function twice": POLICY.replace("cancel(bytes32 taskId, string reason)", "0x015a18ed"),
    "a short selector": POLICY.replace(START.text, "0x015a"),
    "a contract twice": POLICY + POLICY[POLICY.index("[[contracts]]") : POLICY.index("[[typed")],
    "a bad address": POLICY.replace("0xc0c0", "0xzzzz"),
    "nothing at all": "version = 1",
    "two kinds of keys": POLICY
    + '[solana]\nfee_payer = "11111111111111111111111111111111"\n'
    + '[[solana.programs]]\nprogram = "11111111111111111111111111111111"\nfirst_bytes = [1]\n',
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_policy_that_says_something_unknown_or_contradicts_itself_is_none(what):
    with pytest.raises(ConfigError, match="the policy test"):
        parse_policy(BROKEN[what], source="test")


def test_a_policy_that_others_may_change_is_none(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    load_policy(file)
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod go-w"):
        load_policy(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")


def test_a_bare_selector_allows_a_call_that_is_not_decoded():
    policy = parse_policy(POLICY.replace(START.text, "0x015a18ed"), source="test")
    words = Judge(policy, ADDRESS).transaction(Transaction.from_fields(transaction()))
    assert "TaskRegistry.0x015a18ed(32 bytes, not decoded)" in words


def test_deployments_are_signed_only_where_the_policy_says_so():
    code = Transaction.from_fields(transaction(to=None, data="0x6001"))
    with pytest.raises(SignerRefused, match="allow_deployments"):
        Judge(parse_policy(POLICY, source="test"), ADDRESS).transaction(code)
    lax = POLICY.replace("allow_fillers", "allow_deployments = true\nallow_fillers")
    words = Judge(parse_policy(lax, source="test"), ADDRESS).transaction(code)
    assert "deploy a contract of 2 bytes" in words


def test_typed_data_are_told_with_their_contract_and_chain():
    judge = Judge(parse_policy(POLICY, source="test"), ADDRESS)
    words = judge.typed_data(TypedData.read(membership(ADDRESS)))
    assert f"samples=7, dataCommitment=0x{'22' * 32}" in words
    assert words.endswith(f"for contract {REGISTRY.verifying_contract} on chain 31337")


@pytest.mark.parametrize("kind", ["a transaction", "a statement"])
def test_what_was_carried_back_signed_by_somebody_else_is_an_alarm(kind):
    now, valid = datetime(2026, 1, 1, tzinfo=UTC), timedelta(hours=1)
    if kind == "a transaction":
        content = Transaction.from_fields(transaction())
    else:
        content = TypedData.read(membership(ADDRESS))
    request = prepare(content, ADDRESS, "words", now=now, valid=valid)
    for key, is_ours in ((KEY, True), (secrets.token_bytes(32), False)):
        digest = bytes.fromhex(request.signing_hash[2:])
        signature = bytes(Account.from_key(key).unsafe_sign_hash(digest).signature)
        raw = content.with_signature(signature) if kind == "a transaction" else signature
        signed = SignedRequest(request=request, result="0x" + raw.hex())
        if is_ours:
            assert signed.check(now=now + valid) == content
            with pytest.raises(SignerError, match="expired"):
                signed.check(now=now + valid + timedelta(seconds=1))
        else:
            with pytest.raises(SignerMismatch, match="not by"):
                signed.check(now=now)

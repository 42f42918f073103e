"""Statements: what is signed, by whom, for where, and in one form only."""

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from record_factories import DOMAIN, OTHER, SIGNER, d, statements

from twopm_flower.errors import RecordError, SignatureError
from twopm_flower.records.statements import (
    HALF_ORDER,
    EvaluationStatement,
    ModelStatement,
    UpdateStatement,
    parse_signed,
    recover,
    sign,
    signed_type,
)

STATEMENTS = statements()
IDS = [type(statement).__name__ for statement in STATEMENTS]
ORDER = 2 * HALF_ORDER + 1

each = pytest.mark.parametrize("statement", STATEMENTS, ids=IDS)


def word(value):
    """The 32 bytes of one static EIP-712 member."""
    if isinstance(value, bool):
        return int(value).to_bytes(32)
    if isinstance(value, int):
        return value.to_bytes(32)
    return bytes.fromhex(value[2:]).rjust(32, b"\0")


def hash_by_the_eip(statement, domain):
    """The signing hash, spelt out from EIP-712 with nothing but keccak256."""
    domain_type = (
        b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    )
    separator = keccak(
        keccak(domain_type)
        + keccak(b"twopm-flower")
        + keccak(b"1")
        + word(domain.chain_id)
        + word(domain.verifying_contract)
    )
    members = ",".join(f"{kind} {name}" for name, kind in statement.TYPES.values())
    encoded = keccak(f"{type(statement).__name__}({members})".encode())
    for field, (_, kind) in statement.TYPES.items():
        value = getattr(statement, field)
        encoded += keccak(b"".join(map(word, value))) if kind.endswith("[]") else word(value)
    return keccak(b"\x19\x01" + separator + keccak(encoded))


@each
def test_the_signing_hash_is_the_one_that_the_eip_spells_out(statement):
    assert statement.signing_hash(DOMAIN) == hash_by_the_eip(statement, DOMAIN)


@each
def test_the_signature_is_the_one_that_eth_account_makes_of_the_full_message(statement):
    domain_fields = [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ]
    full = {
        "types": {"EIP712Domain": domain_fields, **statement.types()},
        "primaryType": type(statement).__name__,
        "domain": DOMAIN.typed(),
        "message": statement.message(),
    }
    signable = encode_typed_data(full_message=full)
    made = Account.sign_message(signable, bytes([1]) * 32)
    assert sign(statement, SIGNER, DOMAIN).signature == "0x" + made.signature.hex()
    assert Account.recover_message(signable, signature=made.signature) == SIGNER.address


@each
def test_a_signed_statement_checks_and_comes_back_from_its_json(statement):
    signed = sign(statement, SIGNER, DOMAIN)
    assert signed.check(DOMAIN) == statement
    kind = type(statement)
    assert parse_signed(kind, signed.to_json()) == signed
    assert signed_type(kind).from_bytes(signed.to_bytes()) == signed


def changed(statement, field):
    value = getattr(statement, field)
    if isinstance(value, bool):
        other = not value
    elif isinstance(value, int):
        other = value + 1 if value + 1 < 2**53 else value - 1
    elif isinstance(value, tuple):
        other = (*value[:-1], value[-1] - 1)
    elif len(value) == len(OTHER.address):
        other = SIGNER.address if value == OTHER.address else OTHER.address
    else:
        other = d(99)
    return statement.model_copy(update={field: other})


@each
def test_changing_any_field_invalidates_the_signature(statement):
    signed = sign(statement, SIGNER, DOMAIN)
    for field in type(statement).model_fields:
        forged = signed.model_copy(update={"statement": changed(statement, field)})
        with pytest.raises(SignatureError):
            forged.check(DOMAIN)


@each
@pytest.mark.parametrize(
    "change", [{"chain_id": 1}, {"verifying_contract": "0x" + "00" * 19 + "33"}]
)
def test_another_chain_or_contract_invalidates_the_signature(statement, change):
    with pytest.raises(SignatureError):
        sign(statement, SIGNER, DOMAIN).check(DOMAIN.model_copy(update=change))


def test_no_kind_of_statement_passes_for_another():
    hashes = {statement.signing_hash(DOMAIN) for statement in STATEMENTS}
    assert len(hashes) == len(STATEMENTS)


def test_a_list_does_not_run_into_the_next_element():
    def masked(*words):
        statement = next(s for s in STATEMENTS if isinstance(s, EvaluationStatement))
        return statement.model_copy(update={"masked": words}).signing_hash(DOMAIN)

    assert len({masked(), masked(0), masked(0, 0), masked(1, 0), masked(0, 1)}) == 5


def test_a_statement_that_names_another_node_is_refused():
    update = next(s for s in STATEMENTS if isinstance(s, UpdateStatement))
    signed = sign(update, SIGNER, DOMAIN)
    with pytest.raises(SignatureError, match="names node"):
        signed.model_copy(update={"node": OTHER.address}).check(DOMAIN)


def test_a_model_statement_claimed_by_another_node_is_refused():
    model = next(s for s in STATEMENTS if isinstance(s, ModelStatement))
    signed = sign(model, SIGNER, DOMAIN).model_copy(update={"node": OTHER.address})
    with pytest.raises(SignatureError, match="is signed by"):
        signed.check(DOMAIN)


def parts(signature):
    raw = bytes.fromhex(signature[2:])
    return int.from_bytes(raw[:32]), int.from_bytes(raw[32:64]), raw[64]


def joined(r, s, v):
    return "0x" + r.to_bytes(32).hex() + s.to_bytes(32).hex() + f"{v:02x}"


@each
def test_the_second_form_of_a_signature_is_refused(statement):
    signed = sign(statement, SIGNER, DOMAIN)
    r, s, v = parts(signed.signature)
    twin = joined(r, ORDER - s, 55 - v)
    with pytest.raises(SignatureError, match="canonical"):
        signed.model_copy(update={"signature": twin}).check(DOMAIN)


@pytest.mark.parametrize("other", [0, 1, 26, 29, 35, 255])
def test_v_is_27_or_28_and_nothing_else(other):
    signed = sign(STATEMENTS[0], SIGNER, DOMAIN)
    r, s, _ = parts(signed.signature)
    with pytest.raises(SignatureError, match="canonical"):
        signed.model_copy(update={"signature": joined(r, s, other)}).check(DOMAIN)


def test_the_other_v_gives_another_signer():
    signed = sign(STATEMENTS[0], SIGNER, DOMAIN)
    r, s, v = parts(signed.signature)
    with pytest.raises(SignatureError):
        signed.model_copy(update={"signature": joined(r, s, 55 - v)}).check(DOMAIN)


@pytest.mark.parametrize(
    ("r", "s"), [(0, 1), (1, 0), (0, 0), (ORDER, 1), (2**256 - 1, 1), (5, HALF_ORDER)]
)
def test_numbers_that_are_no_signature_are_an_error_of_ours(r, s):
    signed = sign(STATEMENTS[0], SIGNER, DOMAIN)
    with pytest.raises(SignatureError):
        signed.model_copy(update={"signature": joined(r, s, 27)}).check(DOMAIN)


@pytest.mark.parametrize("length", [0, 64, 66])
def test_a_signature_of_another_length_is_refused(length):
    with pytest.raises(SignatureError, match="65"):
        recover(b"\1" * 32, "0x" + "11" * length)


@given(st.binary(min_size=65, max_size=65))
def test_random_bytes_never_pass_and_never_crash(raw):
    statement = STATEMENTS[0]
    signed = signed_type(type(statement))(
        node=SIGNER.address, statement=statement, signature="0x" + raw.hex()
    )
    with pytest.raises(SignatureError):
        signed.check(DOMAIN)


def test_a_signer_that_signs_something_else_is_noticed_at_once():
    class Faulty:
        address = SIGNER.address

        def sign_typed_data(self, domain, types, primary_type, message):
            return OTHER.sign_typed_data(domain, types, primary_type, message)

    with pytest.raises(SignatureError, match="is signed by"):
        sign(STATEMENTS[0], Faulty(), DOMAIN)


@pytest.mark.parametrize("value", [None, [], "text", 1, {}, {"node": SIGNER.address}])
def test_what_is_no_signed_statement_is_an_error_of_ours(value):
    with pytest.raises(RecordError):
        parse_signed(UpdateStatement, value)


def test_a_statement_of_another_kind_is_not_accepted():
    signed = sign(STATEMENTS[0], SIGNER, DOMAIN)
    with pytest.raises(RecordError):
        parse_signed(UpdateStatement, signed.to_json())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signature", "0x" + "AB" * 65),
        ("signature", "ab" * 65),
        ("node", SIGNER.address.lower()),
        ("node", SIGNER.address[:-1]),
    ],
)
def test_addresses_and_signatures_have_one_spelling(field, value):
    data = sign(STATEMENTS[0], SIGNER, DOMAIN).to_json()
    with pytest.raises(RecordError, match=field):
        parse_signed(type(STATEMENTS[0]), {**data, field: value})

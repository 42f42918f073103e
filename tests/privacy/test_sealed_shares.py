"""Shares and openings open for whom they are meant, in their context, and for nobody else."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from twopm_flower.errors import KeyCeremonyError, SharingError
from twopm_flower.privacy.keys import SealingKey, SecretBytes, SharedKey, seal
from twopm_flower.privacy.sealed_shares import (
    SEALED_OPENING_BYTES,
    SEALED_SHARE_BYTES,
    OpeningContext,
    ShareContext,
    check_share_proof,
    open_opening,
    open_share,
    opening_digest,
    seal_opening,
    seal_share,
    sealed_share_digest,
    share_proof,
    shares_root,
)
from twopm_flower.privacy.share_codec import SHARE_BYTES, pack_share

READER = SealingKey.create()
GROUP = SharedKey("one-time-key", SecretBytes(bytes(range(32))))
SHARE = np.random.default_rng(0).integers(0, 65537, 2048, dtype=np.uint32)
CONTEXT = ShareContext(
    chain_id=31337,
    contract="0x" + "aA" * 20,
    task_id="0x" + "01" * 32,
    roster_digest="0x" + "02" * 32,
    round=3,
    attempt=1,
    threshold=7,
    dealer="0x" + "dD" * 20,
    reader="0x" + "eE" * 20,
    reader_key=READER.public,
)
OPENING = OpeningContext(
    chain_id=31337,
    contract="0x" + "aA" * 20,
    task_id="0x" + "01" * 32,
    round=3,
    attempt=1,
    manifest_digest="0x" + "04" * 32,
    node="0x" + "dD" * 20,
)
SHARE_CHANGES = {
    "chain_id": 1,
    "contract": "0x" + "bb" * 20,
    "task_id": "0x" + "09" * 32,
    "roster_digest": "0x" + "09" * 32,
    "round": 4,
    "attempt": 2,
    "threshold": 6,
    "dealer": "0x" + "ee" * 20,
    "reader": "0x" + "dd" * 20,
    "reader_key": SealingKey.create().public,
}
OPENING_CHANGES = {
    "chain_id": 1,
    "contract": "0x" + "bb" * 20,
    "task_id": "0x" + "09" * 32,
    "round": 1,
    "attempt": 3,
    "manifest_digest": "0x" + "09" * 32,
    "node": "0x" + "ee" * 20,
}
digests = st.binary(min_size=32, max_size=32).map(lambda data: "0x" + data.hex())


def flipped(data, bit):
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


# --- shares --------------------------------------------------------------------------------


def test_a_share_reaches_its_reader():
    sealed = seal_share(SHARE, READER.public, CONTEXT)
    assert len(sealed) == SEALED_SHARE_BYTES == 4400
    found = open_share(sealed, READER, CONTEXT)
    assert found.dtype == np.uint32
    assert (found == SHARE).all()
    found.fill(0)  # the caller's own, to erase


def test_every_field_of_the_context_is_among_the_changes():
    assert SHARE_CHANGES.keys() == CONTEXT.__dataclass_fields__.keys()
    assert OPENING_CHANGES.keys() == OPENING.__dataclass_fields__.keys()


@pytest.mark.parametrize("field", SHARE_CHANGES)
def test_a_share_opens_in_no_other_context(field):
    sealed = seal_share(SHARE, READER.public, CONTEXT)
    changed = replace(CONTEXT, **{field: SHARE_CHANGES[field]})
    with pytest.raises(KeyCeremonyError):
        open_share(sealed, READER, changed)
    assert sealed_share_digest(sealed, changed) != sealed_share_digest(sealed, CONTEXT)


def test_the_key_that_the_context_names_is_bound_and_not_just_compared():
    sealed = seal_share(SHARE, READER.public, CONTEXT)
    changed = replace(CONTEXT, reader_key=SHARE_CHANGES["reader_key"])
    assert changed.to_bytes() != CONTEXT.to_bytes()
    with pytest.raises(KeyCeremonyError):
        READER.open_sealed(sealed, changed.to_bytes())


def test_a_share_opens_with_no_other_key():
    other = SealingKey.create()
    sealed = seal_share(SHARE, READER.public, CONTEXT)
    with pytest.raises(
        KeyCeremonyError, match=f"this node's key for the attempt is {other.public}"
    ):
        open_share(sealed, other, CONTEXT)
    with pytest.raises(KeyCeremonyError, match="dealt in round 3, attempt 1, does not open"):
        open_share(sealed, other, replace(CONTEXT, reader_key=other.public))


def test_a_share_is_not_sealed_to_another_key_than_the_context_s():
    other = SealingKey.create()
    with pytest.raises(KeyCeremonyError, match="its context names"):
        seal_share(SHARE, other.public, CONTEXT)


def test_a_key_that_has_a_secret_in_common_with_nobody_is_refused():
    weak = "0x" + "00" * 32
    with pytest.raises(KeyCeremonyError, match="not a usable X25519 public key"):
        seal_share(SHARE, weak, replace(CONTEXT, reader_key=weak))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8 * SEALED_SHARE_BYTES - 1))
def test_a_share_with_a_flipped_bit_does_not_open(bit):
    sealed = seal_share(SHARE, READER.public, CONTEXT)
    altered = flipped(sealed, bit)
    with pytest.raises(KeyCeremonyError):
        open_share(altered, READER, CONTEXT)
    assert sealed_share_digest(altered, CONTEXT) != sealed_share_digest(sealed, CONTEXT)


@pytest.mark.parametrize("length", [0, SEALED_SHARE_BYTES - 1, SEALED_SHARE_BYTES + 1])
def test_a_sealed_share_of_another_length_is_refused(length):
    with pytest.raises(SharingError, match=f"is {length} bytes long, not 4400"):
        open_share(bytes(length), READER, CONTEXT)


def test_what_a_dealer_seals_in_place_of_a_share_is_refused():
    beyond = pack_share(np.full(2048, 65536, np.uint32)).replace(b"\0\0", b"\1\0")
    assert len(beyond) == SHARE_BYTES
    with pytest.raises(SharingError, match="not below 65537"):
        open_share(seal(READER.public, beyond, CONTEXT.to_bytes()), READER, CONTEXT)


def test_the_spelling_of_an_address_or_a_key_changes_nothing():
    lower = replace(
        CONTEXT,
        contract=CONTEXT.contract.lower(),
        dealer=CONTEXT.dealer.lower(),
        reader=CONTEXT.reader.lower(),
    )
    sealed = seal_share(SHARE, READER.public.upper().replace("0X", "0x"), CONTEXT)
    assert (open_share(sealed, READER, lower) == SHARE).all()
    assert sealed_share_digest(sealed, lower) == sealed_share_digest(sealed, CONTEXT)


def test_a_share_cannot_be_sealed_that_is_none():
    with pytest.raises(SharingError, match="2048 uint32 values"):
        seal_share(SHARE.astype(np.int64), READER.public, CONTEXT)


# --- the root that a dealer signs ----------------------------------------------------------


@given(st.lists(digests, min_size=1, max_size=20, unique=True), st.data())
def test_each_reader_s_proof_leads_to_the_dealer_s_root(dealt, data):
    root = shares_root(dealt)
    assert shares_root(dealt[::-1]) == root
    digest = data.draw(st.sampled_from(dealt))
    proof = share_proof(dealt, digest)
    assert check_share_proof(digest, proof, root)
    stranger = data.draw(digests.filter(lambda other: other not in dealt))
    assert not check_share_proof(stranger, proof, root)
    assert not check_share_proof(digest, proof, stranger)
    assert shares_root([stranger if d == digest else d for d in dealt]) != root
    if proof:
        assert not check_share_proof(digest, proof[:-1], root)
        assert not check_share_proof(digest, (*proof[:-1], stranger), root)
    assert not check_share_proof(digest, (*proof, stranger), root)


def test_an_inner_node_of_the_tree_is_not_the_digest_of_a_share():
    dealt = ["0x" + f"{i:02x}" * 32 for i in range(4)]
    root = shares_root(dealt)
    left, right = {share_proof(dealt, digest)[-1] for digest in dealt}
    assert not check_share_proof(left, (right,), root)
    assert not check_share_proof(root, (), root)


@pytest.mark.parametrize(
    "wrong", ["", "0x", "12" * 33, "0x" + "AB" * 32, "0x" + "1" * 63, "0x" + "zz" * 32]
)
def test_malformed_digests_prove_nothing(wrong):
    good = "0x" + "11" * 32
    root = shares_root([good])
    assert check_share_proof(good, (), root)
    assert not check_share_proof(wrong, (), root)
    assert not check_share_proof(good, (), wrong)
    assert not check_share_proof(good, (wrong,), root)
    with pytest.raises(SharingError, match="is not the digest of a sealed share"):
        shares_root([good, wrong])
    with pytest.raises(SharingError, match="No share with the digest"):
        share_proof([good], wrong)


def test_no_shares_or_one_twice_have_no_root():
    digest = "0x" + "11" * 32
    for dealt in ([], [digest, digest]):
        with pytest.raises(SharingError, match="have no root"):
            shares_root(dealt)


# --- openings ------------------------------------------------------------------------------


def test_an_opening_reaches_everybody_with_the_group_key():
    sealed = seal_opening(SHARE, GROUP, OPENING)
    assert len(sealed) == SEALED_OPENING_BYTES == SHARE_BYTES + 28
    found = open_opening(sealed, SharedKey.from_bytes(GROUP.to_bytes()), OPENING)
    assert found.dtype == np.uint32
    assert (found == SHARE).all()
    assert pack_share(SHARE)[:64] not in sealed


def test_no_two_openings_are_alike():
    assert seal_opening(SHARE, GROUP, OPENING) != seal_opening(SHARE, GROUP, OPENING)


@pytest.mark.parametrize("field", OPENING_CHANGES)
def test_an_opening_opens_in_no_other_context(field):
    sealed = seal_opening(SHARE, GROUP, OPENING)
    changed = replace(OPENING, **{field: OPENING_CHANGES[field]})
    with pytest.raises(KeyCeremonyError, match="does not open with the group key"):
        open_opening(sealed, GROUP, changed)
    assert opening_digest(sealed, changed) != opening_digest(sealed, OPENING)


def test_an_opening_does_not_open_with_another_group_key():
    other = SharedKey("one-time-key", SecretBytes(bytes(32)))
    sealed = seal_opening(SHARE, GROUP, OPENING)
    with pytest.raises(
        KeyCeremonyError, match=f"in round 3, attempt 1, .* {other.key_id}"
    ) as caught:
        open_opening(sealed, other, OPENING)
    assert other.secret.reveal().hex() not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8 * SEALED_OPENING_BYTES - 1))
def test_an_opening_with_a_flipped_bit_does_not_open(bit):
    sealed = seal_opening(SHARE, GROUP, OPENING)
    altered = flipped(sealed, bit)
    with pytest.raises(KeyCeremonyError, match="does not open"):
        open_opening(altered, GROUP, OPENING)
    assert opening_digest(altered, OPENING) != opening_digest(sealed, OPENING)


@pytest.mark.parametrize("length", [0, 12, SEALED_OPENING_BYTES - 1, SEALED_OPENING_BYTES + 1])
def test_an_opening_of_another_length_is_refused(length):
    with pytest.raises(SharingError, match=f"is {length} bytes long, not 4380"):
        open_opening(bytes(length), GROUP, OPENING)


def test_a_group_key_that_is_too_short_seals_nothing():
    short = SharedKey("one-time-key", SecretBytes(b"short"))
    with pytest.raises(KeyCeremonyError, match="5 bytes long, not 32"):
        seal_opening(SHARE, short, OPENING)


def test_the_spelling_of_an_address_does_not_change_an_opening():
    lower = replace(OPENING, node=OPENING.node.lower(), contract=OPENING.contract.lower())
    sealed = seal_opening(SHARE, GROUP, OPENING)
    assert (open_opening(sealed, GROUP, lower) == SHARE).all()
    assert opening_digest(sealed, lower) == opening_digest(sealed, OPENING)


# --- the format, for a second implementation -----------------------------------------------


def test_contexts_are_canonical_json_after_a_tag():
    context = replace(CONTEXT, chain_id=2**60, reader_key="0x" + "0F" * 32)
    assert context.to_bytes() == (
        b'twopm-flower/sealed-share/v1\0{"attempt":1,"chain_id":"1152921504606846976",'
        b'"contract":"0x' + b"aa" * 20 + b'","dealer":"0x' + b"dd" * 20 + b'","reader":"0x'
        + b"ee" * 20 + b'","reader_key":"0x' + b"0f" * 32 + b'","roster_digest":"0x'
        + b"02" * 32 + b'","round":3,"task_id":"0x' + b"01" * 32 + b'","threshold":7}'
    )  # fmt: skip
    assert OPENING.to_bytes() == (
        b'twopm-flower/opening/v1\0{"attempt":1,"chain_id":"31337","contract":"0x'
        + b"aa" * 20 + b'","manifest_digest":"0x' + b"04" * 32 + b'","node":"0x'
        + b"dd" * 20 + b'","round":3,"task_id":"0x' + b"01" * 32 + b'"}'
    )  # fmt: skip


def test_digests_are_of_the_length_and_bytes_of_the_context_and_of_what_was_sealed():
    for digest, tag, context in (
        (sealed_share_digest, b"sealed-share-digest", CONTEXT),
        (opening_digest, b"opening-digest", OPENING),
    ):
        bound = context.to_bytes()
        hashed = b"twopm-flower/" + tag + b"/v1\0" + len(bound).to_bytes(4, "big") + bound
        expected = "0x" + hashlib.sha256(hashed + b"sealed").hexdigest()
        assert digest(b"sealed", context) == expected


def test_a_root_is_that_of_doubly_hashed_digests_in_pairs_in_order():
    dealt = ["0x" + "22" * 32, "0x" + "11" * 32]
    leaves = sorted(keccak(keccak(bytes.fromhex(digest[2:]))) for digest in dealt)
    assert shares_root(dealt) == "0x" + keccak(b"".join(leaves)).hex()

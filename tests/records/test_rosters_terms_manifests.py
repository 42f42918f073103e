"""Rosters, terms and manifests: what they refuse, and what their digests cover."""

import json

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from record_factories import (
    DOMAIN,
    OTHER,
    SIGNER,
    a_manifest,
    a_member,
    a_roster,
    addresses,
    d,
    manifest_fields,
    some_terms,
)

from twopm_flower.errors import RecordError, SignatureError
from twopm_flower.records.digest import tagged_digest
from twopm_flower.records.fields import checksum_address
from twopm_flower.records.manifest import Exclusion, RoundManifest, Survivor, updates_root
from twopm_flower.records.merkle import update_leaf
from twopm_flower.records.roster import Roster
from twopm_flower.records.terms import Configuration, TaskTerms, data_commitment, model_digest

# --- digests ------------------------------------------------------------------------------


def test_a_digest_covers_its_tag_and_not_only_its_bytes():
    assert tagged_digest("a/v1", b"x") != tagged_digest("b/v1", b"x")
    assert tagged_digest("a", b"b") != tagged_digest("ab")


def test_a_tag_cannot_run_into_the_data():
    with pytest.raises(ValueError, match="zero byte"):
        tagged_digest("a\0b", b"c")


# --- roster -------------------------------------------------------------------------------


def test_the_roster_digest_is_the_one_that_the_contract_chains():
    roster = a_roster()
    digest = bytes(32)
    for member in roster.members:
        digest = keccak(
            digest
            + bytes(12)
            + bytes.fromhex(member.node[2:])
            + member.samples.to_bytes(32)
            + bytes.fromhex(member.data_commitment[2:])
            + bytes.fromhex(member.sealing_key[2:])
        )
    assert roster.digest == "0x" + digest.hex()


def test_the_roster_digest_depends_on_order_and_on_every_field():
    roster = a_roster()
    first, second = roster.members
    digests = {roster.digest, Roster(members=(second, first)).digest, Roster(members=()).digest}
    for change in ({"samples": 51}, {"data_commitment": d(9)}, {"sealing_key": d(9)}):
        digests.add(Roster(members=(first.model_copy(update=change), second)).digest)
    assert len(digests) == 6


def test_a_roster_of_signed_members_checks():
    a_roster().check(d(1), d(2), DOMAIN)


@pytest.mark.parametrize("task_and_terms", [(d(9), d(2)), (d(1), d(9))])
def test_a_membership_for_another_task_or_other_terms_is_refused(task_and_terms):
    with pytest.raises(SignatureError):
        a_roster().check(*task_and_terms, DOMAIN)


@pytest.mark.parametrize(
    "change", [{"samples": 51}, {"data_commitment": d(9)}, {"sealing_key": d(9)}]
)
def test_a_member_that_is_entered_with_other_values_than_it_signed_is_refused(change):
    first, second = a_roster().members
    with pytest.raises(SignatureError):
        Roster(members=(first.model_copy(update=change), second)).check(d(1), d(2), DOMAIN)


def test_an_empty_roster_and_a_member_twice_are_refused():
    with pytest.raises(RecordError, match="empty"):
        Roster(members=()).check(d(1), d(2), DOMAIN)
    twice = Roster(members=(a_member(SIGNER, 50), a_member(SIGNER, 60)))
    with pytest.raises(RecordError, match="twice"):
        twice.check(d(1), d(2), DOMAIN)


def test_samples_are_looked_up_by_address_and_a_stranger_is_named():
    roster = a_roster()
    assert roster.samples_of([OTHER.address, SIGNER.address]) == 110
    assert roster.dealer.node == SIGNER.address
    stranger = addresses(1)[0]
    with pytest.raises(RecordError, match=stranger):
        roster.samples_of([stranger])


# --- terms --------------------------------------------------------------------------------


def test_a_quorum_that_a_round_may_miss_is_refused():
    with pytest.raises(ValueError, match="quorum"):
        some_terms(quorum=4, min_contributors=3)


@pytest.mark.parametrize(
    "change",
    [
        {"min_contributors": 1},
        {"quorum": 0},
        {"rounds": 0},
        {"max_samples": 0},
        {"clip": 0.0},
        {"clip": float("inf")},
        {"title": ""},
        {"trust_mode": "trust-me"},
        {"initial_model": "0x12"},
    ],
)
def test_impossible_terms_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        some_terms(**change)


@pytest.mark.parametrize("mode", ["shared-key", "plaintext"])
def test_colluders_are_tolerated_by_one_time_keys_alone(mode):
    assert some_terms(trust_mode="one-time-key", colluders=1).colluders == 1
    with pytest.raises(ValueError, match="tolerates none"):
        some_terms(trust_mode=mode, colluders=1)


def test_every_field_of_the_terms_changes_their_digest():
    terms = some_terms()
    changes = {
        "title": "Other",
        "trust_mode": "plaintext",
        "parameters": {"backend": "plaintext"},
        "train_config": {"lr": 0.2},
        "evaluate_config": {"x": 1},
        "run_config": {"x": 1},
        "dataset": {"x": 1},
        "arrays": (),
        "train_metrics": (),
        "evaluation_metrics": terms.train_metrics,
        "clip": 2.0,
        "quorum": 1,
        "excluded": ("norm.*",),
    }
    digests = {terms.digest}
    for field in set(TaskTerms.model_fields) - {"version"}:
        value = getattr(terms, field)
        other = changes.get(field, value + 1 if isinstance(value, int) else d(99))
        digests.add(terms.model_copy(update={field: other}).digest)
    assert len(digests) == len(TaskTerms.model_fields)


def test_terms_come_back_from_their_bytes():
    terms = some_terms()
    assert TaskTerms.from_bytes(terms.to_bytes()) == terms


def test_the_digest_of_a_configuration_covers_both_parts():
    one = Configuration(train_config={"a": 1}, run_config={})
    other = Configuration(train_config={}, run_config={"a": 1})
    assert one.digest != other.digest


def test_a_data_commitment_hides_behind_32_bytes_of_salt():
    assert data_commitment(b"1" * 32, 5, b"rows") != data_commitment(b"2" * 32, 5, b"rows")
    assert data_commitment(b"1" * 32, 5, b"rows") != data_commitment(b"1" * 32, 6, b"rows")
    with pytest.raises(ValueError, match="32"):
        data_commitment(b"1" * 31, 5, b"rows")


def test_a_model_digest_covers_layout_and_weights():
    assert len({model_digest(d(1), b"a"), model_digest(d(2), b"a"), model_digest(d(1), b"b")}) == 3


@pytest.mark.parametrize("text", ["", "0x12", "0x" + "zz" * 20])
def test_what_is_no_address_is_an_error_of_ours(text):
    with pytest.raises(RecordError, match="address"):
        checksum_address(text)


# --- manifest -----------------------------------------------------------------------------


def test_a_manifest_comes_back_from_its_bytes():
    manifest = a_manifest()
    assert RoundManifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.nodes == tuple(addresses(4)[:3])


def test_every_field_of_a_manifest_changes_its_digest():
    manifest = a_manifest()
    changes = {
        "trust_mode": "plaintext",
        "survivors": manifest.survivors[:2],
        "exclusions": (),
    }
    digests = {manifest.digest}
    for field in set(RoundManifest.model_fields) - {"version"}:
        value = getattr(manifest, field)
        other = changes.get(field, value + 1 if isinstance(value, int) else d(99))
        digests.add(manifest.model_copy(update={field: other}).digest)
    assert len(digests) == len(RoundManifest.model_fields)


@given(st.permutations(range(4)))
def test_survivors_stand_in_one_order_only(order):
    fields = manifest_fields(survivors=4, excluded=0)
    shuffled = tuple(fields["survivors"][index] for index in order)
    fields = {**fields, "survivors": shuffled}
    if list(order) == sorted(order):
        RoundManifest(**fields)
    else:
        with pytest.raises(ValueError, match="sorted"):
            RoundManifest(**fields)


def test_a_node_listed_twice_is_refused():
    fields = manifest_fields()
    twice = (fields["survivors"][0], *fields["survivors"])
    with pytest.raises(ValueError, match="distinct"):
        RoundManifest(**{**fields, "survivors": twice})


def test_a_node_that_is_both_in_and_out_is_refused():
    fields = manifest_fields()
    both = Exclusion(node=fields["survivors"][0].node, reason="late", detail="")
    with pytest.raises(ValueError, match="both"):
        RoundManifest(**{**fields, "exclusions": (both,)})


def test_an_unknown_reason_to_exclude_is_refused():
    data = a_manifest().to_json()
    data["exclusions"][0]["reason"] = "disliked"
    with pytest.raises(RecordError, match="reason"):
        RoundManifest.from_json(data)


def test_an_unknown_field_is_refused():
    data = {**json.loads(a_manifest().to_bytes()), "note": "x"}
    with pytest.raises(RecordError, match="note"):
        RoundManifest.from_json(data)


def test_the_updates_root_of_one_survivor_is_its_leaf():
    survivor = Survivor(node=SIGNER.address, update_digest=d(7))
    leaf = update_leaf(d(1), 2, 3, SIGNER.address, d(7))
    assert updates_root(d(1), 2, 3, [survivor]) == "0x" + leaf.hex()


def test_the_updates_root_binds_task_round_and_attempt():
    survivors = a_manifest().survivors
    roots = {
        updates_root(task, number, attempt, survivors)
        for task in (d(1), d(2))
        for number in (1, 2)
        for attempt in (1, 2)
    }
    assert len(roots) == 8


def test_no_survivors_have_no_root():
    with pytest.raises(RecordError, match="at least one"):
        updates_root(d(1), 1, 1, [])

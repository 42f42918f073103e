"""One lie at a time, told consistently: steps 1 to 3 notice those about the task."""

from dataclasses import replace

import pytest
from checklist_outcome import outcome
from memory_chain import word
from run_simulator import RunSimulator, simulate

from twopm_flower.records.bundle import Deployment
from twopm_flower.records.statements import KeyDeal, sign


def test_a_bundle_that_was_not_read_from_canonical_bytes_is_checked_like_one_that_was():
    number, detail = outcome(simulate(), aggregates={word("x"): "no base64"})
    assert number == 1
    assert "aggregates" in detail


def test_parameters_that_are_not_the_named_ones_fail():
    simulation = simulate()
    terms = simulation.bundle.terms
    number, detail = outcome(
        simulation, terms=terms.model_copy(update={"parameters_id": word("other")})
    )
    assert number == 1
    assert "parameters_id" in detail


def test_parameters_that_no_formula_gives_fail():
    simulation = simulate()
    terms = simulation.bundle.terms
    parameters = {**terms.parameters, "limit": terms.parameters["limit"] + 1}
    number, _ = outcome(simulation, terms=terms.model_copy(update={"parameters": parameters}))
    assert number == 1


def test_a_layout_that_is_not_the_named_one_fails():
    simulation = simulate()
    terms = simulation.bundle.terms
    number, detail = outcome(
        simulation, terms=terms.model_copy(update={"arrays": terms.arrays[::-1]})
    )
    assert number == 1
    assert "layout_digest" in detail


def test_an_encrypted_task_with_parameters_of_plaintext_fails():
    simulation = simulate(trust_mode="plaintext")
    terms = simulation.bundle.terms
    number, detail = outcome(
        simulation, terms=terms.model_copy(update={"trust_mode": "shared-key"})
    )
    assert number == 1
    assert "backend" in detail


def test_an_artifact_that_no_manifest_lists_fails():
    simulation = simulate()
    ciphertexts = {**simulation.bundle.ciphertexts, word("stray"): ""}
    assert outcome(simulation, ciphertexts=ciphertexts)[0] == 1


def test_one_time_keys_with_parameters_of_another_backend_fail():
    simulation = simulate()
    terms = simulation.bundle.terms.model_copy(update={"trust_mode": "one-time-key"})
    number, detail = outcome(simulation, terms=terms)
    assert number == 1
    assert "backend" in detail


def test_more_members_than_the_sums_have_room_for_fail():
    number, detail = outcome(simulate(room=3, nodes=4, repeated_round=None, rounds=1, planned=9))
    assert number == 1
    assert "without wrapping" in detail


def test_more_rounds_than_planned_fail():
    number, detail = outcome(simulate(rounds=3, planned=2))
    assert number == 1
    assert "plan 2" in detail


def test_rounds_out_of_order_fail():
    simulation = simulate()
    assert outcome(simulation, rounds=simulation.bundle.rounds[::-1])[0] == 1


@pytest.mark.parametrize("field", Deployment.model_fields)
def test_a_bundle_of_another_deployment_fails(field):
    simulation = simulate()
    others = {"chain_id": 1, "genesis_hash": word("other"), "family": "ledger", "program": "p"}
    other = others.get(field, "0x" + "00" * 19 + "99")
    deployment = simulation.bundle.deployment.model_copy(update={field: other})
    number, detail = outcome(simulation, deployment=deployment)
    assert number == 2
    assert field in detail


@pytest.mark.parametrize(
    "field", ["rounds", "min_contributors", "quorum", "max_samples", "members"]
)
def test_a_task_that_was_created_with_other_settings_fails(field):
    simulation = simulate()
    chain = simulation.chain
    chain.state = replace(chain.state, **{field: getattr(chain.state, field) + 1})
    number, detail = outcome(simulation)
    assert number == 2
    assert field in detail


@pytest.mark.parametrize("field", ["terms_digest", "roster_digest"])
def test_a_task_that_was_created_with_other_digests_fails(field):
    simulation = simulate()
    simulation.chain.state = replace(simulation.chain.state, **{field: word("other")})
    number, detail = outcome(simulation)
    assert number == 2
    assert field in detail


def test_a_cancelled_task_fails():
    simulation = simulate()
    simulation.chain.state = replace(simulation.chain.state, state="cancelled")
    assert outcome(simulation) == (2, "the task is cancelled on chain")


def test_a_member_with_a_swapped_sealing_key_fails():
    simulation = simulate()
    first, *others = simulation.chain.roster
    simulation.chain.roster = (replace(first, sealing_key=word("other")), *others)
    number, detail = outcome(simulation)
    assert number == 2
    assert "roster" in detail


def test_a_member_that_did_not_sign_for_itself_fails():
    simulator = RunSimulator()
    simulation = simulator.build()
    roster = simulation.bundle.roster
    first, second, *others = roster.members
    forged = roster.model_copy(
        update={
            "members": (
                first.model_copy(update={"signature": second.signature}),
                second,
                *others,
            )
        }
    )
    assert outcome(simulation, roster=forged)[0] == 3


def test_a_member_with_more_samples_than_allowed_fails():
    number, detail = outcome(simulate(max_samples=60))
    assert number == 3
    assert "the terms allow 1 to 60" in detail


def test_a_key_dealt_by_another_than_the_first_member_fails():
    number, detail = outcome(simulate(dealer=1))
    assert number == 3
    assert "dealer" in detail


def test_an_encrypted_task_without_a_key_deal_fails():
    assert outcome(simulate(), key_deal=None)[0] == 3


def test_a_plaintext_task_with_a_key_deal_fails():
    deal = simulate().bundle.key_deal
    assert outcome(simulate(trust_mode="plaintext"), key_deal=deal)[0] == 3


@pytest.mark.parametrize("field", ["task_id", "roster_digest"])
def test_a_key_deal_for_another_task_or_roster_fails(field):
    simulator = RunSimulator()
    simulation = simulator.build()
    honest = simulation.bundle.key_deal.statement
    statement = KeyDeal(**{**honest.model_dump(), field: word("other")})
    deal = sign(statement, simulator.nodes[0].signer, simulator.domain)
    number, detail = outcome(simulation, key_deal=deal)
    assert number == 3
    assert field in detail

"""A malicious server commits to a manifest that does not hold: nodes sign no fingerprints."""

from dataclasses import replace

import pytest
from lies import (
    assert_stopped,
    changed,
    lie_in_the_manifest,
    run_into_refusal,
    with_digest_of,
)
from moments import Moment

from twopm_flower.errors import KeyCeremonyError, ProtocolViolation, SignatureError
from twopm_flower.federated import wire
from twopm_flower.federated.aggregator import RefusedReplyError, RoundAggregator
from twopm_flower.federated.ceremony import accept_key, check_roster, member_of, membership
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.records.manifest import Exclusion
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import sign

OTHER = "0x" + "5a" * 32


def shown_at_evaluate(recorded, folder, because, *, manifest=None, **changes):
    """Show a node a changed evaluate order; it stops and signs nothing."""
    moment = recorded.at("evaluate", 1)
    if manifest is not None:
        changes["manifest"] = changed(moment.order.manifest, **manifest)
    reply, node = moment.show(replace(moment.order, **changes), folder)
    assert reply.has_error()
    assert_stopped(node, because)
    assert node.progress.fingerprinted == {}


def test_the_honest_manifest_is_signed(recorded, tmp_path):
    moment = recorded.at("evaluate", 1)
    reply, node = moment.show(moment.order, tmp_path)
    assert not reply.has_error()
    assert node.progress.fingerprinted == {"1/1": moment.order.manifest.digest}


@pytest.mark.parametrize(
    "field",
    [
        "terms_digest",
        "roster_digest",
        "app_bundle",
        "config_digest",
        "base_model",
        "key_id",
        "parameters_id",
        "layout_digest",
        "previous_manifest",
        "updates_root",
        "task_id",
    ],
)
def test_a_manifest_bound_to_something_else_is_refused(recorded, tmp_path, field):
    shown_at_evaluate(recorded, tmp_path, OTHER, manifest={field: OTHER})


def test_a_wrong_previous_manifest_is_refused_in_later_rounds_too(federate, monkeypatch):
    federation = federate(rounds=2)
    lie_in_the_manifest(monkeypatch, lambda m: changed(m, previous_manifest=OTHER), in_round=2)
    run_into_refusal(federation)
    for node in federation.nodes:
        assert_stopped(node, "previous_manifest", opened=1)
        assert node.progress.fingerprinted.keys() == {"1/1"}


def test_another_trust_mode_is_refused(recorded, tmp_path):
    shown_at_evaluate(recorded, tmp_path, "trust_mode", manifest={"trust_mode": "plaintext"})


def test_a_lie_about_samples_is_refused(recorded, tmp_path):
    samples = recorded.at("evaluate", 1).order.manifest.samples - 1
    because = "its survivors committed to"
    shown_at_evaluate(recorded, tmp_path, because, manifest={"samples": samples})


def test_too_few_contributors_are_refused_however_they_are_explained(recorded, tmp_path):
    order = recorded.at("evaluate", 1).order
    survivors = order.manifest.survivors
    roster = recorded.federation.roster
    thinned_out = {
        "survivors": survivors[:2],
        "exclusions": tuple(
            Exclusion(node=s.node, reason="late", detail="") for s in survivors[2:]
        ),
        "samples": roster.samples_of([survivor.node for survivor in survivors[:2]]),
    }
    because = "2 contributors, the task asks for at least 3"
    shown_at_evaluate(recorded, tmp_path, because, manifest=thinned_out)


def test_an_update_that_a_node_did_not_send_is_refused_by_it_and_by_the_others(
    federate, monkeypatch
):
    federation = federate()
    victim = federation.nodes[2]
    lie_in_the_manifest(monkeypatch, lambda m: with_digest_of(m, victim.address, OTHER))
    run_into_refusal(federation)
    for node in federation.nodes:
        assert_stopped(node, f"the manifest lists {OTHER}")


def test_a_node_knows_the_update_that_it_sent_even_if_its_signature_were_stolen(federate):
    federation = federate()
    victim = federation.nodes[2]

    def steal(order, index):
        if getattr(order, "manifest", None) is None:
            return order
        manifest = with_digest_of(order.manifest, victim.address, OTHER)
        updates = tuple(
            resigned(update, victim) if update.node == victim.address else update
            for update in order.updates
        )
        return type(order)(
            task_id=order.task_id, config=order.config, manifest=manifest, updates=updates
        )

    def resigned(update, node):
        statement = update.statement.model_copy(update={"update_digest": OTHER})
        return sign(statement, node.home.signer, federation.stage.deployment.domain)

    federation.make_grid().orders.append(steal)
    run_into_refusal(federation)
    assert_stopped(victim, f"lists update {OTHER} as this node's; it sent")


def test_a_forged_signature_under_an_update_is_refused(recorded, tmp_path):
    first, second, *rest = recorded.at("evaluate", 1).order.updates
    forged = first.model_copy(update={"signature": second.signature})
    shown_at_evaluate(recorded, tmp_path, "is signed by", updates=(forged, second, *rest))


def test_a_missing_update_statement_is_refused(recorded, tmp_path):
    updates = recorded.at("evaluate", 1).order.updates
    shown_at_evaluate(recorded, tmp_path, "update statements are from", updates=updates[:-1])


def test_update_statements_in_another_order_are_refused(recorded, tmp_path):
    updates = recorded.at("evaluate", 1).order.updates
    shown_at_evaluate(recorded, tmp_path, "update statements are from", updates=updates[::-1])


def test_a_node_that_is_left_out_goes_on_and_raises_an_alarm_the_second_time(
    federate, monkeypatch, caplog
):
    federation = federate(rounds=3)
    victim = federation.nodes[3]
    honest = RoundAggregator.receive

    def censor(self, flower_node, reply):
        if reply.update.node == victim.address:
            raise RefusedReplyError("late", "censored")
        honest(self, flower_node, reply)

    monkeypatch.setattr(RoundAggregator, "receive", censor)
    with caplog.at_level("WARNING"):
        federation.run(late_limit=1000)

    said = [record.getMessage() for record in caplog.records]
    assert "round 1, attempt 1: this node's update was left out (late: censored)" in said
    alarms = [text for text in said if "ALARM: this node's updates were left out" in text]
    assert [text.split(" out of ")[1] for text in alarms] == [
        "2 rounds in a row",
        "3 rounds in a row",
    ]
    assert victim.progress.excluded_in_a_row == 3
    assert victim.progress.opened_round == 3
    assert federation.nodes[0].progress.excluded_in_a_row == 0


# --- before the first round ------------------------------------------------------------------


def confirm(federation, roster, *, node=0, trusted=None):
    home = federation.nodes[node].home
    check_roster(
        roster,
        task_id=federation.task_id,
        terms=federation.terms,
        deployment=federation.stage.deployment,
        trusted=home.peers() if trusted is None else trusted,
        own=home.signer.address,
    )


def test_a_member_whose_registered_sealing_key_was_swapped_is_not_confirmed(federate):
    federation = federate()
    confirm(federation, federation.roster)
    members = list(federation.roster.members)
    members[1] = members[1].model_copy(update={"sealing_key": SealingKey.create().public})
    with pytest.raises(SignatureError, match="is signed by"):
        confirm(federation, Roster(members=tuple(members)))


def test_a_member_that_joined_with_another_key_than_its_trusted_card_is_not_confirmed(federate):
    federation = federate()
    members = list(federation.roster.members)
    other = federation.nodes[1]
    signed = membership(
        other.home.signer,
        SealingKey.create().public,
        task_id=federation.task_id,
        terms=federation.terms,
        samples=members[1].samples,
        data_commitment=members[1].data_commitment,
        deployment=federation.stage.deployment,
    )
    members[1] = member_of(signed)
    with pytest.raises(ProtocolViolation, match="its trusted card has"):
        confirm(federation, Roster(members=tuple(members)))


def test_a_sybil_that_the_operator_never_trusted_is_not_confirmed(federate):
    federation = federate()
    peers = federation.nodes[0].home.peers()
    sybil = federation.nodes[3].address
    del peers[sybil]
    with pytest.raises(ProtocolViolation, match=f"{sybil} is in the roster and not trusted"):
        confirm(federation, federation.roster, trusted=peers)


def test_a_roster_without_oneself_is_not_confirmed(federate):
    federation = federate()
    roster = Roster(members=federation.roster.members[1:])
    with pytest.raises(ProtocolViolation, match="is not in the roster"):
        confirm(federation, roster)


def test_a_key_dealt_by_anybody_but_the_first_member_is_not_accepted(federate):
    federation = federate()
    node = federation.nodes[2]
    shuffled = Roster(members=tuple(reversed(federation.roster.members)))
    with pytest.raises(KeyCeremonyError, match="expected is the first member"):
        accept_key(
            federation.dealt,
            node.home.sealing_key,
            node.address,
            task_id=federation.task_id,
            roster=shuffled,
            deployment=federation.stage.deployment,
        )


def test_a_model_is_evaluated_for_the_server_once_only(recorded, tmp_path):
    # A second masked evaluation, over almost the same nodes, would give one away.
    moment = recorded.at("evaluate", 1)
    first, node = moment.show(moment.order, tmp_path)
    again, _ = Moment(node, moment.order).show(moment.order, tmp_path / "again")
    first, again = (wire.parse_evaluate_reply(reply.content) for reply in (first, again))
    assert first.evaluation is not None
    assert again.evaluation is None
    assert again.fingerprint == first.fingerprint

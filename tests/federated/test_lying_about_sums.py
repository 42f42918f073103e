"""A malicious server lies about what it added: nodes notice before they decrypt."""

from dataclasses import replace

import pytest
from lies import (
    assert_stopped,
    changed,
    lie_about_the_sum,
    lie_in_the_manifest,
    on_close,
    on_train,
    run_into_refusal,
)

from twopm_flower.federated import opening as opening_module
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.residues import MODULUS

NOT_THE_SUM = "it is not the sum of their updates"


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Count decryptions: a lie must be noticed before any."""
    calls = []
    honest = opening_module.open_aggregate

    def counting(*args, **kwargs):
        calls.append(kwargs["contributors"])
        return honest(*args, **kwargs)

    monkeypatch.setattr(opening_module, "open_aggregate", counting)
    return calls


def everybody_stops(federation, because, opened, *, after=0):
    run_into_refusal(federation)
    for node in federation.nodes:
        assert_stopped(node, because, opened=after)
    assert len(opened) == after * len(federation.nodes)


def summed(ciphertexts):
    return add(ciphertexts, max_nodes=len(ciphertexts))


def shifted(total):
    c0 = total.c0.copy()
    c0[0] = (int(c0[0]) + (1 << 30)) % MODULUS
    return Ciphertext(c0, total.c1)


def test_one_nodes_ciphertext_handed_out_as_the_aggregate_is_not_decrypted(
    federate, monkeypatch, opened
):
    lie_about_the_sum(monkeypatch, lambda ciphertexts: ciphertexts[0])
    everybody_stops(federate(), NOT_THE_SUM, opened)


def test_a_doubled_update_is_noticed(federate, monkeypatch, opened):
    lie_about_the_sum(monkeypatch, lambda ciphertexts: summed([*ciphertexts, ciphertexts[1]]))
    everybody_stops(federate(), NOT_THE_SUM, opened)


def test_an_update_that_is_listed_and_not_added_is_noticed(federate, monkeypatch, opened):
    lie_about_the_sum(monkeypatch, lambda ciphertexts: summed(ciphertexts[:-1]))
    everybody_stops(federate(), NOT_THE_SUM, opened)


def test_a_shifted_sum_is_noticed(federate, monkeypatch, opened):
    lie_about_the_sum(monkeypatch, lambda ciphertexts: shifted(summed(ciphertexts)))
    everybody_stops(federate(), NOT_THE_SUM, opened)


def test_an_update_left_out_without_listing_it_is_noticed(federate, monkeypatch, opened):
    federation = federate()
    roster = federation.roster

    def leave_out(manifest):
        survivors = manifest.survivors[:-1]
        nodes = [survivor.node for survivor in survivors]
        return changed(manifest, survivors=survivors, samples=roster.samples_of(nodes))

    lie_in_the_manifest(monkeypatch, leave_out)
    everybody_stops(federation, "survivors and exclusions are not the roster", opened)


def shown_at_opening(recorded, folder, because, opened, **changes):
    """Show a node a changed opening of round 1; it stops without decrypting."""
    moment = recorded.at("train", 2)
    (opening,) = moment.order.openings
    values = {name: change(getattr(opening, name)) for name, change in changes.items()}
    order = replace(moment.order, openings=(replace(opening, **values),))
    reply, node = moment.show(order, folder)
    assert reply.has_error()
    assert_stopped(node, because)
    assert opened == []


def test_the_honest_opening_is_decrypted(recorded, tmp_path, opened):
    moment = recorded.at("train", 2)
    reply, node = moment.show(moment.order, tmp_path)
    assert not reply.has_error()
    assert node.progress.opened_round == 1
    assert opened == [4]


def test_an_aggregate_that_the_manifest_does_not_commit_to_is_noticed(recorded, tmp_path, opened):
    shown_at_opening(
        recorded, tmp_path, "the manifest commits to", opened, aggregate=with_other_last_byte
    )


def test_the_last_aggregate_is_held_to_the_same_checks(federate, opened):
    federation = federate()
    federation.make_grid().orders.append(on_close(openings=swap_last_byte))
    everybody_stops(federation, "the manifest commits to", opened, after=1)


def test_a_dropped_fingerprint_is_noticed(recorded, tmp_path, opened):
    because = "fingerprints are from"
    shown_at_opening(recorded, tmp_path, because, opened, fingerprints=lambda f: f[:-1])


def test_a_repeated_fingerprint_in_place_of_another_is_noticed(recorded, tmp_path, opened):
    because = "fingerprints are from"
    shown_at_opening(
        recorded, tmp_path, because, opened, fingerprints=lambda f: (f[0], f[0], *f[2:])
    )


def test_a_fingerprint_invented_for_a_node_is_noticed(recorded, tmp_path, opened):
    def invent(fingerprints):
        last = fingerprints[-1]
        numbers = tuple((n + 1) % MODULUS for n in last.statement.fingerprints)
        statement = last.statement.model_copy(update={"fingerprints": numbers})
        return (*fingerprints[:-1], last.model_copy(update={"statement": statement}))

    shown_at_opening(recorded, tmp_path, "is signed by", opened, fingerprints=invent)


def test_fingerprints_of_another_round_are_noticed(federate, opened):
    federation = federate(rounds=3)
    earlier = []

    def replay(openings):
        opening = openings[-1]
        if opening.manifest.round == 1:
            earlier[:] = opening.fingerprints
            return openings
        return (*openings[:-1], replace(opening, fingerprints=tuple(earlier)))

    grid = federation.make_grid()
    grid.orders += [on_train(2, openings=replay), on_train(3, openings=replay)]
    everybody_stops(federation, "signed fingerprints for another manifest", opened, after=1)


def swap_last_byte(openings):
    opening = openings[-1]
    return (*openings[:-1], replace(opening, aggregate=with_other_last_byte(opening.aggregate)))


def with_other_last_byte(frame):
    return frame[:-7] + bytes([frame[-7] ^ 1]) + frame[-6:]

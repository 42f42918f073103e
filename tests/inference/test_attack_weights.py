"""What a hostile requester gets out of a model with secret weights, and what it does not."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from lying_service import SERVICE, small_service
from service_requests import NOW, ask

from twopm_flower.errors import ConfigError, InferenceRefused
from twopm_flower.inference.desk import Desk
from twopm_flower.inference.receipt_store import ReceiptStore
from twopm_flower.inference.served_model import ServedModel
from twopm_flower.inference.service import Limits
from twopm_flower.node.prediction_service import ServiceChoices
from twopm_flower.privacy.linear_frame import LinearRequest, parse_request, parse_response
from twopm_flower.privacy.linear_service import answer, mask_seed_for
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.residues import MODULUS, RESIDUE_BITS, centred
from twopm_flower.records.inference import QueryBudget

MASK_KEY = os.urandom(32)
BITS_OF_A_MASK = int(RING_DEGREE * np.log2(3))


@pytest.fixture(scope="module")
def service():
    return small_service("secret")


def asked(service, c0, public_key=None):
    """Send made-up residues with a made-up public key; return the scores as they are sent."""
    parameters, model = service.parameters, service.card.model_digest
    key = np.zeros(RING_DEGREE, np.uint64) if public_key is None else public_key
    rows = c0.shape[1]
    seeds = os.urandom(32), os.urandom(32)
    frame = LinearRequest("batch", rows, parameters, model, seeds[0], c0, seeds[1], key).to_bytes()
    request = parse_request(frame, parameters, model_digest=model, max_rows=rows)
    response = answer(request, service.prepared, mask_seed_for(MASK_KEY, request.digest))
    found = parse_response(response, parameters, preset="batch", rows=rows, digest=request.digest)
    return centred(found.scores).T - centred(service.prepared.carried_bias)


def test_half_as_many_rows_as_features_tell_every_weight_and_no_fewer_than_the_bound(service):
    parameters = service.parameters
    weights = service.prepared.rows
    features, rows = parameters.features, -(-parameters.features // 2)
    # Two weights in each score, both above the flood.
    low, apart = parameters.flood_bits + 1, 11
    c0 = np.zeros((features, rows), np.uint64)
    for feature in range(features):
        c0[feature, feature // 2] = np.uint64(1 << (low + apart * (feature % 2)))
    scores = np.rint(asked(service, c0) / (1 << low)).astype(np.int64)
    found = np.zeros_like(weights)
    half = 1 << (apart - 1)
    first = ((scores + half) & ((1 << apart) - 1)) - half
    for feature in range(features):
        row = feature // 2
        second = (scores[row] - first[row]) >> apart
        found[:, feature] = second if feature % 2 else first[row]
    np.testing.assert_array_equal(found, weights)
    told = sum(features * np.log2(2 * np.abs(row).max() + 1) for row in weights)
    assert told <= rows * parameters.leaked_bits
    # With the bound's 14 rows an attack would have to be perfect.
    assert 12 <= told / parameters.leaked_bits <= rows


def test_what_a_request_asks_below_the_flood_is_not_seen(service):
    parameters = service.parameters
    count = 1500
    c0 = np.zeros((parameters.features, 2 * count), np.uint64)
    biggest = int(np.abs(service.prepared.rows[0]).argmax())
    # One times the weight, or as much as keeps it 1/16 of the flood.
    c0[biggest, count:] = np.uint64(1 << (parameters.flood_bits - 4 - 9))
    scores = asked(service, c0)[:, 0] / (1 << parameters.flood_bits)
    assert np.abs(scores).max() < 0.6
    difference = scores[:count].mean() - scores[count:].mean()
    assert abs(difference) < 1 / 16 + 5 * np.sqrt(2 / (12 * count))


def test_a_made_up_public_key_reads_a_sixth_of_a_masks_secret_and_none_of_the_next(service):
    parameters = service.parameters
    block = parameters.block_rows
    told = block * (RESIDUE_BITS - parameters.flood_bits)
    assert told <= 512 < BITS_OF_A_MASK / 6
    # The transform of a constant: row j of a block reads coefficient j of u.
    key = np.full(RING_DEGREE, 1 << (RESIDUE_BITS - 3), np.uint64)
    c0 = np.zeros((parameters.features, 4 * block), np.uint64)
    ternary = np.rint(asked(service, c0, key)[:, 0] / (1 << (RESIDUE_BITS - 3))).astype(int)
    assert set(ternary.tolist()) == {-1, 0, 1}
    blocks = ternary.reshape(4, block)
    assert len({row.tobytes() for row in blocks}) == 4


def test_residues_of_all_sizes_tell_at_most_what_is_claimed(service):
    parameters = service.parameters
    rng = np.random.default_rng(9)
    c0 = rng.integers(0, MODULUS, (parameters.features, 64), dtype=np.uint64)
    zero = np.zeros(RING_DEGREE, np.uint64)
    exact = centred(
        (service.prepared.rows.astype(object) @ c0.astype(object) % MODULUS).astype(np.uint64)
    ).T
    off = asked(service, c0, zero) - exact
    off = (off + MODULUS // 2) % MODULUS - MODULUS // 2
    # All that differs is the flood, and it fills its range.
    flood = 1 << (parameters.flood_bits - 1)
    assert np.abs(off).max() <= flood + 21
    assert np.abs(off).max() > 0.9 * flood


def test_a_request_never_gets_a_second_mask(tmp_path):
    service = small_service("secret")
    service.card_changes = {"query_budget": QueryBudget(rows=5, period_s=60)}
    model = ServedModel.from_card(service.card, {"weight": service.weight, "bias": service.bias})
    store = ReceiptStore(tmp_path / "receipts.sqlite")
    desk = Desk(model, SERVICE, store, mask_key=MASK_KEY, now=lambda: float(NOW))
    body = ask(service).body()
    assert desk.answer(body) == desk.answer(body)
    # As after a mask key was lost, and made anew.
    with pytest.raises(InferenceRefused) as caught:
        dataclasses.replace(desk, mask_key=os.urandom(32)).answer(body)
    assert caught.value.status == 409
    store.close()


def test_secret_weights_are_for_listed_requesters_only():
    def choices(weights, allowed):
        return ServiceChoices(
            run=None,
            model=Path("model.safetensors"),
            chain=None,
            weights=weights,
            price_wei=0,
            query_budget=QueryBudget(rows=5, period_s=604_800),
            max_rows=4,
            allowed=allowed,
            anchor_every_s=60.0,
            tls_certificate=None,
            tls_key=None,
            limits=Limits(),
        )

    with pytest.raises(ConfigError, match="list of requesters") as caught:
        choices("secret", None)
    assert "--allow" in str(caught.value.hint)
    choices("secret", ("0x" + "11" * 20,))
    choices("public", None)

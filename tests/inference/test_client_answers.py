"""What a client makes of honest and dishonest services."""

import asyncio
import stat
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from lying_service import DEPLOYMENT, ISSUER, SERVICE, Service, small_service, word

from twopm_flower.chain.facts import Finalisation, ReceiptAnchor
from twopm_flower.datasets import FeatureEncoder
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.errors import DataError, InferenceMismatch, RecordError
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client import PrivateInferenceClient
from twopm_flower.inference.client_async import AsyncPrivateInferenceClient
from twopm_flower.inference.prediction_frame import prediction_frame
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.inference import Anchoring, ReceiptFile
from twopm_flower.records.merkle import MerkleTree, receipt_leaf

STUDENTS = synthetic_students("por", 7).drop(columns=["G3"])
STUDENTS.index = [f"student {number}" for number in range(7)]


@pytest.fixture
def service():
    return small_service()


def client_of(asked, home, **policy):
    return PrivateInferenceClient(
        "http://127.0.0.1:1",
        home=home,
        policy=ClientPolicy(retries=0, **policy),
        transport=httpx.MockTransport(asked.handle),
    )


def plain_probability(service, students):
    logits = service.encoder.encode_features(students) @ service.weight.T + service.bias
    return 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))


def alarm(asked, home, **policy):
    with client_of(asked, home, **policy) as client, pytest.raises(InferenceMismatch) as caught:
        client.predict(STUDENTS)
    return str(caught.value)


def test_predictions_carry_the_index_probability_class_and_receipt(service, tmp_path):
    with client_of(service, tmp_path) as client:
        found = client.predict(STUDENTS)
    assert list(found.columns) == ["probability", "class", "receipt"]
    assert list(found.index) == list(STUDENTS.index)
    expected = plain_probability(service, STUDENTS)
    np.testing.assert_allclose(found["probability"], expected, atol=1e-3)
    assert list(found["class"]) == ["pass" if p > 0.5 else "fail" for p in expected]


def test_both_clients_and_both_presets_predict_the_same(service, tmp_path):
    one = STUDENTS.head(1)
    transport = httpx.MockTransport(service.handle)

    async def ask():
        async with AsyncPrivateInferenceClient(
            "http://localhost:1", home=tmp_path, transport=transport
        ) as client:
            return await asyncio.gather(client.predict(one), client.predict(one))

    answers = asyncio.run(ask())
    for preset in (None, "latency", "batch"):
        with client_of(service, tmp_path, preset=preset) as client:
            answers.append(client.predict(one))
    assert len({answer["receipt"].item() for answer in answers}) == len(answers)
    for answer in answers:
        np.testing.assert_allclose(
            answer["probability"], plain_probability(service, one), atol=1e-3
        )


def test_more_rows_than_a_request_may_have_are_asked_for_in_several(service, tmp_path):
    service.card_changes["max_rows"] = 3
    with client_of(service, tmp_path) as client:
        found = client.predict(STUDENTS)
        np.testing.assert_allclose(
            found["probability"], plain_probability(service, STUDENTS), atol=1e-3
        )
        assert found["receipt"].nunique() == 3
        with client_of(service, tmp_path, preset="latency") as patient:
            assert patient.predict(STUDENTS)["receipt"].nunique() == 7


def test_every_request_is_under_a_key_of_its_own_and_says_nothing_twice(service, tmp_path):
    with client_of(service, tmp_path) as client:
        for _ in range(2):
            client.predict(STUDENTS.head(1))
    first, second = (request.content for request in service.seen if request.content)
    assert len(first) == len(second) < 2000
    frames = [np.frombuffer(body[-200:], dtype=np.uint8) for body in (first, second)]
    assert np.count_nonzero(frames[0] == frames[1]) < 20


def test_receipts_and_keys_are_kept_for_their_owner_alone(service, tmp_path):
    with client_of(service, tmp_path) as client:
        digest = client.predict(STUDENTS)["receipt"].iloc[0]
        address = client.address
    folder = tmp_path / "inference" / "receipts"
    files = {path.name for path in folder.iterdir()}
    assert files == {digest[2:] + ending for ending in (".json", ".request", ".response")}
    for path in [*folder.iterdir(), tmp_path / "inference" / "requester.key"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (folder, folder.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    kept = ReceiptFile.from_bytes((folder / f"{digest[2:]}.json").read_bytes())
    assert kept.receipt_digest == digest
    assert kept.request.node == kept.receipt.statement.requester == address
    assert kept.request.statement.rows == 7
    with client_of(service, tmp_path) as again:
        assert again.address == address
        assert again.receipts(fetch=False) == (kept,)


def test_nothing_is_kept_if_it_is_not_wanted(service, tmp_path):
    with client_of(service, tmp_path, keep_receipts=False) as client:
        client.predict(STUDENTS)
        assert client.receipts(fetch=False) == ()


RECEIPT_LIES = {
    "task_id": word("another task"),
    "card_digest": word("another card"),
    "model_digest": word("another model"),
    "parameters_id": word("other parameters"),
    "requester": ISSUER.address,
    "request_digest": word("another request"),
    "response_digest": word("another response"),
    "mask_commitment": word("a mask"),
    "issuer": SERVICE.address,
    "rows": 8,
    "price": 1,
}


@pytest.mark.parametrize("name", RECEIPT_LIES)
def test_a_receipt_that_speaks_of_something_else_is_refused(service, tmp_path, name):
    service.receipt_changes[name] = RECEIPT_LIES[name]
    assert "no valid receipt" in alarm(service, tmp_path)
    assert not (tmp_path / "inference" / "receipts").exists()


def test_a_receipt_of_another_time_is_refused(service, tmp_path):
    service.receipt_changes["issued_at"] = 1_700_000_000
    assert "dated" in alarm(service, tmp_path)


def test_a_receipt_that_somebody_else_signed_is_refused(service, tmp_path):
    service.signer = ISSUER
    assert f"signed by {ISSUER.address}" in alarm(service, tmp_path)


def test_a_response_that_the_receipt_does_not_speak_of_is_refused(service, tmp_path):
    service.spoil = lambda frame: frame[:-1] + bytes([frame[-1] ^ 1])
    assert "no valid receipt" in alarm(service, tmp_path)


@pytest.mark.parametrize(
    "spoil", [lambda f: f[:-1], lambda f: f + b"\0", lambda f: b"", lambda f: b"\0" * len(f)]
)
def test_an_answer_that_is_cut_padded_or_empty_is_refused(service, tmp_path, spoil):
    service.spoil = spoil
    alarm(service, tmp_path)


CARD_LIES = {
    "features": tuple(reversed(FeatureEncoder("A").feature_names)),
    "encoding": {"setup": "A", "target": "pass"},
    "ranges": (4.0,) * 41,
    "parameters": {},
    "parameters_id": word("other parameters"),
    "classes": ("fail", "pass", "excel"),
    "link": "softmax",
    "weights": "secret",
}


@pytest.mark.parametrize("name", CARD_LIES)
def test_a_card_that_is_not_of_one_piece_is_refused_before_anything_is_sent(
    service, tmp_path, name
):
    service.card_changes[name] = CARD_LIES[name]
    alarm(service, tmp_path)
    assert [request.method for request in service.seen] == ["GET"]


@pytest.mark.parametrize(
    ("classes", "link", "scores", "shown"),
    [
        (("no", "yes"), "sigmoid", [[0.1], [-0.1]], {"class": ["yes", "no"]}),
        (("a", "b", "c"), "softmax", [[0.0, 3.0, 1.0]], {"class": ["b"], "probability_c": [0.114]}),
        (("x", "y"), "identity", [[7.0, 9.5]], {"class": ["y"], "score_x": [7.0]}),
        (("grade",), "identity", [[11.5]], {"class": ["grade"], "score": [11.5]}),
    ],
)
def test_scores_become_what_the_card_calls_them(service, classes, link, scores, shown):
    card = service.card.model_copy(update={"classes": classes, "link": link})
    found = prediction_frame(np.array(scores), card, receipt=word("receipt"))
    for name, values in shown.items():
        assert [round(v, 3) if isinstance(v, float) else v for v in found[name]] == values
    assert list(found["receipt"]) == [word("receipt")] * len(scores)


def test_a_sigmoid_of_several_scores_is_refused(tmp_path):
    weight, bias = np.ones((2, 41), np.float32) / 9, np.zeros(2, np.float32)
    service = Service(weight, bias, classes=("a", "b", "c"), card_changes={"link": "sigmoid"})
    assert "parameters are not those" in alarm(service, tmp_path)


def test_a_card_that_asks_for_a_name_among_the_features_is_refused(service, tmp_path):
    description = service.encoder.describe()
    description["schema"]["columns"].append({"name": "surname", "kind": "nominal", "values": []})
    service.card_changes["encoding"] = description
    assert "another encoding" in alarm(service, tmp_path)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"service": ISSUER.address}, "signs as"),
        ({"task_id": word("my task")}, "model of task"),
    ],
)
def test_another_service_or_task_than_agreed_is_refused(service, tmp_path, policy, says):
    assert says in alarm(service, tmp_path, **policy)


def test_no_more_is_paid_than_agreed(service, tmp_path):
    service.card_changes["price"] = 1000
    assert "--max-price 1000" in alarm(service, tmp_path, max_price_wei=999)
    assert [request.method for request in service.seen] == ["GET"]
    with client_of(service, tmp_path, max_price_wei=1000) as client:
        client.predict(STUDENTS)
        assert client.receipts(fetch=False)[0].receipt.statement.price == 1000


def test_secret_weights_are_asked_in_the_same_way(tmp_path):
    service = small_service(policy="secret")
    with client_of(service, tmp_path) as client:
        for students in (STUDENTS, STUDENTS.head(1)):
            np.testing.assert_allclose(
                client.predict(students)["probability"],
                plain_probability(service, students),
                atol=1e-3,
            )


def test_a_mask_seed_that_is_shown_is_an_alarm(tmp_path):
    service = small_service(policy="secret")
    service.mask_seed_shown = b"\x53" * 32
    assert "seed of a mask" in alarm(service, tmp_path)


def test_values_that_a_student_cannot_have_are_refused_before_anything_is_sent(service, tmp_path):
    with client_of(service, tmp_path) as client:
        with pytest.raises(DataError, match="column age"):
            client.predict(STUDENTS.assign(age=90))
        features = service.encoder.encode_features(STUDENTS)
        for wrong in (features[:, :-1], features * 9, features * np.nan, features[:0], features[0]):
            with pytest.raises(DataError):
                client.predict_features(wrong)
        assert len(client.predict_features(features)) == 7
    assert len([request for request in service.seen if request.method == "POST"]) == 1


def test_a_request_that_was_cut_off_is_repeated_byte_for_byte(service, tmp_path):
    honest, posts = service.handle, []

    def cut_off_twice(request):
        if request.method == "POST":
            posts.append(request.content)
            if len(posts) < 3:
                raise httpx.ReadError("the connection was reset")
        return honest(request)

    with PrivateInferenceClient(
        "http://127.0.0.1:1", home=tmp_path, transport=httpx.MockTransport(cut_off_twice)
    ) as client:
        client.predict(STUDENTS)
    assert len(posts) == 3
    assert len(set(posts)) == 1


def anchoring_of(receipt, issuer=ISSUER.address):
    leaves = [receipt_leaf(issuer, digest) for digest in (receipt.receipt_digest, word("other"))]
    tree = MerkleTree.of(leaves)
    return Anchoring(
        issuer=issuer,
        root="0x" + tree.root.hex(),
        count=2,
        proof=tuple("0x" + part.hex() for part in tree.proof(leaves[0])),
        transaction_hash=word("transaction"),
        block_number=77,
    )


def predicted(service, home):
    """Ask once; return the client, and let the service answer for that receipt from now on."""
    client = client_of(service, home)
    client.predict(STUDENTS)
    return client, client.receipts(fetch=False)[0]


def test_where_a_receipt_was_anchored_is_picked_up_later(service, tmp_path):
    client, receipt = predicted(service, tmp_path)
    with client:
        assert client.receipts() == (receipt,)
        service.anchorings[receipt.receipt_digest] = None
        assert client.receipts() == (receipt,)
        service.anchorings[receipt.receipt_digest] = anchoring_of(receipt).to_json()
        (anchored,) = client.receipts()
        assert anchored.anchoring == anchoring_of(receipt)
        assert client.receipts(fetch=False) == (anchored,)
        asked = len(service.seen)
        client.receipts()
        assert len(service.seen) == asked


def test_an_anchoring_that_the_chain_does_not_know_is_dropped_and_asked_for_again(
    service, tmp_path
):
    client, receipt = predicted(service, tmp_path)
    said = anchoring_of(receipt)
    service.anchorings[receipt.receipt_digest] = said.to_json()
    with client:
        assert client.receipts()[0].anchoring == said
    chain = KnownOutcomes(DEPLOYMENT, {word("task"): outcome(service.card.model_digest)})
    with client_of(service, tmp_path, chain=chain) as wary:
        assert wary.receipts()[0].anchoring is None
        assert wary.receipts(fetch=False)[0].anchoring is None
        chain.anchors[said.issuer, said.root] = ReceiptAnchor(
            said.issuer, said.root, said.count, said.block_number, word("b"), said.transaction_hash
        )
        assert wary.receipts()[0].anchoring == said
        chain.anchors.clear()
        assert wary.receipts()[0].anchoring is None


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": SERVICE.address},
        {"proof": []},
        {"root": word("another root")},
        {"count": 0},
        {"extra": 1},
    ],
)
def test_an_anchoring_without_proof_is_refused_and_not_kept(service, tmp_path, changes):
    client, receipt = predicted(service, tmp_path)
    said = {**anchoring_of(receipt).to_json(), **changes}
    service.anchorings[receipt.receipt_digest] = said
    with client:
        with pytest.raises(InferenceMismatch):
            client.receipts()
        assert client.receipts(fetch=False) == (receipt,)


def test_a_proof_of_what_another_account_anchored_does_not_count(service, tmp_path):
    client, receipt = predicted(service, tmp_path)
    other = anchoring_of(receipt, issuer=SERVICE.address)
    service.anchorings[receipt.receipt_digest] = other.to_json()
    with client, pytest.raises(InferenceMismatch, match="no proof"):
        client.receipts()


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff" * 10])
def test_a_file_that_is_no_receipt_is_named(service, tmp_path, data):
    client, _ = predicted(service, tmp_path)
    planted = tmp_path / "inference" / "receipts" / "planted.json"
    planted.write_bytes(data)
    with client, pytest.raises(RecordError, match=r"planted\.json is no receipt"):
        client.receipts(fetch=False)


@dataclass
class KnownOutcomes:
    """A chain that answers three questions, as `ChainReader` does."""

    pinned: Deployment
    outcomes: dict[str, Finalisation]
    anchors: dict[tuple[str, str], ReceiptAnchor] = field(default_factory=dict)

    def deployment(self):
        return self.pinned

    def finalisation(self, task_id):
        return self.outcomes.get(task_id)

    def receipt_anchor(self, issuer, root):
        return self.anchors.get((issuer, root))


def outcome(model_digest):
    return Finalisation(
        task_id=word("task"),
        model_digest=model_digest,
        metrics_digest=word("metrics"),
        head=word("head"),
        signers=3,
        block_number=5,
        block_hash=word("block"),
        transaction_hash=word("transaction"),
    )


def test_a_chain_that_is_asked_has_to_know_the_model_as_the_outcome_of_its_task(service, tmp_path):
    chain = KnownOutcomes(DEPLOYMENT, {word("task"): outcome(service.card.model_digest)})
    with client_of(service, tmp_path, chain=chain) as client:
        assert client.card() == service.card
    chain.outcomes[word("task")] = outcome(word("a better model"))
    assert word("a better model") in alarm(service, tmp_path, chain=chain)
    chain.outcomes.clear()
    assert "the chain knows no model" in alarm(service, tmp_path, chain=chain)


def test_a_card_of_another_chain_than_the_one_that_is_asked_is_refused(service, tmp_path):
    elsewhere = DEPLOYMENT.model_copy(update={"genesis_hash": word("another genesis")})
    chain = KnownOutcomes(elsewhere, {word("task"): outcome(service.card.model_digest)})
    assert "another chain" in alarm(service, tmp_path, chain=chain)

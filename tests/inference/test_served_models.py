"""Which models are served: the outcome of a task that is final, and linear, and nothing else."""

from dataclasses import dataclass

import numpy as np
import pytest
from lying_service import DEPLOYMENT, ISSUER, SERVICE, small_service, word
from record_factories import some_terms

from twopm_flower.errors import ChainUnavailable, ConfigError
from twopm_flower.inference.served_model import Offer, ServedModel
from twopm_flower.privacy.layout import Layout
from twopm_flower.records.inference import ModelCard, QueryBudget
from twopm_flower.records.terms import ArrayTerm, model_digest

SMALL = small_service()
ARRAYS = {"weight": SMALL.weight, "bias": SMALL.bias}
SHAPES = {"weight": (1, SMALL.encoder.n_features), "bias": (1,)}
DATASET = {"setup": "A", "target": "pass", "model": "logistic-regression"}
OFFER = Offer("public", SERVICE.address, ISSUER.address)
TASK = word("task")


@dataclass
class Final:
    model_digest: str


@dataclass
class Chain:
    """Knows one task."""

    digest: str | None

    def finalisation(self, task_id):
        assert task_id == TASK
        return None if self.digest is None else Final(self.digest)


def terms_of(shapes=None, **dataset):
    arrays = tuple(ArrayTerm(name=n, shape=s) for n, s in (shapes or SHAPES).items())
    return some_terms(arrays=arrays, train_metrics=(), dataset=DATASET | dataset)


def digest_of(arrays):
    return model_digest(
        Layout.of(arrays).digest, b"".join(array.tobytes() for array in arrays.values())
    )


def served(arrays=ARRAYS, terms=None, chain=None, offer=OFFER):
    terms = terms or terms_of({name: array.shape for name, array in arrays.items()})
    chain = chain or Chain(digest_of(arrays))
    return ServedModel.of(terms, TASK, DEPLOYMENT, chain=chain, arrays=arrays, offer=offer)


def refusal(**changes):
    """Return what a refusal says; it says what to do, too."""
    with pytest.raises(ConfigError) as caught:
        served(**changes)
    assert caught.value.hint
    return caught.value.message


def test_the_outcome_of_a_finished_task_is_served_with_a_card_that_describes_it():
    model = served()
    card = ModelCard.from_bytes(model.card.to_bytes())
    assert card == model.card
    assert card.task_id == TASK
    assert card.model_digest == digest_of(ARRAYS)
    assert (card.link, card.classes, card.weights) == ("sigmoid", ("fail", "pass"), "public")
    assert card.features == SMALL.encoder.feature_names
    assert (card.service, card.issuer, card.price) == (SERVICE.address, ISSUER.address, 0)
    again = ServedModel.from_card(card, ARRAYS)
    assert again.card_digest == model.card_digest
    np.testing.assert_array_equal(again.arrays["weight"], SMALL.weight)


def test_a_task_that_is_not_final_is_not_served():
    assert f"task {TASK} is not final" in refusal(chain=Chain(None))


def test_another_model_than_the_outcome_is_not_served():
    other = {"weight": np.nextafter(SMALL.weight, np.float32(9)), "bias": SMALL.bias}
    message = refusal(arrays=other, chain=Chain(digest_of(ARRAYS)))
    assert digest_of(ARRAYS) in message
    assert digest_of(other) in message


def test_a_chain_that_does_not_answer_is_not_taken_for_one_that_says_yes():
    class Away:
        def finalisation(self, task_id):
            raise ChainUnavailable("nobody answers")

    with pytest.raises(ChainUnavailable):
        served(chain=Away())


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": SMALL.weight},
        {"weight": SMALL.weight, "scale": SMALL.bias},
        {"weight": SMALL.weight.T, "bias": SMALL.bias},
        {"weight": SMALL.weight[:, :-1], "bias": SMALL.bias},
        {"weight": SMALL.weight * np.float32(np.nan), "bias": SMALL.bias},
        {"weight": SMALL.weight.astype(np.int64), "bias": SMALL.bias},
    ],
    ids=["array missing", "other name", "turned", "too few", "not a number", "no floats"],
)
def test_arrays_that_are_not_the_tasks_are_not_served(changed):
    message = refusal(arrays=changed, terms=terms_of(), chain=Chain(digest_of(ARRAYS)))
    assert "not one of its task" in message


@pytest.mark.parametrize(
    "shapes",
    [
        {"weight": (1, 41)},
        {"first": (8, 41), "bias": (8,), "second": (1, 8)},
        {"weight": (41,), "bias": (1,)},
        {"weight": (2, 41), "bias": (1,)},
        {"weight": (1, 41, 1), "bias": (1,)},
    ],
    ids=str,
)
def test_a_layout_that_is_not_linear_is_not_served(shapes):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    assert "cannot be served" in refusal(arrays=arrays)


def test_a_model_of_other_features_than_the_data_set_has_is_not_served():
    arrays = {"weight": np.ones((1, 7), np.float32), "bias": np.ones(1, np.float32)}
    assert "(1, 7)" in refusal(arrays=arrays)


def test_a_family_whose_scores_nobody_can_read_is_not_served():
    assert "'random-forest'" in refusal(terms=terms_of(model="random-forest"))


@pytest.mark.parametrize("missing", ["setup", "target"])
def test_terms_that_do_not_say_what_the_features_are_are_refused(missing):
    assert "None" in refusal(terms=terms_of(**{missing: None}))


def test_secret_weights_need_a_budget():
    with pytest.raises(ConfigError, match="budget") as caught:
        Offer("secret", SERVICE.address, ISSUER.address)
    assert "--query-budget" in caught.value.hint
    budget = QueryBudget(rows=5, period_s=604_800)
    offer = Offer("secret", SERVICE.address, ISSUER.address, query_budget=budget)
    card = served(offer=offer).card
    assert (card.weights, card.query_budget) == ("secret", budget)


def test_a_worker_serves_the_model_of_its_card_only():
    other = {"weight": SMALL.weight + np.float32(1), "bias": SMALL.bias}
    with pytest.raises(ConfigError, match="not those of its card"):
        ServedModel.from_card(SMALL.card, other)

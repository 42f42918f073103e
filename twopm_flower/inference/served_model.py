"""The model that a service serves: checked against the chain, described, and prepared."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from twopm_flower.chain.facts import Finalisation
from twopm_flower.datasets.features import FeatureEncoder
from twopm_flower.errors import ConfigError, DataError, PrivacyError
from twopm_flower.inference.links import link_of
from twopm_flower.privacy.layout import Layout, layout_of
from twopm_flower.privacy.linear_model import (
    LinearArrays,
    PreparedLinear,
    QuantisedLinear,
    is_linear,
)
from twopm_flower.privacy.linear_parameters import LinearParameters, WeightsPolicy
from twopm_flower.records.bundle import Deployment
from twopm_flower.records.inference import ModelCard, QueryBudget
from twopm_flower.records.statements import Domain
from twopm_flower.records.terms import TaskTerms

CLASS_NAMES: dict[str, tuple[str, str]] = {
    "pass": ("fail", "pass"),
    "improvement": ("no improvement", "improvement"),
}

Arrays = Mapping[str, npt.NDArray[Any]]


class FinalisedTasks(Protocol):
    """What is asked of a chain before a model is served."""

    def finalisation(self, task_id: str) -> Finalisation | None:
        """Return what a task ended with, or None."""


@dataclass(frozen=True)
class Offer:
    """What an operator decides about a service.

    Attributes
    ----------
    weights : {"public", "secret"}
        Whether anybody may know the weights.
    service : str
        The account (EIP-55) that signs receipts.
    issuer : str
        The account that anchors them.
    price_wei : int
        For one request.
    query_budget : QueryBudget or None
        What one requester may ask for; needed where weights are secret.
    max_rows : int
        Of one request.
    """

    weights: WeightsPolicy
    service: str
    issuer: str
    price_wei: int = 0
    query_budget: QueryBudget | None = None
    max_rows: int = 4096

    def __post_init__(self) -> None:
        if self.weights == "secret" and self.query_budget is None:
            raise ConfigError(
                "secret weights need a budget: every answer tells something about them",
                hint="Say how many rows one requester may ask for: --query-budget 5/week. "
                "docs/inference.md says how much an answer tells.",
            )


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model with its card.

    Attributes
    ----------
    card : ModelCard
    prepared : PreparedLinear
    arrays : mapping of str to ndarray of float32
    """

    card: ModelCard
    prepared: PreparedLinear
    arrays: Arrays

    @classmethod
    def of(
        cls,
        terms: TaskTerms,
        task_id: str,
        deployment: Deployment,
        *,
        chain: FinalisedTasks,
        arrays: Arrays,
        offer: Offer,
    ) -> "ServedModel":
        """Return the model of a finalised task.

        Parameters
        ----------
        terms : TaskTerms
            Of the task; the chain has their digest.
        task_id : str
        deployment : Deployment
        chain : FinalisedTasks
        arrays : mapping of str to ndarray of float32
            The model's.
        offer : Offer

        Raises
        ------
        ConfigError
            The task is not final, or its model is another one or of a kind that cannot be served.
        ChainError
            The chain does not answer.
        """
        layout = layout_of(terms)
        found = _linear_arrays(layout, arrays)
        weight, bias = found.weight, found.bias
        _check_final(chain, task_id, found.digest)
        encoder = _encoder_of(terms)
        if weight.shape != (1, encoder.n_features):
            raise ConfigError(
                f"the model has weights of shape {weight.shape}, and students of set-up "
                f"{encoder.setup} have {encoder.n_features} features",
                hint="A model is served that was trained on the features of its task's data set.",
            )
        family = str(terms.dataset.get("model"))
        ranges = np.array(encoder.ranges)
        parameters = LinearParameters.derive(weight, bias, ranges, offer.weights)
        card = ModelCard(
            deployment=deployment,
            task_id=task_id,
            model_digest=found.digest,
            layout=layout.to_dict(),
            model_family=family,
            link=link_of(family, len(weight)),
            weights=offer.weights,
            features=encoder.feature_names,
            encoding=encoder.describe(),
            ranges=encoder.ranges,
            parameters=parameters.to_dict(),
            parameters_id=parameters.identifier,
            classes=CLASS_NAMES[encoder.target],
            service=offer.service,
            issuer=offer.issuer,
            price=offer.price_wei,
            query_budget=offer.query_budget,
            max_rows=offer.max_rows,
        )
        return cls.from_card(card, arrays)

    @classmethod
    def from_card(cls, card: ModelCard, arrays: Arrays) -> "ServedModel":
        """Return the model that a card describes.

        Raises
        ------
        ConfigError
            The arrays are not those of the card's model.
        """
        layout = Layout.from_dict(card.layout)
        found = _linear_arrays(layout, arrays)
        if found.digest != card.model_digest:
            raise ConfigError("the model's arrays are not those of its card")
        parameters = LinearParameters.from_dict(card.parameters)
        quantised = QuantisedLinear.of(found.weight, found.bias, parameters)
        prepared = PreparedLinear.of(quantised, parameters)
        (weight, _), (bias, _) = layout.arrays
        return cls(card, prepared, {weight: found.weight, bias: found.bias})

    @cached_property
    def card_digest(self) -> str:
        """The digest that receipts name the card by."""
        return self.card.digest

    @cached_property
    def domain(self) -> Domain:
        """What requests and receipts are signed for."""
        return self.card.deployment.receipt_domain


def _check_final(chain: FinalisedTasks, task_id: str, digest: str) -> None:
    final = chain.finalisation(task_id)
    if final is None:
        raise ConfigError(
            f"task {task_id} is not final, so nobody knows yet which model is its outcome",
            hint="Finish its rounds first; 'twopm rounds' shows how far it is.",
        )
    if final.model_digest != digest:
        raise ConfigError(
            f"the model has the digest {digest}; the outcome of task {task_id} is "
            f"{final.model_digest}",
            hint="Give the model of the last round: 'twopm model export' in a node's home.",
        )


def _encoder_of(terms: TaskTerms) -> FeatureEncoder:
    try:
        return FeatureEncoder(str(terms.dataset.get("setup")), str(terms.dataset.get("target")))
    except DataError as error:
        raise ConfigError(
            f"the terms of the task do not say what the model predicts from: {error.message}",
            hint="Models are served of tasks that were opened by 'twopm task create'.",
        ) from error


def _linear_arrays(layout: Layout, arrays: Arrays) -> LinearArrays:
    if not is_linear(layout):
        raise ConfigError(
            f"a model with arrays of the shapes {[shape for _, shape in layout.arrays]} cannot be "
            "served",
            hint="Private predictions are for linear models: weights (K, d) and biases (K,).",
        )
    try:
        return LinearArrays.of(layout, arrays)
    except PrivacyError as error:
        raise ConfigError(
            f"the model is not one of its task: {error.message}",
            hint="Give the model of the last round: 'twopm model export' in a node's home.",
        ) from error

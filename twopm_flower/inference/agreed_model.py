"""What a requester agrees to, and whether a service's model card is that."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from twopm_flower.chain.base import ChainReader
from twopm_flower.datasets.features import SETUPS, TARGETS, FeatureEncoder
from twopm_flower.errors import ConfigError, InferenceMismatch, RecordError
from twopm_flower.privacy.linear_digits import rounded
from twopm_flower.privacy.linear_parameters import (
    MOST_PROBABILITY_ERROR,
    LinearParameters,
    Preset,
)
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.inference import ModelCard


@dataclass(frozen=True)
class ClientPolicy:
    """What a requester agrees to, and how patient it is.

    Attributes
    ----------
    max_price_wei : int
        The most that one request may cost; 0 is for free services only.
    service : str or None
        The account (EIP-55) that has to sign receipts; any, if not given.
    task_id : str or None
        The task whose model has to be served; any, if not given.
    chain : ChainReader or None
        A chain that has to know the model as the outcome of its task.
    preset : {"latency", "batch"} or None
        How rows are encrypted; by their number, if not given.
    timeout_s : float
        How long one exchange may take, from its first byte to its last.
    retries : int
        How often an exchange is tried again that was cut off or put off.
    keep_receipts : bool
        Whether receipts, requests and responses are stored in the home.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    max_price_wei: int = 0
    service: str | None = None
    task_id: str | None = None
    chain: ChainReader | None = None
    preset: Preset | None = None
    timeout_s: float = 30.0
    retries: int = 4
    keep_receipts: bool = True

    def __post_init__(self) -> None:
        if self.max_price_wei < 0 or self.retries < 0:
            raise ConfigError("neither a price nor a number of retries is negative")
        if not 0 < self.timeout_s <= 86_400:
            raise ConfigError(f"a time limit of {self.timeout_s} s is none")
        if self.preset not in (None, "latency", "batch"):
            raise ConfigError(
                f"there is no preset {self.preset!r}", hint="Choose latency or batch."
            )


@dataclass(frozen=True)
class AgreedModel:
    """A model that a service offers, and all that a requester needs to ask it.

    Attributes
    ----------
    card : ModelCard
        What the service said.
    encoder : FeatureEncoder
        Turns students into features; our own, of which the card says the same.
    parameters : LinearParameters
        How features are encrypted.
    """

    card: ModelCard
    encoder: FeatureEncoder
    parameters: LinearParameters

    @cached_property
    def card_digest(self) -> str:
        """The card's digest, which takes milliseconds: more than all else of a request."""
        return self.card.digest


def agree(card: ModelCard, policy: ClientPolicy) -> AgreedModel:
    """Return what a card offers, if it is what the requester agrees to.

    Raises
    ------
    InferenceMismatch
        Another service, task, chain, encoding or parameters, or too high a price.
    ChainUnavailable, WrongChain
        The chain that should know the model cannot be asked.
    """
    if policy.service is not None and card.service != policy.service:
        raise InferenceMismatch(
            f"the service signs as {card.service}, not as {policy.service}",
            hint="Ask its operator which account is right, by another way than this service.",
        )
    if policy.task_id is not None and card.task_id != policy.task_id:
        raise InferenceMismatch(
            f"the service serves a model of task {card.task_id}, not of {policy.task_id}"
        )
    if card.price > policy.max_price_wei:
        raise InferenceMismatch(
            f"the service wants {card.price} wei for a request, and at most "
            f"{policy.max_price_wei} are agreed to",
            hint=f"Raise the limit if it is worth it to you: --max-price {card.price}.",
        )
    if policy.chain is not None:
        _check_chain(card, policy.chain)
    encoder = _encoder(card)
    return AgreedModel(card, encoder, _parameters(card, encoder))


def _check_chain(card: ModelCard, chain: ChainReader) -> None:
    if card.deployment != chain.deployment():
        raise InferenceMismatch(
            "the service's model is of another chain or other contracts than yours",
            hint="Ask its operator for the chain.toml, and believe it only if you trust its "
            "contracts.",
        )
    final = chain.finalisation(card.task_id)
    if final is None or final.model_digest != card.model_digest:
        known = "no model" if final is None else f"the model {final.model_digest}"
        raise InferenceMismatch(
            f"the service serves the model {card.model_digest} of task {card.task_id}, and the "
            f"chain knows {known} as the outcome of that task"
        )


def _encoder(card: ModelCard) -> FeatureEncoder:
    setup, target = card.encoding.get("setup"), card.encoding.get("target")
    if setup in SETUPS and target in TARGETS:
        encoder = FeatureEncoder(str(setup), str(target))
        # Whatever else a service asked for, such as a column of its own, is not given.
        if (
            canonical_bytes(encoder.describe()) == canonical_bytes(card.encoding)
            and encoder.feature_names == card.features
            and encoder.ranges == card.ranges
        ):
            return encoder
    raise InferenceMismatch(
        "the service asks for another encoding of students than the published one",
        hint="It may be of another version of twopm-flower, or ask for more than it should.",
    )


def _parameters(card: ModelCard, encoder: FeatureEncoder) -> LinearParameters:
    try:
        parameters = LinearParameters.from_dict(card.parameters)
    except RecordError as error:
        raise InferenceMismatch(
            f"the service's parameters cannot be used: {error.message}"
        ) from error
    # Two classes need one score only: the sigmoid of it belongs to the second.
    scores = len(card.classes) - 1 if card.link == "sigmoid" else len(card.classes)
    stated = (card.parameters_id, card.weights, encoder.n_features, scores)
    found = (parameters.identifier, parameters.policy, parameters.features, parameters.classes)
    if stated != found or (card.link == "sigmoid" and scores != 1):
        raise InferenceMismatch("the service's parameters are not those of the model on its card")
    # With narrower ones, whether a request comes at all would tell something of its rows.
    if parameters.limits != tuple(
        rounded(np.array(encoder.ranges), parameters.input_bits).tolist()
    ):
        raise InferenceMismatch(
            "the service's parameters are for other ranges of features than the published ones"
        )
    if parameters.probability_error > MOST_PROBABILITY_ERROR:
        raise InferenceMismatch(
            f"with the service's parameters a probability could be "
            f"{parameters.probability_error:.1e} off, more than {MOST_PROBABILITY_ERROR:.0e}"
        )
    return parameters

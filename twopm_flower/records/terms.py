"""The terms of a task: everything that all parties agree on before the first round."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from twopm_flower.records.digest import ZERO_DIGEST, tagged_digest
from twopm_flower.records.fields import Digest, Name, Record, Round, Uint53

TrustMode = Literal["shared-key", "one-time-key", "plaintext"]
Fraction = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MetricTerm(Record):
    """A declared metric: what is not declared here never leaves a node.

    ``scale`` turns the value into an integer (rounded ``scale * value``); ``maximum`` is the
    largest value of one node. A ``weighted`` metric is a mean over a node's samples: the node
    multiplies it by its number of samples first, so that the opened sum is that of all rows.
    """

    name: Name
    scale: Annotated[int, Field(ge=1, lt=2**32)]
    maximum: Fraction
    weighted: bool = False


class ArrayTerm(Record):
    """The name and the shape of one array of the model."""

    name: Name
    shape: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]


def is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether an array's name matches one of the patterns.

    Parameters
    ----------
    name : str
    patterns : sequence of str
        In the syntax of :mod:`fnmatch`, with regard to case: ``"*.running_mean"``.
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class TaskTerms(Record):
    """What a task is; its digest is on chain before anybody joins.

    Attributes
    ----------
    title : str
        For people.
    trust_mode : str
        Who could read an update: see SECURITY.md.
    rounds : int
        Planned rounds.
    min_contributors : int
        Fewest updates in an aggregate that a node decrypts.
    quorum : int
        Fewest equal model statements that make a model final.
    colluders : int
        c: nodes that may work together with the server and still learn no other node's
        update. Zero unless the mode is ``one-time-key``, whose thresholds follow from it.
    max_samples : int
        The public n_max that weights are relative to.
    clip : float
        Largest absolute value of one coordinate of an update.
    parameters : dict
        Parameters of the encryption, as ``AdditiveParameters.to_dict`` gives them.
    parameters_id : str
        Their digest.
    excluded : tuple of str
        Patterns (``fnmatch``) of arrays that every node keeps to itself, such as the
        statistics of batch normalisation.
    arrays, train_metrics, evaluation_metrics : tuple
        The layout of an update, the metrics encrypted with it and the masked ones.
    layout_digest : str
        Digest of arrays and train metrics.
    initial_model : str
        Digest of the public initial model.
    initial_excluded : str
        Digest of the public initial values of the excluded arrays; zero without any.
    train_config, evaluate_config : dict
        Hyperparameters that the server may send; nothing else is accepted.
    run_config : dict
        The Flower run configuration that nodes must see.
    app_bundle : str
        Digest of the unpacked Flower app.
    dataset : dict
        Which data, set-up and target, for people and for the joining node.
    """

    version: Literal[1] = 1
    title: Name
    trust_mode: TrustMode
    rounds: Round
    min_contributors: Annotated[int, Field(ge=2, lt=2**16)]
    quorum: Annotated[int, Field(ge=1, lt=2**16)]
    colluders: Annotated[int, Field(ge=0, lt=2**16)] = 0
    max_samples: Annotated[int, Field(ge=1, lt=2**53)]
    clip: Fraction
    parameters: dict[str, Any]
    parameters_id: Digest
    excluded: tuple[Name, ...] = ()
    arrays: tuple[ArrayTerm, ...]
    train_metrics: tuple[MetricTerm, ...]
    evaluation_metrics: tuple[MetricTerm, ...]
    layout_digest: Digest
    initial_model: Digest
    initial_excluded: Digest = ZERO_DIGEST
    train_config: dict[str, Any]
    evaluate_config: dict[str, Any]
    run_config: dict[str, Any]
    app_bundle: Digest
    dataset: dict[str, Any]

    @model_validator(mode="after")
    def _consistent(self) -> "TaskTerms":
        if self.quorum > self.min_contributors:
            raise ValueError(
                f"quorum {self.quorum} exceeds min_contributors {self.min_contributors}: "
                "a round could succeed and its model never become final"
            )
        if self.colluders and self.trust_mode != "one-time-key":
            raise ValueError(
                f"colluders {self.colluders}: {self.trust_mode} tolerates none, one-time-key does"
            )
        if bool(self.excluded) != (self.initial_excluded != ZERO_DIGEST):
            raise ValueError(
                f"excluded arrays {list(self.excluded)} do not go with the digest "
                f"{self.initial_excluded} of their initial values"
            )
        both = [array.name for array in self.arrays if is_excluded(array.name, self.excluded)]
        if both:
            raise ValueError(f"arrays {both} are aggregated and excluded")
        return self

    @property
    def digest(self) -> str:
        """The digest that the task's creation puts on chain."""
        return self.tagged("terms/v1")


class Configuration(Record):
    """The configuration that a node saw in a train message; its digest is signed."""

    train_config: dict[str, Any]
    run_config: dict[str, Any]

    @property
    def digest(self) -> str:
        """The digest in ``UpdateStatement.config_digest``."""
        return self.tagged("configuration/v1")


def model_digest(layout_digest: str, weights: bytes) -> str:
    """Return the digest of a model.

    Parameters
    ----------
    layout_digest : str
        The layout that orders the arrays.
    weights : bytes
        All arrays in that order, C order, as little-endian float32.
    """
    return tagged_digest("model/v1", bytes.fromhex(layout_digest[2:]), weights)


def data_commitment(salt: bytes, samples: Uint53, content: bytes) -> str:
    """Return the salted commitment of a node to its training rows.

    Parameters
    ----------
    salt : bytes
        32 random bytes that stay with the node: rows are guessable, the salt is not.
    samples : int
        Number of rows.
    content : bytes
        The rows in a canonical encoding.
    """
    if len(salt) != 32:
        raise ValueError(f"the salt is {len(salt)} bytes long, not 32")
    return tagged_digest("data/v1", salt, samples.to_bytes(8, "big"), content)

"""A running task as both sides see it: terms and roster, and what follows from them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from twopm_flower.errors import ProtocolViolation
from twopm_flower.federated.exchange import Arrays, FloatArrays
from twopm_flower.privacy.backend import Backend, open_backend
from twopm_flower.privacy.binding import ZERO_NODE, FrameContext
from twopm_flower.privacy.layout import Layout, layout_of
from twopm_flower.privacy.one_time_key import public_seed
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.sealed_shares import OpeningContext, ShareContext
from twopm_flower.privacy.sharing import fewest_survivors, threshold_for
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import Domain
from twopm_flower.records.terms import Configuration, MetricTerm, TaskTerms, model_digest


@dataclass(frozen=True)
class TaskContext:
    """A task with a frozen roster.

    Attributes
    ----------
    task_id : str
        The id on chain.
    domain : Domain
        Chain and contract that statements are signed for.
    terms : TaskTerms
        What was agreed.
    roster : Roster
        Who takes part.
    key_id : str
        Which key updates are encrypted under; zero in plaintext mode.
    """

    task_id: str
    domain: Domain
    terms: TaskTerms
    roster: Roster
    key_id: str

    @cached_property
    def layout(self) -> Layout:
        """Order of the values in an update."""
        return layout_of(self.terms)

    @cached_property
    def parameters(self) -> AdditiveParameters:
        """Parameters of the encryption."""
        return AdditiveParameters.from_dict(self.terms.parameters)

    @cached_property
    def backend(self) -> Backend:
        """The encryption backend."""
        return open_backend(self.parameters)

    def frame(self, round_: int, attempt: int, node: str) -> FrameContext:
        """Return what an update frame of one node must be bound to."""
        return FrameContext(
            task_id=self.task_id,
            round=round_,
            attempt=attempt,
            node=node,
            key_id=self.key_id,
            parameters_id=self.terms.parameters_id,
            layout_digest=self.terms.layout_digest,
        )

    def aggregate_frame(self, round_: int, attempt: int) -> FrameContext:
        """Return what an aggregate frame must be bound to; it belongs to no node."""
        return self.frame(round_, attempt, ZERO_NODE)

    @property
    def shares_keys(self) -> bool:
        """Whether every node encrypts with a key of its own, of which it deals out shares."""
        return self.terms.trust_mode == "one-time-key"

    @cached_property
    def threshold(self) -> int:
        """How many opened shares it takes to open a sum of one-time keys."""
        return threshold_for(len(self.roster.members), self.terms.colluders)

    @property
    def fewest_contributors(self) -> int:
        """Fewest updates in a sum that is opened."""
        if not self.shares_keys:
            return self.terms.min_contributors
        return max(
            self.terms.min_contributors, fewest_survivors(self.threshold, self.terms.colluders)
        )

    def point(self, node: str) -> int:
        """Return where a member's shares are taken: its place in the roster, from 1 on."""
        return 1 + self.roster.nodes.index(node)

    def one_time_seed(self, round_: int, attempt: int) -> bytes:
        """Return the public seed of the uniform half of an attempt's ciphertexts."""
        domain = self.domain
        return public_seed(
            domain.chain_id, domain.verifying_contract, self.task_id, round_, attempt
        )

    def share_context(
        self, round_: int, attempt: int, *, dealer: str, reader: str, reader_key: str
    ) -> ShareContext:
        """Return what a sealed share is bound to."""
        return ShareContext(
            chain_id=self.domain.chain_id,
            contract=self.domain.verifying_contract,
            task_id=self.task_id,
            roster_digest=self.roster.digest,
            round=round_,
            attempt=attempt,
            threshold=self.threshold,
            dealer=dealer,
            reader=reader,
            reader_key=reader_key,
        )

    def opening_context(self, manifest: RoundManifest, node: str) -> OpeningContext:
        """Return what an opened share is bound to."""
        return OpeningContext(
            chain_id=self.domain.chain_id,
            contract=self.domain.verifying_contract,
            task_id=self.task_id,
            round=manifest.round,
            attempt=manifest.attempt,
            manifest_digest=manifest.digest,
            node=node,
        )

    def configuration(self, round_: int, run_config: dict[str, Any]) -> Configuration:
        """Return the configuration that nodes must see in a round."""
        return Configuration(
            train_config={**self.terms.train_config, "server-round": round_},
            run_config=run_config,
        )

    def ordered(self, arrays: Arrays) -> FloatArrays:
        """Return a model's arrays in the order of the layout.

        Raises
        ------
        ProtocolViolation
            Names or shapes are not the layout's, or an array is not float32.
        """
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != dict(self.layout.arrays):
            raise ProtocolViolation(
                f"the model's arrays are {shapes}, the task's are {dict(self.layout.arrays)}"
            )
        for name, array in arrays.items():
            if array.dtype != np.float32:
                raise ProtocolViolation(
                    f"array {name!r} of the model is {array.dtype}, not float32",
                    hint="Convert it, or exclude it by its name in the task's terms.",
                )
        return {name: arrays[name] for name, _ in self.layout.arrays}

    def model_digest(self, arrays: Arrays) -> str:
        """Return the digest of a model in this task's layout.

        Raises
        ------
        ProtocolViolation
            Names or shapes are not the layout's.
        """
        weights = b"".join(
            np.ascontiguousarray(array, dtype="<f4").tobytes()
            for array in self.ordered(arrays).values()
        )
        return model_digest(self.terms.layout_digest, weights)


def weighted_values(
    declared: tuple[MetricTerm, ...], values: dict[str, float], samples: int
) -> dict[str, float]:
    """Return what is summed for each declared metric; what is not declared is dropped.

    Raises
    ------
    ProtocolViolation
        The app did not report a declared metric.
    """
    missing = [metric.name for metric in declared if metric.name not in values]
    if missing:
        raise ProtocolViolation(
            f"the app reported no {missing}; the task declares them as metrics",
            hint="Return them in the MetricRecord, or create the task without them.",
        )
    return {
        metric.name: float(values[metric.name]) * (samples if metric.weighted else 1)
        for metric in declared
    }

"""The run under verification: the bundle, the chain, and what follows from both."""

import base64
from dataclasses import dataclass
from functools import cached_property

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.binding import ZERO_NODE
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.privacy.frame import FrameContext, parse_aggregate
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.records.bundle import RoundBundle, RunBundle
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest, Survivor
from twopm_flower.records.statements import ModelStatement
from twopm_flower.verify.chain_view import ChainView
from twopm_flower.verify.expanded import parse_expanded
from twopm_flower.verify.round import check_models, frame_context
from twopm_flower.verify.stepping import answering


@dataclass(frozen=True)
class Subject:
    """One run under verification; steps read it and share what is costly to derive.

    Attributes
    ----------
    bundle : RunBundle
        What is checked.
    chain : ChainView or None
        What it is compared with.
    """

    bundle: RunBundle
    chain: ChainView | None

    @cached_property
    def layout(self) -> Layout:
        """The order of values in an update, from the terms."""
        terms = self.bundle.terms
        return Layout(
            tuple((array.name, array.shape) for array in terms.arrays),
            tuple(Metric(m.name, m.scale, m.maximum) for m in terms.train_metrics),
        )

    @cached_property
    def parameters(self) -> AdditiveParameters:
        """The parameters of the sum, recomputed from the terms."""
        return AdditiveParameters.from_dict(self.bundle.terms.parameters)

    @property
    def key_id(self) -> str:
        """The dealt key, shared or of the group; zero where nothing is encrypted."""
        deal = self.bundle.key_deal
        return ZERO_DIGEST if deal is None else deal.statement.key_id

    @property
    def complete(self) -> bool:
        """Whether every planned round is in the bundle and opened."""
        rounds = self.bundle.rounds
        return len(rounds) == self.bundle.terms.rounds and self.opened(rounds[-1])

    def opened(self, entry: RoundBundle) -> bool:
        """Return whether nodes opened a round: only the last one of an unfinished run may wait."""
        ends_run = entry is self.bundle.rounds[-1] and self.bundle.finalisation is None
        return bool(entry.models) or entry.metrics is not None or not ends_run

    def frame(self, manifest: RoundManifest, node: str = ZERO_NODE) -> FrameContext:
        """Return what a frame of a round is bound to; without a node, that of the sum."""
        return frame_context(manifest, node)

    @cached_property
    def aggregates(self) -> dict[int, Ciphertext]:
        """The sum of each round, parsed from the bundle's frames; not checked against anything.

        Raises
        ------
        VerificationError
            A round without its sum.
        FrameError
            A frame that is not one.
        """
        found = {}
        for entry in self.bundle.rounds:
            manifest = entry.manifest
            text = self.bundle.aggregates.get(manifest.aggregate_digest)
            if text is None:
                raise VerificationError(
                    f"round {manifest.round}: the bundle lacks the aggregate "
                    f"{manifest.aggregate_digest}"
                )
            found[manifest.round] = parse_aggregate(
                base64.b64decode(text), self.frame(manifest), self.parameters, self.layout
            )
        return found

    def ciphertext(self, manifest: RoundManifest, survivor: Survivor) -> Ciphertext | None:
        """Return a survivor's ciphertext if the bundle holds it; its digest is not checked.

        Raises
        ------
        FrameError
            A frame that is not one, or of another update.
        """
        text = self.bundle.ciphertexts.get(survivor.update_digest)
        if text is None:
            return None
        context = self.frame(manifest, survivor.node)
        return parse_expanded(base64.b64decode(text), context, self.parameters, self.layout)

    @cached_property
    def agreed(self) -> dict[int, ModelStatement]:
        """The model statement that a quorum of members signed, by round.

        Raises
        ------
        VerificationError, SignatureError
            See :func:`~twopm_flower.verify.round.check_models`.
        """
        bundle = self.bundle
        return {
            entry.manifest.round: check_models(
                entry.manifest,
                entry.models,
                entry.metrics,
                roster=bundle.roster,
                quorum=bundle.terms.quorum,
                domain=bundle.deployment.domain,
            )
            for entry in bundle.rounds
            if self.opened(entry)
        }

    def require_chain(self) -> ChainView:
        """Return the chain.

        Raises
        ------
        SkippedStep
            None was given, or it does not answer.
        """
        return answering(self.chain)

"""What a malicious server does, one lie at a time, and how a node that noticed looks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from federation import Federation, Node, Order, tell

from twopm_flower.errors import QuorumError
from twopm_flower.federated import aggregator
from twopm_flower.federated.aggregator import Aggregate, RoundAggregator
from twopm_flower.federated.exchange import CloseOrder, EvaluateOrder, TrainOrder
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.records.manifest import RoundManifest, Survivor, updates_root


def lie_about_the_sum(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Ciphertext]], Ciphertext]
) -> None:
    """Have the server add wrongly and commit to the wrong sum consistently."""

    def wrong(ciphertexts: list[Ciphertext], *, max_nodes: int) -> Ciphertext:
        return change(list(ciphertexts))

    monkeypatch.setattr(aggregator, "add", wrong)


def lie_in_the_manifest(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[RoundManifest], RoundManifest],
    *,
    in_round: int = 1,
) -> None:
    """Have the server commit to, record and show a changed manifest."""
    honest = RoundAggregator.finish

    def lying(self: RoundAggregator) -> Aggregate:
        aggregate = honest(self)
        if aggregate.manifest.round != in_round:
            return aggregate
        return replace(aggregate, manifest=change(aggregate.manifest))

    monkeypatch.setattr(RoundAggregator, "finish", lying)


def changed(manifest: RoundManifest, **fields: Any) -> RoundManifest:
    """Return a manifest with some fields changed and everything derived from them consistent."""
    other = manifest.model_copy(update=fields)
    if "survivors" in fields and "updates_root" not in fields:
        root = updates_root(other.task_id, other.round, other.attempt, other.survivors)
        other = other.model_copy(update={"updates_root": root})
    return other


def with_digest_of(manifest: RoundManifest, node: str, digest: str) -> RoundManifest:
    """Return a manifest that lists another update of one node."""
    survivors = tuple(
        Survivor(node=s.node, update_digest=digest) if s.node == node else s
        for s in manifest.survivors
    )
    return changed(manifest, survivors=survivors)


def on_train(round_: int, victim: int | None = None, **changes: Any) -> Callable[..., Order]:
    """Return a lie in the train order of a round, told to one node or to all."""
    return _on(TrainOrder, victim, lambda order: order.round == round_, changes)


def on_evaluate(round_: int, victim: int | None = None, **changes: Any) -> Callable[..., Order]:
    """Return a lie in the evaluate order of a round, told to one node or to all."""
    return _on(EvaluateOrder, victim, lambda order: order.manifest.round == round_, changes)


def on_close(victim: int | None = None, **changes: Any) -> Callable[..., Order]:
    """Return a lie in the closing order, told to one node or to all."""
    return _on(CloseOrder, victim, lambda _order: True, changes)


def _on(
    kind: type[Any], victim: int | None, when: Callable[[Any], bool], changes: dict[str, Any]
) -> Callable[..., Order]:
    def lie(order: Order, index: int) -> Order:
        if not isinstance(order, kind) or not when(order) or victim not in (None, index):
            return order
        values = {
            name: change(getattr(order, name)) if callable(change) else change
            for name, change in changes.items()
        }
        return tell(order, **values)

    return lie


def run_into_refusal(federation: Federation, **settings: Any) -> QuorumError:
    """Run a task whose nodes will not go on, and return why it ended."""
    with pytest.raises(QuorumError) as caught:
        federation.run(**settings)
    return caught.value


def assert_stopped(node: Node, because: str, *, opened: int = 0) -> None:
    """Check that a node noticed, opened nothing more, and will not go on."""
    progress = node.progress
    assert progress.halted is not None, "the node did not notice"
    assert because in progress.halted
    assert progress.opened_round == opened
    assert max(node.model_rounds(), default=0) <= opened


def assert_unharmed(node: Node, *, opened: int) -> None:
    """Check that a node saw nothing wrong and went on."""
    assert node.progress.halted is None
    assert node.progress.opened_round == opened

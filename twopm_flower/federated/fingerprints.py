"""Fingerprints on the server: which survivors signed true ones of their own update."""

from twopm_flower.errors import RecordError
from twopm_flower.federated.aggregator import NodePins
from twopm_flower.federated.collected_round import CollectedRound
from twopm_flower.federated.task import TaskContext
from twopm_flower.privacy.residues import challenges, fingerprints_at
from twopm_flower.records.statements import FingerprintStatement, Signed
from twopm_flower.verify.round import check_fingerprint_binding


class Fingerprints:
    """Collects the fingerprints of one attempt.

    Parameters
    ----------
    task : TaskContext
        The task.
    pins : NodePins
        Who is who in this run.
    current : CollectedRound
        The attempt, with its updates.
    """

    def __init__(self, task: TaskContext, pins: NodePins, current: CollectedRound) -> None:
        self._task = task
        self._pins = pins
        self._manifest = current.aggregate.manifest
        self._updates = {update.statement.node: update for update in current.aggregate.updates}
        self._points = challenges(self._manifest.digest)
        self._taken: dict[str, Signed[FingerprintStatement]] = {}

    def take(self, flower_node: int, signed: Signed[FingerprintStatement] | None) -> None:
        """Keep a survivor's fingerprints, after computing them from its update.

        Raises
        ------
        RecordError, RefusedReplyError, VerificationError
            Not a survivor's own, for another manifest, or false.
        """
        if signed is None:
            return
        statement = check_fingerprint_binding(self._manifest, signed, self._task.domain)
        update = self._updates.get(signed.node)
        if update is None:
            raise RecordError(f"{signed.node} signed fingerprints and is no survivor")
        self._pins.pin(flower_node, signed.node)
        residues = update.ciphertext.residues()
        if statement.fingerprints != fingerprints_at(residues, self._points):
            raise RecordError(
                f"{signed.node} signed false fingerprints of the update that it signed itself"
            )
        self._taken[signed.node] = signed

    @property
    def missing(self) -> tuple[str, ...]:
        """The survivors without true fingerprints, sorted."""
        return tuple(node for node in self._manifest.nodes if node not in self._taken)

    def in_order(self) -> tuple[Signed[FingerprintStatement], ...]:
        """Return what was kept, sorted by address."""
        return tuple(self._taken[node] for node in self._manifest.nodes if node in self._taken)

"""Checks of one round that nodes make before they decrypt and verifiers make afterwards.

Pure functions over records and numpy arrays: no network, no files, no keys.
"""

from collections.abc import Sequence

from twopm_flower.errors import RecordError, VerificationError
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.privacy.residues import MODULUS, challenges, fingerprint
from twopm_flower.records.manifest import OpenedMetrics, RoundManifest, updates_root
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import (
    Domain,
    FingerprintStatement,
    ModelStatement,
    Signed,
    UpdateStatement,
)
from twopm_flower.records.terms import TaskTerms

_SHARED_FIELDS = (
    "task_id",
    "round",
    "attempt",
    "terms_digest",
    "roster_digest",
    "app_bundle",
    "config_digest",
    "previous_manifest",
    "base_model",
    "key_id",
    "parameters_id",
    "layout_digest",
)


def check_manifest(
    manifest: RoundManifest, *, task_id: str, terms: TaskTerms, roster: Roster
) -> None:
    """Check that a manifest belongs to the task and accounts for the whole roster.

    Raises
    ------
    VerificationError
        A field differs from the terms, a member is neither in nor out, too few
        contributed, or counts and merkle root are not those of the survivors.
    """
    expected = {
        "task_id": task_id,
        "terms_digest": terms.digest,
        "roster_digest": roster.digest,
        "trust_mode": terms.trust_mode,
        "app_bundle": terms.app_bundle,
        "parameters_id": terms.parameters_id,
        "layout_digest": terms.layout_digest,
    }
    for field, value in expected.items():
        if getattr(manifest, field) != value:
            raise VerificationError(
                f"round {manifest.round}: the manifest's {field} is "
                f"{getattr(manifest, field)}, the task's is {value}"
            )
    if manifest.round > terms.rounds:
        raise VerificationError(
            f"the manifest is of round {manifest.round}, the task has {terms.rounds}"
        )
    named = {*manifest.nodes, *(exclusion.node for exclusion in manifest.exclusions)}
    if named != set(roster.nodes):
        missing, foreign = set(roster.nodes) - named, named - set(roster.nodes)
        raise VerificationError(
            f"round {manifest.round}: survivors and exclusions are not the roster "
            f"(not listed: {sorted(missing)}; not members: {sorted(foreign)})"
        )
    if len(manifest.survivors) < terms.min_contributors:
        raise VerificationError(
            f"round {manifest.round}: {len(manifest.survivors)} contributors, "
            f"the task asks for at least {terms.min_contributors}"
        )
    samples = roster.samples_of(manifest.nodes)
    if manifest.samples != samples:
        raise VerificationError(
            f"round {manifest.round}: the manifest counts {manifest.samples} samples, "
            f"its survivors committed to {samples}"
        )
    root = updates_root(task_id, manifest.round, manifest.attempt, manifest.survivors)
    if manifest.updates_root != root:
        raise VerificationError(
            f"round {manifest.round}: the merkle root of the updates is {root}, "
            f"the manifest says {manifest.updates_root}"
        )


def check_updates(
    manifest: RoundManifest, updates: Sequence[Signed[UpdateStatement]], domain: Domain
) -> None:
    """Check that each survivor signed its update, for the same setting as all others.

    Raises
    ------
    VerificationError
        A survivor without a statement, a statement without a survivor, another order, or a
        field that differs from the manifest's.
    SignatureError
        A statement that its node did not sign.
    """
    signers = tuple(signed.node for signed in updates)
    if signers != manifest.nodes:
        raise VerificationError(
            f"round {manifest.round}: update statements are from {list(signers)}, "
            f"the manifest's survivors are {list(manifest.nodes)}"
        )
    for signed, survivor in zip(updates, manifest.survivors, strict=True):
        statement = signed.check(domain)
        for field in _SHARED_FIELDS:
            if getattr(statement, field) != getattr(manifest, field):
                raise VerificationError(
                    f"round {manifest.round}: {survivor.node} signed {field} "
                    f"{getattr(statement, field)}, the manifest says {getattr(manifest, field)}"
                )
        if statement.update_digest != survivor.update_digest:
            raise VerificationError(
                f"round {manifest.round}: {survivor.node} signed update "
                f"{statement.update_digest}, the manifest lists {survivor.update_digest}"
            )


def check_fingerprint_binding(
    manifest: RoundManifest, signed: Signed[FingerprintStatement], domain: Domain
) -> FingerprintStatement:
    """Return a fingerprint statement that its node signed for exactly this manifest.

    Raises
    ------
    VerificationError
        It is about another task, round, attempt or manifest.
    SignatureError
        Its node did not sign it.
    """
    statement = signed.check(domain)
    bound = (statement.task_id, statement.round, statement.attempt, statement.manifest_digest)
    if bound != (manifest.task_id, manifest.round, manifest.attempt, manifest.digest):
        raise VerificationError(
            f"round {manifest.round}: {signed.node} signed fingerprints for another manifest"
        )
    return statement


def check_fingerprints(
    manifest: RoundManifest,
    fingerprints: Sequence[Signed[FingerprintStatement]],
    aggregate: Ciphertext,
    domain: Domain,
) -> None:
    """Check that the survivors' signed fingerprints add up to the aggregate's.

    A fingerprint is linear, so the sum of the survivors' fingerprints is the fingerprint of
    the sum of their ciphertexts; the challenges come from the manifest, which fixed all
    ciphertexts before. A wrong aggregate passes with probability about (length / q)^3.

    Raises
    ------
    VerificationError
        Fingerprints missing, for another manifest, or with another sum.
    SignatureError
        A fingerprint that its node did not sign.
    """
    signers = tuple(signed.node for signed in fingerprints)
    if signers != manifest.nodes:
        raise VerificationError(
            f"round {manifest.round}: fingerprints are from {list(signers)}, "
            f"the survivors are {list(manifest.nodes)}"
        )
    points = challenges(manifest.digest)
    totals = [0] * len(points)
    for signed in fingerprints:
        statement = check_fingerprint_binding(manifest, signed, domain)
        if len(statement.fingerprints) != len(points):
            raise VerificationError(
                f"round {manifest.round}: {signed.node} signed {len(statement.fingerprints)} "
                f"fingerprints instead of {len(points)}"
            )
        if any(value >= MODULUS for value in statement.fingerprints):
            raise VerificationError(
                f"round {manifest.round}: a fingerprint of {signed.node} is not below the modulus"
            )
        totals = [
            (total + value) % MODULUS
            for total, value in zip(totals, statement.fingerprints, strict=True)
        ]
    residues = aggregate.residues()
    for number, (point, total) in enumerate(zip(points, totals, strict=True), start=1):
        if fingerprint(residues, point) != total:
            raise VerificationError(
                f"round {manifest.round}: fingerprint {number} of the aggregate is not the sum "
                "of the survivors' fingerprints: it is not the sum of their updates"
            )


def check_models(
    manifest: RoundManifest,
    models: Sequence[Signed[ModelStatement]],
    metrics: OpenedMetrics | None,
    *,
    roster: Roster,
    quorum: int,
    domain: Domain,
) -> ModelStatement:
    """Return the model statement that at least `quorum` members signed for a round.

    Raises
    ------
    VerificationError
        No quorum for one model, a signer twice or not in the roster, or metric sums that
        are not the signed ones.
    SignatureError
        A statement that its node did not sign.
    """
    signers = [signed.node for signed in models]
    if len(set(signers)) != len(signers) or signers != sorted(signers, key=str.lower):
        raise VerificationError(
            f"round {manifest.round}: model statements are not distinct and sorted by address"
        )
    support: dict[ModelStatement, int] = {}
    for signed in models:
        if signed.node not in roster.nodes:
            raise VerificationError(
                f"round {manifest.round}: {signed.node} signed a model and is not a member"
            )
        statement = signed.check(domain)
        bound = (statement.task_id, statement.round, statement.manifest_digest)
        if bound != (manifest.task_id, manifest.round, manifest.digest):
            raise VerificationError(
                f"round {manifest.round}: {signed.node} signed a model for another manifest"
            )
        support[statement] = support.get(statement, 0) + 1
    agreed = max(support, key=lambda statement: support[statement], default=None)
    if agreed is None or support[agreed] < quorum or len(support) > 1:
        raise VerificationError(
            f"round {manifest.round}: {len(models)} nodes signed {len(support)} different "
            f"models; {quorum} equal ones and no other are needed"
        )
    if metrics is None or metrics.digest != agreed.metrics_digest:
        raise VerificationError(
            f"round {manifest.round}: the metric sums are not the ones that the nodes signed"
        )
    if (metrics.task_id, metrics.round) != (manifest.task_id, manifest.round):
        raise RecordError(f"round {manifest.round}: the metric sums are of another round")
    return agreed

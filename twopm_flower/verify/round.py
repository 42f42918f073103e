"""Checks of one round that nodes make before they decrypt and verifiers make afterwards.

Pure functions over records and numpy arrays: no network, no files, no keys.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from twopm_flower.errors import RecordError, VerificationError
from twopm_flower.privacy.binding import ZERO_NODE, FrameContext
from twopm_flower.privacy.ciphertext import Ciphertext
from twopm_flower.privacy.residues import CHALLENGES, MODULUS, challenges, fingerprints_at
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
from twopm_flower.verify.one_time_keys import (
    ONE_TIME_KEY,
    check_shares_root,
    check_survivors,
)

_NONE: Mapping[str, Ciphertext] = MappingProxyType({})
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


def frame_context(manifest: RoundManifest, node: str = ZERO_NODE) -> FrameContext:
    """Return what the ciphertext of a node is bound to; without a node, that of the sum."""
    return FrameContext(
        task_id=manifest.task_id,
        round=manifest.round,
        attempt=manifest.attempt,
        node=node,
        key_id=manifest.key_id,
        parameters_id=manifest.parameters_id,
        layout_digest=manifest.layout_digest,
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
    if terms.trust_mode == ONE_TIME_KEY:
        check_survivors(manifest, terms=terms, roster=roster)
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
        check_shares_root(manifest, statement)


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
    ciphertexts: Mapping[str, Ciphertext] = _NONE,
) -> None:
    """Check that the survivors' signed fingerprints add up to the aggregate's.

    A fingerprint is linear, so the sum of the survivors' fingerprints is the fingerprint of
    the sum of their ciphertexts; the challenges come from the manifest, which fixed all
    ciphertexts before. A wrong aggregate passes with probability about (length / q)^3.

    Parameters
    ----------
    manifest : RoundManifest
    fingerprints : sequence of Signed[FingerprintStatement]
        In the order of the survivors; of all of them but those in `ciphertexts`.
    aggregate : Ciphertext
    domain : Domain
    ciphertexts : mapping of str to Ciphertext, optional
        By node: the ciphertexts of survivors that vanished before they signed fingerprints.
        Public in the trust mode ``one-time-key``, where their fingerprints are computed; in
        another mode a survivor without a fingerprint is an error. Others are not looked at.

    Raises
    ------
    VerificationError
        Fingerprints missing, for another manifest, or with another sum; a ciphertext that is
        not the one that the manifest lists.
    SignatureError
        A fingerprint that its node did not sign.
    """
    points = challenges(manifest.digest)
    totals = [0] * len(points)
    for values in (
        *_signed_fingerprints(manifest, fingerprints, domain),
        *_computed_fingerprints(manifest, fingerprints, ciphertexts),
    ):
        totals = [(total + value) % MODULUS for total, value in zip(totals, values, strict=True)]
    found = fingerprints_at(aggregate.residues(), points)
    for number, (value, total) in enumerate(zip(found, totals, strict=True), start=1):
        if value != total:
            raise VerificationError(
                f"round {manifest.round}: fingerprint {number} of the aggregate is not the sum "
                "of the survivors' fingerprints: it is not the sum of their updates"
            )


def without_fingerprint(
    manifest: RoundManifest, fingerprints: Sequence[Signed[FingerprintStatement]]
) -> tuple[str, ...]:
    """Return the survivors that signed no fingerprints, in order."""
    signers = {signed.node for signed in fingerprints}
    return tuple(node for node in manifest.nodes if node not in signers)


def _signed_fingerprints(
    manifest: RoundManifest, fingerprints: Sequence[Signed[FingerprintStatement]], domain: Domain
) -> list[tuple[int, ...]]:
    signers = tuple(signed.node for signed in fingerprints)
    missing = without_fingerprint(manifest, fingerprints)
    expected = tuple(node for node in manifest.nodes if node not in missing)
    if signers != expected or (missing and manifest.trust_mode != ONE_TIME_KEY):
        raise VerificationError(
            f"round {manifest.round}: fingerprints are from {list(signers)}, "
            f"the survivors are {list(manifest.nodes)}"
        )
    found = []
    for signed in fingerprints:
        values = check_fingerprint_binding(manifest, signed, domain).fingerprints
        if len(values) != CHALLENGES:
            raise VerificationError(
                f"round {manifest.round}: {signed.node} signed {len(values)} "
                f"fingerprints instead of {CHALLENGES}"
            )
        if any(value >= MODULUS for value in values):
            raise VerificationError(
                f"round {manifest.round}: a fingerprint of {signed.node} is not below the modulus"
            )
        found.append(values)
    return found


def _computed_fingerprints(
    manifest: RoundManifest,
    fingerprints: Sequence[Signed[FingerprintStatement]],
    ciphertexts: Mapping[str, Ciphertext],
) -> list[tuple[int, ...]]:
    found = []
    points = challenges(manifest.digest)
    listed = {survivor.node: survivor.update_digest for survivor in manifest.survivors}
    for node in without_fingerprint(manifest, fingerprints):
        ciphertext = ciphertexts.get(node)
        if ciphertext is None:
            raise VerificationError(
                f"round {manifest.round}: neither a fingerprint nor the ciphertext of "
                f"{node} is there"
            )
        check_ciphertext(manifest, node, listed[node], ciphertext)
        residues = ciphertext.residues()
        found.append(fingerprints_at(residues, points))
    return found


def check_ciphertext(
    manifest: RoundManifest, node: str, update_digest: str, ciphertext: Ciphertext
) -> None:
    """Check that a ciphertext is the one that its node signed.

    Raises
    ------
    VerificationError
        It has another digest.
    """
    digest = ciphertext.digest(frame_context(manifest, node))
    if digest != update_digest:
        raise VerificationError(
            f"round {manifest.round}: the digest of {node}'s ciphertext is {digest}; "
            f"it signed {update_digest}"
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

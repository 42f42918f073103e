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
    ciphertexts before. A wrong aggregate passes with probability about (length / q)^3, unless
    a survivor lied in its fingerprints: where its ciphertext is there, it is convicted.

    Parameters
    ----------
    manifest : RoundManifest
        Of which `check_updates` found that its survivors signed the listed digests.
    fingerprints : sequence of Signed[FingerprintStatement]
        In the order of the survivors; of all of them but those in `ciphertexts`.
    aggregate : Ciphertext
    domain : Domain
    ciphertexts : mapping of str to Ciphertext, optional
        By node: the ciphertexts of survivors, as far as they are at hand; their fingerprints
        are computed. They stand in for those that a survivor did not sign, in the trust mode
        ``one-time-key`` alone, and are compared with those that it did. Nodes that are no
        survivors are not looked at.

    Raises
    ------
    VerificationError
        Fingerprints missing, for another manifest, not those of the node's ciphertext, or with
        another sum; a ciphertext that is not the one that the manifest lists.
    SignatureError
        A fingerprint that its node did not sign.
    """
    points = challenges(manifest.digest)
    signed = _signed_fingerprints(manifest, fingerprints, domain)
    computed = _computed_fingerprints(manifest, ciphertexts, points)
    for node, values in signed.items():
        if computed.get(node, values) != values:
            raise VerificationError(
                f"round {manifest.round}: {node} signed fingerprints that are not those of its "
                f"own ciphertext, which it signed as well: its two signatures convict {node}",
                hint="Keep both statements and the ciphertext: they are the proof.",
            )
    totals = [0] * len(points)
    known = {**computed, **signed}
    for node in manifest.nodes:
        if node not in known:
            raise VerificationError(
                f"round {manifest.round}: neither a fingerprint nor the ciphertext of "
                f"{node} is there"
            )
        totals = [
            (total + value) % MODULUS for total, value in zip(totals, known[node], strict=True)
        ]
    found = fingerprints_at(aggregate.residues(), points)
    for number, (value, total) in enumerate(zip(found, totals, strict=True), start=1):
        if value != total:
            raise VerificationError(
                f"round {manifest.round}: fingerprint {number} of the aggregate is not the sum "
                "of the survivors' fingerprints: it is not the sum of their updates"
            )


def _signed_fingerprints(
    manifest: RoundManifest, fingerprints: Sequence[Signed[FingerprintStatement]], domain: Domain
) -> dict[str, tuple[int, ...]]:
    signers = tuple(signed.node for signed in fingerprints)
    expected = tuple(node for node in manifest.nodes if node in set(signers))
    missing = len(manifest.nodes) - len(expected)
    if signers != expected or (missing and manifest.trust_mode != ONE_TIME_KEY):
        raise VerificationError(
            f"round {manifest.round}: fingerprints are from {list(signers)}, "
            f"the survivors are {list(manifest.nodes)}"
        )
    found = {}
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
        found[signed.node] = values
    return found


def _computed_fingerprints(
    manifest: RoundManifest, ciphertexts: Mapping[str, Ciphertext], points: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    found = {}
    for survivor in manifest.survivors:
        ciphertext = ciphertexts.get(survivor.node)
        if ciphertext is not None:
            # Before anybody is convicted by it: that it is the one which the node signed.
            check_ciphertext(manifest, survivor.node, survivor.update_digest, ciphertext)
            found[survivor.node] = fingerprints_at(ciphertext.residues(), points)
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

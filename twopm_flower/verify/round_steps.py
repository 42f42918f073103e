"""Steps 4 to 9: every round, from the signed updates to their sum."""

from collections.abc import Iterator, Sequence

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.terms import Configuration
from twopm_flower.verify.one_time_keys import ONE_TIME_KEY
from twopm_flower.verify.round import (
    check_fingerprints,
    check_manifest,
    check_updates,
)
from twopm_flower.verify.stepping import SkippedStep, require
from twopm_flower.verify.subject import Subject


def check_statements(subject: Subject) -> str:
    """Step 4: each update is signed, by its member, for this round, model and setting."""
    bundle = subject.bundle
    count = 0
    for entry in bundle.rounds:
        manifest = entry.manifest
        check_updates(manifest, entry.updates, bundle.deployment.domain)
        for signed in entry.updates:
            bundle.roster.member(signed.node)
        count += len(entry.updates)
        for attempt in (*(s.manifest for s in entry.superseded), manifest):
            _check_setting(subject, attempt)
    return f"{count} update statements"


def check_manifests(subject: Subject) -> str:
    """Step 5: survivors and exclusions are the roster, enough contributed, the root is theirs."""
    bundle = subject.bundle
    for manifest in _all_manifests(subject):
        check_manifest(manifest, task_id=bundle.task_id, terms=bundle.terms, roster=bundle.roster)
    contributors = [len(entry.manifest.survivors) for entry in bundle.rounds]
    excluded = sum(len(entry.manifest.exclusions) for entry in bundle.rounds)
    return f"{min(contributors)} to {max(contributors)} contributors, {excluded} exclusions"


def check_chaining(subject: Subject) -> str:
    """Step 6: each manifest names the one before it and the model that came of it."""
    bundle = subject.bundle
    previous, models = ZERO_DIGEST, {bundle.terms.initial_model}
    for number, entry in enumerate(bundle.rounds, start=1):
        attempts = (*(s.manifest for s in entry.superseded), entry.manifest)
        for manifest in attempts:
            where = f"round {number}, attempt {manifest.attempt}"
            require(manifest.round, number, f"{where}: the round", "its place is")
            require(
                manifest.previous_manifest, previous, f"{where}: previous_manifest", "it should be"
            )
            if manifest.base_model not in models:
                raise VerificationError(
                    f"{where}: base_model is {manifest.base_model}, "
                    f"the round before it gave {sorted(models)}"
                )
        numbers = [manifest.attempt for manifest in attempts]
        if numbers != sorted(set(numbers)):
            raise VerificationError(f"round {number}: attempts {numbers} are not in order")
        previous = entry.manifest.digest
        # Step 11 sees to it that these are signed, and all the same.
        models = {signed.statement.model_digest for signed in entry.models}
    return f"last manifest {previous}"


def check_aggregates(subject: Subject) -> str:
    """Step 7: the aggregate of each round has the digest that its manifest commits to."""
    for entry in subject.bundle.rounds:
        manifest = entry.manifest
        digest = subject.aggregates[manifest.round].aggregate_digest(subject.frame(manifest))
        require(
            digest,
            manifest.aggregate_digest,
            f"round {manifest.round}: the aggregate's digest",
            "the manifest says",
        )
    return f"{len(subject.bundle.rounds)} aggregates"


def check_sums(subject: Subject) -> str:
    """Step 8: the survivors' fingerprints are their ciphertexts' and add up to the aggregate's."""
    bundle = subject.bundle
    signed = computed = compared = 0
    for entry in bundle.rounds:
        ciphertexts = _ciphertexts(subject, entry.manifest)
        check_fingerprints(
            entry.manifest,
            entry.fingerprints,
            subject.aggregates[entry.manifest.round],
            bundle.deployment.domain,
            ciphertexts,
        )
        signers = {statement.node for statement in entry.fingerprints}
        signed += len(signers)
        computed += len(ciphertexts.keys() - signers)
        compared += len(ciphertexts.keys() & signers)
    agree = f", {compared} of them compared with ciphertexts" if compared else ""
    more = f", {computed} computed from ciphertexts of nodes that vanished" if computed else ""
    return f"{signed} fingerprint statements{agree}{more}"


def redo_sums(subject: Subject) -> str:
    """Step 9: the ciphertexts, which step 8 found to be the signed ones, add up to the aggregate.

    Raises
    ------
    SkippedStep
        The bundle does not hold all ciphertexts of any round.
    """
    bundle = subject.bundle
    redone = [entry.manifest.round for entry in bundle.rounds if _redo_sum(subject, entry.manifest)]
    if not redone:
        present = len(bundle.ciphertexts) or "no"
        raise SkippedStep(
            f"sum checked by fingerprints, not re-executed: {present} ciphertexts here"
        )
    rounds = "round" if len(redone) == 1 else "rounds"
    return f"{rounds} {_listed(redone)} of {len(bundle.rounds)} added up again"


def is_re_executed(subject: Subject) -> bool:
    """Return whether the bundle holds the ciphertexts of all rounds."""
    return all(
        _present(subject, entry.manifest) == len(entry.manifest.survivors)
        for entry in subject.bundle.rounds
    )


def ciphertexts_missing(subject: Subject) -> dict[tuple[int, int], list[int]]:
    """Return the opened rounds that lack ciphertexts, by (how many there are, how many survived).

    Nothing is read but the digests that manifests list.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for entry in subject.bundle.rounds:
        counts = _present(subject, entry.manifest), len(entry.manifest.survivors)
        if subject.opened(entry) and counts[0] < counts[1]:
            found.setdefault(counts, []).append(entry.manifest.round)
    return found


def _present(subject: Subject, manifest: RoundManifest) -> int:
    ciphertexts = subject.bundle.ciphertexts
    return sum(survivor.update_digest in ciphertexts for survivor in manifest.survivors)


def _redo_sum(subject: Subject, manifest: RoundManifest) -> bool:
    ciphertexts = _ciphertexts(subject, manifest)
    absent = [node for node in manifest.nodes if node not in ciphertexts]
    if absent:
        # With one-time keys those of nodes that vanished are there in place of fingerprints.
        if ciphertexts and manifest.trust_mode != ONE_TIME_KEY:
            raise VerificationError(
                f"round {manifest.round}: the bundle has ciphertexts, but not that of {absent[0]}"
            )
        return False
    total = add(list(ciphertexts.values()), max_nodes=subject.parameters.max_nodes)
    if total != subject.aggregates[manifest.round]:
        raise VerificationError(
            f"round {manifest.round}: the ciphertexts do not add up to the aggregate"
        )
    return True


def _ciphertexts(subject: Subject, manifest: RoundManifest) -> dict[str, Ciphertext]:
    found = {
        survivor.node: subject.ciphertext(manifest, survivor) for survivor in manifest.survivors
    }
    return {node: ciphertext for node, ciphertext in found.items() if ciphertext is not None}


def _all_manifests(subject: Subject) -> Iterator[RoundManifest]:
    for entry in subject.bundle.rounds:
        for attempt in entry.superseded:
            yield attempt.manifest
        yield entry.manifest


def _check_setting(subject: Subject, manifest: RoundManifest) -> None:
    terms = subject.bundle.terms
    configuration = Configuration(
        train_config={**terms.train_config, "server-round": manifest.round},
        run_config=terms.run_config,
    )
    where = f"round {manifest.round}, attempt {manifest.attempt}"
    require(
        manifest.config_digest, configuration.digest, f"{where}: config_digest", "the terms give"
    )
    require(manifest.key_id, subject.key_id, f"{where}: key_id", "the dealt key is")


def _listed(rounds: Sequence[int]) -> str:
    """Return rounds as text, an unbroken row of them by its ends."""
    if len(rounds) > 1 and list(rounds) == list(range(rounds[0], rounds[-1] + 1)):
        return f"{rounds[0]}-{rounds[-1]}"
    return ", ".join(map(str, rounds))

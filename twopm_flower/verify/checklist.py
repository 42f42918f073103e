"""The verifier: a numbered checklist over a bundle and, where one is at hand, its chain.

What must hold for a run to be the one that its members signed:

 1. The bundle has one encoding only; parameters and layout of the terms are the ones that
    their digests name, and one-time keys can be shared among so many members against so
    many colluders; nothing is in it that no manifest lists.
 2. The task on chain (this chain, this genesis, these contracts) has these terms, this
    roster and these settings. [needs a chain]
 3. Every member signed its membership; the first one signed the deal of the key.
 4. Every update is signed by its member, for this task, round, attempt, base model,
    previous manifest, configuration, app, key, parameters and layout; it commits to shares
    of its key where keys are one-time keys, and nowhere else.
 5. Survivors and exclusions are the roster; enough contributed, for one-time keys too; the
    counted samples and the merkle root are the survivors'.
 6. Every manifest names the one before it, and as base model the one agreed on before it.
 7. Every aggregate has the digest that its manifest commits to.
 8. The ciphertexts, where the bundle has them, are the signed ones, and no survivor signed
    other fingerprints than its ciphertext has. The survivors' fingerprints add up to the
    aggregate's. With one-time keys the public ciphertext of a node that vanished stands in
    for its fingerprints.
 9. The ciphertexts, where the bundle has all of a round, add up to the aggregate. [else the
    sum is checked by step 8 alone]
10. The chain records exactly these manifests, in this order, superseded attempts included,
    and its head is the one that they chain to. [needs a chain]
11. With one-time keys enough members opened each sum, and otherwise nobody. In every round
    a quorum of members signed one model and one set of metric sums, nobody another; the last
    is the final one on chain.
12. The masked evaluations are exactly the survivors', and their sums are possible.

The first step that does not hold ends the verification: later steps build on it.
The code below and in the modules of the steps follows the same numbers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from twopm_flower.errors import RecordError
from twopm_flower.records.bundle import RunBundle
from twopm_flower.verify.chain_view import ChainView
from twopm_flower.verify.one_time_keys import ONE_TIME_KEY
from twopm_flower.verify.outcome_steps import (
    check_evaluations,
    check_outcome,
    check_records,
    opened_metrics,
)
from twopm_flower.verify.report import Report, StepResult
from twopm_flower.verify.round_steps import (
    check_aggregates,
    check_chaining,
    check_manifests,
    check_statements,
    check_sums,
    ciphertexts_missing,
    is_re_executed,
    redo_sums,
)
from twopm_flower.verify.stepping import run_steps
from twopm_flower.verify.subject import Subject
from twopm_flower.verify.task_steps import check_bundle, check_members, check_task

STEPS: tuple[tuple[str, Callable[[Subject], str]], ...] = (
    ("bundle, parameters and layout", check_bundle),  # 1
    ("task on chain", check_task),  # 2
    ("memberships and key deal", check_members),  # 3
    ("signed updates", check_statements),  # 4
    ("survivors, exclusions, merkle roots", check_manifests),  # 5
    ("chain of manifests and models", check_chaining),  # 6
    ("aggregate digests", check_aggregates),  # 7
    ("sums by fingerprints", check_sums),  # 8
    ("sums re-executed", redo_sums),  # 9
    ("records on chain", check_records),  # 10
    ("agreed models and finalisation", check_outcome),  # 11
    ("held-out evaluation", check_evaluations),  # 12
)
CHAIN_STEPS = (2, 10)


def load_bundle(path: str | Path) -> RunBundle:
    """Read a bundle file.

    Raises
    ------
    RecordError
        Not readable, not canonical JSON, or not a bundle; the field is named.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RecordError(
            f"the bundle {path} cannot be read: {error.strerror}",
            hint="'twopm bundle export' writes one.",
        ) from error
    return RunBundle.from_bytes(data)


def verify_bundle(
    bundle: RunBundle,
    *,
    chain: ChainView | None,
    progress: Callable[[StepResult], None] | None = None,
) -> Report:
    """Go through the checklist.

    Parameters
    ----------
    bundle : RunBundle
        What `load_bundle` returned.
    chain : ChainView or None
        A reader of the chain that the run is anchored in; without one the steps that need
        it are skipped and the report says "not anchored". So they are when it does not answer.
    progress : callable, optional
        Called with each step's result, as it is known.

    Returns
    -------
    Report
        Never raises for what is wrong with the bundle: the report says it.

    Examples
    --------
    >>> report = verify_bundle(load_bundle("run.json"), chain=None)  # doctest: +SKIP
    >>> report.exit_code, report.level  # doctest: +SKIP
    (2, 'fingerprints')
    """
    subject = Subject(bundle, chain)
    outcome = run_steps(STEPS, subject, progress)
    passed = outcome.passed
    re_executed = 9 in passed and is_re_executed(subject)
    anchored = passed.issuperset(CHAIN_STEPS)
    return Report(
        task_id=bundle.task_id,
        title=bundle.terms.title,
        trust_mode=bundle.terms.trust_mode,
        rounds=len(bundle.rounds),
        planned_rounds=bundle.terms.rounds,
        steps=outcome.steps,
        level="re-executed" if re_executed else "fingerprints",
        anchored=anchored,
        finalised=anchored and 11 in passed and subject.complete,
        metrics=tuple(opened_metrics(subject)) if outcome.failure is None else (),
        notes=_notes(subject, anchored=anchored, re_executed=re_executed),
    )


def _notes(subject: Subject, *, anchored: bool, re_executed: bool) -> tuple[str, ...]:
    bundle = subject.bundle
    notes = [_trust(bundle)]
    if not re_executed:
        notes.append("Sum checked by fingerprints, not re-executed.")
    if bundle.terms.trust_mode == ONE_TIME_KEY:
        notes.extend(_incomplete(subject))
    if not anchored:
        notes.append("Not anchored: nothing was compared with a chain.")
    notes.append("That the models are decrypted correctly rests on the quorum that signed them.")
    members, quorum = len(bundle.roster.members), bundle.terms.quorum
    if 2 * quorum <= members:
        notes.append(
            f"The quorum of {quorum} is no majority of {members} members: statements that the "
            "coordinator left out cannot be seen here."
        )
    return tuple(notes)


def _incomplete(subject: Subject) -> Iterator[str]:
    """Say where ciphertexts are absent that may be public: they could convict a survivor."""
    for (present, survivors), rounds in ciphertexts_missing(subject).items():
        listed = ", ".join(map(str, rounds))
        yield (
            f"The sum of round {listed} was not re-executed: {present} of {survivors} "
            "ciphertexts are here. They are public with one-time keys: ask for the others."
            if len(rounds) == 1
            else f"The sums of rounds {listed} were not re-executed: {present} of {survivors} "
            "ciphertexts of each are here. They are public with one-time keys: ask for the others."
        )


def _trust(bundle: RunBundle) -> str:
    """Say who could read an update, or who would have to collude to do so."""
    terms, members = bundle.terms, len(bundle.roster.members)
    if terms.trust_mode == "plaintext":
        return "PLAINTEXT: updates were not encrypted, the server could read each of them."
    if terms.trust_mode == "shared-key":
        return (
            f"Trust mode shared-key: any one of the {members} members together with the server, "
            "which holds all updates, can read every update; so can any member who obtains one."
        )
    together = (
        f"up to {terms.colluders} of the {members} members together with the server"
        if terms.colluders
        else "the server alone"
    )
    learns = "learn" if terms.colluders else "learns"
    return (
        f"Trust mode one-time-key: {together} {learns} nothing of another member's update but what "
        "the sums tell; more could. The scheme has had no independent review."
    )

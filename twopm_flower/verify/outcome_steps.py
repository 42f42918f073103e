"""Steps 10 to 12: the chain's records, the agreed models, the evaluation."""

from collections.abc import Iterator, Mapping, Sequence

from twopm_flower.errors import VerificationError
from twopm_flower.records.bundle import ChainRecord
from twopm_flower.records.chaining import next_head
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.statements import EvaluationStatement, Signed
from twopm_flower.records.terms import MetricTerm
from twopm_flower.verify.chain_view import ChainView, RecordView
from twopm_flower.verify.one_time_keys import check_openings
from twopm_flower.verify.report import ModelMetrics
from twopm_flower.verify.stepping import SkippedStep, require
from twopm_flower.verify.subject import Subject

_WORD = 1 << 64


def check_records(subject: Subject) -> str:
    """Step 10: the chain holds exactly these manifests, in this order, and chains them."""
    chain = subject.require_chain()
    bundle = subject.bundle
    attempts = list(_attempts(subject))
    records = chain.round_records(bundle.task_id)
    head = ZERO_DIGEST
    for (manifest, stated), record in zip(attempts, records, strict=False):
        where = f"round {manifest.round}, attempt {manifest.attempt}"
        for field in ("round", "attempt", "updates_root"):
            require(
                getattr(manifest, field), getattr(record, field), f"{where}: {field}", "on chain:"
            )
        require(manifest.digest, record.manifest_digest, f"{where}: the manifest", "on chain:")
        head = next_head(head, manifest)
        require(record.head, head, f"{where}: the head on chain", "the records before it give")
        if stated is not None:
            _check_record(stated, record, where)
    _check_count(attempts, records)
    task = chain.task(bundle.task_id)
    last = attempts[-1][0]
    require(
        (task.last_round, task.last_attempt, task.head),
        (last.round, last.attempt, head),
        "the last record that the task stores",
        "the bundle's is",
    )
    return f"{len(records)} records, head {head}"


def check_outcome(subject: Subject) -> str:
    """Step 11: a quorum opened the same model in every round, and the last one is final."""
    bundle, terms = subject.bundle, subject.bundle.terms
    for entry in bundle.rounds:
        check_openings(
            entry.manifest,
            entry.openings,
            terms=terms,
            roster=bundle.roster,
            domain=bundle.deployment.domain,
            complete=subject.opened(entry),
        )
        if entry.metrics is not None:
            check_sums_in_range(
                terms.train_metrics,
                entry.metrics.sums,
                nodes=len(entry.manifest.survivors),
                where=f"round {entry.manifest.round}",
            )
    final = _check_finalisation(subject)
    support = [len(entry.models) for entry in bundle.rounds if subject.opened(entry)]
    rests = (
        f"{len(support)} models, each signed alike by at least {min(support)} nodes"
        if support
        else "no model was opened yet"
    )
    rests += f" (the decryption itself rests on that quorum of {terms.quorum})"
    opened = [len(entry.openings) for entry in bundle.rounds if entry.openings]
    keys = f"at least {min(opened)} nodes opened each sum; " if opened else ""
    return f"{keys}{rests}; {final}"


def check_evaluations(subject: Subject) -> str:
    """Step 12: the masked evaluations are the survivors', and their sums are possible."""
    bundle = subject.bundle
    missing = []
    for entry in bundle.rounds:
        model_round = entry.manifest.round - 1
        if not entry.evaluations:
            missing.append(model_round)
            continue
        check_masked(subject, entry.manifest, entry.evaluations, model_round, closing=False)
    if bundle.closing:
        last = bundle.rounds[-1].manifest
        check_masked(subject, last, bundle.closing, last.round, closing=True)
    elif subject.complete:
        missing.append(bundle.terms.rounds)
    if not bundle.terms.evaluation_metrics:
        raise SkippedStep("the terms declare no evaluation metrics")
    if missing:
        return f"held-out evaluations add up; none was opened for models {missing}"
    return "held-out evaluations add up for every model"


def opened_metrics(subject: Subject) -> Iterator[ModelMetrics]:
    """Yield the metrics of each model, the initial one first; only after steps 11 and 12."""
    bundle, terms = subject.bundle, subject.bundle.terms
    rounds = bundle.rounds
    evaluated = [entry.evaluations for entry in rounds] + [bundle.closing]
    for model_round, statements in enumerate(evaluated):
        entry = rounds[model_round - 1] if model_round else None
        metrics = None if entry is None else entry.metrics
        yield ModelMetrics(
            model_round=model_round,
            contributors=0 if entry is None else len(entry.manifest.survivors),
            samples=0 if entry is None else entry.manifest.samples,
            training=_in_units(terms.train_metrics, metrics.sums)
            if entry is not None and metrics is not None and entry.manifest.attempt == 1
            else None,
            evaluators=len(statements),
            evaluation=_in_units(
                terms.evaluation_metrics, unmasked(terms.evaluation_metrics, statements)
            )
            if statements
            else None,
        )


def check_masked(
    subject: Subject,
    manifest: RoundManifest,
    evaluations: Sequence[Signed[EvaluationStatement]],
    model_round: int,
    *,
    closing: bool,
) -> None:
    """Check the masked evaluations of one exchange and that their sum is possible.

    Raises
    ------
    VerificationError
        Not exactly the survivors', bound to something else, or with an impossible sum.
    SignatureError
        A statement that its node did not sign.
    """
    terms = subject.bundle.terms.evaluation_metrics
    where = f"evaluation of model {model_round}"
    require(
        tuple(signed.node for signed in evaluations),
        manifest.nodes,
        f"{where}: the list of signers",
        "the masks cancel only for all of",
    )
    for signed in evaluations:
        statement = signed.check(subject.bundle.deployment.domain)
        for field, expected in (
            ("task_id", manifest.task_id),
            ("model_round", model_round),
            ("manifest_digest", manifest.digest),
            ("closing", closing),
        ):
            require(
                getattr(statement, field), expected, f"{where}: {field} of {signed.node}", "due is"
            )
        require(len(statement.masked), len(terms), f"{where}: values of {signed.node}", "declared:")
    check_evaluation_sums(terms, evaluations, where=where)


def unmasked(
    terms: Sequence[MetricTerm], evaluations: Sequence[Signed[EvaluationStatement]]
) -> dict[str, int]:
    """Return the sums modulo 2^64 in which all masks cancel, by metric."""
    return {
        term.name: sum(signed.statement.masked[index] for signed in evaluations) % _WORD
        for index, term in enumerate(terms)
    }


def check_evaluation_sums(
    terms: Sequence[MetricTerm],
    evaluations: Sequence[Signed[EvaluationStatement]],
    *,
    where: str,
) -> None:
    """Check that the sums of masked evaluations are possible; the server does so as well.

    Raises
    ------
    VerificationError
        A sum is out of its range, or more rows are correct than there are.
    """
    sums = unmasked(terms, evaluations)
    check_sums_in_range(terms, sums, nodes=len(evaluations), where=where)
    _check_correct_at_most_rows(terms, sums, where)


def check_sums_in_range(
    terms: Sequence[MetricTerm], sums: Mapping[str, int], *, nodes: int, where: str
) -> None:
    """Check that sums are of the declared metrics and could come from `nodes` honest nodes.

    Raises
    ------
    VerificationError
        A metric is missing or undeclared, or out of its range.
    """
    require(sorted(sums), sorted(term.name for term in terms), f"{where}: metrics", "declared are")
    for term in terms:
        # Half a step more, for each node rounds to the nearest integer.
        largest = nodes * (term.scale * term.maximum + 0.5)
        if not 0 <= sums[term.name] <= largest:
            raise VerificationError(
                f"{where}: the sum of {term.name} is {sums[term.name]}, not in 0 to {largest:g}"
            )


def _check_correct_at_most_rows(
    terms: Sequence[MetricTerm], sums: Mapping[str, int], where: str
) -> None:
    scales = {term.name: term.scale for term in terms}
    for rows in ("rows", "num-examples"):
        both = {"correct", rows} <= scales.keys()
        if both and sums["correct"] * scales[rows] > sums[rows] * scales["correct"]:
            raise VerificationError(
                f"{where}: {sums['correct']} correct of {sums[rows]} rows is impossible"
            )


def _attempts(subject: Subject) -> Iterator[tuple[RoundManifest, ChainRecord | None]]:
    for entry in subject.bundle.rounds:
        for attempt in entry.superseded:
            yield attempt.manifest, attempt.record
        yield entry.manifest, entry.record


def _check_record(stated: ChainRecord, record: RecordView, where: str) -> None:
    fields = ["transaction_hash", "block_number", "block_hash", "head"]
    if record.gas_used is not None:
        fields.append("gas_used")
    for field in fields:
        require(
            getattr(stated, field),
            getattr(record, field),
            f"{where}: {field} of the bundle's record",
            "the chain's is",
        )


def _check_count(
    attempts: Sequence[tuple[RoundManifest, ChainRecord | None]], records: Sequence[RecordView]
) -> None:
    if len(records) < len(attempts):
        manifest = attempts[len(records)][0]
        raise VerificationError(
            f"round {manifest.round}, attempt {manifest.attempt} is not recorded on chain",
            hint="If the coordinator still holds it back, it delivers with 'twopm chain deliver'.",
        )
    if len(records) > len(attempts):
        record = records[len(attempts)]
        raise VerificationError(
            f"the chain records round {record.round}, attempt {record.attempt}; the bundle "
            "leaves it out",
            hint="If the run went on since, export the bundle again.",
        )


def _check_finalisation(subject: Subject) -> str:
    bundle = subject.bundle
    stated = bundle.finalisation
    if stated is not None and not subject.complete:
        raise VerificationError("the bundle says the task is finalised, and rounds are missing")
    agreed = subject.agreed.get(bundle.rounds[-1].manifest.round)
    if stated is not None and agreed is not None:
        for field in ("model_digest", "metrics_digest"):
            require(
                getattr(stated, field),
                getattr(agreed, field),
                f"the finalisation's {field}",
                "the nodes agreed on",
            )
    try:
        chain = subject.require_chain()
    except SkippedStep as skipped:
        return f"finalisation not looked up: {skipped}"
    return _check_final_on_chain(subject, chain)


def _check_final_on_chain(subject: Subject, chain: ChainView) -> str:
    bundle = subject.bundle
    stated = bundle.finalisation
    final = chain.finalisation(bundle.task_id)
    task = chain.task(bundle.task_id)
    agreed = subject.agreed.get(bundle.rounds[-1].manifest.round)
    if final is None or task.state != "finalised":
        if stated is not None:
            raise VerificationError("the bundle says the task is finalised, the chain does not")
        if subject.complete:
            raise VerificationError(
                "all rounds are done, but the model is not final on chain",
                hint="If the coordinator still holds it back, it delivers with "
                "'twopm chain deliver'.",
            )
        return f"unfinished: {len(bundle.rounds)} of {bundle.terms.rounds} rounds, no final model"
    if agreed is None or not subject.complete:
        raise VerificationError("the chain holds a final model, the bundle no quorum for it")
    require(agreed.model_digest, final.model_digest, "the agreed model", "the final one is")
    require(agreed.model_digest, task.model_digest, "the agreed model", "the task's final one is")
    require(agreed.metrics_digest, final.metrics_digest, "the agreed metrics", "the final are")
    require(final.head, task.head, "the head of the finalisation", "the task's is")
    if final.signers < bundle.terms.quorum:
        raise VerificationError(
            f"{final.signers} nodes signed the final model, the quorum is {bundle.terms.quorum}"
        )
    if stated is not None:
        for field in ("transaction_hash", "block_number"):
            require(
                getattr(stated, field),
                getattr(final, field),
                f"the finalisation's {field}",
                "the chain's is",
            )
    return f"final model {final.model_digest}, signed by {final.signers} nodes"


def _in_units(terms: Sequence[MetricTerm], sums: Mapping[str, int]) -> dict[str, float]:
    return {term.name: sums[term.name] / term.scale for term in terms}

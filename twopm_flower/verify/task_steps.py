"""Steps 1 to 3: the bundle itself, the task on chain, who takes part."""

from twopm_flower.errors import VerificationError
from twopm_flower.privacy.parameters import BackendName
from twopm_flower.records.bundle import RunBundle
from twopm_flower.records.terms import TrustMode
from twopm_flower.verify.one_time_keys import ONE_TIME_KEY, thresholds
from twopm_flower.verify.stepping import require
from twopm_flower.verify.subject import Subject

BACKENDS: dict[TrustMode, BackendName] = {
    "plaintext": "plaintext",
    "shared-key": "bfv",
    ONE_TIME_KEY: "one-time-key",
}


def check_bundle(subject: Subject) -> str:
    """Step 1: the bundle has one encoding, and its terms name the parameters they spell out."""
    bundle, terms = subject.bundle, subject.bundle.terms
    RunBundle.from_bytes(bundle.to_bytes())
    require(
        subject.parameters.backend,
        BACKENDS[terms.trust_mode],
        "the backend of the parameters",
        f"trust mode {terms.trust_mode} takes",
    )
    require(
        terms.parameters_id, subject.parameters.identifier, "parameters_id", "the parameters give"
    )
    require(terms.layout_digest, subject.layout.digest, "layout_digest", "the layout gives")
    if len(bundle.roster.members) > subject.parameters.max_nodes:
        raise VerificationError(
            f"{len(bundle.roster.members)} members exceed the {subject.parameters.max_nodes} "
            "that the parameters add up without wrapping"
        )
    opens = ""
    if terms.trust_mode == ONE_TIME_KEY:
        opens = f"; {thresholds(terms, bundle.roster).openers} of them open a sum"
    if len(bundle.rounds) > terms.rounds:
        raise VerificationError(
            f"the bundle has {len(bundle.rounds)} rounds, the terms plan {terms.rounds}"
        )
    for number, entry in enumerate(bundle.rounds, start=1):
        require(entry.manifest.round, number, f"round number {number} of the bundle", "due is")
    _check_artifacts(bundle)
    members = f"{len(bundle.roster.members)} members{opens}"
    return f"{len(bundle.rounds)} of {terms.rounds} rounds, {members}"


def check_task(subject: Subject) -> str:
    """Step 2: the task on chain has these terms, this roster and this quorum."""
    chain = subject.require_chain()
    bundle = subject.bundle
    terms, roster, stated = bundle.terms, bundle.roster, bundle.deployment
    pinned = chain.deployment()
    for field in type(stated).model_fields:
        require(
            getattr(stated, field), getattr(pinned, field), f"deployment.{field}", "the chain's is"
        )
    task = chain.task(bundle.task_id)
    if task.state not in ("running", "finalised"):
        raise VerificationError(f"the task is {task.state} on chain")
    expected = {
        "terms_digest": terms.digest,
        "roster_digest": roster.digest,
        "members": len(roster.members),
        "rounds": terms.rounds,
        "min_contributors": terms.min_contributors,
        "quorum": terms.quorum,
        "max_samples": terms.max_samples,
    }
    for field, value in expected.items():
        require(value, getattr(task, field), f"the bundle's {field}", "the chain's is")
    on_chain = tuple(
        (member.node, member.samples, member.data_commitment, member.sealing_key)
        for member in chain.members(bundle.task_id)
    )
    listed = tuple(
        (member.node, member.samples, member.data_commitment, member.sealing_key)
        for member in roster.members
    )
    require(listed, on_chain, "the roster", "the chain's members are")
    return f"task {bundle.task_id} on chain {stated.chain_id} is {task.state}"


def check_members(subject: Subject) -> str:
    """Step 3: every member signed its membership, and the first one dealt the key."""
    bundle = subject.bundle
    terms, roster, domain = bundle.terms, bundle.roster, bundle.deployment.domain
    roster.check(bundle.task_id, terms.digest, domain)
    for member in roster.members:
        if not 0 < member.samples <= terms.max_samples:
            raise VerificationError(
                f"{member.node} joined with {member.samples} samples; "
                f"the terms allow 1 to {terms.max_samples}"
            )
    members = f"{len(roster.members)} memberships"
    deal = bundle.key_deal
    if terms.trust_mode == "plaintext":
        if deal is not None:
            raise VerificationError("a plaintext task has a key deal, and nothing to encrypt")
        return f"{members}; no key: updates were not encrypted"
    if deal is None:
        raise VerificationError("the bundle lacks the signed deal of the key")
    statement = deal.check(domain)
    require(deal.node, roster.dealer.node, "the dealer of the key", "the first member is")
    require(statement.task_id, bundle.task_id, "the key deal's task_id", "the task is")
    require(statement.roster_digest, roster.digest, "the key deal's roster_digest", "the roster's")
    what = "group key" if terms.trust_mode == ONE_TIME_KEY else "key"
    return f"{members}; {what} {statement.key_id} dealt by {deal.node}"


def _check_artifacts(bundle: RunBundle) -> None:
    sums = {entry.manifest.aggregate_digest for entry in bundle.rounds}
    updates = {
        survivor.update_digest for entry in bundle.rounds for survivor in entry.manifest.survivors
    }
    for kind, stored, listed in (
        ("aggregate", bundle.aggregates, sums),
        ("ciphertext", bundle.ciphertexts, updates),
    ):
        foreign = sorted(set(stored) - listed)
        if foreign:
            raise VerificationError(f"the bundle has {kind} {foreign[0]}, and no manifest lists it")

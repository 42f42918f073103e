"""What the trust mode `one-time-key` asks of a task and of its rounds: thresholds, openings.

With at most c of n nodes working together with the server, no second set of survivors can be
opened, and so no single update follows by subtraction, as long as t nodes have to open a sum
and at least ``max(t, c + 2)`` survivors are in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from twopm_flower.errors import ConfigError, VerificationError
from twopm_flower.privacy.sharing import fewest_survivors, threshold_for
from twopm_flower.records.digest import ZERO_DIGEST
from twopm_flower.records.manifest import RoundManifest
from twopm_flower.records.roster import Roster
from twopm_flower.records.statements import (
    Domain,
    OpeningStatement,
    Signed,
    UpdateStatement,
)
from twopm_flower.records.terms import TaskTerms, TrustMode

ONE_TIME_KEY: TrustMode = "one-time-key"


@dataclass(frozen=True)
class Thresholds:
    """How many nodes it takes, in the trust mode `one-time-key`.

    Attributes
    ----------
    openers : int
        t: openings that a sum needs.
    survivors : int
        Fewest updates in a sum, ``min_contributors`` included.
    """

    openers: int
    survivors: int


def thresholds(terms: TaskTerms, roster: Roster) -> Thresholds:
    """Return the thresholds that a task has with its roster.

    Raises
    ------
    VerificationError
        No threshold protects so many members against so many colluders.
    """
    members = len(roster.members)
    try:
        openers = threshold_for(members, terms.colluders)
    except ConfigError as error:
        raise VerificationError(
            f"{members} members cannot share keys against {terms.colluders} colluders: "
            f"{error.message}",
            hint=error.hint,
        ) from error
    fewest = max(fewest_survivors(openers, terms.colluders), terms.min_contributors)
    return Thresholds(openers, fewest)


def check_survivors(manifest: RoundManifest, *, terms: TaskTerms, roster: Roster) -> None:
    """Check that enough survive for their sum to hide each of them from the colluders.

    Raises
    ------
    VerificationError
        Too few, or thresholds that no roster of this size has.
    """
    fewest = thresholds(terms, roster).survivors
    if len(manifest.survivors) < fewest:
        raise VerificationError(
            f"round {manifest.round}: {len(manifest.survivors)} contributors; with "
            f"{terms.colluders} colluders among {len(roster.members)} members one-time keys "
            f"ask for at least {fewest}"
        )


def check_shares_root(manifest: RoundManifest, statement: UpdateStatement) -> None:
    """Check that an update commits to shares of its key exactly where keys are shared out.

    Raises
    ------
    VerificationError
        No commitment in the trust mode `one-time-key`, or one in another mode.
    """
    shared_out = statement.shares_root != ZERO_DIGEST
    if shared_out != (manifest.trust_mode == ONE_TIME_KEY):
        raise VerificationError(
            f"round {manifest.round}: {statement.node} signed shares_root "
            f"{statement.shares_root}; in trust mode {manifest.trust_mode} it is "
            + ("zero" if shared_out else "never zero: its key was shared out to nobody")
        )


def check_opening(
    manifest: RoundManifest, signed: Signed[OpeningStatement], *, roster: Roster, domain: Domain
) -> OpeningStatement:
    """Return an opening statement that a member signed for exactly this manifest.

    Raises
    ------
    VerificationError
        Its signer is no member, or it is about another task, round, attempt or manifest.
    SignatureError
        Its node did not sign it.
    """
    if signed.node not in roster.nodes:
        raise VerificationError(
            f"round {manifest.round}: {signed.node} signed an opening and is not a member"
        )
    statement = signed.check(domain)
    bound = (statement.task_id, statement.round, statement.attempt, statement.manifest_digest)
    if bound != (manifest.task_id, manifest.round, manifest.attempt, manifest.digest):
        raise VerificationError(
            f"round {manifest.round}: {signed.node} signed an opening for another manifest"
        )
    return statement


def check_openings(
    manifest: RoundManifest,
    openings: Sequence[Signed[OpeningStatement]],
    *,
    terms: TaskTerms,
    roster: Roster,
    domain: Domain,
    complete: bool = True,
) -> None:
    """Check that enough distinct members opened the sum of a round.

    What an opening holds is sealed to the nodes: whether the shares are right is seen by those
    who decrypt.

    Parameters
    ----------
    manifest : RoundManifest
    openings : sequence of Signed[OpeningStatement]
        Sorted by address; none unless the trust mode is ``one-time-key``.
    terms : TaskTerms
    roster : Roster
    domain : Domain
    complete : bool
        Whether the round was opened, so that t openings have to be there.

    Raises
    ------
    VerificationError
        Openings in another trust mode, too few, one twice, in another order, by a stranger or
        for another manifest.
    SignatureError
        An opening that its node did not sign.
    """
    if manifest.trust_mode != ONE_TIME_KEY:
        if openings:
            raise VerificationError(
                f"round {manifest.round}: {len(openings)} openings, and in trust mode "
                f"{manifest.trust_mode} nothing is shared out"
            )
        return
    signers = [signed.node for signed in openings]
    if signers != sorted(set(signers), key=str.lower):
        raise VerificationError(
            f"round {manifest.round}: openings are not distinct and sorted by address"
        )
    for signed in openings:
        check_opening(manifest, signed, roster=roster, domain=domain)
    needed = thresholds(terms, roster).openers
    if complete and len(openings) < needed:
        raise VerificationError(
            f"round {manifest.round}: {len(openings)} members opened the sum; "
            f"the threshold is {needed} of {len(roster.members)}"
        )

"""Going through a numbered checklist until a step does not hold, and what its steps share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from twopm_flower.errors import ChainUnavailable, TwopmError, VerificationError
from twopm_flower.verify.chain_view import ChainView
from twopm_flower.verify.report import StepResult, StepStatus

T = TypeVar("T")
C = TypeVar("C", bound=ChainView)
Step = tuple[str, Callable[[T], str]]


class SkippedStep(Exception):  # noqa: N818  # not an error: it ends a step early
    """A step has nothing to check; says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of a checklist.

    Attributes
    ----------
    steps : tuple of StepResult
        All steps, in order.
    failure : TwopmError or None
        What ended it.
    """

    steps: tuple[StepResult, ...]
    failure: TwopmError | None

    @property
    def passed(self) -> frozenset[int]:
        """The numbers of the steps that hold."""
        return frozenset(step.number for step in self.steps if step.status == "passed")


def run_steps(
    steps: Sequence[Step[T]], subject: T, progress: Callable[[StepResult], None] | None = None
) -> Outcome:
    """Check step after step; the first that does not hold ends it, for later ones build on it.

    Parameters
    ----------
    steps : sequence of (str, callable)
        Title and check of each step. A check returns what it found, raises `SkippedStep` where
        there is nothing to check, and an error of ours where something does not hold.
    subject : object
        What is checked.
    progress : callable, optional
        Called with each step's result, as it is known.
    """
    results: list[StepResult] = []
    failed: int | None = None
    failure: TwopmError | None = None
    for number, (title, check) in enumerate(steps, start=1):
        started = time.perf_counter()
        status: StepStatus = "passed"
        try:
            detail = check(subject) if failed is None else _not_reached(failed)
        except SkippedStep as skipped:
            status, detail = "skipped", str(skipped)
        except TwopmError as error:
            status, detail = "failed", str(error)
            failed, failure = number, error
        seconds = time.perf_counter() - started
        results.append(StepResult(number, title, status, detail, seconds))
        if progress is not None:
            progress(results[-1])
    return Outcome(tuple(results), failure)


def _not_reached(failed: int) -> NoReturn:
    raise SkippedStep(f"not reached: step {failed} failed")


def require(found: object, expected: object, what: str, source: str) -> None:
    """Check that two values are equal.

    Raises
    ------
    VerificationError
        They differ; both are quoted.
    """
    if found != expected:
        raise VerificationError(f"{what} is {found}; {source} {expected}")


def answering(chain: C | None) -> C:
    """Return a chain that answers, and is the one that it is pinned to.

    Raises
    ------
    SkippedStep
        None was given, or it does not answer.
    WrongChain
        Another chain answers.
    """
    if chain is None:
        raise SkippedStep("no chain was given")
    try:
        chain.check()
    except ChainUnavailable as error:
        raise SkippedStep(f"the chain does not answer: {error}") from error
    return chain

"""What a client asks a service for, step by step, without doing any input or output itself.

A *flow* is a generator that yields what is to be done next (`Send` a request, `Pause`) and is
told the outcome (`Answer`, `NoAnswer`). Whoever drives it has the sockets and the clock, so
that one flow serves callers that block and callers that do not, and every decision (what is
tried again, when, and what ends in which error) is made here once.
"""

import secrets
from collections.abc import Callable, Generator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import pydantic_core

from twopm_flower.errors import InferenceMismatch, InferenceRefused, InferenceUnavailable
from twopm_flower.inference.envelope import PROBLEM
from twopm_flower.records.printable import printable

MOST_PROBLEM_BYTES: Final = 64 * 1024
WORTH_TRYING_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
"""What is asked to come later than this is told to the caller rather than waited for."""
IS_IT_THERE: Final = (
    "Check its address, and whether it runs: its operator starts 'twopm infer serve'."
)
_MOST_TEXT: Final = 500

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """A request to be sent.

    Attributes
    ----------
    method : str
    path : str
        Below the service's address, such as ``/v1/model``.
    most_bytes : int
        How long an answer may be.
    body : bytes
    content_type : str or None
    """

    method: str
    path: str
    most_bytes: int
    body: bytes = b""
    content_type: str | None = None


@dataclass(frozen=True)
class Pause:
    """Time to wait, in seconds, before the next step."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What a service answered.

    Attributes
    ----------
    status : int
        HTTP status.
    body : bytes
    headers : dict
        The headers, by their lower-case names.
    """

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class NoAnswer:
    """Nobody answered, or not to the end.

    Attributes
    ----------
    reason : str
        How it went.
    hint : str or None
        What to do about it, where trying again does not help.
    """

    reason: str
    hint: str | None = None


Step = Send | Pause
Outcome = Answer | NoAnswer | None
Flow = Generator[Step, Outcome, T]


@dataclass(frozen=True)
class Retries:
    """How often, and how long after, something is tried again.

    Attributes
    ----------
    most : int
        Tries after the first one.
    now : callable
        Returns the time as seconds since 1970, for ``Retry-After`` that names a date.
    spread : callable
        Returns a number in [0, 1): clients that were cut off at once do not return at once.
    """

    most: int
    now: Callable[[], float]
    spread: Callable[[], float] = secrets.SystemRandom().random

    def pause_s(self, tried: int, retry_after: str | None) -> float | None:
        """Return how long to wait before another try, or None where there is no use in it.

        Parameters
        ----------
        tried : int
            How often it was tried, at least once.
        retry_after : str or None
            What the service said: seconds, or a date (RFC 9110, section 10.2.3).
        """
        if tried > self.most:
            return None
        if retry_after is None:
            own = min(FIRST_PAUSE_S * 2.0 ** (tried - 1), LONGEST_PAUSE_S)
            return own * (0.5 + self.spread() / 2)
        wanted = retry_after_s(retry_after, self.now())
        return None if wanted > LONGEST_PAUSE_S else wanted * (1.0 + self.spread() / 10)


def retry_after_s(text: str, now: float) -> float:
    """Return how many seconds a ``Retry-After`` asks for, or what we would wait if it is none."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return FIRST_PAUSE_S


def ask(request: Send, retries: Retries) -> Flow[bytes]:
    """Send a request, the same bytes each time, until it is answered; return the answer's body.

    Raises
    ------
    InferenceUnavailable
        Nobody answers, or the service stays too busy.
    InferenceRefused
        It says no.
    InferenceMismatch
        What it answers is neither an answer nor a refusal, such as a redirection.
    """
    tried = 0
    while True:
        outcome = yield request
        tried += 1
        if isinstance(outcome, Answer) and outcome.status not in WORTH_TRYING_AGAIN:
            return _body(outcome)
        retry_after = outcome.headers.get("retry-after") if isinstance(outcome, Answer) else None
        hopeless = isinstance(outcome, NoAnswer) and outcome.hint is not None
        pause_s = None if hopeless else retries.pause_s(tried, retry_after)
        if pause_s is None:
            raise _given_up(outcome, tried, retry_after, retries.now())
        yield Pause(pause_s)


def _body(answer: Answer) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise InferenceMismatch("the service packed its answer, which it was not asked to do")
    if answer.status == 200:
        return answer.body
    if 400 <= answer.status < 600:
        detail, hint = _problem(answer)
        raise InferenceRefused(
            f"the service does not answer: {detail} (HTTP {answer.status})",
            hint=hint,
            status=answer.status,
        )
    where = printable(answer.headers.get("location", ""))[:_MOST_TEXT]
    elsewhere = f" and names {where}" if where else ""
    raise InferenceMismatch(
        f"the service answers with HTTP {answer.status}{elsewhere}, where only 200 is an answer",
        hint="A redirection is not followed: give the address that it leads to if you trust it.",
    )


def _given_up(
    outcome: Outcome, tried: int, retry_after: str | None, now: float
) -> InferenceUnavailable:
    times = "once" if tried == 1 else f"{tried} times"
    if not isinstance(outcome, Answer):
        reason, hint = ("nothing came", None) if outcome is None else (outcome.reason, outcome.hint)
        return InferenceUnavailable(
            f"the service does not answer, asked {times}: {reason}", hint=hint or IS_IT_THERE
        )
    detail, hint = _problem(outcome)
    if retry_after is not None:
        hint = f"Try again in {retry_after_s(retry_after, now):.0f} s."
    return InferenceUnavailable(
        f"the service cannot answer now, asked {times}: {detail} (HTTP {outcome.status})", hint=hint
    )


def _problem(answer: Answer) -> tuple[str, str | None]:
    """Return detail and hint of an RFC 9457 problem, cut to what a person reads."""
    kind = answer.headers.get("content-type", "").split(";")[0].strip()
    said: Any = None
    if kind == PROBLEM and len(answer.body) <= MOST_PROBLEM_BYTES:
        try:
            # Not json.loads, whose nesting is bounded by the interpreter's own recursion only.
            said = pydantic_core.from_json(answer.body)
        except ValueError:
            said = None
    if not isinstance(said, dict):
        return "it gives no reason", None

    def text(name: str) -> str | None:
        value = said.get(name)
        return printable(value)[:_MOST_TEXT] if isinstance(value, str) and value else None

    return text("detail") or text("title") or "it gives no reason", text("hint")

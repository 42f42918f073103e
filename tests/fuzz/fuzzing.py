"""Runs changed inputs through a parser and says what came of them.

As a command it prints how many cases were tried and how fast::

    python tests/fuzz/fuzzing.py 1000000
"""

import resource
import sys
import time
from dataclasses import dataclass

import conftest as _search_path  # noqa: F401 - the makers beside other tests are found by it
from mutators import Mutator
from parsers import Parser, all_parsers

from twopm_flower.errors import TwopmError

SEED = 20_260
SLOWEST_S = 2.0
"""Far above what any case takes, below what a hang does."""
MOST_MEMORY_KB = 300_000


@dataclass
class Outcome:
    """What came of the cases of one parser."""

    cases: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


class Finding(AssertionError):
    """An input that a parser neither reads nor refuses as it should."""


def check(parser: Parser, data: bytes) -> bool:
    """Read one input; return whether it was accepted.

    Raises
    ------
    Finding
        Another error than ours, or a value that has a second encoding.
    """
    try:
        value = parser.read(data)
    except TwopmError as error:
        str(error)
        return False
    except Exception as error:
        raise Finding(describe(parser, data, f"raised {error!r}")) from error
    try:
        parser.use(value)
    except TwopmError:
        pass
    except Exception as error:
        raise Finding(describe(parser, data, f"its value raised {error!r}")) from error
    if parser.write is not None and parser.write(value) != data:
        raise Finding(describe(parser, data, "its value is written in another way"))
    return True


def describe(parser: Parser, data: bytes, what: str) -> str:
    """Return how to reproduce a finding."""
    return f"{parser.name}: {what}; the input is bytes.fromhex('{data.hex()}')"


def fuzz(parser: Parser, cases: int, seed: int = SEED) -> Outcome:
    """Try so many changed inputs.

    Raises
    ------
    Finding
        See `check`; also where a case takes too long, or memory is not given back.
    """
    mutate, outcome = Mutator(seed, parser.changes).mutate, Outcome(cases)
    memory = peak_memory_kb()
    start = before = time.perf_counter()
    for number in range(cases):
        data = mutate(parser.inputs)
        outcome.accepted += check(parser, data)
        now = time.perf_counter()
        if now - before > outcome.slowest:
            outcome.slowest = now - before
            if outcome.slowest > SLOWEST_S:
                raise Finding(describe(parser, data, f"took {outcome.slowest:.1f} s"))
        before = now
        if number % 16 == 15 and (grown := peak_memory_kb() - memory) > MOST_MEMORY_KB:
            raise Finding(describe(parser, data, f"memory grew by {grown} KB in 16 cases or more"))
    outcome.seconds = time.perf_counter() - start
    return outcome


def peak_memory_kb() -> int:
    """Return the most memory that this process had, in KB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def shares_of(total: int) -> dict[str, int]:
    """Return how many of `total` cases each parser gets, by its weight; at least one."""
    parsers = all_parsers().values()
    weights = sum(parser.weight for parser in parsers)
    return {parser.name: -(-total * parser.weight // weights) for parser in parsers}


def main() -> None:
    """Print what came of so many cases."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    everything = Outcome()
    print(f"{'parser':28} {'cases':>8} {'accepted':>8} {'cases/s':>8} {'slowest ms':>10}")
    for name, cases in shares_of(total).items():
        try:
            one = fuzz(all_parsers()[name], cases)
        except Finding as finding:
            print(f"FINDING: {finding}")
            continue
        everything.cases += one.cases
        everything.accepted += one.accepted
        everything.seconds += one.seconds
        everything.slowest = max(everything.slowest, one.slowest)
        show(name, one)
    show("together", everything)


def show(name: str, outcome: Outcome) -> None:
    """Print one line."""
    rate, slowest = outcome.cases / outcome.seconds, 1e3 * outcome.slowest
    print(f"{name:28} {outcome.cases:8} {outcome.accepted:8} {rate:8.0f} {slowest:10.1f}")


if __name__ == "__main__":
    main()

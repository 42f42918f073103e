"""Whatever another party sends is read, or refused by an error of ours: soon, and in one form.

5,000 changed inputs in the quick suite, 10^5 with --all, 10^6 with --full.
"""

import time

import pytest
from fuzzing import Finding, fuzz, shares_of
from parsers import Parser, all_parsers
from record_factories import DOMAIN, SIGNER, statements

from twopm_flower.errors import RecordError, SignatureError
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.statements import sign

NAMES = sorted(all_parsers())


@pytest.mark.parametrize("name", NAMES)
def test_changed_inputs_are_read_or_refused(name):
    fuzz(all_parsers()[name], shares_of(5_000)[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_100_000_changed_inputs_are_read_or_refused(name):
    fuzz(all_parsers()[name], shares_of(100_000)[name], seed=1)


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_1_000_000_changed_inputs_are_read_or_refused(name):
    fuzz(all_parsers()[name], shares_of(1_000_000)[name], seed=2)


def test_the_counts_are_the_stated_ones():
    for total in (5_000, 100_000, 1_000_000):
        assert total <= sum(shares_of(total).values()) < total + len(NAMES)


def test_changed_inputs_get_past_the_first_checks():
    # Otherwise millions of cases would only show that the magic is compared.
    for name in ("update bfv 41", "aggregate bfv 41", "manifest", "terms", "roster"):
        outcome = fuzz(all_parsers()[name], 400, seed=3)
        assert outcome.accepted > 4, name
        assert outcome.accepted < outcome.cases / 2, name


def test_text_that_no_encoding_has_is_refused_wherever_it_stands():
    for value in ("\ud800", {"\ud800": 1}, [{"a": "\udfff"}]):
        with pytest.raises(RecordError, match="no canonical JSON form"):
            canonical_bytes(value)


@pytest.mark.parametrize(
    "signature",
    [
        "11" * 64 + "1b",
        "00" * 31 + "05" + "00" * 31 + "011b",
        "ff" * 32 + "00" * 31 + "011c",
        "00" * 64 + "1b",
        "00" * 65,
        "ff" * 65,
    ],
)
def test_signatures_of_nobody_are_refused(signature):
    signed = sign(statements(SIGNER.address)[0], SIGNER, DOMAIN)
    forged = signed.model_copy(update={"signature": "0x" + signature})
    with pytest.raises(SignatureError):
        type(signed).from_bytes(forged.to_bytes()).check(DOMAIN)


# The fuzzer itself: what it is there to find, it finds.


def a_parser(read, write=bytes, use=lambda value: None):
    return Parser("broken", [b"2PMU" + bytes(40), b"\1" * 44], read, write, use)


def test_a_parser_that_lets_another_error_through_is_found():
    def read(data):
        return data[43] and data

    with pytest.raises(Finding, match=r"raised IndexError.*bytes.fromhex"):
        fuzz(a_parser(read), 200)


def test_a_parser_that_reads_two_forms_of_one_value_is_found():
    with pytest.raises(Finding, match="written in another way"):
        fuzz(a_parser(lambda data: data.rstrip(b"\0")), 200)


def test_a_value_that_cannot_be_used_is_found():
    def use(value):
        raise KeyError(value)

    with pytest.raises(Finding, match="its value raised KeyError"):
        fuzz(a_parser(bytes, use=use), 1)


def test_a_parser_that_takes_long_is_found(monkeypatch):
    monkeypatch.setattr("fuzzing.SLOWEST_S", 0.01)

    def read(data):
        end = time.perf_counter() + 0.02 * (len(data) > 44)
        while time.perf_counter() < end:
            pass
        return data

    with pytest.raises(Finding, match=r"took 0\.0"):
        fuzz(a_parser(read), 200)


def test_a_parser_that_takes_memory_is_found(monkeypatch):
    monkeypatch.setattr("fuzzing.MOST_MEMORY_KB", 20_000)
    kept = []

    def read(data):
        kept.append(b"\1" * 1_000_000)
        return data

    with pytest.raises(Finding, match="memory grew"):
        fuzz(a_parser(read), 1000)

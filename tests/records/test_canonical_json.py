"""One value, one sequence of bytes: everything else is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import RecordError
from twopm_flower.records.canonical import canonical_bytes, parse_canonical
from twopm_flower.records.fields import Record, Uint53, Uint64

SAFE = 2**53 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


class Pair(Record):
    number: Uint53
    word: Uint64


@given(VALUES)
def test_a_value_comes_back_from_its_canonical_bytes(value):
    assert parse_canonical(canonical_bytes(value)) == value


@given(VALUES)
def test_another_spelling_of_the_same_value_is_refused(value):
    data = canonical_bytes(value)
    spellings = {
        b" " + data,
        data + b"\n",
        json.dumps(value, ensure_ascii=True).encode(),
        json.dumps(value, indent=1).encode(),
    } - {data}
    for spelling in spellings:
        assert json.loads(spelling) == value
        with pytest.raises(RecordError):
            parse_canonical(spelling)


@given(VALUES, st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_another_value_or_an_error(value, place, change):
    data = bytearray(canonical_bytes(value))
    data[place % len(data)] ^= change
    try:
        other = parse_canonical(bytes(data))
    except RecordError:
        return
    # NaN never gets here, so == is honest; 1 == True needs the bytes.
    assert canonical_bytes(other) != canonical_bytes(value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"a": 1}',
        b"1.0",
        b"-0",
        b"-0.0",
        b"1E2",
        b"1e400",
        b"01",
        b"+1",
        b"NaN",
        b"Infinity",
        b'"\\u0041"',
        b'"\\/"',
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\x00"',
        b"\xef\xbb\xbf1",
        b"9007199254740992",
        b"9007199254740993",
        b"9" * 5000,
        b"'a'",
        b"[1,]",
        b"1 2",
    ],
)
def test_bytes_that_are_not_the_canonical_form_of_anything_are_refused(data):
    with pytest.raises(RecordError):
        parse_canonical(data)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_an_error_and_not_a_crash(opening):
    with pytest.raises(RecordError, match="recursion"):
        parse_canonical(opening * 1_000_000)


def test_the_published_examples_of_the_rfc_come_out_as_published():
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical_bytes(value) == (
        b'{"literals":[null,true,false],'
        b'"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, -(2**53), {1: 2}, "\ud800"])
def test_a_value_without_a_canonical_form_is_refused(value):
    with pytest.raises(RecordError, match="no canonical JSON form"):
        canonical_bytes(value)


def test_an_error_names_what_was_read():
    with pytest.raises(RecordError, match="the manifest is not JSON"):
        parse_canonical(b"nonsense", what="the manifest")


@given(st.integers(0, SAFE), st.integers(0, 2**64 - 1))
def test_a_record_comes_back_from_its_bytes(number, word):
    pair = Pair(number=number, word=word)
    assert Pair.from_bytes(pair.to_bytes()) == pair
    assert Pair.from_json(pair.to_json()) == pair


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"number": 1}, "word"),
        ({"number": 1, "word": "0x0000000000000001", "more": 1}, "more"),
        ({"number": "1", "word": "0x0000000000000001"}, "number"),
        ({"number": True, "word": "0x0000000000000001"}, "number"),
        ({"number": 1.5, "word": "0x0000000000000001"}, "number"),
        ({"number": -1, "word": "0x0000000000000001"}, "number"),
        ({"number": 1, "word": "0x1"}, "word"),
        ({"number": 1, "word": "0x000000000000000G"}, "word"),
        ({"number": 1, "word": "0x00000000000000AB"}, "word"),
        ({"number": None, "word": "0x0000000000000001"}, "number"),
        ([], "record"),
        ("text", "record"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused_and_the_field_is_named(value, named):
    with pytest.raises(RecordError, match=named):
        Pair.from_json(value)


def test_a_64_bit_word_written_as_a_number_is_not_the_records_form():
    with pytest.raises(RecordError, match="another canonical form"):
        Pair.from_bytes(b'{"number":1,"word":2}')

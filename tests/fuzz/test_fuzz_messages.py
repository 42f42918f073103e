"""Whatever a message holds, it is understood or refused as malformed, and nothing else happens.

Of a node's reply the server notes `RecordError` as ``malformed`` and goes on; a node answers
any error of ours with one line. 2,000 messages in the quick suite, 20,000 with --all, 200,000
with --full.
"""

import time
from functools import partial

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import (
    MODEL,
    NAMES,
    MessageMutator,
    comparable,
    honest_orders,
    honest_replies,
    rewritten,
)

from twopm_flower.errors import RecordError
from twopm_flower.federated import wire
from twopm_flower.federated.plain_arrays import plain_array

PARSERS = {
    "order": (honest_orders, wire.parse_order),
    "prepare": (partial(honest_replies, "prepare"), wire.parse_prepare_reply),
    "train": (partial(honest_replies, "train"), wire.parse_train_reply),
    "evaluate": (partial(honest_replies, "evaluate"), wire.parse_evaluate_reply),
}
WEIGHTS = {"order": 0.2, "prepare": 0.1, "train": 0.3, "evaluate": 0.4}


def check(parse, content):
    """Parse a message; return whether it was accepted."""
    before = time.perf_counter()
    try:
        value = parse(content)
    except RecordError as error:
        str(error)
        return False
    finally:
        assert time.perf_counter() - before < 2.0
    assert comparable(parse(rewritten(value))) == comparable(value)
    return True


def fuzz(name, cases, seed):
    honest, parse = PARSERS[name]
    messages, mutator, accepted = honest(), MessageMutator(seed), 0
    for _ in range(cases):
        content = mutator.mutate(messages)
        try:
            accepted += check(parse, content)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r} on {content!r}"[:4000]) from error
    return accepted


@pytest.mark.parametrize("name", PARSERS)
def test_changed_messages_are_understood_or_refused(name):
    fuzz(name, int(2_000 * WEIGHTS[name]), seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_20_000_changed_messages_are_understood_or_refused(name):
    fuzz(name, int(20_000 * WEIGHTS[name]), seed=2)


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PARSERS)
def test_200_000_changed_messages_are_understood_or_refused(name):
    fuzz(name, int(200_000 * WEIGHTS[name]), seed=3)


@pytest.mark.parametrize("name", PARSERS)
def test_honest_messages_are_understood(name):
    honest, parse = PARSERS[name]
    for content in honest():
        assert check(parse, content)


@pytest.mark.parametrize("name", PARSERS)
def test_changed_messages_get_past_the_first_checks(name):
    assert 20 < fuzz(name, 200, seed=4) < 180


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("evaluate", "bad_dealers", b"[1]"),
        ("evaluate", "bad_dealers", b"[null]"),
        ("evaluate", "bad_dealers", b'{"a":1}'),
        ("evaluate", "fingerprint", "text"),
        ("evaluate", "key", b"{}"),
        ("train", "update", b""),
        ("train", "reports", b"{}"),
        ("prepare", "readers", b"[[]]"),
        ("order", "round", True),
        ("order", "round", 0),
        ("order", "round", 2**32),
        ("order", "attempt", 1.0),
        ("order", "task", b"0x"),
        ("order", "openings", b"[{}]"),
        ("order", "openings", b"[null]"),
        ("order", "kind", "enrol"),
    ],
)
def test_a_field_of_another_type_is_refused(name, field, value):
    honest, parse = PARSERS[name]
    content = next(c for c in honest() if field in c[wire.TWOPM] and c[wire.TWOPM][field] != b"")
    changed = RecordDict(dict(content))
    changed[wire.TWOPM] = ConfigRecord({**content[wire.TWOPM], field: value})
    with pytest.raises(RecordError, match=r"."):
        parse(changed)


@pytest.mark.parametrize("proofs", [b"[]", b'{"a":1}', b'{"a":[1]}', b'{"a":["x",null]}'])
def test_proofs_that_are_no_digests_are_refused(proofs):
    content = next(c for c in honest_orders() if "proofs" in c[wire.TWOPM])
    changed = RecordDict(dict(content))
    changed[wire.TWOPM] = ConfigRecord({**content[wire.TWOPM], "proofs": proofs})
    with pytest.raises(RecordError, match="'proofs'"):
        wire.parse_order(changed)


# Messages made of anything at all

TEXT = st.one_of(st.sampled_from(NAMES), st.text(max_size=8))
ARRAYS = st.builds(
    Array,
    dtype=st.sampled_from(["float32", "uint8", "O", ""]),
    shape=st.lists(st.integers(-1, 2**40), max_size=3).map(tuple),
    stype=st.one_of(st.sampled_from(["numpy.ndarray", wire.UPDATE_STYPE]), st.text(max_size=5)),
    data=st.one_of(
        st.binary(max_size=40), st.sampled_from([Array(a).data for a in MODEL.values()])
    ),
)
FIELD = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    TEXT,
    st.binary(max_size=30),
    st.sampled_from([b"[]", b"{}", b"null", b"[[]]", b'[{"a":1}]', b'{"a":[1]}']),
    st.lists(st.integers(0, 9), max_size=2),
)
FIELDS = st.sampled_from(
    [
        "kind", "task", "round", "attempt", "manifest", "updates", "proofs", "openings", "readers",
        "reports", "update", "fingerprint", "evaluation", "key", "bad_dealers",
    ]
)  # fmt: skip
KINDS = st.sampled_from(["prepare", "train", "evaluate", "close", "enrol", "join", "", 3, b"train"])
OURS = st.builds(
    lambda fields, kind: ConfigRecord({**fields, "kind": kind}),
    st.dictionaries(FIELDS, FIELD, max_size=15),
    KINDS,
)


@st.composite
def contents(draw):
    content = RecordDict()
    for name in draw(st.lists(TEXT, max_size=4)):
        content[name] = draw(
            st.one_of(
                st.dictionaries(TEXT, ARRAYS, max_size=2).map(ArrayRecord),
                st.dictionaries(TEXT, FIELD, max_size=2).map(ConfigRecord),
            )
        )
    if draw(st.booleans()):
        content[wire.TWOPM] = draw(OURS)
    return content


@settings(max_examples=150, deadline=None)
@given(contents())
def test_messages_of_anything_are_understood_or_refused(content):
    for _, parse in PARSERS.values():
        check(parse, content)


TERABYTES = b"(1099511627776,), }"


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", (3,), "pickle", Array(np.ones(3, np.float32)).data),
        Array("float32", (3,), "numpy.ndarray", b""),
        Array("float32", (3,), "numpy.ndarray", b"\x80\x04N."),
        Array("float32", (3,), "numpy.ndarray", b"PK\x03\x04"),
        Array("float32", (3,), "numpy.ndarray", Array(np.ones(3, np.float32)).data[:-1]),
        Array("float32", (4,), "numpy.ndarray", Array(np.ones(3, np.float32)).data),
        Array("float32", (2**62,), "numpy.ndarray", Array(np.ones(3, np.float32)).data),
        Array("float32", (-1,), "numpy.ndarray", Array(np.ones(3, np.float32)).data),
        Array("float32", (3,), "numpy.ndarray", Array(np.ones(3, np.float64)).data),
        Array(np.array(["text"])),
        Array(np.ones(3, ">f4")),
        Array(
            "float32",
            (2**40,),
            "numpy.ndarray",
            Array(np.ones(3, np.float32)).data.replace(b"(3,), }" + 12 * b" ", TERABYTES),
        ),
    ],
    ids=[
        "kind", "empty", "pickle", "zip", "cut", "shape", "huge shape", "negative", "other type",
        "text", "big-endian", "huge header",
    ],
)  # fmt: skip
def test_an_array_that_is_not_what_it_says_is_refused_before_it_is_made(array):
    with pytest.raises(RecordError, match="array 'w' of the model"):
        plain_array("w", array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 4)])
def test_models_of_either_memory_order_arrive_as_they_are(shape, order):
    sent = np.asarray(np.random.default_rng(0).normal(size=shape), np.float32, order=order)
    got = plain_array("w", Array(sent))
    np.testing.assert_array_equal(got, sent)
    assert got.shape == shape
    assert got.dtype == np.float32
    got[...] = 1.0  # an app may change what it is given

"""What other parties say is quoted in logs, manifests and errors, and steers no terminal."""

import io
import logging

import pytest
from flwr.app import Error, Message, MessageType
from hypothesis import given
from hypothesis import strategies as st

from twopm_flower.errors import QuorumError
from twopm_flower.federated.flower_internals import log_as_flower
from twopm_flower.federated.harmless_log import HARMLESS_LOG

HOSTILE = "x\x1b[2K\x9b8m\u202e\rINFO : \nround 9: all is well"
STEERING = set("\x00\x07\x08\r\x1b\x7f\x85\x9b\u2028\u202e\ud800")
BAD = 3


@pytest.fixture
def terminal():
    """What a handler of the host shows, with Flower's or any other program's formatter."""
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


@pytest.mark.parametrize("values", [(HOSTILE,), (ValueError(HOSTILE),), ({"quoted": HOSTILE},)])
def test_a_quoted_value_stays_in_its_line(terminal, values):
    log_as_flower()
    form = "said:\t%(quoted)s" if isinstance(values[0], dict) else "said:\t%s"
    logging.getLogger("twopm_flower.somewhere").warning(form, *values)
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.startswith("said:\tx\u241b[2K")
    assert not STEERING & set(shown)


def fail():
    raise ValueError(HOSTILE)


def test_a_traceback_is_shown_in_lines_and_its_message_steers_nothing(terminal):
    log_as_flower()
    try:
        fail()
    except ValueError:
        logging.getLogger("twopm_flower.somewhere").exception("round %d of %.1f failed", 1, 2)
    shown = terminal.getvalue()
    assert shown.startswith("round 1 of 2.0 failed\nTraceback")
    assert "\u241b[2K" in shown
    assert not STEERING & set(shown)


def test_the_log_of_other_programs_is_left_alone(terminal):
    log_as_flower()
    logging.getLogger("flwr").warning("%s", "\x1b[32mgreen\x1b[0m")
    logging.getLogger("twopm_flowers").warning("%s", "\x1b[32m")
    assert terminal.getvalue().count("\x1b[32m") == 2


@given(st.text(st.characters() | st.sampled_from(sorted(STEERING | set("%\n\t")))))
def test_whatever_is_quoted_its_printable_characters_are_shown_as_they_are(text):
    record = logging.LogRecord("twopm_flower.x", logging.INFO, "", 0, "%s", (text,), None)
    assert HARMLESS_LOG.filter(record)
    shown = record.getMessage()
    assert len(shown) == len(text)
    assert not (STEERING | {"\n"}) & set(shown)
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable())


def test_a_hostile_reason_is_listed_and_logged_harmlessly(federate, terminal):
    federation = federate(rounds=1)

    def refuse(deliver, message, index):
        if index == BAD and message.metadata.message_type == MessageType.TRAIN:
            return Message(Error(0, HOSTILE), reply_to=message)
        return deliver(message)

    federation.make_grid().messages.append(refuse)
    federation.run()
    (listed,) = federation.bundle().rounds[0].manifest.exclusions
    lines = [line for line in terminal.getvalue().split("\n") if "left out (error)" in line]
    assert lines
    for shown in (listed.detail, *lines):
        assert "\u241b[2K" in shown
        assert "all is well" in shown
    assert not STEERING & set(listed.detail + terminal.getvalue())


def test_a_hostile_reason_is_quoted_harmlessly_by_the_error_that_ends_a_run(federate):
    federation = federate(rounds=1)

    def refuse(deliver, message, index):
        if index in {BAD, BAD - 1} and message.metadata.message_type == MessageType.TRAIN:
            return Message(Error(0, HOSTILE), reply_to=message)
        return deliver(message)

    federation.make_grid().messages.append(refuse)
    with pytest.raises(QuorumError) as caught:
        federation.run()
    assert str(caught.value).count("\u241b[2K") == 2
    assert not STEERING & set(str(caught.value))

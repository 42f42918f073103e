"""Services that misbehave on the wire: each ends in an error of ours, and soon."""

import gc
import ssl
import threading
import time

import pytest
from scripted_server import http, says, scripted

from twopm_flower.errors import (
    ConfigError,
    InferenceError,
    InferenceMismatch,
    InferenceRefused,
    InferenceUnavailable,
)
from twopm_flower.inference.agreed_model import ClientPolicy
from twopm_flower.inference.client import PrivateInferenceClient
from twopm_flower.inference.client_flow import MOST_CARD_BYTES
from twopm_flower.node.certificates import create_server_certificates

LIMIT_S = 0.3


def failure(kind, script, home, **policy):
    """Ask a scripted service for its card; return how that fails, within the time limit."""
    chosen = ClientPolicy(**{"retries": 0, "timeout_s": LIMIT_S, **policy})
    with (
        scripted(script) as (url, _),
        PrivateInferenceClient(url, home=home, policy=chosen) as client,
    ):
        started = time.monotonic()
        with pytest.raises(kind) as caught:
            client.card()
    assert time.monotonic() - started < 10 * chosen.timeout_s
    return str(caught.value)


def drip(data, seconds=60.0):
    """Send a byte now and then, each of them in time, and never come to an end."""

    def answer(connection, request):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(LIMIT_S / 10)

    return answer


@pytest.mark.parametrize(
    "script",
    [
        drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 1000),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"{" * 1000),
        lambda connection, request: time.sleep(LIMIT_S * 2),
    ],
    ids=["headers", "body", "silence"],
)
def test_a_service_that_takes_its_time_is_given_no_more_than_the_limit(tmp_path, script):
    assert f"more than {LIMIT_S:g} s" in failure(InferenceUnavailable, script, tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
    ],
    ids=["closed", "truncated", "not-http", "bad-chunks", "huge-headers"],
)
def test_what_is_no_whole_answer_is_no_answer(tmp_path, data):
    failure(InferenceUnavailable, says(data), tmp_path)


def test_nobody_at_the_address_is_said_so(tmp_path):
    with scripted(says(b"")) as (url, _):
        pass
    with (
        PrivateInferenceClient(url, home=tmp_path, policy=ClientPolicy(retries=1)) as client,
        pytest.raises(InferenceUnavailable, match="asked 2 times"),
    ):
        client.card()


@pytest.mark.parametrize("announced", [True, False])
def test_an_answer_without_end_is_cut_off(tmp_path, announced):
    head = b"HTTP/1.1 200 OK\r\n"
    head += b"Content-Length: 99999999999\r\n\r\n" if announced else b"Connection: close\r\n\r\n"
    sent = []

    def flood(connection, request):
        connection.sendall(head)
        while len(sent) < 64:
            connection.sendall(b" " * MOST_CARD_BYTES)
            sent.append(1)

    said = failure(InferenceMismatch, flood, tmp_path, timeout_s=5.0)
    assert f"more than {MOST_CARD_BYTES} bytes" in said
    assert len(sent) < 32


def test_a_redirection_is_not_followed(tmp_path):
    with scripted(says(http("200 OK", b"{}"))) as (elsewhere, seen):
        redirection = http("307 Temporary Redirect", Location=f"{elsewhere}/v1/model")
        assert elsewhere in failure(InferenceMismatch, says(redirection), tmp_path)
    assert seen == []


def test_what_is_packed_is_not_unpacked(tmp_path):
    packed = http("200 OK", b"\x1f\x8b\x08" + b"\0" * 100, Content_Encoding="gzip")
    asked = []

    def answer(connection, request):
        asked.append(request.lower())
        connection.sendall(packed)

    assert "packed" in failure(InferenceMismatch, answer, tmp_path)
    assert b"accept-encoding: identity" in asked[0]


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 100_000, b"null", b"\xff\xfe", b"<html>"])
def test_what_is_no_card_is_refused(tmp_path, body):
    said = failure(InferenceMismatch, says(http("200 OK", body)), tmp_path)
    assert "no model card" in said


def test_a_refusal_is_told(tmp_path):
    body = b'{"type":"about:blank","title":"no","status":403,"detail":"not on the list"}'
    refusal = http("403 Forbidden", body, Content_Type="application/problem+json")
    assert "not on the list" in failure(InferenceRefused, says(refusal), tmp_path)


def test_a_client_can_be_used_after_an_error_and_closed_twice(tmp_path):
    with scripted(says(b""), says(http("403 Forbidden"))) as (url, seen):
        client = PrivateInferenceClient(url, home=tmp_path, policy=ClientPolicy(retries=0))
        with client:
            for kind in (InferenceUnavailable, InferenceRefused):
                with pytest.raises(kind):
                    client.card()
        client.close()
    assert len(seen) == 2


def test_a_client_that_is_forgotten_leaves_no_thread_behind(tmp_path):
    with scripted(says(http("403 Forbidden"))) as (url, _):
        before = set(threading.enumerate())
        client = PrivateInferenceClient(url, home=tmp_path)
        with pytest.raises(InferenceError):
            client.card()
        started = set(threading.enumerate()) - before
        (thread,) = (each for each in started if each.name == "private-inference")
        del client
        gc.collect()
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("inference.example", "no address"),
        ("ftp://127.0.0.1/", "no address"),
        ("http://inference.example", "not encrypted"),
        ("http://127.0.0.1.example.com", "not encrypted"),
        ("http://user:word@127.0.0.1", "no user"),
        ("https://host:99999", "no address"),
        ("https://[::", "no address"),
    ],
)
def test_addresses_that_are_none_or_give_something_away_are_refused(tmp_path, url, reason):
    with pytest.raises(ConfigError, match=reason):
        PrivateInferenceClient(url, home=tmp_path)


def test_plain_http_to_another_machine_has_to_be_asked_for(tmp_path):
    with PrivateInferenceClient(
        "http://inference.example/below/", home=tmp_path, insecure=True
    ) as client:
        assert client.url == "http://inference.example/below"


@pytest.mark.parametrize("trusted", ["its own", "another", "the system's", "of another host"])
def test_a_service_has_to_show_a_certificate_that_is_trusted(tmp_path, trusted):
    hosts = ("elsewhere.example",) if trusted == "of another host" else ("127.0.0.1",)
    shown = create_server_certificates(tmp_path / "service", hosts)
    other = create_server_certificates(tmp_path / "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(shown.certificate, shown.key)
    ca_file = {"another": other.authority, "the system's": None}.get(trusted, shown.authority)
    kind = InferenceRefused if trusted == "its own" else InferenceUnavailable
    with (
        scripted(says(http("403 Forbidden")), tls=context) as (url, seen),
        PrivateInferenceClient(url, home=tmp_path, ca_file=ca_file) as client,
        pytest.raises(kind) as caught,
    ):
        client.card()
    assert len(seen) == (trusted == "its own")
    if trusted != "its own":
        assert "asked once" in caught.value.message
        assert "certificate" in caught.value.message
        assert "--ca" in caught.value.hint


def test_certificates_that_are_none_are_named(tmp_path):
    for name, data in (("missing.pem", None), ("other.pem", b"not a certificate")):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=name):
            PrivateInferenceClient("https://127.0.0.1:1", home=tmp_path, ca_file=tmp_path / name)

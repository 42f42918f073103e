"""No feature of a student reaches a service in plain: not its wire, its memory, nor its files."""

import socket
import sys
import time

import numpy as np
import pytest
from service_process import running_service
from sniffing import found_in, found_in_files, found_in_memory, needles, wiretap

from twopm_flower.datasets import FeatureEncoder
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.inference.client import PrivateInferenceClient
from twopm_flower.privacy.linear_parameters import LinearParameters

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read through /proc"),
]

STUDENTS = synthetic_students("mat", 40)
FEATURES = FeatureEncoder("A").encode_features(STUDENTS)
ROW = 17


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def wanted(service, tmp_path_factory):
    with PrivateInferenceClient(service.url, home=tmp_path_factory.mktemp("asker")) as client:
        parameters = LinearParameters.from_dict(client.card().parameters)
    line = format_students(STUDENTS.iloc[[ROW]]).splitlines()[1]
    return needles(FEATURES[ROW], parameters, line)


def in_memory(service, wanted):
    return found_in_memory(service.pid, wanted)


def test_a_sniffer_finds_no_student_that_was_predicted_for(service, wanted, tmp_path):
    with (
        wiretap(service.port) as (port, heard),
        PrivateInferenceClient(f"http://127.0.0.1:{port}", home=tmp_path) as client,
    ):
        client.predict(STUDENTS.iloc[[ROW]])
        client.predict(STUDENTS)
        assert in_memory(service, wanted) == set()
        # What was asked is in the requester's home, and it is a ciphertext there, too.
        assert found_in_files(tmp_path, wanted) == set()
    assert len(heard) > 10_000
    assert found_in(bytes(heard), wanted) == set()
    assert found_in_files(service.folder, wanted) == set()


def test_the_same_sniffer_finds_a_student_that_is_sent_in_plain(service, wanted, tmp_path):
    plain = b"".join(
        [wanted["csv"], *(FEATURES[ROW].astype(kind).tobytes() for kind in (np.float32, float))]
    )
    with (
        wiretap(service.port) as (port, heard),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        # More is announced than is sent, so that the service is left holding it.
        connection.sendall(
            b"POST /v1/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: 40000\r\n\r\n" + plain
        )
        expected = {"csv", "float32", "float64"}
        found: set[str] = set()
        deadline = time.monotonic() + 30
        while not found >= expected and time.monotonic() < deadline:
            found |= in_memory(service, wanted)
        assert found >= expected
        assert found_in(bytes(heard), wanted) >= expected
    (tmp_path / "students.csv").write_bytes(format_students(STUDENTS))
    assert found_in_files(tmp_path, wanted) == {"csv"}

"""Who may connect to a signer, how many at once, and for how long."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from signer_stage import Serving, local_service, transaction

from twopm_flower.signer import server
from twopm_flower.signer.audit import check_audit
from twopm_flower.signer.server import UnixServer

NOBODY = 65534


@pytest.fixture
def service(tmp_path):
    made, state, _ = local_service(tmp_path)
    yield made
    state.close()


def serving(stack, made, path, **options):
    listening = stack.enter_context(UnixServer(made, path, **options))
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    stack.callback(thread.join)
    stack.callback(listening.shutdown)
    asking = Serving.__new__(Serving)
    asking.socket = path
    return asking


def test_a_client_that_drips_is_cut_off_in_time(service, tmp_path):
    with ExitStack() as stack:
        asking = serving(stack, service, tmp_path / "s.sock", timeout_s=0.3)
        started = time.monotonic()
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(tmp_path / "s.sock"))
            slow.settimeout(10)
            while time.monotonic() - started < 10:
                try:
                    slow.sendall(b"P")
                except OSError:
                    break
                time.sleep(0.02)
        assert time.monotonic() - started < 10
        assert asking.ask("eth_accounts")[0] == 200


def test_connections_beyond_the_limit_are_closed_and_others_are_served_again(
    service, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    with ExitStack() as stack:
        asking = serving(stack, service, tmp_path / "s.sock")
        silent = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
        for connection in silent:
            connection.connect(str(tmp_path / "s.sock"))
        with socket.socket(socket.AF_UNIX) as fourth:
            fourth.settimeout(10)
            fourth.connect(str(tmp_path / "s.sock"))
            assert fourth.recv(1) == b""
        for connection in silent:
            connection.close()
        deadline = time.monotonic() + 10
        while asking.exchange(b"GET /upcheck HTTP/1.0\r\n\r\n")[0] != 200:
            assert time.monotonic() < deadline


ASK_AS_NOBODY = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect(sys.argv[1])
    asking.settimeout(10)
    try:
        asking.sendall(b"GET /upcheck HTTP/1.0\\r\\n\\r\\n")
        print(asking.recv(20).decode())
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize(("allowed", "answered"), [(12345, False), (NOBODY, True)])
def test_the_kernel_tells_which_user_connects(service, allowed, answered):
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        serving(stack, service, folder / "s.sock", uids=[allowed])
        done = subprocess.run(
            [sys.executable, "-c", ASK_AS_NOBODY, str(folder / "s.sock"), str(NOBODY)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert ("200" in done.stdout) is answered


def test_a_user_that_is_not_named_cannot_even_open_the_socket(service, tmp_path):
    with ExitStack() as stack:
        serving(stack, service, tmp_path / "s.sock")
        assert (tmp_path / "s.sock").stat().st_mode & 0o077 == 0


def test_many_who_ask_at_once_each_get_their_answer_and_the_log_holds(service, tmp_path):
    with ExitStack() as stack:
        asking = serving(stack, service, tmp_path / "s.sock")
        with ThreadPoolExecutor(8) as pool:
            same = [transaction(nonce=0) for _ in range(4)]
            others = [transaction(nonce=0, data=f"0x015a18ed{n:064x}") for n in range(4)]
            fresh = [transaction(nonce=n) for n in range(1, 9)]
            asked = [*same, *others, *fresh]
            answers = list(pool.map(lambda t: asking.ask("eth_signTransaction", t)[0], asked))
        assert answers[8:] == [200] * 8
        # Of five different calls with one nonce one was signed, whichever came first.
        assert sum(status == 200 for status in answers[:8]) in (1, 4)
        found = check_audit(tmp_path / "audit.jsonl")
        assert (found.signed, found.signed + found.refused) == (answers.count(200), 16)

"""A crash in native code costs one worker process, and never the process that asked."""

import os
import select
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from privacy_factories import a_layout, a_seeded, bfv, plaintext

from twopm_flower.errors import ConfigError, NativeCrash, PrivacyError
from twopm_flower.privacy import isolated, native_worker
from twopm_flower.privacy.backend import backend_names, open_backend
from twopm_flower.privacy.ciphertext import SeededCiphertext
from twopm_flower.privacy.isolated import COMMAND, IsolatedBackend, NativeWorker
from twopm_flower.privacy.keys import SecretBytes, SharedKey
from twopm_flower.privacy.parameters import AdditiveParameters

P = bfv()
SEEDED = a_seeded(P, a_layout(9001))


@pytest.fixture
def backend():
    backend = IsolatedBackend(P)
    yield backend
    backend.close()


def end(pid, with_signal):
    """Send a signal and wait until the process is dead, without reaping it."""
    os.kill(pid, with_signal)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def answering(*pieces, tail="pass"):
    """Return a command that reads one message of any size and answers with `pieces`."""
    script = (
        "import sys, time, os\n"
        "header = sys.stdin.buffer.read(16)\n"
        "sys.stdin.buffer.read(int.from_bytes(header[8:], 'little'))\n"
        f"os.write(1, {b''.join(pieces)!r})\n{tail}\n"
    )
    return (sys.executable, "-c", script)


def header(kind, length, magic=b"2PMW"):
    return struct.pack("<4sB3xQ", magic, kind, length)


def expect_crash(command, message, *, timeout_s=30.0):
    with NativeWorker(P, timeout_s=timeout_s, command=command) as worker:
        with pytest.raises(NativeCrash, match=message):
            worker.expand(SEEDED.seeds)
        assert worker.pid is None


@pytest.mark.parametrize("name", backend_names())
def test_an_isolated_backend_grows_what_the_backend_itself_grows(name):
    parameters = AdditiveParameters.derive(name, 10, 2)
    isolated_one = IsolatedBackend(parameters)
    for size in (2, 41, 9001):
        seeded = a_seeded(parameters, a_layout(size))
        assert isolated_one.expand(seeded) == open_backend(parameters).expand(seeded)
    isolated_one.close()


def test_many_rows_go_through_the_pipes_in_full(backend):
    seeded = a_seeded(P, a_layout(2 * 2048 * 700))
    grown = backend.expand(seeded).c1
    few = [0, 63, 64, 699]
    alone = SeededCiphertext(seeded.c0[: 4 * 2048], seeded.seeds[few])
    np.testing.assert_array_equal(grown[few], open_backend(P).expand(alone).c1)


def test_no_process_is_started_before_there_is_something_to_grow():
    isolated_one = IsolatedBackend(plaintext())
    isolated_one.expand(a_seeded(plaintext(), a_layout(41)))
    assert isolated_one.worker.pid is None


def test_one_process_serves_many_calls(backend):
    backend.expand(SEEDED)
    pid = backend.worker.pid
    backend.expand(SEEDED)
    assert backend.worker.pid == pid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=["KILL", "SEGV"])
def test_a_worker_that_dies_between_calls_is_replaced(backend, how, caplog):
    before = backend.expand(SEEDED)
    first = backend.worker.pid
    end(first, how)
    assert backend.expand(SEEDED) == before
    assert backend.worker.pid != first
    assert f"was ended by {how.name}" in caplog.text
    assert is_gone(first), "the dead worker was not reaped"


def test_a_worker_that_died_between_calls_fails_no_call():
    with NativeWorker(P) as worker:
        expected = worker.expand(SEEDED.seeds)
        end(worker.pid, signal.SIGKILL)
        np.testing.assert_array_equal(worker.expand(SEEDED.seeds), expected)


def test_an_interrupt_from_the_terminal_is_left_to_the_server():
    with NativeWorker(P) as worker:
        worker.expand(SEEDED.seeds)
        pid = worker.pid
        os.kill(pid, signal.SIGINT)
        worker.expand(SEEDED.seeds)
        assert worker.pid == pid


def test_what_a_library_prints_does_not_end_up_in_an_answer():
    chatty = (
        "import os, twopm_flower.privacy.tenseal_bfv as library\n"
        "from twopm_flower.privacy import native_worker\n"
        "honest = library.BfvBackend.expand\n"
        "library.BfvBackend.expand = lambda *a: [os.write(1, b'noise'), honest(*a)][1]\n"
        "native_worker.main()\n"
    )
    with NativeWorker(P, command=(sys.executable, "-c", chatty)) as worker:
        grown = worker.expand(SEEDED.seeds)
    np.testing.assert_array_equal(grown, open_backend(P).expand(SEEDED).c1)


def dying(tmp_path, how, times):
    """Return the real worker's command, whose first `times` processes die while they grow."""
    starts = tmp_path / "starts"
    script = (
        "import os, signal, twopm_flower.privacy.tenseal_bfv as library\n"
        "from twopm_flower.privacy import native_worker\n"
        f"with open({str(starts)!r}, 'a+') as file:\n"
        "    file.write('x')\n"
        "    file.seek(0)\n"
        f"    if len(file.read()) <= {times}:\n"
        f"        die = lambda *_: os.kill(os.getpid(), {int(how)})\n"
        "        library.BfvBackend.expand = die\n"
        "native_worker.main()\n"
    )
    return (sys.executable, "-c", script), starts


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=["KILL", "SEGV"])
def test_a_worker_that_dies_during_a_call_is_named_and_the_next_call_works(tmp_path, how):
    command, starts = dying(tmp_path, how, 1)
    with NativeWorker(P, command=command) as worker:
        with pytest.raises(NativeCrash) as caught:
            worker.expand(SEEDED.seeds)
        assert f"was ended by {how.name} while it grew 3 seeds" in str(caught.value)
        assert worker.pid is None
        grown = worker.expand(SEEDED.seeds)
    np.testing.assert_array_equal(grown, open_backend(P).expand(SEEDED).c1)
    assert starts.read_text() == "xx"


def test_one_death_during_a_call_does_not_cost_the_node_its_update(tmp_path, caplog):
    command, _ = dying(tmp_path, signal.SIGKILL, 1)
    with NativeWorker(P, command=command) as worker:
        found = IsolatedBackend(P, worker=worker).expand(SEEDED)
    assert found == open_backend(P).expand(SEEDED)
    assert "was ended by SIGKILL" in caplog.text


def test_an_update_that_kills_every_worker_is_given_up_after_two(tmp_path):
    command, starts = dying(tmp_path, signal.SIGSEGV, 99)
    with NativeWorker(P, command=command) as worker:
        with pytest.raises(NativeCrash, match="SIGSEGV"):
            IsolatedBackend(P, worker=worker).expand(SEEDED)
        assert starts.read_text() == "xx"
        assert worker.pid is None


def test_a_real_crash_in_the_library_ends_the_worker_alone():
    crash = (
        "import ctypes, sys, twopm_flower.privacy.tenseal_bfv as b\n"
        "from twopm_flower.privacy import native_worker\n"
        "b.BfvBackend.expand = lambda self, seeded: ctypes.string_at(0)\n"
        "native_worker.main()\n"
    )
    expect_crash((sys.executable, "-c", crash), "was ended by SIGSEGV while it grew 3 seeds")


def test_a_worker_that_hangs_is_ended_and_named():
    with NativeWorker(P, timeout_s=30.0) as worker:
        worker.expand(SEEDED.seeds)
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)
        worker._timeout_s = 0.2
        with pytest.raises(NativeCrash, match=r"took longer than 0.2 s while it grew 3 seeds"):
            worker.expand(SEEDED.seeds)
        assert is_gone(pid)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (answering(b""), "ended with status 0 while it started"),
        (answering(header(3, 0)[:7]), "ended with status 0 while it started"),
        (answering(bytes(16)), "answered nonsense while it started: the header 0000"),
        (answering(b"Traceback (most"), "ended with status 0"),
        (answering(b"Traceback (most recent call last)"), "nonsense"),
        (answering(header(3, 0, b"2PMX")), "nonsense"),
        (answering(header(1, 0)), "nonsense"),
        (answering(header(3, 1)), "nonsense"),
        (answering(header(3, 2**64 - 1)), "nonsense"),
        (answering(header(4, 2**40)), "nonsense"),
        (answering(header(3, 0), header(3, 3 * 2048 * 8), bytes(100)), "ended with status 0"),
        (answering(header(3, 0), header(3, 2**63), tail="time.sleep(60)"), "nonsense"),
        (answering(tail="sys.exit(7)"), "ended with status 7"),
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with status 3 while it started"),
    ],
)
def test_garbage_on_the_pipe_is_an_error_and_never_a_result(command, message):
    expect_crash(command, message)


def test_a_worker_that_never_answers_is_given_up():
    expect_crash(answering(tail="time.sleep(60)"), "took longer than 0.5 s", timeout_s=0.5)


def test_an_answer_that_is_no_residue_is_refused():
    beyond = (2**54).to_bytes(8, "little") * 2048
    command = answering(header(3, 0), header(3, len(beyond)), beyond, tail="time.sleep(60)")
    worker = NativeWorker(P, command=command)
    backend = IsolatedBackend(P, worker=worker)
    with pytest.raises(PrivacyError, match="not below the modulus"):
        backend.expand(a_seeded(P, a_layout(41)))
    os.kill(worker.pid, signal.SIGKILL)
    backend.close()


def test_a_refusal_is_told_in_the_workers_own_words():
    refusal = "Ünusable".encode()
    command = answering(header(4, len(refusal)), refusal, tail="sys.stdin.read()")
    with (
        NativeWorker(P, command=command) as worker,
        pytest.raises(PrivacyError, match="refused: Ünusable"),
    ):
        worker.expand(SEEDED.seeds)


def test_the_worker_ends_when_its_input_does():
    child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.communicate(b"", timeout=30) == (b"", None)
    assert child.returncode == 0


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_the_worker_does_not_outlive_a_parent_that_is_killed(tmp_path):
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_isolated import P, SEEDED, IsolatedBackend\n"
        "backend = IsolatedBackend(P)\n"
        "backend.expand(SEEDED)\n"
        "print(backend.worker.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        (sys.executable, "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker = int(parent.stdout.readline())
    watch = os.pidfd_open(worker)
    parent.kill()
    parent.communicate()
    ended, _, _ = select.select([watch], [], [], 30)
    os.close(watch)
    assert ended, "the worker is still there"


def test_nothing_is_left_when_the_backend_is_forgotten():
    backend = IsolatedBackend(P)
    backend.expand(SEEDED)
    pid = backend.worker.pid
    del backend
    assert is_gone(pid)


def test_closing_twice_is_fine_and_a_later_call_starts_again(backend):
    expected = backend.expand(SEEDED)
    backend.close()
    backend.close()
    assert backend.worker.pid is None
    assert backend.expand(SEEDED) == expected


def test_calls_from_several_threads_do_not_mix(backend):
    inputs = [a_seeded(P, a_layout(9001), seed) for seed in range(8)]
    found = [None] * len(inputs)

    def work(index):
        found[index] = backend.expand(inputs[index])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = open_backend(P)
    assert found == [own.expand(seeded) for seeded in inputs]


def test_a_servers_backend_neither_encrypts_nor_decrypts(backend):
    key = SharedKey("bfv", SecretBytes(bytes(512)))
    for call in (
        backend.generate_key,
        lambda: backend.encrypt(np.zeros(3, np.int64), key),
        lambda: backend.decrypt(backend.expand(SEEDED), key),
    ):
        with pytest.raises(PrivacyError, match="only grows seeds"):
            call()
    assert backend.needs_key
    assert backend.name == "bfv"


def test_the_process_that_asks_does_not_load_the_library():
    script = (
        "import sys, twopm_flower.privacy.isolated\nraise SystemExit('tenseal' in sys.modules)\n"
    )
    assert subprocess.run((sys.executable, "-c", script), check=False).returncode == 0


# The worker's own side


def serve(data, tmp_path):
    source, sink = tmp_path / "in", tmp_path / "out"
    source.write_bytes(data)
    with source.open("rb") as messages, sink.open("wb") as answers:
        native_worker.serve(messages, answers)
    return sink.read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        bytes(16),
        header(2, 64) + bytes(64),  # expand before open
        header(9, 0),
        header(1, 5) + b"{}",
        header(1, 2**60),
        header(1, 2, b"2PMX") + b"{}",
    ],
    ids=["cut", "zeros", "early", "unknown", "short", "huge", "magic"],
)
def test_the_worker_speaks_to_nobody_but_us(data, tmp_path):
    with pytest.raises(ValueError, match=r"."):
        serve(data, tmp_path)


def test_the_worker_says_why_parameters_are_refused(tmp_path):
    data = b'{"backend":"rot13","fields":2,"max_nodes":3}'
    said = serve(header(1, len(data)) + data, tmp_path)
    assert said[:8] == header(4, 0)[:8]
    assert b"'rot13' is unknown" in said
    wrong = NativeWorker(P)
    object.__setattr__(wrong, "_parameters", _Unusable())
    with pytest.raises(PrivacyError, match=r"refused.*rot13"):
        wrong.expand(SEEDED.seeds)
    wrong.close()


class _Unusable:
    def to_dict(self):
        return {"backend": "rot13", "fields": 2, "max_nodes": 3}


def test_what_is_given_up_is_one_of_our_errors():
    assert issubclass(NativeCrash, PrivacyError)
    assert not issubclass(ConfigError, NativeCrash)
    assert isolated.TIMEOUT_S >= 60

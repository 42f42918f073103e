"""A crash of native code on the server costs one worker process; the run goes on."""

import os
import signal
import sys

import pytest

from twopm_flower.federated import wire
from twopm_flower.federated.exchange import TrainOrder
from twopm_flower.privacy import isolated
from twopm_flower.verify import verify_bundle

pytestmark = pytest.mark.slow

BAD = 3


@pytest.fixture
def workers(monkeypatch):
    """Remember every worker process that the server starts."""
    started = []
    honest = isolated.NativeWorker._running_child

    def remembering(worker):
        child = honest(worker)
        if child.pid not in started:
            started.append(child.pid)
        return child

    monkeypatch.setattr(isolated.NativeWorker, "_running_child", remembering)
    return started


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_the_server_grows_seeds_in_one_process_that_ends_with_the_run(federate, workers):
    federation = federate(rounds=2)
    federation.run()
    assert len(workers) == 1
    assert gone(workers[0])


def test_a_worker_that_is_killed_between_rounds_costs_nothing(federate, workers):
    federation = federate(rounds=3)

    def kill(deliver, message, index):
        order = wire.parse_order(message.content)
        if index == 0 and isinstance(order, TrainOrder) and order.round > 1:
            os.kill(workers[-1], signal.SIGKILL)
        return deliver(message)

    federation.make_grid().messages.append(kill)
    federation.run()
    assert len(workers) == 3
    assert [len(entry.manifest.survivors) for entry in federation.bundle().rounds] == [4, 4, 4]
    assert verify_bundle(federation.bundle(), chain=federation.stage.reader()).exit_code == 0


def test_an_update_that_crashes_native_code_is_left_out_and_the_run_goes_on(
    federate, workers, monkeypatch, tmp_path
):
    # The worker of this test dies of the bad node's seeds, every time.
    federation = federate(rounds=1)
    deadly = tmp_path / "seeds"
    script = (
        "import os, pathlib, twopm_flower.privacy.tenseal_bfv as library\n"
        "from twopm_flower.privacy import native_worker\n"
        "honest = library.BfvBackend.expand\n"
        "def expand(backend, seeded):\n"
        f"    if seeded.seeds.tobytes() == pathlib.Path({str(deadly)!r}).read_bytes():\n"
        "        os.kill(os.getpid(), 11)\n"
        "    return honest(backend, seeded)\n"
        "library.BfvBackend.expand = expand\n"
        "native_worker.main()\n"
    )
    command = (sys.executable, "-c", script)
    monkeypatch.setattr(isolated.NativeWorker.__init__, "__kwdefaults__", {
        **isolated.NativeWorker.__init__.__kwdefaults__, "command": command,
    })  # fmt: skip

    def note(deliver, message, index):
        reply = deliver(message)
        if index == BAD and isinstance(wire.parse_order(message.content), TrainOrder):
            frame = wire.parse_train_reply(reply.content).frame
            deadly.write_bytes(frame[184 : 184 + 64])
        return reply

    federation.make_grid().messages.append(note)
    federation.run()
    (listed,) = federation.bundle().rounds[0].manifest.exclusions
    assert listed.node == federation.nodes[BAD].address
    assert listed.reason == "error"
    assert "was ended by SIGSEGV while it grew 1 seeds" in listed.detail
    assert all(gone(pid) for pid in workers)

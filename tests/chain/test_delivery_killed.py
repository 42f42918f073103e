"""Deliveries that are killed at every step and at random moments; nothing is lost or doubled."""

import json
import random
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from chain_stage import Stage, digest

from twopm_flower.chain.base import RoundCall
from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.chain.evm import EvmConnector, deploy
from twopm_flower.chain.outbox import Outbox

STEPS = ("queued", "reserved", "signed", "stored", "sent", "included", "mined", "final")


class Scene:
    """A chain in one process, and a parent of processes to be killed in another."""

    def __init__(self, process):
        self._process = process
        deployment = deploy(process.url, process.signer)
        self.stage = Stage(EvmConnector(process.url, deployment, process.signer))
        self._nodes = self.stage.registered_nodes(2)
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("outbox_victim.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self):
        self._parent.communicate()

    def task(self, rounds):
        return self.stage.running_task(self._nodes, rounds=rounds)

    def plan(self, path, calls, **how):
        return {
            "url": self._process.url,
            "deployment": self.stage.connector.deployment().to_json(),
            "key_file": str(self._process.folder / "account.key"),
            "outbox": str(path),
            "calls": [asdict(call) for call in calls],
            **how,
        }

    def run(self, plan):
        self._parent.stdin.write(json.dumps(plan) + "\n")
        self._parent.stdin.flush()
        return json.loads(self._parent.stdout.readline())

    def recorded(self, task_id):
        return [
            RoundCall(task_id, r.round, r.attempt, r.manifest_digest, r.updates_root)
            for r in self.stage.connector.round_records(task_id)
        ]

    def finish(self, path, calls):
        """Whoever comes back queues what it knows again: it cannot know how far it got."""
        outbox = Outbox(path)
        for call in calls:
            outbox.enqueue(call)
        outbox.deliver(self.stage.connector)
        assert [entry.state for entry in outbox.entries()] == ["final"] * len(calls)
        outbox.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with DevnetProcess(tmp_path_factory.mktemp("killed-chain")) as process:
        scene = Scene(process)
        yield scene
        scene.close()


def rounds_of(task_id, count):
    return [RoundCall(task_id, n, 1, digest(100 + n), digest(200 + n)) for n in range(1, count + 1)]


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_any_step_leaves_each_record_exactly_once(scene, tmp_path, step):
    path = tmp_path / "outbox.sqlite"
    task_id = scene.task(2)
    calls = rounds_of(task_id, 2)
    for number in (1, 2):
        # The second life gets one entry further than the first, and is killed there.
        statuses = scene.run(scene.plan(path, calls, die_at=[step, number]))
        assert statuses == [-signal.SIGKILL]
    scene.finish(path, calls)
    assert scene.recorded(task_id) == calls


@pytest.mark.parametrize(
    "kills", [pytest.param(5, id="5"), pytest.param(50, id="50", marks=pytest.mark.full)]
)
def test_a_process_killed_at_random_moments_leaves_each_record_exactly_once(scene, tmp_path, kills):
    chance = random.Random(kills)
    for kill in range(kills):
        path = tmp_path / f"{kill}.sqlite"
        task_id = scene.task(3)
        calls = rounds_of(task_id, 3)
        scene.run(scene.plan(path, calls, kill_after_s=chance.uniform(0.0, 0.5)))
        scene.finish(path, calls)
        assert scene.recorded(task_id) == calls


def test_processes_that_deliver_the_same_at_once_record_it_once(scene, tmp_path):
    task_id = scene.task(3)
    calls = rounds_of(task_id, 3)
    twins = [scene.plan(tmp_path / f"{n}.sqlite", calls) for n in range(2)]
    assert scene.run({"together": twins}) == [0, 0]
    assert scene.recorded(task_id) == calls


def test_four_processes_deliver_from_one_account(scene, tmp_path):
    tasks = [scene.task(3) for _ in range(4)]
    plans = [
        scene.plan(tmp_path / f"{n}.sqlite", rounds_of(task_id, 3))
        for n, task_id in enumerate(tasks)
    ]
    assert scene.run({"together": plans}) == [0] * 4
    for task_id in tasks:
        assert scene.recorded(task_id) == rounds_of(task_id, 3)

"""The other two deployed runs: a node and the chain are killed mid-run; then a second node."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.errors import DeploymentError
from twopm_flower.federated.submitted_app import submitted_app_digest
from twopm_flower.node.app_folder import write_app_folder
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.flower_cli import Run
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.runs import load_run
from twopm_flower.node.supervisor import Deployment
from twopm_flower.node.terms import TaskSettings, read_run_config
from twopm_flower.verify import verify_bundle

pytestmark = [pytest.mark.deployed, pytest.mark.timeout(1200)]
ROUNDS = 3


@dataclass
class Stage:
    """Four nodes, a chain and an app, without a SuperLink yet."""

    federation: LocalFederation
    app: Path
    folder: Path
    overrides: dict[str, int] = field(default_factory=lambda: {"rounds": ROUNDS})

    def deployment(self) -> Deployment:
        """Create a task of all four nodes, and a deployment that runs it."""
        task = self.federation.prepare(
            read_run_config(self.app, self.overrides),
            TaskSettings(synthetic=True),
            app_bundle=submitted_app_digest(self.app),
            data=DataSource(allow_download=False),
        )
        self.task_id = task.task_id
        return Deployment(
            self.folder / f"flower-{task.task_id[:10]}",
            coordinator_home=self.federation.coordinator,
            task=task.task_id,
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("faults")
    app = write_app_folder(folder / "app")
    with pytest.MonkeyPatch.context() as patch:
        # Made-up students: these runs are about faults, and the demo's is about the data.
        patch.delenv("TWOPM_DATA_DIR", raising=False)
        with LocalFederation(folder / "federation", 4) as federation:
            yield Stage(federation, app, folder)


def wait_for(run: Run, pattern: str) -> None:
    """Follow the server's log up to a line."""
    for line in run.lines():
        if re.search(pattern, line):
            return
    raise AssertionError(f"{pattern!r} never came:\n{run.process.text()}")


def restart_chain(federation: LocalFederation) -> None:
    """Serve the same chain at the same address again."""
    old = federation.devnet
    federation.devnet = DevnetProcess(old.folder, port=old.port).start()


def test_a_run_survives_a_killed_node_and_a_chain_outage(stage: Stage) -> None:
    with stage.deployment() as deployment:
        deployment.add_nodes(stage.federation.homes)
        run = deployment.submit(stage.app, stage.overrides)
        wait_for(run, r"\[ROUND 2/")
        deployment.kill_node("dave")
        stage.federation.devnet.kill()
        wait_for(run, r"round 2, attempt \d+: added 3 ")
        restart_chain(stage.federation)
        for _ in run.lines():
            pass
        deployment.require_success(run)

    bundle = load_run(stage.federation.coordinator, stage.task_id).bundle
    report = verify_bundle(bundle, chain=stage.federation.reader())
    assert report.exit_code == 0, report.first_failure
    assert [len(entry.manifest.survivors) for entry in bundle.rounds] == [4, 3, 3]
    assert bundle.rounds[1].manifest.exclusions or bundle.rounds[1].superseded
    records = stage.federation.reader().round_records(stage.task_id)
    attempts = [(record.round, record.attempt) for record in records]
    assert len(attempts) == len(set(attempts))
    assert {round_ for round_, _ in attempts} == set(range(1, ROUNDS + 1))


# In process the same is asked of every stage of a round (tests/federated/test_dropouts.py).
@pytest.mark.full
def test_a_run_with_too_few_nodes_left_stops_and_says_what_to_do(stage: Stage) -> None:
    homes = dict(list(stage.federation.homes.items())[:3])
    with stage.deployment() as deployment:
        deployment.add_nodes(homes)
        run = deployment.submit(stage.app, stage.overrides)
        wait_for(run, r"\[ROUND 2/")
        deployment.kill_node("carol")
        for _ in run.lines():
            pass
        with pytest.raises(DeploymentError, match=r"finished:failed") as caught:
            deployment.require_success(run)
    told = str(caught.value)
    assert re.search(r"2 (valid updates|nodes are connected|nodes signed)", told), told
    assert "3 are needed" in told

"""The made-up app of ``twopm bench round`` on a SuperLink and SuperNodes of this machine."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import twopm_flower
from twopm_flower.bench import deployed_round, round_app
from twopm_flower.bench.deployed_clock import CLOCK_KEY, slowest_mods
from twopm_flower.bench.round_report import DeployedRound
from twopm_flower.federated.run_store import Timings
from twopm_flower.federated.submitted_app import submitted_app_digest
from twopm_flower.federated.terms import build_terms
from twopm_flower.node.federation import LocalFederation
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.runs import load_run
from twopm_flower.node.supervisor import Deployment
from twopm_flower.node.surroundings import ending_on_signals
from twopm_flower.node.terms import read_run_config
from twopm_flower.records.terms import TrustMode

_LICENSE = Path(twopm_flower.__file__).parent / "templates" / "encrypted-app" / "LICENSE"
_APP = """\
[project]
name = "deployed-round"
version = "1.0.0"
description = "A network that twopm bench round measures"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "twopm"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["deployed_round/*.py", "LICENSE"]

[tool.flwr.app.components]
serverapp = "deployed_round.server_app:app"
clientapp = "deployed_round.client_app:app"

[tool.flwr.app.config]
"""


def deploy_made_up(
    folder: Path,
    *,
    run_config: dict[str, int],
    privacy: TrustMode,
    clip: float,
    told: Callable[[str], None],
) -> tuple[DeployedRound, ...]:
    """Train the made-up app below an empty folder: a chain, a SuperLink, TLS, SuperNodes.

    Parameters
    ----------
    folder : Path
    run_config : dict of str to int
        ``parameters``, ``rows`` and ``epochs`` of `round_app`, ``rounds`` and ``nodes``.
    privacy : str
    clip : float
    told : callable
        Is told what is done.

    Raises
    ------
    DeploymentError
        The run failed; its reason is quoted.
    """
    clock = folder / "clock"
    clock.touch()
    app = write_app(folder / "app", {**run_config, CLOCK_KEY: str(clock)})
    nodes, rows = run_config["nodes"], run_config["rows"]
    model = round_app.initial(run_config["parameters"])
    data = folder / "rows.txt"
    data.write_text("made up by every node itself\n", encoding="utf-8")
    terms = build_terms(
        model,
        title="SYNTHETIC images",
        rounds=run_config["rounds"],
        trust_mode=privacy,
        clip=clip,
        min_contributors=nodes,
        quorum=nodes,
        max_samples=rows,
        max_nodes=nodes,
        train_metrics=dict(round_app.METRICS),
        evaluation_metrics=dict(round_app.METRICS),
        train_config={},
        evaluate_config={},
        run_config=read_run_config(app),
        app_bundle=submitted_app_digest(app),
        dataset={"name": "made-up-images", "label": "SYNTHETIC images", "synthetic": True},
    )
    with ending_on_signals(), LocalFederation(folder, nodes, told=told) as federation:
        source = DataSource(path=data, samples=rows)
        task = federation.prepare_terms(terms, model, data=[source] * nodes)
        with Deployment(
            folder / "flower", coordinator_home=federation.coordinator, task=task.task_id
        ) as deployment:
            deployment.add_nodes(federation.homes)
            run = deployment.submit(app)
            for line in run.lines():
                if started := re.search(r"\[ROUND (\d+)/\d+\]", line):
                    told(f"deployed: round {started[1]}")
            deployment.require_success(run)
        timings = load_run(federation.coordinator, task.task_id).timings
        return deployed_rounds(timings, slowest_mods(clock))


def write_app(folder: Path, run_config: dict[str, Any]) -> Path:
    """Write the app to an empty folder, ready to be submitted, and return the folder."""
    target = folder / "deployed_round"
    target.mkdir(parents=True)
    for module in Path(deployed_round.__path__[0]).glob("*.py"):
        shutil.copyfile(module, target / module.name)
    shutil.copyfile(_LICENSE, folder / "LICENSE")
    # What JSON writes of numbers and paths is TOML as well.
    config = "".join(f"{name} = {json.dumps(value)}\n" for name, value in run_config.items())
    (folder / "pyproject.toml").write_text(_APP + config, encoding="utf-8")
    return folder


def deployed_rounds(timings: Timings, mods_s: Sequence[float] = ()) -> tuple[DeployedRound, ...]:
    """Return what was measured of a deployment's rounds.

    Parameters
    ----------
    timings : Timings
        What the server measured.
    mods_s : sequence of float
        What `slowest_mods` gives, where nodes measure their mods.
    """
    return tuple(
        DeployedRound(
            round=timing.round,
            wall_s=timing.train_s + timing.own_s + timing.evaluate_s,
            own_s=timing.own_s,
            mod_s=mod_s,
        )
        for timing, mod_s in zip_longest(timings.rounds, mods_s[: len(timings.rounds)])
    )

"""`twopm bench round` as a library."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from quiet import Quiet

from twopm_flower.bench import round_app
from twopm_flower.bench.deployed_clock import slowest_mods
from twopm_flower.bench.round import RoundOptions, run_round
from twopm_flower.bench.round_deployment import write_app
from twopm_flower.bench.round_report import DeployedRound, RoundFigures, RoundReport
from twopm_flower.errors import ConfigError
from twopm_flower.federated.submitted_app import submitted_app_digest
from twopm_flower.node.terms import read_run_config


@pytest.fixture(scope="module")
def report() -> RoundReport:
    return run_round(RoundOptions(rounds=2, parameters=1000, rows=64, epochs=1), Quiet())


def test_the_parts_of_a_round_do_not_exceed_it(report: RoundReport) -> None:
    for rounds in (report.encrypted, report.plain):
        assert [figures.round for figures in rounds] == [1, 2]
        for figures in rounds:
            parts = (figures.app_s, figures.mod_s, figures.strategy_s)
            assert min(parts) > 0
            assert sum(parts) <= figures.wall_s * 1.001


def test_encryption_takes_time_that_plain_flower_does_not(report: RoundReport) -> None:
    assert min(f.mod_s for f in report.encrypted) > 5 * max(f.mod_s for f in report.plain)
    assert 0 < report.share < 1
    assert report.steady == report.encrypted[1:]


def test_a_report_of_rounds_is_the_same_after_a_way_through_json(report: RoundReport) -> None:
    deployed = report.with_deployment((DeployedRound(round=1, wall_s=2.0, own_s=0.5),))
    for found in (report, deployed):
        assert RoundReport.from_json(found.to_json()) == found
    assert '"format": "twopm-flower/bench-round/v1"' in report.to_json()
    assert report.app == "network"
    assert (report.parameters, report.rows, report.epochs) == (1278, 64, 1)


def test_a_deployed_round_is_charged_with_the_strategy_and_the_mods_on_all_cores(
    report: RoundReport,
) -> None:
    figures = RoundFigures(round=1, wall_s=1.0, app_s=0.1, mod_s=0.6, strategy_s=0.1)
    machine = report.machine.model_copy(update={"cores": 2})
    known = report.model_copy(update={"encrypted": (figures,), "nodes": 3, "machine": machine})
    rounds = (DeployedRound(round=1, wall_s=4.0, own_s=0.2),)
    deployed = known.with_deployment(rounds).deployed
    assert deployed is not None
    assert deployed.overhead_s == pytest.approx(0.1 + 0.6 / 2)
    assert deployed.share == pytest.approx(0.1)
    own = known.with_deployment(
        tuple(DeployedRound(round=n, wall_s=4.0, own_s=0.2, mod_s=m) for n, m in ((1, 9), (2, 0.7)))
    ).deployed
    assert own is not None
    assert own.overhead_s == pytest.approx(0.1 + 0.7)


def test_a_deployed_round_waits_for_the_slowest_nodes_mods(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    lines = [
        {"node": node, "kind": kind, "app": app, "mod_s": seconds}
        for node, kind, app, seconds in (
            (0, "train", True, 1.0),
            (1, "train", True, 2.0),
            (1, "evaluate", True, 0.25),
            (0, "evaluate", True, 0.5),
            (0, "train", True, 4.0),
            (1, "train", True, 3.0),
            (0, "evaluate", True, 0.5),
            (1, "evaluate", True, 0.5),
            (1, "train", False, 99.0),
        )
    ]
    clock.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert slowest_mods(clock) == [2.5, 4.5]


def test_the_made_up_app_can_be_submitted(tmp_path: Path) -> None:
    config = {"parameters": 1000, "rows": 5, "clock": str(tmp_path / "a clock")}
    app = write_app(tmp_path / "app", config)
    assert read_run_config(app) == config
    assert submitted_app_digest(app).startswith("0x")


def test_a_benchmark_leaves_the_users_home_and_environment_alone() -> None:
    before = dict(os.environ)
    home = Path(before["TWOPM_HOME"])
    run_round(RoundOptions(rounds=1, parameters=1000, rows=32, epochs=1), Quiet())
    assert dict(os.environ) == before
    assert not (home / "simulation").exists()
    assert not (home / "runs").exists()


def test_the_made_up_app_learns() -> None:
    model = round_app.network(20_000)
    x, y = round_app.images(0, 100)
    _, before = round_app.measured(model, x, y)
    round_app.train_model(model, x, y, epochs=10)
    _, after = round_app.measured(model, x, y)
    assert after < before - 0.03


@pytest.mark.parametrize(("asked", "found"), [(1000, 1278), (1_068_298, 1_068_298)])
def test_the_made_up_app_has_about_the_size_that_was_asked_for(asked, found) -> None:
    assert sum(array.size for array in round_app.initial(asked).values()) == found
    assert np.array_equal(*(round_app.initial(asked)["0.bias"] for _ in range(2)))


@pytest.mark.parametrize(
    "wrong", [{"parameters": 999}, {"rounds": 0}, {"nodes": 2}, {"rows": 0}, {"epochs": 0}]
)
def test_rounds_that_cannot_be_measured_are_refused_at_once(wrong) -> None:
    with pytest.raises(ConfigError):
        RoundOptions(**wrong)


@pytest.mark.slow
def test_the_showcase_is_measured_too() -> None:
    found = run_round(RoundOptions(rounds=1), Quiet())
    assert found.app == "showcase"
    assert found.parameters == 42
    assert (found.rows, found.epochs) == (None, None)
    assert found.share == found.encrypted[0].share

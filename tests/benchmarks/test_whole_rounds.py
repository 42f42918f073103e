"""`twopm bench round` as a library."""

import os
from pathlib import Path

import numpy as np
import pytest
from quiet import Quiet

from twopm_flower.bench import round_app
from twopm_flower.bench.round import RoundOptions, run_round
from twopm_flower.bench.round_report import DeployedRound, RoundFigures, RoundReport
from twopm_flower.errors import ConfigError


@pytest.fixture(scope="module")
def report() -> RoundReport:
    return run_round(RoundOptions(rounds=2, parameters=1000, rows=64), Quiet())


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
    assert report.app == "perceptron"
    assert abs(report.parameters - 1000) < 50


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


def test_a_benchmark_leaves_the_users_home_and_environment_alone() -> None:
    before = dict(os.environ)
    home = Path(before["TWOPM_HOME"])
    run_round(RoundOptions(rounds=1, parameters=1000, rows=32), Quiet())
    assert dict(os.environ) == before
    assert not (home / "simulation").exists()
    assert not (home / "runs").exists()


def test_the_made_up_app_learns(report: RoundReport) -> None:
    model = round_app.initial(2000)
    inputs = round_app.shapes(2000)[0][0]
    y = np.arange(320) % round_app.OUTPUTS
    x = np.eye(inputs, dtype=np.float32)[y] * 3
    before = round_app._measured(model, x, y, 1)["loss"]
    for _ in range(200):
        round_app._step(model, x, y)
    assert round_app._measured(model, x, y, 1)["loss"] < 0.5 * before


@pytest.mark.parametrize("wrong", [{"parameters": 999}, {"rounds": 0}, {"nodes": 2}, {"rows": 0}])
def test_rounds_that_cannot_be_measured_are_refused_at_once(wrong) -> None:
    with pytest.raises(ConfigError):
        RoundOptions(**wrong)


@pytest.mark.slow
def test_the_showcase_is_measured_too() -> None:
    found = run_round(RoundOptions(rounds=1), Quiet())
    assert found.app == "showcase"
    assert found.parameters == 42
    assert found.rows is None
    assert found.share == found.encrypted[0].share

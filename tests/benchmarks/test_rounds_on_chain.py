"""``twopm bench chain`` measures real chains, and says what it could not measure."""

import json

import pytest
from typer.testing import CliRunner

from twopm_flower.cli import app

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "families", ["evm", pytest.param("evm,ledger,solana", marks=pytest.mark.full)]
)
def test_every_kind_of_chain_is_measured(families, tmp_path):
    out = tmp_path / "chain.json"
    sizes = ["--rounds", "2", "--processes", "2", "--records", "2", "--nodes", "2,3"]
    options = [*sizes, "--families", families, "--json", "--out"]
    outcome = CliRunner().invoke(app, ["bench", "chain", *options, str(out)])
    assert outcome.exit_code == 0, outcome.output
    report = json.loads(outcome.stdout)
    assert report == json.loads(out.read_text())
    assert [chain["family"] for chain in report["chains"]] == families.split(",")
    for chain in report["chains"]:
        assert len(chain["latencies_s"]) == 2
        assert min(chain["latencies_s"]) > 0 < chain["throughput_per_s"]
        first, second = chain["work"]
        assert (first["nodes"], second["nodes"]) == (2, 3)
        # A ledger counts no work.
        assert (chain["family"] == "ledger") == (first["later"] == 0)
    gas = report["chains"][0]["work"]
    # A zero byte of a digest costs 12 less than another: a few of them come by chance.
    assert gas[0]["later"] == pytest.approx(gas[1]["later"], abs=12 * 6)
    assert gas[0]["later"] < gas[0]["first"] < 60_000
    assert len(report["signer"]["isolated_s"]) == len(report["signer"]["local_s"]) == 4
    assert report["skipped"] == {}


def test_a_chain_that_does_not_exist_is_named():
    outcome = CliRunner().invoke(app, ["bench", "chain", "--families", "nowhere", "--json"])
    report = json.loads(outcome.stdout)
    assert report["chains"] == []
    assert "nowhere" in report["skipped"]["nowhere"]

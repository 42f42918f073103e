"""``twopm bench chain`` measures real chains, and says what it could not measure."""

import json

import pytest
from typer.testing import CliRunner

from twopm_flower.cli import app

pytestmark = pytest.mark.slow


def test_every_kind_of_chain_is_measured(tmp_path):
    out = tmp_path / "chain.json"
    sizes = ["--rounds", "2", "--processes", "2", "--records", "2", "--nodes", "2,3"]
    options = [*sizes, "--json", "--out"]
    outcome = CliRunner().invoke(app, ["bench", "chain", *options, str(out)])
    assert outcome.exit_code == 0, outcome.output
    report = json.loads(outcome.stdout)
    assert report == json.loads(out.read_text())
    assert [chain["family"] for chain in report["chains"]] == ["evm", "ledger", "solana"]
    for chain in report["chains"]:
        assert len(chain["latencies_s"]) == 2
        assert min(chain["latencies_s"]) > 0 < chain["throughput_per_s"]
        assert [work["nodes"] for work in chain["work"]] == [2, 3]
    evm, ledger, solana = report["chains"]
    assert evm["work"][0]["later"] == evm["work"][1]["later"] < 60_000
    assert evm["work"][0]["first"] < 60_000
    assert ledger["work"][0]["later"] == 0 < solana["work"][0]["later"]
    assert len(report["signer"]["isolated_s"]) == len(report["signer"]["local_s"]) == 4
    assert report["skipped"] == {}


def test_a_chain_that_does_not_exist_is_named():
    outcome = CliRunner().invoke(app, ["bench", "chain", "--families", "nowhere", "--json"])
    report = json.loads(outcome.stdout)
    assert report["chains"] == []
    assert "nowhere" in report["skipped"]["nowhere"]

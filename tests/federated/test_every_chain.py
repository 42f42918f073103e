"""The whole story on the chains that are no EVM: run there, verified by their own readers."""

from dataclasses import dataclass

import numpy as np
import pytest
from federation import Federation, Stage, federation
from typer.testing import CliRunner

from twopm_flower.chain.facts import Finalisation, RoundRecord
from twopm_flower.cli import app
from twopm_flower.node.chain_file import chain_toml
from twopm_flower.verify import verify_bundle
from twopm_flower.verify.report import Report

NODES, ROUNDS = 3, 2


def slow(*values):
    return pytest.param(values, marks=pytest.mark.slow)


STORIES = [
    ("ledger", "one-time-key"),
    ("solana", "shared-key"),
    slow("ledger", "shared-key"),
    slow("solana", "one-time-key"),
]


@dataclass
class Story:
    """A finished run, and what its chain said of it before the chain's process ended."""

    federation: Federation
    report: Report
    records: tuple[RoundRecord, ...]
    final: Finalisation

    def stored(self):
        reader = self.federation.stage.offline()
        assert reader is not None
        return reader


def tell(family, trust_mode, folder) -> Story:
    stage = Stage.open(folder, family, identities=NODES)
    try:
        made = federation(
            stage, folder / "federation", nodes=NODES, rounds=ROUNDS, trust_mode=trust_mode
        )
        made.run()
        report = verify_bundle(made.bundle(), chain=stage.reader())
        records = stage.reader().round_records(made.task_id)
        final = stage.reader().finalisation(made.task_id)
    finally:
        stage.devnet.stop()
    assert final is not None
    return Story(made, report, records, final)


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """Return every story that was asked for; each is told once."""
    told = {}

    def once(family, trust_mode):
        if (family, trust_mode) not in told:
            told[family, trust_mode] = tell(family, trust_mode, tmp_path_factory.mktemp(family))
        return told[family, trust_mode]

    return once


@pytest.fixture(params=STORIES, ids="-".join)
def story(request, stories):
    return stories(*request.param)


def assert_every_step_holds(report):
    assert report.exit_code == 0, report.first_failure
    # Without the ciphertexts of the coordinator no sum is added up again.
    assert [s.title for s in report.steps if s.status != "passed"] == ["sums re-executed"]
    assert (report.anchored, report.finalised) == (True, True)
    assert report.rounds == report.planned_rounds == ROUNDS


def test_a_run_on_the_chain_ends_with_one_model_at_all_nodes_and_is_verified(story):
    assert_every_step_holds(story.report)
    first, *others = story.federation.nodes
    assert story.final.model_digest == first.progress.model_digest
    for node in others:
        for name, array in first.model(ROUNDS).items():
            np.testing.assert_array_equal(node.model(ROUNDS)[name], array)


def test_it_is_verified_when_the_chains_process_has_ended(story):
    assert not story.federation.stage.devnet.is_running
    stored = story.stored()
    assert_every_step_holds(verify_bundle(story.federation.bundle(), chain=stored))
    assert stored.round_records(story.federation.task_id) == story.records


def test_the_bundle_names_the_transactions_and_blocks_that_the_chain_names(story):
    bundle, stored = story.federation.bundle(), story.stored()
    assert len(bundle.rounds) == ROUNDS
    for entry, record in zip(bundle.rounds, story.records, strict=True):
        assert entry.record is not None
        for name in ("transaction_hash", "block_number", "block_hash", "head"):
            assert getattr(entry.record, name) == getattr(record, name)
        assert stored.block_hash(record.block_number) == record.block_hash
    assert bundle.finalisation is not None
    for name in type(bundle.finalisation).model_fields:
        assert getattr(bundle.finalisation, name) == getattr(story.final, name)


def test_the_bundle_of_one_chain_is_refused_against_another(stories):
    here = stories("solana", "shared-key")
    there = stories("ledger", "one-time-key")
    report = verify_bundle(here.federation.bundle(), chain=there.stored())
    assert report.exit_code == 1
    assert report.first_failure is not None
    assert (report.first_failure.number, report.anchored) == (2, False)
    assert "deployment.family" in report.first_failure.detail

    deployment = there.federation.stage.deployment
    moved = here.federation.bundle().model_copy(update={"deployment": deployment})
    report = verify_bundle(moved, chain=there.stored())
    assert report.exit_code == 1
    assert report.first_failure is not None
    assert here.federation.task_id in report.first_failure.detail


def test_another_record_in_the_bundle_is_noticed_on_the_chain(story):
    bundle = story.federation.bundle()
    first, last = bundle.rounds
    assert first.record is not None
    changed = first.model_copy(update={"record": last.record})
    moved = bundle.model_copy(update={"rounds": (changed, last)})
    report = verify_bundle(moved, chain=story.stored())
    assert report.first_failure is not None
    assert report.first_failure.number == 10


WORK = {"ledger": None, "solana": "units"}


def test_who_looks_at_the_run_sees_what_the_chain_counts_and_no_gas(story, tmp_path, monkeypatch):
    made, file = story.federation, tmp_path / "chain.toml"
    file.write_text(chain_toml(made.stage.settings()))
    monkeypatch.setenv("COLUMNS", "80")
    family = made.stage.deployment.family

    def shown(*words: str) -> str:
        run = CliRunner().invoke(app, [*words, "--home", str(made.coordinator)])
        assert run.exit_code == 0, run.output
        assert max(map(len, run.output.splitlines())) <= 80
        assert "gas" not in run.output
        assert "None" not in run.output
        return run.output

    pages = [
        shown("rounds"),
        shown("show", str(ROUNDS)),
        shown("chain", "events", made.task_id, "--chain", str(file)),
    ]
    assert [(WORK[family] or "units") in page for page in pages] == [WORK[family] is not None] * 3
    whole = story.records[-1].transaction_hash
    assert whole in "".join(pages[1].split())
    assert whole not in "".join(pages[0].split())
    status = " ".join(shown("chain", "status", "--chain", str(file)).split())
    assert f"family {family}" in status
    # The chain's process has ended: an address where nobody answers is not what was read.
    assert "endpoint the files in" in status
    shown("verify", "--chain", str(file))

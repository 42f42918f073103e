"""What a task's terms are made of, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from twopm_flower.errors import ConfigError, DataError, ProtocolViolation, RealDataMissingError
from twopm_flower.federated.home import NodeHome
from twopm_flower.federated.terms import build_terms
from twopm_flower.node.coordinate import admit, create_task
from twopm_flower.node.local_data import DataSource, load_choice, load_rows
from twopm_flower.node.membership import join_task
from twopm_flower.node.terms import (
    TaskSettings,
    build_student_terms,
    check_terms,
    quorum_warning,
    read_run_config,
)

ROOT = Path(__file__).parents[2]
DIGEST = "0x" + "ab" * 32


def build(settings=None, **changes):
    run = read_run_config(ROOT, {name.replace("_", "-"): v for name, v in changes.items()})
    return build_student_terms(run, settings or TaskSettings(), app_bundle=DIGEST)


def test_terms_are_what_the_showcase_asks_for():
    run = read_run_config(ROOT)
    terms, initial = build()
    check_terms(terms)
    assert terms.run_config == run
    assert terms.rounds == run["rounds"]
    assert terms.train_config == {n: run[n] for n in ("epochs", "lr", "batch-size", "l2", "seed")}
    assert [array.name for array in terms.arrays] == list(initial)
    assert terms.evaluation_metrics[0].name == "num-examples"
    assert terms.quorum == terms.min_contributors == 3
    assert terms.max_samples == 395


@pytest.mark.parametrize(("quorum", "members"), [(2, 4), (2, 5), (3, 6), (1, 2)])
def test_a_quorum_that_is_no_majority_is_called_what_it_is(quorum, members):
    warning = quorum_warning(quorum, members)
    assert f"{quorum} of {members} members are no majority" in warning
    assert quorum_warning(members // 2 + 1, members) is None


def test_fedprox_tells_nodes_how_strongly_it_pulls():
    terms, _ = build(proximal_mu=0.1)
    assert terms.train_config["proximal-mu"] == 0.1


def test_made_up_rows_are_announced_in_capitals():
    terms, _ = build(TaskSettings(synthetic=True))
    assert "SYNTHETIC" in terms.title
    assert "SYNTHETIC" in terms.dataset["label"]


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (TaskSettings(), {"trust_mode": "one-time-key", "colluders": 2}, "must be at least 4"),
        (TaskSettings(), {"min_contributors": 1}, "min-contributors is 1"),
        (TaskSettings(max_nodes=2), {}, "min-contributors is 3"),
        (TaskSettings(quorum=4), {}, "quorum is 4"),
        (TaskSettings(quorum=0), {}, "quorum is 0"),
        (TaskSettings(), {"rounds": 0}, "rounds is 0"),
        (TaskSettings(), {"nonsense": 1}, "no run configuration 'nonsense'"),
        (TaskSettings(), {"rounds": "five"}, "has to be a int"),
    ],
)
def test_contradictions_are_named(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(settings, **changes)


def test_an_unknown_subject_is_named():
    with pytest.raises(DataError, match="history"):
        build(subject="history")


def test_a_whole_number_is_good_enough_for_a_fraction():
    assert read_run_config(ROOT, {"lr": 1})["lr"] == 1.0


def test_a_folder_without_an_app_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_run_config(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(ConfigError, match=r"no \[tool.flwr.app\]"):
        read_run_config(tmp_path)


def test_another_apps_configuration_says_what_is_missing():
    with pytest.raises(ConfigError, match="lacks 'subject'"):
        build_student_terms({"rounds": 3}, TaskSettings(), app_bundle=DIGEST)


def test_a_node_without_real_data_joins_only_a_task_that_says_so(federate, monkeypatch, tmp_path):
    monkeypatch.delenv("TWOPM_DATA_DIR", raising=False)
    federation = federate(3)
    source = DataSource(partition=0, partitions=3, allow_download=False)
    reader, home = federation.chain.reader, federation.homes[0]
    with pytest.raises(RealDataMissingError, match="made-up"):
        join_task(home, federation.create(), source, reader=reader)
    invitation = federation.create(TaskSettings(synthetic=True))
    join_task(home, invitation, source, reader=reader)
    rows = load_rows(NodeHome(home).task(invitation.task_id))
    assert rows.is_synthetic
    assert "SYNTHETIC" in rows.label


def test_half_a_partition_is_refused(federate):
    federation = federate(3)
    reader, home = federation.chain.reader, federation.homes[0]
    invitation = federation.create()
    with pytest.raises(ConfigError, match="belong together"):
        join_task(home, invitation, DataSource(federation.data, partition=1), reader=reader)
    with pytest.raises(ConfigError, match="no partition 3 of 3"):
        join_task(home, invitation, DataSource(federation.data, 3, 3), reader=reader)


def own_terms(**changes):
    initial = {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)}
    settings = {
        "title": "own",
        "rounds": 2,
        "trust_mode": "shared-key",
        "clip": 1.0,
        "min_contributors": 3,
        "quorum": 2,
        "max_samples": 500,
        "max_nodes": 10,
        "train_metrics": {"loss": "float"},
        "evaluation_metrics": {"loss": "float"},
        "train_config": {"lr": 0.1},
        "evaluate_config": {},
        "run_config": {},
        "app_bundle": DIGEST,
        "dataset": {"label": "our records"},
    }
    return build_terms(initial, **{**settings, **changes}), initial


def test_an_app_of_ones_own_commits_to_a_file_that_only_it_understands(federate, tmp_path):
    federation = federate(3)
    reader, home = federation.chain.reader, federation.homes[0]
    terms, initial = own_terms()
    invitation = create_task(federation.coordinator, federation.chain.connector, terms, initial)
    records = tmp_path / "records.bin"
    records.write_bytes(b"anything")
    with pytest.raises(ConfigError, match="--samples"):
        join_task(home, invitation, DataSource(records), reader=reader)
    with pytest.raises(DataError, match="cannot be read"):
        join_task(home, invitation, DataSource(tmp_path / "no", samples=7), reader=reader)
    request = join_task(home, invitation, DataSource(records, samples=7), reader=reader)
    assert request.membership.statement.samples == 7
    folder = NodeHome(home).task(invitation.task_id)
    assert load_choice(folder).label == "records.bin"
    records.write_bytes(b"anything else")
    again = join_task(home, invitation, DataSource(records, samples=7), reader=reader)
    commitments = {r.membership.statement.data_commitment for r in (request, again)}
    assert len(commitments) == 2
    with pytest.raises(ConfigError, match="its own app only"):
        load_rows(folder)
    admitted = admit(federation.coordinator, federation.chain.connector, [again])
    assert admitted.members == 1
    with pytest.raises(ProtocolViolation, match="with other data"):
        admit(federation.coordinator, federation.chain.connector, [request])


def test_a_task_of_another_schema_is_refused(federate):
    federation = federate(3)
    terms, initial = build()
    other = terms.model_copy(update={"dataset": {**terms.dataset, "schema": DIGEST}})
    invitation = create_task(federation.coordinator, federation.chain.connector, other, initial)
    with pytest.raises(ConfigError, match="another version"):
        join_task(
            federation.homes[0],
            invitation,
            DataSource(federation.data),
            reader=federation.chain.reader,
        )


def test_rows_of_a_task_that_was_not_joined_are_not_there(federate):
    federation = federate(3)
    invitation = federation.create()
    with pytest.raises(ConfigError, match="chose no data"):
        load_rows(NodeHome(federation.homes[0]).task(invitation.task_id))

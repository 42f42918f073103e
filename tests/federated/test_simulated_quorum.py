"""A simulation agrees on its own terms, and says where they prove little."""

import logging

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg
from tiny_app import RUN_CONFIG, TRAIN_CONFIG, initial_weights, tiny_app

from twopm_flower.federated import EncryptedAggregation, LocalGrid, SimulationOptions


@pytest.mark.parametrize(("contributors", "warned"), [(2, True), (3, False)])
def test_a_simulation_warns_of_a_quorum_that_is_no_majority(
    tmp_path, monkeypatch, caplog, contributors, warned
):
    monkeypatch.setenv("TWOPM_HOME", str(tmp_path))
    configs = [{"partition-id": index, "num-partitions": 4} for index in range(4)]
    strategy = EncryptedAggregation(
        FedAvg(), simulation=SimulationOptions(min_contributors=contributors)
    )
    with caplog.at_level(logging.WARNING):
        strategy.start(
            grid=LocalGrid(tiny_app(), configs, dict(RUN_CONFIG)),
            initial_arrays=ArrayRecord({n: Array(w) for n, w in initial_weights().items()}),
            num_rounds=1,
            train_config=ConfigRecord(dict(TRAIN_CONFIG)),
        )
    assert ("a quorum of 2 is no majority of 4 nodes" in caplog.text) is warned
    assert ("set min-contributors to 3 or more" in caplog.text) is warned

"""What a simulation makes and says before its first round."""

import stat

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from tiny_app import RUN_CONFIG, TRAIN_CONFIG, initial_weights

from twopm_flower.errors import QuorumError, RecordError
from twopm_flower.federated import EncryptedAggregation, EncryptionMod, LocalGrid

NODES = 3


def simulate(app):
    configs = [{"partition-id": index, "num-partitions": NODES} for index in range(NODES)]
    EncryptedAggregation(FedAvg()).start(
        grid=LocalGrid(app, configs, dict(RUN_CONFIG)),
        initial_arrays=ArrayRecord({n: Array(w) for n, w in initial_weights().items()}),
        num_rounds=1,
        train_config=ConfigRecord(dict(TRAIN_CONFIG)),
    )


def test_an_app_without_the_mod_is_told_how_to_add_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TWOPM_HOME", str(tmp_path))
    app = ClientApp()

    @app.train()
    @app.evaluate()
    def answer(message, context):
        metrics = MetricRecord({"num-examples": 5})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    with pytest.raises(RecordError, match="not encrypted") as caught:
        simulate(app)
    assert "ClientApp(mods=[EncryptionMod()])" in caught.value.hint


def test_a_simulated_node_s_home_is_closed_up_to_the_first_folder_that_was_there(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TWOPM_HOME", str(tmp_path / "new" / "home"))
    app = ClientApp(mods=[EncryptionMod()])

    @app.train()
    def train(message, context):
        raise ValueError("not yet")

    with pytest.raises(QuorumError, match="does not enrol"):
        simulate(app)
    simulation = tmp_path / "new" / "home" / "simulation"
    made = [simulation.parent.parent, simulation.parent, simulation, *simulation.glob("node-*")]
    assert len(made) == 3 + NODES
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in made} == {0o700}

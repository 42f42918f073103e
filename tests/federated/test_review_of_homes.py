"""What a node's home and data look like stays at the node; a deployed home is nobody's toy."""

import re
import shutil
import sys
import types

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from tiny_app import tiny_app

from twopm_flower.federated import LocalGrid, enrolment, wire
from twopm_flower.records.canonical import canonical_bytes

ABSOLUTE_PATH = re.compile(r"(?<![\w.:])/\w")


# --- refusals --------------------------------------------------------------------------------


def readable_identity(node):
    (node.home.path / "identity.key").chmod(0o644)


def readable_sealing_key(node):
    (node.home.path / "sealing.key").chmod(0o644)


def readable_shared_key(node):
    (node.folder.path / "shared.key").chmod(0o644)


def garbled_shared_key(node):
    (node.folder.path / "shared.key").write_bytes(b"no key")


def no_shared_key(node):
    (node.folder.path / "shared.key").unlink()


def no_identity(node):
    (node.home.path / "identity.key").unlink()


def no_roster(node):
    (node.folder.path / "roster.json").unlink()


def garbled_roster(node):
    (node.folder.path / "roster.json").write_bytes(b"{")


def garbled_terms(node):
    (node.folder.path / "terms.json").write_bytes(b"{")


def garbled_progress(node):
    (node.folder.path / "progress.json").write_bytes(b"{")


def garbled_settings(node):
    (node.home.path / "config.toml").write_text("chain = [")


def no_settings(node):
    (node.home.path / "config.toml").unlink()


def unknown_setting(node):
    with (node.home.path / "config.toml").open("a") as file:
        file.write('\n[node]\nidentity_kee = "/home/alice/study/identity.key"\n')


def lost_model(node):
    for file in node.folder.path.glob("model-*.safetensors"):
        file.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        readable_identity,
        readable_sealing_key,
        readable_shared_key,
        garbled_shared_key,
        no_shared_key,
        no_identity,
        no_roster,
        garbled_roster,
        garbled_terms,
        garbled_progress,
        garbled_settings,
        no_settings,
        unknown_setting,
        lost_model,
    ],
)
def test_a_refusal_does_not_say_where_things_are_on_the_node(recorded, tmp_path, damage):
    moment = recorded.at("train", 2).copy(tmp_path)
    damage(moment.node)
    reply, node = moment.show(moment.order, tmp_path / "shown")
    assert reply.has_error()
    reason = reply.error.reason
    assert str(tmp_path) not in reason
    assert str(node.home.path) not in reason
    assert not ABSOLUTE_PATH.search(reason), reason


def test_a_refusal_in_the_evaluate_exchange_does_not_either(recorded, tmp_path):
    moment = recorded.at("evaluate", 1).copy(tmp_path)
    for update in moment.node.folder.path.glob("update-*"):
        update.write_bytes(b"nothing")
    reply, _ = moment.show(moment.order, tmp_path / "shown")
    assert reply.has_error()
    assert not ABSOLUTE_PATH.search(reply.error.reason), reply.error.reason


def test_a_badly_kept_key_is_listed_without_the_nodes_folder_in_the_public_bundle(federate):
    federation = federate(rounds=1)
    bad = federation.nodes[3]
    readable_sealing_key(bad)
    readable_identity(bad)
    federation.run()
    (listed,) = federation.bundle().rounds[0].manifest.exclusions
    assert listed.node == bad.address
    assert not ABSOLUTE_PATH.search(listed.detail)
    assert str(bad.home.path).encode() not in federation.store.bundle_path.read_bytes()


def test_how_many_rows_an_app_has_now_stays_on_the_node(federate, caplog):
    federation = federate(rounds=1)

    def grown(message, context, content):
        content["metrics"]["num-examples"] = 1234
        return content

    grid = federation.make_grid(tiny_app({3: grown}))
    with caplog.at_level("WARNING"):
        federation.run()
    told = [reply.error.reason for _, reply in grid.replied if reply.has_error()]
    (listed,) = federation.bundle().rounds[0].manifest.exclusions
    assert listed.node == federation.nodes[3].address
    for text in (*told, listed.detail):
        assert "1234" not in text
    # The node's own operator does get to see it.
    assert any("trained on 1234 samples" in record.getMessage() for record in caplog.records)


# --- deployed homes --------------------------------------------------------------------------


@pytest.fixture
def deployed_home(recorded, tmp_path, monkeypatch):
    """Return a copy of a deployed home, as $TWOPM_HOME of a process that has Ray loaded."""
    home = recorded.at("train", 1).copy(tmp_path).node.home
    monkeypatch.setenv("TWOPM_HOME", str(home.path))
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    return home


@pytest.mark.parametrize("config", [{}, {"partition-id": 0, "num-partitions": 4}])
def test_a_home_with_an_identity_is_no_simulation_whatever_is_imported(deployed_home, config):
    assert not enrolment.simulated(config)


def test_without_an_identity_a_ray_worker_is_a_simulation(deployed_home):
    (deployed_home.path / "identity.key").unlink()
    assert enrolment.simulated({})


def test_an_identity_under_another_name_counts_too(deployed_home):
    moved = deployed_home.path / "keys" / "mine.key"
    moved.parent.mkdir()
    shutil.move(deployed_home.path / "identity.key", moved)
    with (deployed_home.path / "config.toml").open("a") as file:
        file.write('\n[node]\nidentity_key = "keys/mine.key"\n')
    assert not enrolment.simulated({})


def test_a_deployed_node_is_not_enrolled_though_ray_is_loaded(recorded, deployed_home):
    before = {p: p.read_bytes() for p in deployed_home.path.rglob("*") if p.is_file()}
    grid = LocalGrid(tiny_app(), [{"partition-id": 0}], {})
    grid.contexts[1].node_config.pop(enrolment.SIMULATION_KEY)
    foreign = {
        **recorded.federation.stage.deployment.to_json(),
        "rpc_url": "http://chain.example",
    }
    content = RecordDict()
    content["arrays"] = ArrayRecord(wire.flower_arrays(recorded.federation.initial))
    content["config"] = ConfigRecord({})
    content[wire.TWOPM] = ConfigRecord({"kind": "enrol", "chain": canonical_bytes(foreign)})
    (reply,) = grid.send_and_receive(
        [Message(content, dst_node_id=1, message_type=MessageType.TRAIN)]
    )
    assert reply.has_error()
    assert "a deployed node joins through its operator only" in reply.error.reason
    assert {p: p.read_bytes() for p in deployed_home.path.rglob("*") if p.is_file()} == before

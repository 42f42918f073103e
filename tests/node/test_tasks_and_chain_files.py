"""Finding the task that a person means, going on after a stop, reading chain.toml."""

import pytest

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.chain_file import chain_toml, read_chain_file
from twopm_flower.node.membership import supernode_config
from twopm_flower.node.task_overview import overview
from twopm_flower.node.tasks import resolve_run, resolve_task, resume


def test_a_task_is_found_by_its_first_digits_or_alone(federate):
    federation = federate(3)
    first, home = federation.create().task_id, federation.coordinator
    assert resolve_task(home, None) == first
    second = federation.create().task_id
    assert resolve_task(home, second) == second
    assert resolve_task(home, second[:12]) == second
    assert resolve_task(home, second[2:12].upper()) == second
    with pytest.raises(ConfigError, match="2 tasks fit"):
        resolve_task(home, None)
    with pytest.raises(ConfigError, match=f"no task 0x123 in .*There are .*{second[:12]}"):
        resolve_task(home, "0x123")
    with pytest.raises(ConfigError, match="no task"):
        resolve_task(home, "0x" + "00" * 32)
    with pytest.raises(RecordError, match="hexadecimal"):
        resolve_task(home, "../etc")


def test_the_task_of_the_settings_is_meant_when_none_is_named(federate, monkeypatch):
    federation = federate(3)
    wanted = federation.create().task_id
    federation.create()
    monkeypatch.setenv("TWOPM_TASK", wanted)
    assert resolve_task(federation.coordinator, None) == wanted


def test_a_home_without_runs_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"no run in .*It holds no run\."):
        resolve_run(tmp_path, None)


def test_the_runs_of_a_home_are_listed_to_whoever_names_another(tmp_path):
    runs = [f"0x{digit}" + "5a" * 31 + "c" for digit in "1234567"]
    for run in runs[:1]:
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "bundle.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"no run 0xdead .*There is {runs[0][:12]}\."):
        resolve_run(tmp_path, "0xdead")
    assert resolve_run(tmp_path, "0x15a5").name == runs[0]
    for run in runs[1:]:
        (tmp_path / "runs" / run).mkdir()
        (tmp_path / "runs" / run / "bundle.json").write_text("{}")
    with pytest.raises(ConfigError, match=", and 2 more"):
        resolve_run(tmp_path, "0xdead")


def test_a_stopped_node_goes_on_once(federate):
    federation = federate(3)
    task_id = federation.ready().task_id
    home = federation.homes[0]
    folder = NodeHome(home).task(task_id)
    folder.save_progress(folder.load_progress().changed(halted="two manifests", opened_round=1))
    assert overview(home, task_id).halted == "two manifests"
    assert resume(home, task_id) == "two manifests"
    assert folder.load_progress().halted is None
    assert folder.load_progress().opened_round == 1
    with pytest.raises(ConfigError, match="did not stop"):
        resume(home, task_id)


def test_an_overview_grows_with_the_task(federate):
    federation = federate(3)
    invitation = federation.create()
    assert overview(federation.coordinator, invitation.task_id).members is None
    task_id = federation.ready().task_id
    seen = overview(federation.homes[0], task_id)
    assert (seen.members, seen.opened_round, seen.halted) == (3, 0, None)
    assert seen.key_id == NodeHome(federation.homes[1]).task(task_id).shared_key.key_id


def test_a_supernode_is_told_where_its_home_and_rows_are(federate):
    federation = federate(3)
    task_id = federation.ready().task_id
    value = supernode_config(federation.homes[1], task_id)
    assert f'twopm-home="{federation.homes[1]}"' in value
    assert f'data="{federation.data}"' in value
    assert "partition-id=1 num-partitions=3" in value


def test_a_chain_file_survives_being_written_and_read(tmp_path, chain):
    file = tmp_path / "chain.toml"
    file.write_text(chain_toml(chain.settings))
    assert read_chain_file(file) == chain.settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rpc_url = ", "no chain file, which is TOML.*twopm chain deploy"),
        ("rpc_url = 'http://x'", "chain_id"),
        ("chain_id = 1\nprivate_key = 'x'", "private_key|rpc_url"),
    ],
)
def test_a_bad_chain_file_says_what_is_wrong(tmp_path, text, message):
    file = tmp_path / "chain.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_chain_file(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_chain_file(tmp_path / "nothing.toml")

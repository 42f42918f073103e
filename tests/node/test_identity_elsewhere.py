"""A node whose identity key is held by an isolated signer."""

import sys
from pathlib import Path

import pytest
import tomli_w

sys.path.append(str(Path(__file__).parents[1] / "signer"))

from signer_stage import Key, Serving

from twopm_flower.cli.signer_policy import FeeLimits, Role, make_policy
from twopm_flower.errors import ConfigError, SignerError
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import admit
from twopm_flower.node.local_data import DataSource
from twopm_flower.node.membership import join_task
from twopm_flower.node.provision import init_node, make_card


@pytest.fixture
def serving(chain, tmp_path):
    folder = tmp_path / "vault"
    folder.mkdir(mode=0o700)
    policy = make_policy(chain.settings, Role.NODE, FeeLimits(0, 0, 0))
    values = policy.model_dump(mode="json", exclude_defaults=True)
    serving = Serving(folder, Key(folder / "identity.key"), tomli_w.dumps(values))
    yield serving
    serving.stop()


@pytest.fixture
def home(serving, tmp_path):
    home = tmp_path / "node"
    home.mkdir(mode=0o700)
    account = f'[node.signer]\nurl = "unix://{serving.socket}"\naccount = "{serving.key.address}"\n'
    (home / "config.toml").write_text(account)
    return home


def test_it_is_set_up_and_joins_a_task_without_a_key_in_its_home(home, serving, chain, federate):
    federation = federate()
    card = init_node(home, name="elsewhere", chain=chain.settings)
    assert card.registration.node == serving.key.address
    assert NodeHome(home).exists
    invitation = federation.create()
    request = join_task(home, invitation, DataSource(federation.data, 0, 3), reader=chain.reader)
    admit(federation.coordinator, chain.connector, [request])
    members = [member.node for member in chain.reader.members(invitation.task_id)]
    assert members == [serving.key.address]
    files = [file for file in home.rglob("*") if file.is_file()]
    assert files
    for file in files:
        data = file.read_bytes()
        assert serving.key.secret not in data
        assert serving.key.secret.hex().encode() not in data
    assert not (home / "identity.key").exists()


def test_nothing_is_signed_and_no_key_is_made_when_the_signer_is_away(home, serving, chain):
    init_node(home, name="elsewhere", chain=chain.settings)
    serving.stop()
    try:
        with pytest.raises(SignerError):
            make_card(home)
        assert not (home / "identity.key").exists()
    finally:
        serving.start()


def test_a_password_belongs_to_the_signer(home, chain, tmp_path):
    password = tmp_path / "password"
    with pytest.raises(ConfigError, match="isolated signer"):
        init_node(home, name="elsewhere", chain=chain.settings, password_file=password)

"""Placing the contracts: what can be refused is refused before anything is spent."""

import pytest
import requests

from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.errors import ConfigError
from twopm_flower.node.chain_file import read_chain_file
from twopm_flower.node.deploy import deploy_contracts


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with DevnetProcess(tmp_path_factory.mktemp("served") / "chain") as process:
        yield process


def blocks(endpoint: DevnetProcess) -> int:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
    answer = requests.post(endpoint.url, json=asked, timeout=10).json()
    return int(answer["result"], 16)


def test_a_home_inside_a_flower_app_is_refused_before_anything_is_spent(endpoint, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app]\npublisher = 'x'\n")
    before = blocks(endpoint)
    with pytest.raises(ConfigError, match="inside the Flower app"):
        deploy_contracts(
            tmp_path / "home",
            endpoint.url,
            endpoint.folder / "account.key",
            tmp_path / "chain.toml",
        )
    assert blocks(endpoint) == before
    assert not (tmp_path / "chain.toml").exists()


@pytest.mark.parametrize("what", ["home", "chain.toml"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_spent(
    endpoint, tmp_path, what
):
    if what == "home":
        (tmp_path / what).write_text("a file")
    else:
        (tmp_path / what).mkdir()
    before = blocks(endpoint)
    with pytest.raises(ConfigError, match=what):
        deploy_contracts(
            tmp_path / "home",
            endpoint.url,
            endpoint.folder / "account.key",
            tmp_path / "chain.toml",
        )
    assert blocks(endpoint) == before


def test_the_public_file_names_what_was_deployed(endpoint, tmp_path):
    before = blocks(endpoint)
    chain = deploy_contracts(
        tmp_path / "home", endpoint.url, endpoint.folder / "account.key", tmp_path / "chain.toml"
    )
    assert blocks(endpoint) > before
    assert read_chain_file(tmp_path / "chain.toml") == chain

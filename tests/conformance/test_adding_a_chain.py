"""A new kind of chain takes one file and one entry point; this whole suite runs over it."""

import pytest
from local_chains import ONE_FILE_BACKEND, names, with_one_file_backend

from twopm_flower.chain.backends import backend, families
from twopm_flower.errors import ConfigError


def test_a_backend_of_one_file_is_found_by_its_entry_point_and_is_in_this_suite():
    assert len(list(ONE_FILE_BACKEND.glob("*.py"))) == 1
    assert "paper" not in families()
    with pytest.raises(ConfigError, match="no chain backend 'paper'"):
        backend("paper")
    with with_one_file_backend():
        assert "paper" in families()
        assert backend("paper").family == "paper"
    assert "paper" in names()


def test_every_backend_is_in_this_suite(name, chain):
    assert name in names()
    assert chain.backend.family == ("evm" if name == "anvil" else name)
    assert {"evm", "ledger", "solana"} <= set(names())


def test_what_a_backend_tells_of_itself_is_what_its_deployments_say(chain, tmp_path):
    assert chain.backend.key_kind in {"secp256k1", "ed25519"}
    again = chain.backend.open_signer(chain.local.folder / "account.key")
    assert chain.connector(again).account == chain.connector(chain.local.signer).account
    elsewhere = chain.settings(devnet_folder=tmp_path)
    assert chain.backend.open_offline(chain.settings(devnet_folder=None)) is None
    assert chain.backend.open_offline(elsewhere) is None


def test_two_local_chains_are_never_the_same(chain, second_chain):
    one, other = chain.deployment, second_chain.deployment
    assert (one.chain_id, one.genesis_hash) != (other.chain_id, other.genesis_hash)
    assert chain.local.url != second_chain.local.url

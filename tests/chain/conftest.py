import pytest
from chain_stage import Stage

from twopm_flower.chain.devnet import Devnet
from twopm_flower.chain.evm import EvmConnector, deploy


@pytest.fixture(scope="session")
def devnet(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("devnet")) as devnet:
        yield devnet


@pytest.fixture(scope="session")
def deployment(devnet):
    return deploy(devnet.rpc, devnet.signer)


@pytest.fixture(scope="session")
def stage(devnet, deployment):
    """One chain for all tests: each makes tasks of its own."""
    return Stage(EvmConnector(devnet.rpc, deployment, devnet.signer))


@pytest.fixture(scope="session")
def nodes(stage):
    return stage.registered_nodes(3)

"""Only code that is ours to the last byte is believed."""

import pytest
from contract_calls import CONTRACTS, Contracts

from twopm_flower.chain.contracts import load_contract
from twopm_flower.chain.devnet import Devnet
from twopm_flower.chain.evm import EvmReader, deploy
from twopm_flower.errors import WrongChain


@pytest.fixture(scope="module")
def devnet(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("code")) as devnet:
        yield devnet


@pytest.fixture(scope="module")
def contracts(devnet):
    return Contracts(devnet)


def place(contracts, code):
    """Deploy code as it is: its constructor does nothing but return it."""
    length = len(code).to_bytes(2)
    # PUSH2 length, DUP1, PUSH1 11, PUSH0, CODECOPY, PUSH0, RETURN
    prefix = b"\x61" + length + b"\x80\x60\x0b\x5f\x39\x5f\xf3"
    prefix = prefix.ljust(11, b"\x00")
    receipt = contracts.transact(contracts.devnet.signer, "0x" + (prefix + code).hex())
    return receipt["contractAddress"]


@pytest.mark.parametrize("name", CONTRACTS)
def test_deployed_code_is_known_to_the_last_byte(contracts, name):
    deployed = bytes(contracts.rpc.web3.eth.get_code(contracts.address(name)))
    expected = load_contract(name).runtime_at(
        contracts.domain(name), contracts.address("NodeRegistry")
    )
    assert deployed == expected


@pytest.mark.parametrize("name", ["NodeRegistry", "TaskRegistry", "DataRegistry"])
def test_a_contract_that_takes_statements_made_for_another_is_not_believed(devnet, contracts, name):
    """Its code is ours; only the domain in its immutable values is that of an older contract."""
    ours = deploy(devnet.rpc, devnet.signer)
    code = bytes(contracts.rpc.web3.eth.get_code(contracts.address(name)))
    copied = place(contracts, code)
    assert bytes(contracts.rpc.web3.eth.get_code(copied)) == code
    field = {
        "NodeRegistry": "node_registry",
        "TaskRegistry": "task_registry",
        "DataRegistry": "data_registry",
    }[name]
    EvmReader(devnet.rpc, ours).check()
    with pytest.raises(WrongChain, match=f"the code of {name}"):
        EvmReader(devnet.rpc, ours.model_copy(update={field: copied})).check()


def test_contracts_that_are_bound_to_another_node_registry_are_not_believed(devnet, contracts):
    ours = deploy(devnet.rpc, devnet.signer)
    elsewhere = ours.model_copy(update={"node_registry": contracts.address("NodeRegistry")})
    with pytest.raises(WrongChain, match="another node registry"):
        EvmReader(devnet.rpc, elsewhere).check()

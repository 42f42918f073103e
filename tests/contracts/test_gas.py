"""What transactions cost: never more than promised, and never another figure unnoticed."""

import json
from types import SimpleNamespace

import pytest
from anvil_process import ANVIL_KEY, running_anvil
from contract_calls import Contracts
from gas_measurement import SNAPSHOT, measure

from twopm_flower.chain.contracts import CONTRACTS, load_contract
from twopm_flower.chain.devnet import Devnet
from twopm_flower.signer.keystore import LocalSigner

MOST_CODE = 24_576  # EIP-170
RENEW = "python tests/contracts/gas_measurement.py > contracts/gas.json"


@pytest.fixture(scope="module")
def gas(tmp_path_factory):
    with Devnet(tmp_path_factory.mktemp("gas")) as devnet:
        return measure(Contracts(devnet))


def test_gas_is_what_the_snapshot_says(gas):
    assert gas == json.loads(SNAPSHOT.read_text(encoding="utf-8"))["gas"], f"renew it: {RENEW}"


@pytest.mark.slow
def test_another_implementation_of_the_chain_counts_the_same(gas):
    with running_anvil() as url:
        anvil = SimpleNamespace(rpc=url, chain_id=31337, signer=LocalSigner(ANVIL_KEY))
        assert measure(Contracts(anvil)) == gas


@pytest.mark.parametrize(
    ("what", "times", "most"),
    [
        ("record the first round", 1, 60_000),
        ("record a later attempt", 1, 60_000),
        ("record the next round", 1, 60_000),
        ("register a node", 1, 75_000),
        # No task starts with fewer than two members.
        ("join two together", 2, 60_000),
        ("join three together", 3, 60_000),
        ("join ten together", 10, 60_000),
        ("anchor a batch of receipts", 1, 50_000),
    ],
)
def test_nothing_costs_more_than_promised(gas, what, times, most):
    assert gas[what] <= times * most


def test_contracts_are_small_enough_for_any_chain():
    sizes = {name: len(load_contract(name).runtime) for name in CONTRACTS}
    assert sizes == json.loads(SNAPSHOT.read_text(encoding="utf-8"))["bytes of code"], RENEW
    assert max(sizes.values()) <= MOST_CODE

"""The program runs with the features of mainnet, as far as the packaged runtime knows them."""

import pytest
from solana_machine import PROGRAM, Machine, digest, node_of
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey

SBPF_VERSION_3 = Pubkey.from_string("5cC3foj77CWun58pC51ebHFUWavHWKarWyR5UUik7dnC")
"""The gate enable_sbpf_v3_deployment_and_execution, which docs/solana.md names."""


def test_a_task_is_finalised_under_the_features_of_mainnet() -> None:
    assert LiteSVM.mainnet_feature_set().is_active(SBPF_VERSION_3)
    machine = Machine(svm=LiteSVM().with_mainnet_features())
    members = [node_of(number) for number in range(3)]
    machine.all_well(machine.initialise(), *(machine.register(node) for node in members))
    machine.all_well(machine.create_task(), *(machine.join(node) for node in members))
    machine.all_well(machine.of_task("start"), machine.record(1), machine.record(2))
    statement = machine.model()
    machine.all_well(machine.open_tally(statement), machine.add_signatures(statement, members))
    machine.all_well(machine.with_tally("finalise", statement), machine.anchor(digest("receipts")))


def test_a_cluster_without_version_three_does_not_load_the_program() -> None:
    features = LiteSVM.mainnet_feature_set()
    features.deactivate(SBPF_VERSION_3)
    svm = LiteSVM().with_feature_set(features).with_builtins()
    with pytest.raises(Exception, match="sbpf_version"):
        svm.add_program(Pubkey(b"p" * 32), PROGRAM)

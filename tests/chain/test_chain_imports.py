import subprocess
import sys

import pytest

HEAVY = ("web3", "eth", "flwr", "torch", "tenseal", "requests")


@pytest.mark.parametrize("module", ["base", "calls", "outbox", "outbox_worker"])
def test_what_knows_no_particular_chain_loads_none(module):
    script = f"import sys, twopm_flower.chain.{module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not set(HEAVY) & set(loaded)


def test_the_embedded_chain_starts_without_loading_a_client():
    script = "import sys, twopm_flower.chain.devnet; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "web3" not in loaded


def test_a_client_of_an_evm_chain_starts_without_loading_the_embedded_one():
    script = "import sys, twopm_flower.chain.evm_backend; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "eth" not in loaded


def test_the_process_of_a_nodes_message_loads_what_it_needs_only():
    script = "import sys, twopm_flower.app.client_app; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()
    # Each takes a good part of a second, in a process that lives for a few.
    assert not {"web3", "eth", "eth_account", "py_ecc", "torch", "tenseal", "numba"} & set(loaded)

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

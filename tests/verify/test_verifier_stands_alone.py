"""What the verifier costs: few imports, little time."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_simulator import simulate

from twopm_flower.verify import verify_bundle

ALONE = """
import sys
from twopm_flower.verify import load_bundle, verify_bundle
report = verify_bundle(load_bundle(sys.argv[1]), chain=None)
heavy = {"flwr", "web3", "tenseal", "torch", "numba", "llvmlite", "eth", "pandas", "ray"}
heavy &= set(sys.modules)
print(report.exit_code, sorted(heavy))
"""


@pytest.mark.parametrize("trust_mode", ["shared-key", "one-time-key"])
def test_verifying_loads_neither_flower_nor_web3_nor_any_kernel(tmp_path, trust_mode):
    path = tmp_path / "run.json"
    path.write_bytes(simulate(trust_mode=trust_mode).bundle.to_bytes())
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "2 []"


@pytest.mark.parametrize("trust_mode", ["shared-key", "one-time-key"])
def test_three_rounds_of_ten_nodes_are_verified_in_under_a_second(trust_mode):
    simulation = simulate(nodes=10, rounds=3, trust_mode=trust_mode)
    best = min(_timed(simulation) for _ in range(3))
    assert best < 1.0


def _timed(simulation):
    started = time.perf_counter()
    assert verify_bundle(simulation.bundle, chain=simulation.chain).exit_code == 0
    return time.perf_counter() - started

"""Write the bundles of two small runs anew: ``python tests/vectors/bundle_vectors.py``.

Needed after a change of the format; that older bundles verify no more is then a new version.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
RUNS = {
    "run_bundle": {"nodes": 3, "ciphertexts": False},
    "one_time_run_bundle": {"nodes": 4, "trust_mode": "one-time-key", "vanished_round": 1},
}


def main():
    """Simulate the runs and write their bundles beside this file."""
    sys.path.insert(0, str(FOLDER.parent / "verify"))
    from run_simulator import simulate

    for name, options in RUNS.items():
        bundle = simulate(rounds=1, repeated_round=None, **options).bundle
        (FOLDER / f"{name}.json").write_bytes(bundle.to_bytes())


if __name__ == "__main__":
    sys.exit(main())

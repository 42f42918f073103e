"""Lets these tests use what stands beside others: changers of inputs, chains, terms of tasks."""

import sys
from pathlib import Path

for area in ("fuzz", "conformance", "records"):
    folder = str(Path(__file__).resolve().parents[1] / area)
    if folder not in sys.path:
        sys.path.append(folder)

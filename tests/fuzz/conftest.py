"""Lets these tests use the makers of whole runs and frames that stand beside other tests."""

import sys
from pathlib import Path

for area in ("privacy", "records", "verify"):
    folder = str(Path(__file__).resolve().parent.parent / area)
    if folder not in sys.path:
        sys.path.append(folder)

"""Lets these tests use the project's changers of valid inputs."""

import sys
from pathlib import Path

FUZZ = str(Path(__file__).resolve().parents[1] / "fuzz")
if FUZZ not in sys.path:
    sys.path.append(FUZZ)

"""The stage and the records of the neighbouring folders' tests are used here, too."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in (str(TESTS / "chain"), str(TESTS / "records")):
    if folder not in sys.path:
        sys.path.append(folder)

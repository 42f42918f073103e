"""One embedded chain with registered nodes for all tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, Stage, federation
from moments import RecordedRun, record


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage.open(tmp_path_factory.mktemp("federated"))
    yield stage
    stage.devnet.stop()


@pytest.fixture
def federate(stage: Stage, tmp_path: Path) -> Callable[..., Federation]:
    def make(**options: Any) -> Federation:
        made = len(list(tmp_path.glob("federation-*")))
        return federation(stage, tmp_path / f"federation-{made}", **options)

    return make


@pytest.fixture(scope="session")
def recorded(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> RecordedRun:
    """Return an honest run, as `record` keeps it; tests copy what they change."""
    folder = tmp_path_factory.mktemp("recorded")
    return record(federation(stage, folder / "federation"), folder / "moments")

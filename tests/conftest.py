"""What every test gets: an environment of its own, and the choice of how much is run."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
STUDENT_FILES = ("student-mat.csv", "student-por.csv")
NEEDS_ALL = ("deployed", "simulation", "notebook", "slow")
# A worker takes a file at a time, so the longest come first and none is left for the end. Of two
# workers, one begins with the deployed runs and the other with what works in its own process.
LONGEST_FIRST = (
    "deployed/test_demo.py",
    "federated/test_one_time_key_attacks.py",
    "deployed/test_faults.py",
    "federated/test_killed_nodes.py",
    "federated/test_misbehaving_nodes.py",
    "federated/test_dropouts.py",
    "docs/test_readme.py",
    "federated/test_showcase_run.py",
    "notebooks/test_notebooks.py",
)
# Tracing doubles what Flower, torch and py-evm take, so processes are traced in these files and
# folders only: what runs nowhere but in a process of its own is run by them.
PROCESSES_TRACED = (
    "chain/test_devnet.py",
    "conformance/",
    "deployed/test_kept_processes.py",
    "privacy/test_isolated.py",
)
TRACE_PROCESSES = "COVERAGE_PROCESS_CONFIG"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("twopm-flower")
    group.addoption(
        "--all",
        action="store_true",
        dest="everything",
        help="also run deployed, simulation, notebook and slow tests (minutes, not seconds)",
    )
    group.addoption(
        "--full", action="store_true", help="as --all, and the largest counts, too (hours)"
    )


def pytest_configure(config: pytest.Config) -> None:
    # A quarter of hypothesis' own number of examples; where a test names its own, that counts.
    hypothesis.settings.register_profile("lean", max_examples=25)
    if not config.getoption("full"):
        hypothesis.settings.load_profile("lean")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    full = config.getoption("full")
    left_out = set() if full else {"full"}
    if not full and not config.getoption("everything"):
        left_out.update(NEEDS_ALL)
    if config.option.markexpr:
        left_out = set()  # whoever names markers with -m has chosen already
    chosen, dropped = [], []
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        (dropped if marks & left_out else chosen).append(item)
        if "slow" in marks and config.pluginmanager.has_plugin("_cov"):
            item.add_marker("no_cover")  # larger counts of what quick tests cover
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    items[:] = sorted(chosen, key=_turn)


def _turn(item: pytest.Item) -> int:
    name = _name(item.path)
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


def _name(file: Path) -> str:
    return file.relative_to(ROOT / "tests").as_posix()


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's home and from everybody's telemetry."""
    data = os.environ.get("TWOPM_DATA_DIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("TWOPM_", "FLWR_"))]:
            patch.delenv(name)
        if data:
            patch.setenv("TWOPM_DATA_DIR", data)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("TWOPM_HOME", str(home / "twopm"))
        patch.setenv("FLWR_HOME", str(home / "flwr"))
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("FLWR_TELEMETRY_ENABLED", "0")
        patch.setenv("FLWR_DISABLE_UPDATE_CHECK", "1")
        patch.setenv("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture(scope="session", autouse=True)
def tracing() -> Iterator[str | None]:
    """Return what tells a process to trace itself, if coverage is measured, and withhold it."""
    with pytest.MonkeyPatch.context() as patch:
        told = os.environ.get(TRACE_PROCESSES)
        patch.delenv(TRACE_PROCESSES, raising=False)
        yield told


@pytest.fixture(scope="module", autouse=True)
def traced_processes(request: pytest.FixtureRequest, tracing: str | None) -> Iterator[None]:
    """Trace the processes of the files that are named for it."""
    with pytest.MonkeyPatch.context() as patch:
        if tracing and _name(request.path).startswith(PROCESSES_TRACED):
            patch.setenv(TRACE_PROCESSES, tracing)
        yield


@pytest.fixture(scope="session")
def student_data() -> Path:
    """Return the folder with the real UCI files, or skip and say where they belong."""
    named = os.environ.get("TWOPM_DATA_DIR")
    candidates = [Path(named)] if named else []
    candidates += [ROOT / "shared/data/student", ROOT.parent / "shared/data/student"]
    for folder in candidates:
        if all((folder / name).is_file() for name in STUDENT_FILES):
            return folder
    pytest.skip(
        f"the UCI files {' and '.join(STUDENT_FILES)} are in none of "
        f"{', '.join(str(folder) for folder in candidates)}; set TWOPM_DATA_DIR"
    )

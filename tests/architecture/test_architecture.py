import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    answer = run("-c", code)
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


def test_no_package_imports_what_it_must_not() -> None:
    code = "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main())"
    answer = run("-c", code)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("module", ["twopm_flower.verify", "twopm_flower.records"])
def test_verifying_loads_neither_flower_nor_a_chain_client_nor_tenseal_nor_torch(
    module: str,
) -> None:
    heavy = {"flwr", "ray", "web3", "eth", "tenseal", "torch"}
    assert not imported_by(module) & heavy


def test_help_of_the_command_line_loads_nothing_heavy() -> None:
    heavy = {"flwr", "ray", "web3", "eth", "tenseal", "torch", "pandas"}
    assert not imported_by("twopm_flower.cli") & heavy


def test_every_module_says_in_its_first_line_what_it_does() -> None:
    silent = []
    for path in sorted((ROOT / "twopm_flower").rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        first = lines[0] if lines else ""
        if not first.startswith('"""') or not first.rstrip('"').endswith((".", ":")):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_no_module_is_named_after_nothing() -> None:
    nameless = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}
    assert not [path for path in (ROOT / "twopm_flower").rglob("*.py") if path.stem in nameless]


def test_nothing_is_ever_unpickled_or_evaluated() -> None:
    dangerous = ("import pickle", "pickle.load", "torch.load(", "eval(", "exec(", "marshal.loads")
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in sorted((ROOT / "twopm_flower").rglob("*.py"))
        for word in dangerous
        if f" {word}" in path.read_text(encoding="utf-8")
        or f"\n{word}" in path.read_text(encoding="utf-8")
    ]
    assert found == []

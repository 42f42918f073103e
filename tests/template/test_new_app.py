import io
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.app_cmd.publish import _collect_file_paths, _validate_description, _validate_files
from flwr.cli.build import build_fab_from_disk
from flwr.cli.config_utils import load_and_validate
from flwr.cli.utils import validate_project_name
from typer.testing import CliRunner

from twopm_flower.cli import new
from twopm_flower.cli.new import TEMPLATE, write_new_app
from twopm_flower.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
APP_FILES = {
    "LICENSE",
    "README.md",
    "encrypted_app/__init__.py",
    "encrypted_app/client_app.py",
    "encrypted_app/server_app.py",
    "encrypted_app/task.py",
    "pyproject.toml",
}


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "my-app"
    write_new_app(folder)
    return folder


def test_a_new_app_is_named_after_its_folder_and_has_every_file(app: Path) -> None:
    written = {p.relative_to(app).as_posix() for p in app.rglob("*") if p.is_file()}
    assert written == APP_FILES | {".gitignore"}
    assert tomllib.loads((app / "pyproject.toml").read_text())["project"]["name"] == "my-app"


@pytest.mark.parametrize("name", ["2fast", "my_app", "with space", "x" * 33])
def test_a_name_that_flower_would_refuse_is_refused_before_anything_is_written(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError):
        validate_project_name(name, "app")
    with pytest.raises(ConfigError, match="letters, digits and hyphens"):
        write_new_app(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_never_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_new_app(folder)
    assert list(folder.iterdir()) == []


def test_the_command_tells_what_it_wrote(tmp_path: Path) -> None:
    told = CliRunner().invoke(new.app, [str(tmp_path / "one")])
    assert told.exit_code == 0
    assert "8 files" in told.output
    listed = CliRunner().invoke(new.app, [str(tmp_path / "two"), "--json"])
    assert set(json.loads(listed.output)["files"]) == APP_FILES | {".gitignore"}


def test_flower_builds_the_bundle_with_exactly_the_apps_files(app: Path) -> None:
    (app / "identity.key").write_text("a secret that must stay here")
    (app / "encrypted_app" / "shared.json").write_text('{"secret": "that must stay here"}')
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as bundle:
        assert set(bundle.namelist()) == APP_FILES | {".info/CONTENT"}


def test_the_app_hub_would_accept_the_app(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(app))
    config, warnings = load_and_validate(app / "pyproject.toml")
    assert warnings == []
    validate_project_name(app.name, "folder")
    _validate_description(config["project"]["description"])
    files = _collect_file_paths(app)
    _validate_files(files)
    assert {file.relative_to(app).as_posix() for file in files} == APP_FILES | {".gitignore"}
    assert config["tool"]["flwr"]["app"]["fab-format-version"] == 1


def test_the_readme_opens_with_the_hubs_front_matter(app: Path) -> None:
    opening = re.match(r"---\n(.*?)\n---\n", (app / "README.md").read_text(), re.DOTALL)
    assert opening is not None
    fields = dict(line.split(": ", 1) for line in opening[1].splitlines())
    assert set(fields) == {"tags", "dataset", "framework"}
    assert all(value.startswith("[") and value.endswith("]") for value in fields.values())


def test_the_two_lines_of_the_readme_are_the_ones_in_the_code(app: Path) -> None:
    quoted = re.findall(r"^(\S.*?)  # (encrypted_app/\S+)$", (app / "README.md").read_text(), re.M)
    assert [file for _, file in quoted] == [
        "encrypted_app/client_app.py",
        "encrypted_app/server_app.py",
    ]
    for line, file in quoted:
        assert line in (app / file).read_text()


def test_model_and_training_know_nothing_of_encryption(app: Path) -> None:
    assert "twopm" not in (app / "encrypted_app" / "task.py").read_text()


def test_the_template_carries_the_licence_of_this_repository() -> None:
    assert (TEMPLATE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


# In a process of its own: the app is imported under its own name, and torch's threads with it.
RUN = """
    import json, logging, sys, tomllib
    from pathlib import Path
    from flwr.app import Context, RecordDict
    from encrypted_app.client_app import app as client
    from encrypted_app.server_app import app as server
    from twopm_flower.federated import LocalGrid
    from twopm_flower.verify import load_bundle, verify_bundle

    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    settings["num-server-rounds"] = 2
    nodes = [{"partition-id": number, "num-partitions": 3} for number in range(3)]
    grid = LocalGrid(client, nodes, settings)
    server(grid, Context(0, 0, {}, RecordDict(), settings))
    (bundle,) = Path(sys.argv[1]).glob("runs/*/bundle.json")
    report = verify_bundle(load_bundle(bundle), chain=None)
    outcome = {"exit": report.exit_code, "mode": report.trust_mode, "rounds": report.rounds}
    print(json.dumps(outcome))
"""


def test_two_rounds_train_encrypted_and_verify(app: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN), str(home)],
        cwd=app,
        env={**os.environ, "TWOPM_HOME": str(home), "PYTHONPATH": str(app)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout.splitlines()[-1]) == {
        "exit": 2,  # everything holds; no chain was handed in
        "mode": "shared-key",
        "rounds": 2,
    }
    accuracies = re.findall(r"round (\d): accuracy (\d\.\d+)", answer.stderr)
    assert [int(round_) for round_, _ in accuracies] == [0, 1, 2]
    assert float(accuracies[-1][1]) > float(accuracies[0][1]) + 0.2
    assert "were clipped" not in answer.stderr
    assert list((home / "simulation").glob("node-*/tasks/*/model-2.safetensors"))

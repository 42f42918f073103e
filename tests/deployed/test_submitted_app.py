import subprocess
import sys
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab

from twopm_flower.errors import ConfigError
from twopm_flower.federated.app_bundle import app_bundle_digest
from twopm_flower.federated.submitted_app import submitted_app_digest
from twopm_flower.node.app_folder import write_app_folder

ROOT = Path(__file__).resolve().parents[2]


def test_the_digest_before_submission_is_the_one_of_the_unpacked_app(tmp_path: Path) -> None:
    app = write_app_folder(tmp_path / "app")
    unpacked = install_from_fab(build_fab_from_disk(app), tmp_path / "flower", skip_prompt=True)
    assert submitted_app_digest(app) == app_bundle_digest(unpacked)


def test_another_byte_of_the_app_is_another_digest(tmp_path: Path) -> None:
    app = write_app_folder(tmp_path / "app")
    before = submitted_app_digest(app)
    with (app / "twopm_flower/app/client_app.py").open("a") as file:
        file.write("\n")
    assert submitted_app_digest(app) != before


def test_the_bundle_carries_the_app_and_the_licence_and_nothing_else(tmp_path: Path) -> None:
    app = write_app_folder(tmp_path / "app")
    (app / "identity.key").write_text("secret")
    (app / "keystore.json").write_text("{}")
    unpacked = install_from_fab(build_fab_from_disk(app), tmp_path / "flower", skip_prompt=True)
    files = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert {path for path in files if path.suffix != ".py"} == {
        Path("LICENSE"),
        Path("pyproject.toml"),
    }
    assert all(path.parts[:2] == ("twopm_flower", "app") for path in files if path.suffix == ".py")


def test_a_folder_without_an_app_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot build the app.*flwr build"):
        submitted_app_digest(tmp_path)


def test_an_unpacked_app_does_not_shadow_the_installed_package(tmp_path: Path) -> None:
    app = write_app_folder(tmp_path / "app")
    code = "import twopm_flower.app.client_app as app; print(app.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(app)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not Path(answer.stdout.strip()).is_relative_to(tmp_path)

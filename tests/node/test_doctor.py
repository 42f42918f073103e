"""What the doctor finds, and that it says how to mend it."""

import os
import shutil

import pytest

from twopm_flower.chain.devnet import Devnet
from twopm_flower.config import make_private_folder
from twopm_flower.federated.home import NodeHome
from twopm_flower.node import doctor
from twopm_flower.node.certificates import create_server_certificates
from twopm_flower.node.doctor import examine
from twopm_flower.node.provision import init_node


@pytest.fixture
def home(tmp_path, chain):
    init_node(tmp_path / "home", name="alice", chain=chain.settings)
    return tmp_path / "home"


def found(home, app=None):
    return examine(home, app or home.parent / "no-app")


def bad(home, app=None):
    return [finding for finding in found(home, app) if finding.state == "bad"]


def test_a_fresh_node_is_in_order(home):
    # Nobody serves the chain of this test: its database is read instead.
    assert bad(home) == []
    detail = next(f.detail for f in found(home) if f.subject == "chain")
    assert "the pinned chain (evm)" in detail
    assert detail.startswith("the files in")


def test_every_bad_finding_says_how_to_mend_it(home):
    (home / "identity.key").chmod(0o644)
    home.chmod(0o755)
    findings = bad(home)
    assert len(findings) == 2
    assert all("chmod" in finding.remedy for finding in findings)


def test_a_home_that_our_commands_made_is_closed_whatever_the_umask(tmp_path):
    former = os.umask(0o022)
    try:
        make_private_folder(tmp_path / "home" / "demo" / "run")
        # As in a simulation, whose chain is the first thing in its home.
        with Devnet(tmp_path / "simulating" / "simulation" / "chain"):
            pass
    finally:
        os.umask(former)
    create_server_certificates(tmp_path / "home" / "demo" / "run" / "superlink")
    assert bad(tmp_path / "simulating") == []
    assert bad(tmp_path / "home") == []


def test_a_certificate_is_public_and_a_key_in_a_pem_file_is_not(home):
    files = create_server_certificates(home / "superlink")
    key = files.key.read_bytes()
    both = home / "both.pem"
    both.write_bytes(files.certificate.read_bytes() + key)
    (home / "certificate.pem").write_bytes(files.certificate.read_bytes())
    for file in home.rglob("*.pem"):
        file.chmod(0o644)
    (finding,) = bad(home)
    assert str(both) in finding.detail
    assert "replace the key" in finding.remedy


def test_an_open_folder_is_no_reason_to_replace_keys(home):
    home.chmod(0o755)
    (finding,) = bad(home)
    assert finding.remedy == f"Run: chmod 700 {home}"


def test_a_key_in_a_flower_app_is_found(home, tmp_path):
    app = tmp_path / "app"
    (app / "sub").mkdir(parents=True)
    (app / "pyproject.toml").write_text("[tool.flwr.app]\npublisher = 'x'\n")
    assert bad(home, app) == []
    shutil.copy(home / "identity.key", app / "sub" / "mine.key")
    shutil.copy(home / "sealing.key", app / "tls.pem")
    (app / "public.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    named = [finding.detail for finding in bad(home, app)]
    assert len(named) == 2
    assert any("mine.key" in detail for detail in named)
    assert any("tls.pem" in detail for detail in named)


def test_a_home_inside_a_flower_app_is_found(home):
    (home.parent / "pyproject.toml").write_text("[tool.flwr.app]\npublisher = 'x'\n")
    assert any("is inside the Flower app" in f.detail for f in bad(home, home.parent))


def test_a_chain_that_does_not_answer_is_found(home, chain):
    settings = home / "config.toml"
    folder = str(chain.settings.devnet_folder)
    settings.write_text(settings.read_text().replace(folder, folder + "-gone"))
    (finding,) = bad(home)
    assert finding.subject == "chain"
    assert finding.remedy


def test_settings_that_cannot_be_read_are_found(home):
    (home / "config.toml").write_text("[node]\nanchor = 'loose'\n")
    (finding,) = bad(home)
    assert finding.subject == "settings"
    assert "anchor" in finding.detail


def test_a_stopped_task_is_found_with_its_reason(federate):
    federation = federate(3)
    invitation = federation.ready()
    folder = NodeHome(federation.homes[0]).task(invitation.task_id)
    folder.save_progress(folder.load_progress().changed(halted="the sum was shifted"))
    (finding,) = bad(federation.homes[0])
    assert "the sum was shifted" in finding.detail
    assert f"twopm node resume {invitation.task_id}" in finding.remedy


def test_a_machine_without_a_home_gets_notes_and_no_alarm(tmp_path):
    assert bad(tmp_path / "nowhere") == []
    assert any("does not exist" in finding.detail for finding in found(tmp_path / "nowhere"))


def test_missing_and_old_packages_are_named(home, monkeypatch):
    wanted = ["numpy>=99", "surely-not-installed>=1", "also-missing; extra == 'x'"]
    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    (finding,) = bad(home)
    assert "numpy is" in finding.detail
    assert "surely-not-installed is missing" in finding.detail
    assert "also-missing" not in finding.detail


def test_an_old_python_is_found(home, monkeypatch):
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    (finding,) = bad(home)
    assert finding.subject == "Python"

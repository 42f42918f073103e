"""docs/deploy.md, followed command by command; Flower's transport alone is replaced."""

import io
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.cli.build import build_fab_from_disk

from twopm_flower.app import client_app, server_app
from twopm_flower.chain.devnet import DevnetProcess
from twopm_flower.datasets.student_csv import format_students
from twopm_flower.datasets.synthetic import synthetic_students
from twopm_flower.federated import EncryptedAggregation, LocalGrid
from twopm_flower.federated.home import NodeHome
from twopm_flower.node.coordinate import load_initial_model

GUIDE = Path(__file__).parents[2] / "docs" / "deploy.md"
BLOCK = re.compile(r"^```sh (\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NODES = ("alice", "bob", "carol")


def commands() -> list[tuple[str, str]]:
    found = BLOCK.findall(GUIDE.read_text(encoding="utf-8"))
    return [(role, line) for role, block in found for line in block.splitlines() if line.strip()]


def train(folder: Path, monkeypatch: pytest.MonkeyPatch, twopm) -> None:
    """What step 8 does, with the bundle that Flower would send, in this process."""
    unpacked = folder / "apps" / "showcase"
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(folder / "app"))) as archive:
        archive.extractall(unpacked)
    monkeypatch.syspath_prepend(str(unpacked))
    task_id = NodeHome(folder / "coordinator").task_ids()[0]
    task = NodeHome(folder / "coordinator").task(task_id)
    configs = []
    for name in NODES:
        monkeypatch.setenv("TWOPM_HOME", str(folder / name))
        pairs = [item.partition("=") for item in shlex.split(twopm("node", "config").out)]
        configs.append({key: value for key, _, value in pairs})
    monkeypatch.setenv("TWOPM_HOME", str(folder / "coordinator"))
    monkeypatch.setenv("TWOPM_TASK", task_id)
    config = task.terms.run_config
    strategy = EncryptedAggregation(server_app.strategy_of(config))
    strategy.start(
        grid=LocalGrid(client_app.app, configs, config),
        initial_arrays=ArrayRecord({n: Array(a) for n, a in load_initial_model(task).items()}),
        num_rounds=task.terms.rounds,
        train_config=ConfigRecord(server_app.train_config(config)),
    )
    monkeypatch.delenv("TWOPM_TASK")


def test_the_guide_leads_from_nothing_to_a_verified_model(tmp_path, monkeypatch, twopm):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student-mat.csv").write_bytes(format_students(synthetic_students("mat", 90)))
    devnet, trained = None, False
    try:
        for role, line in commands():
            words = shlex.split(line)
            if role in {"everybody", "certificates"}:
                continue
            if role == "chain":
                assert words[:3] == ["twopm", "chain", "devnet"]
                devnet = DevnetProcess(tmp_path / words[words.index("--folder") + 1]).start()
                continue
            if role == "flower":
                if not trained:
                    train(tmp_path, monkeypatch, twopm)
                    trained = True
                continue
            monkeypatch.setenv("TWOPM_HOME", str(tmp_path / role))
            here = line.replace("http://127.0.0.1:8545", devnet.url)
            words = shlex.split(here)
            assert words[0] == "twopm", line
            outcome = twopm(*words[1:])
            assert outcome.status == 0, f"{role}: {line}\n{outcome.out}{outcome.err}"
    finally:
        if devnet is not None:
            devnet.stop()
    assert (tmp_path / "model.safetensors").exists()
    public = [file.read_bytes() for file in tmp_path.iterdir() if file.is_file()]
    for name in NODES:
        task = NodeHome(tmp_path / name)
        secret = task.task(task.task_ids()[0]).shared_key.secret.reveal()
        assert not any(secret in data or secret.hex().encode() in data for data in public)


def test_the_guides_commands_of_flower_exist_with_these_options():
    lines = [line for role, line in commands() if role == "flower"]
    assert {
        word
        for line in lines
        for word in ("flower-superlink", "flower-supernode", "flwr run")
        if word in line
    } == {"flower-superlink", "flower-supernode", "flwr run"}
    for line in lines:
        words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
        command = words[:1]
        if words[0] == "flwr":
            command = words[: 3 if words[1] == "supernode" else 2]
        program = Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [program, *command[1:], "--help"], capture_output=True, text=True, check=True
        )
        for option in (word for word in words if word.startswith("--")):
            assert option in done.stdout, f"{' '.join(command)} has no {option}"


@pytest.mark.skipif(
    not all(map(shutil.which, ("openssl", "ssh-keygen"))), reason="needs openssl and ssh-keygen"
)
def test_the_guides_certificates_are_those_that_flowers_tls_and_node_keys_need(tmp_path):
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True)
    if not version.stdout.startswith("OpenSSL 3"):
        pytest.skip(f"needs OpenSSL 3, not {version.stdout.strip()}")
    for role, line in commands():
        if role == "certificates":
            subprocess.run(shlex.split(line), cwd=tmp_path, capture_output=True, check=True)
    for option, host in (("-verify_hostname", "coordinator.example"), ("-verify_ip", "127.0.0.1")):
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", option, host, "server.pem"],
            cwd=tmp_path, capture_output=True, check=True,
        )  # fmt: skip
    for name in NODES:
        key = load_ssh_public_key((tmp_path / f"{name}-supernode.pub").read_bytes())
        assert isinstance(key, EllipticCurvePublicKey)
    used = {word for role, line in commands() if role == "flower" for word in shlex.split(line)}
    files = {"ca.pem", "server.pem", "server.key", "alice-supernode", "alice-supernode.pub"}
    assert files <= used
    assert files <= {file.name for file in tmp_path.iterdir()}


def test_the_guides_python_is_python():
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    for block in blocks:
        code = compile(block, str(GUIDE), "exec")
        imports = [line for line in block.splitlines() if line.startswith("from twopm_flower")]
        exec("\n".join(imports))
        assert code is not None

"""What must never leave a node is looked for in everything that does."""

import base64
import gc
import logging
from itertools import pairwise
from types import FunctionType, ModuleType

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from federation import MAX_NODES, federation
from flwr.common.serde import message_to_proto
from quantised_fedavg import largest_value, quantised_run
from tiny_app import SAMPLES, train_locally

from twopm_flower.federated import RoundCallback
from twopm_flower.federated.server_run import ServerRun

ROUNDS = 3


def kept_files(made):
    """Return, by name, the bytes of all that the coordinator and the chain keep."""
    found = {}
    for file in made.coordinator.rglob("*"):
        if file.is_file() and file.name != "coordinator.key":
            found[str(file.relative_to(made.coordinator))] = file.read_bytes()
    for file in made.stage.devnet.folder.glob("chain.sqlite*"):
        found[f"chain {file.name}"] = file.read_bytes()
    return found


def spellings(secret):
    return [
        secret,
        secret[::-1],
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret)[: len(secret)],
        base64.urlsafe_b64encode(secret)[: len(secret)],
        repr(secret)[2:-1].encode(),
    ]


def keys_of(made):
    secrets = {}
    for node in made.nodes:
        identity = (node.home.path / "identity.key").read_text().strip().removeprefix("0x")
        secrets[f"identity key of {node.index}"] = bytes.fromhex(identity)
        pem = (node.home.path / "sealing.key").read_bytes()
        private = serialization.load_pem_private_key(pem, password=None)
        secrets[f"sealing key of {node.index}"] = private.private_bytes_raw()
        secrets[f"sealing key file of {node.index}"] = pem.splitlines()[1]
    secrets["shared key"] = made.nodes[0].folder.shared_key.secret.reveal()[:64]
    return secrets


def weights_of(made, models):
    """Return the bytes of every model after the initial one and of every node's update."""
    values = {}
    limit = largest_value(MAX_NODES)
    scale = int(limit / made.terms.clip)
    for round_, (base, model) in enumerate(pairwise(models), start=1):
        values[f"model {round_}"] = model["weight"]
        for index in range(len(made.nodes)):
            trained = train_locally(base, index)["weight"]
            change = trained.astype(float) - base["weight"].astype(float)
            weight = scale * SAMPLES[index] / max(SAMPLES)
            values[f"trained {round_}/{index}"] = trained
            values[f"update {round_}/{index}"] = change
            values[f"quantised {round_}/{index}"] = np.rint(weight * change).astype(np.int64)
    spelt = {}
    for name, array in values.items():
        for dtype in ("<f4", ">f4", "<f8", ">f8", "<i8", ">i8"):
            if np.issubdtype(array.dtype, np.floating) and "i" in dtype:
                continue
            if name.startswith("quantised") and "f4" in dtype:
                continue
            spelt[f"{name} as {dtype}"] = array.ravel().astype(dtype).tobytes()
    return spelt


def needles(made, models):
    found = {}
    for name, secret in {**keys_of(made), **weights_of(made, models)}.items():
        for number, spelling in enumerate(spellings(secret)):
            assert len(spelling) >= 12, name
            found[f"{name} ({number})"] = spelling
    return found


class Lines(logging.Handler):
    """Keeps every line that is logged, at whatever level."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture(scope="module")
def searched(stage, tmp_path_factory):
    """Run once, recording every byte, and return (crossed, needles, federation)."""
    made = federation(stage, tmp_path_factory.mktemp("searched"), rounds=ROUNDS)
    grid, log = made.make_grid(), Lines()
    crossed = {}

    def record(deliver, message, index):
        number = len(crossed)
        crossed[f"message {number} as sent"] = message_to_proto(message).SerializeToString()
        crossed[f"message {number}"] = content_bytes(message.content)
        reply = deliver(message)
        crossed[f"message {number}, the reply"] = content_bytes(reply.content)
        return reply

    grid.messages.append(record)
    root = logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        result = made.run()
    finally:
        root.setLevel(level)
        root.removeHandler(log)
    assert log.lines
    models = quantised_run(made.initial, [0, 1, 2, 3], ROUNDS, clip=4.0, max_nodes=MAX_NODES)
    crossed["log"] = "\n".join(log.lines).encode()
    crossed["result"] = repr(result).encode() + content_bytes({"arrays": result.arrays})
    return {**crossed, **kept_files(made)}, needles(made, models), made


def content_bytes(content):
    parts = []
    for record in content.values():
        for key, value in record.items():
            parts.append(key.encode())
            data = getattr(value, "data", value)
            parts.append(data if isinstance(data, bytes) else repr(data).encode())
    return b"\0".join(parts)


def test_neither_keys_nor_weights_cross_the_wire_or_stand_in_logs_files_or_chain(searched):
    crossed, secret, made = searched
    initial = made.initial["weight"].tobytes()
    assert any(initial in data for name, data in crossed.items() if name.startswith("message"))
    everything = b"\0\0".join(crossed.values())
    leaks = [what for what, needle in secret.items() if needle in everything]
    assert leaks == []


def test_the_search_finds_the_same_secrets_in_the_nodes_own_homes(searched):
    _, secret, made = searched
    homes = {
        node.index: b"".join(p.read_bytes() for p in node.home.path.rglob("*") if p.is_file())
        for node in made.nodes
    }
    for index, data in homes.items():
        for what in ("identity key", "sealing key file"):
            assert any(n in data for w, n in secret.items() if w.startswith(f"{what} of {index}"))
        assert any(n in data for w, n in secret.items() if w.startswith("shared key"))
        assert secret[f"model {ROUNDS} as <f4 (0)"] in data


class MemorySearch(RoundCallback):
    """Walks over everything that the server's state refers to, while it runs."""

    def __init__(self, needles):
        self.needles = needles
        self.looked_at = 0
        self.leaks = []

    def round_completed(self, bundle):
        for run in [obj for obj in gc.get_objects() if isinstance(obj, ServerRun)]:
            self.search(run)

    def search(self, root):
        seen, stack = set(), [root]
        while stack:
            obj = stack.pop()
            if id(obj) in seen or isinstance(obj, type | ModuleType | FunctionType):
                continue
            seen.add(id(obj))
            if isinstance(obj, np.ndarray):
                obj = obj.tobytes()
            if isinstance(obj, str):
                obj = obj.encode()
            if isinstance(obj, bytes | bytearray):
                self.leaks += [what for what, needle in self.needles.items() if needle in obj]
                continue
            stack.extend(gc.get_referents(obj))
        self.looked_at += len(seen)


# Looking at every object of the process touches deprecated ones of libraries, too.
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_servers_memory_of_a_run_holds_neither_keys_nor_weights(federate):
    made = federate(rounds=2)
    models = quantised_run(made.initial, [0, 1, 2, 3], 2, clip=4.0, max_nodes=MAX_NODES)
    search = MemorySearch(needles(made, models))
    made.run(callbacks=[search])
    assert search.looked_at > 500
    assert search.leaks == []


def test_homes_are_readable_by_their_owner_alone_where_it_matters(federate):
    made = federate(rounds=1)
    made.run()
    for node in made.nodes:
        secret = [node.home.path / "identity.key", node.home.path / "sealing.key"]
        secret += [node.folder.path / "shared.key", *node.folder.path.glob("model-*")]
        secret += [*node.folder.path.glob("update-*"), node.folder.path / "progress.json"]
        for file in secret:
            assert file.stat().st_mode & 0o077 == 0, file

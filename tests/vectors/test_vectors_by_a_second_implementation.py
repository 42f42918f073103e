"""The stored vectors again, from docs/protocol.md alone: nothing of the package is imported."""

import json
import math

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_keys import keys
from eth_utils.crypto import keccak
from second_implementation import Q, abi, h, jcs, json_digest, tagged, vectors


def test_digests():
    for case in vectors("digests")["cases"]:
        assert tagged(case["tag"], h(case["data"])) == case["digest"]


def test_canonical_json():
    for case in vectors("canonical"):
        assert jcs(json.loads(case["json"])).encode() == h(case["canonical"])


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def test_typed_data_and_signatures():
    data = vectors("typed_data")
    domain = data["domain"]
    separator = keccak(
        keccak(
            b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
        )
        + keccak(domain["name"].encode())
        + keccak(domain["version"].encode())
        + abi(domain["chainId"])
        + abi(domain["verifyingContract"])
    )
    address = keys.PrivateKey(h(data["private_key"])).public_key.to_checksum_address()
    for case in data["statements"]:
        assert "0x" + keccak(case["type"].encode()).hex() == case["type_hash"]
        statement = {camel(k): v for k, v in case["signed"]["statement"].items()}
        encoded = h(case["type_hash"])
        members = case["type"].partition("(")[2].rstrip(")").split(",")
        assert [member.split(" ")[1] for member in members] == list(statement)
        for member in members:
            kind, name = member.split(" ")
            value = statement[name]
            words = [abi(int(v, 16)) for v in value] if kind == "uint64[]" else None
            encoded += keccak(b"".join(words)) if words is not None else abi(value)
        digest = keccak(b"\x19\x01" + separator + keccak(encoded))
        assert "0x" + digest.hex() == case["signing_hash"]
        raw = h(case["signed"]["signature"])
        signature = keys.Signature(raw[:64] + bytes([raw[64] - 27]))
        signer = signature.recover_public_key_from_msg_hash(digest).to_checksum_address()
        assert signer == address == case["signed"]["node"]


def test_the_roster_digest():
    data = vectors("roster")
    digest = bytes(32)
    for member in data["roster"]["members"]:
        words = [member[k] for k in ("node", "samples", "data_commitment", "sealing_key")]
        digest = keccak(digest + b"".join(map(abi, words)))
    assert "0x" + digest.hex() == data["digest"]
    first = data["roster"]["members"][0]
    salt = bytes([30]) * 32
    assert tagged("data/v1", salt + (30).to_bytes(8) + b"rows") == first["data_commitment"]


def test_terms_layout_parameters_configuration_and_initial_model():
    data = vectors("task")
    terms = data["terms"]
    assert json_digest("terms/v1", terms) == data["terms_digest"]
    assert json_digest("layout/v1", data["layout"]) == terms["layout_digest"]
    assert data["layout"]["arrays"] == terms["arrays"]
    assert data["layout"]["metrics"] == [
        {key: metric[key] for key in ("name", "scale", "maximum")}
        for metric in terms["train_metrics"]
    ]
    assert json_digest("additive-parameters/v1", terms["parameters"]) == terms["parameters_id"]
    assert json_digest("configuration/v1", data["configuration"]) == data["configuration_digest"]
    model = h(terms["layout_digest"]) + h(data["initial_weights"])
    assert tagged("model/v1", model) == terms["initial_model"]


def test_the_parameters_follow_from_the_number_of_nodes():
    parameters = vectors("packing")["parameters"]
    nodes, fields = parameters["max_nodes"], parameters["fields"]
    bits = max(b for b in range(64) if 43 * nodes * 2**b < Q)
    width = bits // fields
    assert (parameters["plain_bits"], parameters["width"]) == (bits, width)
    assert parameters["limit"] == (2 ** (width - 1) - 1) // nodes
    assert (int(parameters["modulus"], 16), parameters["ring_degree"]) == (Q, 2048)


def test_quantising_and_packing():
    data = vectors("packing")
    parameters = data["parameters"]
    steps = math.floor(parameters["limit"] / data["clip"])
    weight = steps * data["samples"] / data["max_samples"]
    clip = data["clip"]
    vector = [round(weight * min(max(value, -clip), clip)) for value in data["update"]]
    layout = vectors("task")["layout"]
    vector += [round(m["scale"] * data["metrics"][m["name"]]) for m in layout["metrics"]]
    assert vector == data["vector"]
    assert data["clipped"] == sum(abs(value) > clip for value in data["update"])
    fields = parameters["fields"]
    columns = -(-len(vector) // fields)
    padded = vector + [0] * (fields * columns - len(vector))
    coefficients = [
        sum(padded[f * columns + j] << (f * parameters["width"]) for f in range(fields))
        for j in range(columns)
    ]
    assert [str(value) for value in coefficients] == data["coefficients"]


BACKENDS = {"bfv": 1, "plaintext": 2, "one-time-key": 3}


@pytest.mark.parametrize("case", vectors("frames"), ids=lambda case: case["backend"])
def test_frames_and_digests(case):
    context = case["context"]
    place = h(context["task_id"]) + context["round"].to_bytes(8, "little")
    place += context["attempt"].to_bytes(4, "little")
    material = h(context["key_id"] + context["parameters_id"][2:] + context["layout_digest"][2:])
    start = (1).to_bytes(2, "little") + BACKENDS[case["backend"]].to_bytes(2, "little")
    total, total_c1 = None, 0
    for update in case["updates"]:
        c0 = [int(value) for value in update["c0"]]
        rows = 0 if update["c1_each"] is None else 1
        c1 = [int(update["c1_each"])] * 2048 * rows if rows else []
        counts = rows.to_bytes(4, "little") + len(c0).to_bytes(4, "little")
        binding = place + h(update["node"]) + material
        frame = h(update["frame"])
        seeds = frame[8 + 160 + 16 :][: 64 * rows]
        body = seeds + b"".join(value.to_bytes(7, "little") for value in c0)
        length = len(body).to_bytes(8, "little")
        assert frame == b"2PMU" + start + binding + counts + length + body
        residues = b"".join(value.to_bytes(8, "little") for value in c0 + c1)
        assert tagged("update/v1", binding + counts + residues) == update["update_digest"]
        body = b"".join(value.to_bytes(7, "little") for value in c0 + c1)
        expanded = b"2PMX" + start + binding + counts + len(body).to_bytes(8, "little") + body
        assert tagged("artifact/v1", expanded) == update["expanded_frame_digest"]
        total = [(a + b) % Q for a, b in zip(total or [0] * len(c0), c0, strict=True)]
        total_c1 = [(a + b) % Q for a, b in zip(total_c1 or [0] * len(c1), c1, strict=True)]
    residues = b"".join(value.to_bytes(8, "little") for value in total + total_c1)
    assert tagged("aggregate/v1", place + material + counts + residues) == case["aggregate_digest"]
    length = 7 * (len(total) + len(total_c1))
    body = b"".join(value.to_bytes(7, "little") for value in total)
    header = b"2PMA" + start + place + material + counts + length.to_bytes(8, "little")
    assert h(case["aggregate_header_and_c0"]) == header + body


def test_manifest_leaves_root_challenges_head_and_metrics():
    data = vectors("manifest")
    manifest = data["manifest"]
    digest = json_digest("manifest/v1", manifest)
    assert digest == data["digest"]
    leaves = []
    for survivor in manifest["survivors"]:
        values = [
            manifest["task_id"],
            manifest["round"],
            manifest["attempt"],
            survivor["node"],
            survivor["update_digest"],
        ]
        leaves.append(keccak(keccak(b"".join(map(abi, values)))))
    assert ["0x" + leaf.hex() for leaf in leaves] == data["leaves"]
    assert "0x" + keccak(b"".join(sorted(leaves))).hex() == manifest["updates_root"]
    points = [
        1 + int(tagged("challenge/v1", h(digest) + bytes([m])), 16) % (Q - 1) for m in (1, 2, 3)
    ]
    assert [str(point) for point in points] == data["challenges"]
    head = bytes(32)
    for expected in (data["head_after_zero"], data["head_after_that"]):
        values = [manifest["task_id"], manifest["round"], manifest["attempt"]]
        values += [digest, manifest["updates_root"]]
        head = keccak(head + b"".join(map(abi, values)))
        assert "0x" + head.hex() == expected
    assert json_digest("metrics/v1", data["metrics"]) == data["metrics_digest"]


def plain_fingerprint(residues, rho):
    return sum(pow(rho, j, Q) * r for j, r in enumerate(residues, start=1)) % Q


def test_fingerprints():
    data = vectors("fingerprints")
    assert int(data["modulus"]) == Q
    for case in data["cases"]:
        residues = [int(value) for value in case["residues"]]
        assert plain_fingerprint(residues, int(case["rho"])) == int(case["fingerprint"])
    many = plain_fingerprint(range(40_000), 987_654_321_098_765)
    assert many == int(data["counting_to_40000"])


def test_masks():
    data = vectors("masking")
    nodes = data["nodes"]
    totals = [0] * len(nodes[0]["values"])
    for own in nodes:
        private = X25519PrivateKey.from_private_bytes(h(own["private_key"]))
        assert private.public_key().public_bytes_raw() == h(own["public_key"])
        words = [value % 2**64 for value in own["values"]]
        for peer in nodes:
            if peer is own:
                continue
            secret = private.exchange(X25519PublicKey.from_public_bytes(h(peer["public_key"])))
            low, high = sorted([h(own["address"]), h(peer["address"])])
            info = b"twopm-flower/pairwise-mask/v1\0" + h(data["context"]) + low + high
            key = HKDF(SHA256(), length=32, salt=None, info=info).derive(secret)
            cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
            stream = cipher.update(bytes(8 * len(words)))
            sign = 1 if h(own["address"]) == low else -1
            for index in range(len(words)):
                mask = int.from_bytes(stream[8 * index : 8 * index + 8], "little")
                words[index] = (words[index] + sign * mask) % 2**64
        assert [f"0x{word:016x}" for word in words] == own["masked"]
        totals = [(a + b) % 2**64 for a, b in zip(totals, words, strict=True)]
    assert totals == data["sums"]


def test_the_key_box_opens():
    data = vectors("key_box")
    reader = X25519PrivateKey.from_private_bytes(h(data["private_key"]))
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    payload = suite.decrypt(h(data["box"]), reader, info=h(data["info"]))
    assert payload == h(data["payload"])
    record = json.loads(payload)
    secret = record["backend"].encode() + b"\0" + h(record["secret"])
    assert tagged("shared-key/v1", secret) == data["key_id"]
    info = json.loads(h(data["info"]).removeprefix(b"twopm-flower/key-box/v1\0"))
    assert info["reader"] == data["reader"].lower()
    assert jcs(info).encode() == h(data["info"])[len(b"twopm-flower/key-box/v1\0") :]

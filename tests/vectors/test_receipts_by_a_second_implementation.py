"""The stored receipt again, from docs/protocol.md alone: nothing of the package is imported."""

from eth_keys import keys
from eth_utils.crypto import keccak
from second_implementation import abi, h, json_digest, vectors

DOMAIN = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"


def signing_hash(deployment, case, statement):
    separator = keccak(
        keccak(DOMAIN)
        + keccak(b"twopm-flower")
        + keccak(b"1")
        + abi(deployment["chain_id"])
        + abi(deployment["receipt_registry"])
    )
    assert "0x" + keccak(case["type"].encode()).hex() == case["type_hash"]
    words = []
    for member in case["type"].partition("(")[2].rstrip(")").split(","):
        name = member.split(" ")[1]
        snake = "".join("_" + c.lower() if c.isupper() else c for c in name)
        words.append(abi(statement[snake]))
    assert len(words) == len(statement)
    return keccak(b"\x19\x01" + separator + keccak(h(case["type_hash"]) + b"".join(words)))


def test_a_receipt_its_signatures_and_its_place_in_a_batch():
    data = vectors("receipt")
    file = data["file"]
    card, anchoring = file["card"], file["anchoring"]
    assert json_digest("model-card/v1", card) == data["card_digest"]
    assert file["receipt"]["statement"]["card_digest"] == data["card_digest"]
    for case, signed in zip(data["types"], (file["request"], file["receipt"]), strict=True):
        digest = signing_hash(card["deployment"], case, signed["statement"])
        raw = h(signed["signature"])
        key = keys.Signature(raw[:64] + bytes([raw[64] - 27])).recover_public_key_from_msg_hash(
            digest
        )
        assert key.to_checksum_address() == signed["node"]
    assert "0x" + digest.hex() == data["receipt_digest"]
    node = keccak(keccak(abi(anchoring["issuer"]) + digest))
    assert "0x" + node.hex() == data["leaf"]
    for sibling in map(h, anchoring["proof"]):
        node = keccak(min(node, sibling) + max(node, sibling))
    assert "0x" + node.hex() == anchoring["root"]

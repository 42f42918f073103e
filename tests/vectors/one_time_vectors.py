"""The test vectors of one-time keys, computed by this package; `vector_cases` lists them."""

import hashlib
import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from twopm_flower.privacy.ciphertext import Ciphertext, add
from twopm_flower.privacy.keys import SealingKey, SecretBytes, SharedKey
from twopm_flower.privacy.one_time import OneTimeBackend
from twopm_flower.privacy.one_time_key import OneTimeKey, public_seed
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.ring_numpy import ROOT, transform
from twopm_flower.privacy.sampling import WordStream, centred_binomial, uniform_rows
from twopm_flower.privacy.sealed_shares import (
    OpeningContext,
    ShareContext,
    open_opening,
    open_share,
    opening_digest,
    seal_opening,
    seal_share,
    sealed_share_digest,
    share_proof,
    shares_root,
)
from twopm_flower.privacy.share_codec import pack_share, unpack_share
from twopm_flower.privacy.sharing import (
    add_shares,
    fewest_survivors,
    reconstruct,
    share_secret,
    threshold_for,
)
from twopm_flower.records.digest import tagged_digest

FILE = Path(__file__).parent / "one_time_key.json"
CHAIN_ID = 2_718_281_828
CONTRACT = "0x" + "00" * 19 + "22"
TASK, ROSTER, MANIFEST = ("0x" + f"{byte:02x}" * 32 for byte in (1, 2, 4))
ROUND, ATTEMPT = 2, 3
NODES = tuple("0x" + f"{byte:02x}" * 20 for byte in (0xA1, 0xA2, 0xA3, 0xA4))
COLLUDERS = 1
READER_PRIVATE = [bytes([byte]) * 32 for byte in (21, 22, 23, 24)]
GROUP_KEY = SharedKey("one-time-key", SecretBytes(bytes([31]) * 32))
SIZE = 4096  # values: 2048 coefficients, so that a second row begins


def one_time_key():
    """Keys, ciphertexts, shares and openings of two of the four nodes of an attempt.

    All that is random is given by a rule: `secret_key` and `noise_key` are AES-256 keys whose
    key streams secrets and noise are drawn from, `polynomial_seed` is expanded by SHAKE-256
    to u32-le words, which are the coefficients of the sharing polynomials modulo 65537, those
    of x first. Sealed bytes were made once. Coefficient j of node i (0 and 1) carries
    ((j + 1) * (i + 1) * 12345678901) mod (2 B + 1) - B, with B the largest coefficient.
    """
    seed = public_seed(CHAIN_ID, CONTRACT, TASK, ROUND, ATTEMPT)
    rows = uniform_rows(seed, 0, 2)
    linear = np.zeros((1, 2048), np.uint64)
    linear[0, 1] = 1
    threshold = threshold_for(len(NODES), COLLUDERS)
    dealers = [_dealer(index, seed, threshold) for index in (0, 1)]
    points = range(1, len(NODES) + 1)
    summed = {point: add_shares([shares[point] for _, _, shares, _ in dealers]) for point in points}
    found = reconstruct(summed, threshold)
    total = add([ciphertext for _, ciphertext, _, _ in dealers], max_nodes=len(NODES))
    backend = OneTimeBackend(_parameters())
    opened = backend.decrypt(total, OneTimeKey.of_sum(found.secret, seed))
    return {
        "thresholds": [_thresholds(*sizes) for sizes in ((3, 1), (4, 1), (10, 3), (10, 0))],
        "parameters": [
            AdditiveParameters.derive("one-time-key", nodes, fields).to_dict()
            for nodes in (4, 10, 50, 100, 780)
            for fields in (1, 2)
        ],
        "chain_id": str(CHAIN_ID),
        "contract": CONTRACT,
        "task_id": TASK,
        "roster_digest": ROSTER,
        "round": ROUND,
        "attempt": ATTEMPT,
        "roster": list(NODES),
        "colluders": COLLUDERS,
        "seed": "0x" + seed.hex(),
        "a": [
            {"first": _texts(row[:4]), "last": str(int(row[-1])), "digest": _words_digest(row)}
            for row in rows
        ],
        "root": str(ROOT),
        "transform_of_x": _texts(transform(linear)[0, :4]),
        "size": SIZE,
        "dealers": [entry for entry, _, _, _ in dealers],
        "aggregate_digest": _words_digest(total.c0),
        "summed_shares": {
            str(point): tagged_digest("artifact/v1", pack_share(share))
            for point, share in summed.items()
        },
        "summed_secret": _texts(found.secret[:8]),
        "opened": _texts(opened[:4]),
        "opened_last": str(int(opened[-1])),
        **_sealed(dealers[0][2], threshold),
        **_opening(summed[1]),
    }


def _parameters():
    return AdditiveParameters.derive("one-time-key", len(NODES))


def _thresholds(members, colluders):
    threshold = threshold_for(members, colluders)
    return {
        "members": members,
        "colluders": colluders,
        "threshold": threshold,
        "survivors": fewest_survivors(threshold, colluders),
    }


def _dealer(index, seed, threshold):
    parameters, backend = _parameters(), OneTimeBackend(_parameters())
    secret_key, noise_key = bytes([41 + index]) * 32, bytes([51 + index]) * 32
    polynomial_seed = f"polynomials of node {index}".encode()
    bound = parameters.largest_coefficient
    coefficients = np.array(
        [
            (j + 1) * (index + 1) * 12_345_678_901 % (2 * bound + 1) - bound
            for j in range(parameters.coefficients(SIZE))
        ],
        np.int64,
    )
    secret = centred_binomial(WordStream(secret_key), 2048)
    key = OneTimeKey(secret, seed, unused=True)
    with patch("twopm_flower.privacy.one_time.fresh_stream", lambda: WordStream(noise_key)):
        seeded = backend.encrypt(coefficients, key)
    ciphertext = Ciphertext(seeded.c0, np.empty((0, 2048), np.uint64))
    stream = _Expanded(polynomial_seed)
    shares = share_secret(secret, range(1, 5), threshold, random_bytes=stream.take)
    c0 = ciphertext.c0
    entry = {
        "node": NODES[index],
        "secret_key": secret_key.hex(),
        "secret": _texts(secret[:8]),
        "noise_key": noise_key.hex(),
        "count": int(c0.size),
        "c0_first": _texts(c0[:4]),
        "c0_at_2046": _texts(c0[2046:]),
        "c0_digest": _words_digest(c0),
        "polynomial_seed": polynomial_seed.hex(),
        "share_values": {str(point): share[:4].tolist() for point, share in shares.items()},
        "share_digests": {
            str(point): tagged_digest("artifact/v1", pack_share(share))
            for point, share in shares.items()
        },
    }
    return entry, ciphertext, shares, secret


def _sealed(shares, threshold):
    stored = _stored()
    readers = [SealingKey(X25519PrivateKey.from_private_bytes(key)) for key in READER_PRIVATE]
    boxes = []
    for number in (1, 2, 3):
        context = ShareContext(
            chain_id=CHAIN_ID,
            contract=CONTRACT,
            task_id=TASK,
            roster_digest=ROSTER,
            round=ROUND,
            attempt=ATTEMPT,
            threshold=threshold,
            dealer=NODES[0],
            reader=NODES[number],
            reader_key=readers[number].public,
        )
        sealed = (
            bytes.fromhex(stored["sealed_shares"][number - 1]["sealed"])
            if stored
            else seal_share(shares[number + 1], readers[number].public, context)
        )
        opened = open_share(sealed, readers[number], context)
        boxes.append(
            {
                "private_key": READER_PRIVATE[number].hex(),
                "info": context.to_bytes().hex(),
                "sealed": sealed.hex(),
                "share_digest": tagged_digest("artifact/v1", pack_share(opened)),
                "digest": sealed_share_digest(sealed, context),
            }
        )
    digests = [box["digest"] for box in boxes]
    edge = np.array([0, 65536, 65535, 1] * 512, np.uint32)
    return {
        "sealed_shares": boxes,
        "shares_root": shares_root(digests),
        "first_proof": list(share_proof(digests, digests[0])),
        "packed_edge": {
            "values": edge[:4].tolist(),
            "repeated": 512,
            "packed_digest": tagged_digest("artifact/v1", pack_share(edge)),
            "tail": pack_share(unpack_share(pack_share(edge)))[-4:].hex(),
        },
    }


def _opening(share):
    stored = _stored()
    context = OpeningContext(
        chain_id=CHAIN_ID,
        contract=CONTRACT,
        task_id=TASK,
        round=ROUND,
        attempt=ATTEMPT,
        manifest_digest=MANIFEST,
        node=NODES[0],
    )
    sealed = bytes.fromhex(stored["opening"]) if stored else seal_opening(share, GROUP_KEY, context)
    opened = open_opening(sealed, GROUP_KEY, context)
    return {
        "group_secret": GROUP_KEY.secret.reveal().hex(),
        "group_key_id": GROUP_KEY.key_id,
        "manifest_digest": MANIFEST,
        "opening_context": context.to_bytes().hex(),
        "opening": sealed.hex(),
        "opened_share_digest": tagged_digest("artifact/v1", pack_share(opened)),
        "opening_digest": opening_digest(sealed, context),
    }


class _Expanded:
    """Bytes of SHAKE-256, as they are asked for."""

    def __init__(self, seed):
        self._seed, self._taken = seed, 0

    def take(self, count):
        end = self._taken + count
        data = hashlib.shake_256(self._seed).digest(end)[self._taken :]
        self._taken = end
        return data


def _stored():
    return json.loads(FILE.read_text())["vectors"] if FILE.exists() else None


def _texts(values):
    return [str(int(value)) for value in values]


def _words_digest(words):
    return tagged_digest("artifact/v1", np.ascontiguousarray(words, "<u8").tobytes())

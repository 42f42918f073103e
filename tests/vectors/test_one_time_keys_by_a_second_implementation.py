"""One-time keys again, from docs/protocol.md alone: nothing of the package is imported."""

import hashlib
import json
import math
from functools import cache

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from eth_utils.crypto import keccak
from second_implementation import Q, h, jcs, tagged, vectors

N = 2048
P = 65537
PSI = 2604308523238
DATA = vectors("one_time_key")


def words(key, count, first=0):
    """The AES-256-CTR key stream as u64-le, from its word `first` on."""
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    stream = encryptor.update(bytes(8 * (first + count)))[8 * first :]
    return [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(count)]


def words_digest(values):
    return tagged("artifact/v1", b"".join(value.to_bytes(8, "little") for value in values))


def row_of_a(seed, row):
    values = [w % 2**54 for w in words(h(tagged("one-time-a/v1", seed)), N, N * row)]
    assert max(values) < Q, "a vector that needs spare words would have to be handled"
    return values


def centred_binomial(key, count):
    coins = [(w % 2**42).bit_count() for w in words(key, 2 * count)]
    return [coins[2 * i] - coins[2 * i + 1] for i in range(count)]


def cyclic(values, root):
    """The values of a polynomial at the powers of a root of unity, by halving."""
    if len(values) == 1:
        return values
    even, odd = (cyclic(values[start::2], root * root % Q) for start in (0, 1))
    out, power = [0] * len(values), 1
    for k in range(len(even)):
        turned = power * odd[k] % Q
        out[k], out[k + len(even)] = (even[k] + turned) % Q, (even[k] - turned) % Q
        power = power * root % Q
    return out


@cache
def powers(base):
    out = [1]
    for _ in range(N - 1):
        out.append(out[-1] * base % Q)
    return out


def reverse(index):
    return int(f"{index:011b}"[::-1], 2)


def ntt(polynomial):
    twisted = [c * power % Q for c, power in zip(polynomial, powers(PSI), strict=True)]
    natural = cyclic(twisted, PSI * PSI % Q)
    return [natural[reverse(i)] for i in range(N)]


def inverse_ntt(values):
    natural = [values[reverse(i)] for i in range(N)]
    twisted = cyclic(natural, pow(PSI, -2, Q))
    scale = pow(N, -1, Q)
    return [
        c * power % Q * scale % Q for c, power in zip(twisted, powers(pow(PSI, -1, Q)), strict=True)
    ]


@cache
def seed():
    place = int(DATA["chain_id"]).to_bytes(32, "little") + h(DATA["contract"]) + h(DATA["task_id"])
    place += DATA["round"].to_bytes(8, "little") + DATA["attempt"].to_bytes(4, "little")
    return h(tagged("one-time-seed/v1", place))


def masks(secret, count):
    """The products a * s of as many rows as `count` coefficients take, one after the other."""
    transformed = ntt([value % Q for value in secret])
    out = []
    for row in range(-(-count // N)):
        product = zip(row_of_a(seed(), row), transformed, strict=True)
        out += inverse_ntt([a * s % Q for a, s in product])
    return out[:count]


def parameters(nodes, fields):
    guard = math.ceil(math.log2(84 * nodes + 1))
    width = (54 - guard) // fields
    ones = sum(2 ** (f * width) for f in range(fields))
    limit = (2 ** (width - 1) - 1) // nodes
    while 2**guard * nodes * limit * ones + 42 * nodes > (Q - 1) // 2:
        limit -= 1
    return guard, width, limit, limit * ones


def secret_of(dealer):
    return centred_binomial(h(dealer["secret_key"]), N)


def share_bytes(values):
    low = b"".join((value % 2**16).to_bytes(2, "little") for value in values)
    bits = sum((value >> 16) << index for index, value in enumerate(values))
    return low + bits.to_bytes(256, "little")


@cache
def shares_of(index):
    """One dealer's shares by point, from its sharing polynomials."""
    dealer = DATA["dealers"][index]
    threshold = (len(DATA["roster"]) + DATA["colluders"]) // 2 + 1
    stream = hashlib.shake_256(h(dealer["polynomial_seed"])).digest(4 * N * (threshold - 1))
    u = [int.from_bytes(stream[i : i + 4], "little") for i in range(0, len(stream), 4)]
    assert max(u) < 2**32 - 1
    rows = [secret_of(dealer), *(u[N * k : N * (k + 1)] for k in range(threshold - 1))]
    return {
        point: [sum(row[j] * point**k for k, row in enumerate(rows)) % P for j in range(N)]
        for point in range(1, len(DATA["roster"]) + 1)
    }


def summed_shares():
    first, second = shares_of(0), shares_of(1)
    return {
        point: [(x + y) % P for x, y in zip(first[point], second[point], strict=True)]
        for point in first
    }


def test_thresholds():
    for case in DATA["thresholds"]:
        n, c = case["members"], case["colluders"]
        assert case["threshold"] == (n + c) // 2 + 1
        assert case["survivors"] == max(case["threshold"], c + 2)


def test_parameters():
    assert len(DATA["parameters"]) == 10
    for case in DATA["parameters"]:
        guard, width, limit, _ = parameters(case["max_nodes"], case["fields"])
        assert (case["plain_bits"], case["width"], case["limit"]) == (54 - guard, width, limit)
        assert (int(case["modulus"], 16), case["ring_degree"]) == (Q, N)


def test_seed_and_rows_of_a():
    assert seed() == h(DATA["seed"])
    for number, case in enumerate(DATA["a"]):
        row = row_of_a(seed(), number)
        assert [str(value) for value in row[:4]] == case["first"]
        assert str(row[-1]) == case["last"]
        assert words_digest(row) == case["digest"]


def test_the_order_of_the_transform():
    assert int(DATA["root"]) == PSI
    assert pow(PSI, N, Q) == Q - 1
    values = ntt([0, 1] + [0] * (N - 2))
    assert values == [pow(PSI, 2 * reverse(i) + 1, Q) for i in range(N)]
    assert [str(value) for value in values[:4]] == DATA["transform_of_x"]
    assert inverse_ntt(values) == [0, 1] + [0] * (N - 2)


def carried(index, bound):
    step = (index + 1) * 12_345_678_901
    return [(j + 1) * step % (2 * bound + 1) - bound for j in range(DATA["size"] // 2)]


def with_zeros(coefficients):
    """A zero before the first coefficient and before every 2047th after it."""
    out = []
    for start in range(0, len(coefficients), N - 1):
        out += [0, *coefficients[start : start + N - 1]]
    return out


def encrypted(index):
    dealer = DATA["dealers"][index]
    guard, _, _, bound = parameters(len(DATA["roster"]), 2)
    rows = with_zeros(carried(index, bound))
    noise = centred_binomial(h(dealer["noise_key"]), len(rows))
    hidden = masks(secret_of(dealer), len(rows))
    return [
        ((m << guard) + e - product) % Q for m, e, product in zip(rows, noise, hidden, strict=True)
    ]


def test_encryption_and_opening_of_the_sum():
    total = [0] * DATA["dealers"][0]["count"]
    for index, dealer in enumerate(DATA["dealers"]):
        assert [str(value) for value in secret_of(dealer)[:8]] == dealer["secret"]
        c0 = encrypted(index)
        assert len(c0) == dealer["count"]
        assert [str(value) for value in c0[:4]] == dealer["c0_first"]
        assert [str(value) for value in c0[2046:]] == dealer["c0_at_2046"]
        assert words_digest(c0) == dealer["c0_digest"]
        total = [(x + y) % Q for x, y in zip(total, c0, strict=True)]
    assert words_digest(total) == DATA["aggregate_digest"]
    summed = opened_secret({point: summed_shares()[point] for point in (1, 3, 4)})
    assert [str(value) for value in summed[:8]] == DATA["summed_secret"]
    guard, _, _, bound = parameters(len(DATA["roster"]), 2)
    phase = [(x + y) % Q for x, y in zip(total, masks(summed, len(total)), strict=True)]
    phase = [value - Q if value > Q // 2 else value for value in phase]
    assert all(abs(value) <= 42 * len(DATA["roster"]) for value in phase[::N])
    values = [(value + 2 ** (guard - 1)) >> guard for j, value in enumerate(phase) if j % N]
    assert values == [a + b for a, b in zip(carried(0, bound), carried(1, bound), strict=True)]
    assert [str(value) for value in values[:4]] == DATA["opened"]
    assert str(values[-1]) == DATA["opened_last"]


def opened_secret(shares):
    """Lagrange interpolation at zero, centred."""
    out = [0] * N
    for point, values in shares.items():
        weight = 1
        for other in shares:
            if other != point:
                weight = weight * other * pow(other - point, -1, P) % P
        out = [(total + weight * value) % P for total, value in zip(out, values, strict=True)]
    return [value - P if value > P // 2 else value for value in out]


def test_shares_and_their_bytes():
    for index, dealer in enumerate(DATA["dealers"]):
        for point, values in shares_of(index).items():
            assert values[:4] == dealer["share_values"][str(point)]
            packed = share_bytes(values)
            assert len(packed) == 4352
            assert tagged("artifact/v1", packed) == dealer["share_digests"][str(point)]
    for point, values in summed_shares().items():
        digest = tagged("artifact/v1", share_bytes(values))
        assert digest == DATA["summed_shares"][str(point)]
    edge = DATA["packed_edge"]
    packed = share_bytes(edge["values"] * edge["repeated"])
    assert tagged("artifact/v1", packed) == edge["packed_digest"]
    assert packed[-4:] == h(edge["tail"])


def bound_digest(tag, context, sealed):
    return tagged(tag, len(context).to_bytes(4) + context + sealed)


def place():
    return {
        "attempt": DATA["attempt"],
        "chain_id": DATA["chain_id"],
        "contract": DATA["contract"],
        "round": DATA["round"],
        "task_id": DATA["task_id"],
    }


def test_sealed_shares_open_and_stand_under_the_signed_root():
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
    leaves = []
    for number, box in enumerate(DATA["sealed_shares"], start=1):
        reader = X25519PrivateKey.from_private_bytes(h(box["private_key"]))
        record = {
            **place(),
            "dealer": DATA["roster"][0],
            "reader": DATA["roster"][number],
            "reader_key": "0x" + reader.public_key().public_bytes_raw().hex(),
            "roster_digest": DATA["roster_digest"],
            "threshold": 3,
        }
        info = b"twopm-flower/sealed-share/v1\0" + jcs(record).encode()
        assert info == h(box["info"])
        sealed = h(box["sealed"])
        assert len(sealed) == 4400
        payload = suite.decrypt(sealed, reader, info=info)
        assert payload == share_bytes(shares_of(0)[number + 1])
        assert tagged("artifact/v1", payload) == box["share_digest"]
        assert bound_digest("sealed-share-digest/v1", info, sealed) == box["digest"]
        leaves.append(keccak(keccak(h(box["digest"]))))
    low, middle, high = sorted(leaves)
    # Three leaves: the array is [root, parent of 3 and 4, high... ] with the lowest at the end.
    parent = keccak(b"".join(sorted((middle, low))))
    assert "0x" + keccak(b"".join(sorted((parent, high)))).hex() == DATA["shares_root"]
    step = leaves[0]
    for sibling in DATA["first_proof"]:
        step = keccak(b"".join(sorted((step, h(sibling)))))
    assert "0x" + step.hex() == DATA["shares_root"]


def test_the_opening_opens_with_the_group_key():
    secret = h(DATA["group_secret"])
    assert tagged("shared-key/v1", b"one-time-key\0" + secret) == DATA["group_key_id"]
    record = {**place(), "manifest_digest": DATA["manifest_digest"], "node": DATA["roster"][0]}
    context = b"twopm-flower/opening/v1\0" + jcs(record).encode()
    assert context == h(DATA["opening_context"])
    sealed = h(DATA["opening"])
    assert len(sealed) == 4380
    key = HKDF(SHA256(), length=32, salt=None, info=context).derive(secret)
    payload = ChaCha20Poly1305(key).decrypt(sealed[:12], sealed[12:], None)
    assert payload == share_bytes(summed_shares()[1])
    assert tagged("artifact/v1", payload) == DATA["opened_share_digest"]
    assert bound_digest("opening-digest/v1", context, sealed) == DATA["opening_digest"]
    assert json.loads(context.partition(b"\0")[2])["chain_id"] == DATA["chain_id"]

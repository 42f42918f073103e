"""What TenSEAL itself does with unsafe bytes, one input per process: some end it.

Run with the name of an input; prints what came of it.
"""

import math
import random
import struct
import sys

import tenseal as ts

DEGREE, BITS = 8192, [60, 40, 60]
SCALE = 2.0**40


def a_context():
    context = ts.context(ts.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=BITS)
    context.global_scale = SCALE
    return context


def a_vector(context, value=1.5):
    return ts.ckks_vector(context, [value] * 41)


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def sizes(*numbers):
    packed = b"".join(varint(number) for number in numbers)
    return b"\x0a" + varint(len(packed)) + packed


def scale(value=SCALE):
    return b"\x19" + struct.pack("<d", value)


def ciphertexts_of(vector):
    """Return the serialised vector without its sizes and its scale."""
    data = vector.serialize()
    assert data[0] == 0x0A
    return data[2 + data[1] : -9]


def sizes_without_ciphertext():
    context = a_context()
    data = b"\x0a\x02\xa9\x00" + scale()  # 41 values, in two bytes
    assert len(data) == 13
    return (a_vector(context) + ts.ckks_vector_from(context, data)).decrypt()


def a_million_sizes():
    context = a_context()
    data = sizes(1_000_000) + ciphertexts_of(a_vector(context)) + scale()
    return len(ts.ckks_vector_from(context, data).decrypt())


def another_key():
    foreign, own = a_context(), a_context()
    vector = ts.ckks_vector_from(own, a_vector(foreign).serialize())
    return max(abs(value) for value in vector.decrypt())


def scale_nan():
    context = a_context()
    data = sizes(41) + ciphertexts_of(a_vector(context)) + scale(math.nan)
    return ts.ckks_vector_from(context, data).decrypt()[0]


def bit_flips():
    context, source, loaded = a_context(), random.Random(1), 0
    data = a_vector(context).serialize()
    for _ in range(100):
        flipped = bytearray(data)
        flipped[source.randrange(len(data))] ^= 1 << source.randrange(8)
        try:
            ts.ckks_vector_from(context, bytes(flipped)).decrypt()
        except (ValueError, RuntimeError, IndexError):
            continue
        loaded += 1
    return loaded


def empty():
    return ts.ckks_vector_from(a_context(), b"").size()


if __name__ == "__main__":
    print(globals()[sys.argv[1]]())

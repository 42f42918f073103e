"""Finding false shares: Reed-Solomon decoding of shares that do not agree.

The shares of one point are one symbol of an interleaved Reed-Solomon code. False symbols are
located by decoding random linear combinations of the 2048 coordinates (J. Massey, "Shift-register
synthesis and BCH decoding", 1969), so that one pass usually finds them all.
"""

from collections.abc import Callable, Sequence

import numpy as np

from twopm_flower.privacy.share_field import (
    PRIME,
    Matrix,
    inverse_differences,
    powers,
    product,
    uniform,
)


def some_false_shares(
    points: Sequence[int],
    values: Matrix,
    threshold: int,
    random_bytes: Callable[[int], bytes],
) -> list[int] | None:
    """Return indices of shares that are certainly false, if the shares can be decoded at all.

    Empty where all agree, and None where they cannot be decoded. Otherwise there is at least
    one, and whether all are found at once is chance; the caller asks again without those.

    If a codeword differs from the shares in at most ``(m - t) // 2`` symbols, then every linear
    combination of the coordinates differs from a codeword in some of these, or in none, and
    decodes. So no true share is ever named, and what fails to decode cannot be decoded.
    """
    redundancy = len(points) - threshold
    checks = (powers(points, redundancy) * inverse_differences(points)[:, None] % PRIME).T
    syndromes = product(checks, values)
    disputed = np.flatnonzero(syndromes.any(axis=0))
    if not disputed.size:
        return []
    # Unpredictable, or liars could choose coordinates that cancel, and draw this out.
    mix = uniform(1, random_bytes)[0, : disputed.size]
    mixed = syndromes[:, disputed] * mix % PRIME
    combined = mixed.sum(axis=1) % PRIME
    if not combined.any():
        combined = syndromes[:, disputed[0]]
    locator = _error_locator([int(value) for value in combined])
    roots = [index for index, point in enumerate(points) if _value_at(locator, point) == 0]
    return roots if len(roots) == len(locator) - 1 else None


def _error_locator(syndromes: Sequence[int]) -> list[int]:
    """Return the monic polynomial, highest power first, whose roots are the false points.

    Berlekamp-Massey: the shortest recurrence that the syndromes obey.
    """
    current, previous = [1], [1]
    length, gap, scale = 0, 1, 1
    for index in range(len(syndromes)):
        window = syndromes[index - length : index + 1]
        discrepancy = sum(map(int.__mul__, current, reversed(window))) % PRIME
        if discrepancy == 0:
            gap += 1
            continue
        factor = discrepancy * pow(scale, -1, PRIME) % PRIME
        updated = current + [0] * (gap + len(previous) - len(current))
        for offset, coefficient in enumerate(previous, start=gap):
            updated[offset] = (updated[offset] - factor * coefficient) % PRIME
        if 2 * length <= index:
            previous, scale = current, discrepancy
            length, gap = index + 1 - length, 1
        else:
            gap += 1
        current = updated
    return (current + [0] * (length + 1))[: length + 1]


def _value_at(polynomial: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in polynomial:
        value = (value * point + coefficient) % PRIME
    return value

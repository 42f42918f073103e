"""Sharing a one-time key out to t-of-n holders, and putting a sum of such keys together again.

Shamir's scheme (A. Shamir, "How to share a secret", 1979) over the integers modulo 65537,
coefficient by coefficient. Fewer than t holders, the server with them, learn nothing at all of
a key from their shares. Shares of several keys add up to a share of the sum of the keys, so
that survivors of a round open this sum and never a single key.

Of m opened shares, up to ``(m - t) // 2`` may be false, however their senders conspire: they
are found, named and left out. The shares of one point are one symbol of an interleaved
Reed-Solomon code; false symbols are located by Berlekamp-Massey decoding (J. Massey, 1969) of
random linear combinations of the 2048 coordinates. Chance decides how long that takes, never
its outcome.

What this does not protect from: t holders who open other sums than the agreed one (whoever
opens remembers that it did, and for which survivors), and a dealer who hands a holder another
share than it should. Such a holder's sum is off the others' line, so it is the holder that
`reconstruct` names.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError, SharingError
from twopm_flower.privacy.parameters import RING_DEGREE

PRIME = 65537
"""The field of the shares: 2**16 + 1."""

SECRET_BOUND = 42
"""The largest magnitude of a coefficient of one key: that of the distribution CBD(42)."""

MAX_MEMBERS = PRIME // 2 // SECRET_BOUND
"""780: with more, a sum of keys could wrap around in the field."""

Share = npt.NDArray[np.uint32]
"""One holder's part of a secret: shape (2048,), each value below `PRIME`."""

# 2**32 - 1 is a multiple of the prime, so this word alone would make small values likelier.
_REJECTED_WORD = np.uint32(0xFFFFFFFF)

_Matrix = npt.NDArray[np.int64]


def threshold_for(members: int, colluders: int) -> int:
    """Return t, the number of shares that open a sum: ``(n + c) // 2 + 1``.

    Any two sets of t members have ``2 t - n >= c + 1`` in common, an honest one among them,
    and that one opens for one set of survivors only. Besides, ``c <= t - 1`` and ``t <= n``.

    Parameters
    ----------
    members : int
        n: who takes part in the task.
    colluders : int
        c: how many of them may work together with the server and learn no other's update.

    Raises
    ------
    ConfigError
        If no threshold is safe: fewer than c + 2 members, or more than `MAX_MEMBERS`.

    Examples
    --------
    >>> threshold_for(10, 3)
    7
    """
    if colluders < 0:
        raise ConfigError(
            f"{colluders} colluding nodes cannot be tolerated.",
            hint="Set the number of colluders to 0 or more.",
        )
    if members > MAX_MEMBERS:
        raise ConfigError(
            f"One-time keys can be shared out among {MAX_MEMBERS} members at most, "
            f"not {members}: their sum would not fit the field of {PRIME}.",
            hint="Split the task, or use the trust mode shared-key.",
        )
    if members < colluders + 2:
        raise ConfigError(
            f"{members} members cannot tolerate {colluders} colluding ones: the sum of "
            f"{members - colluders} honest updates would give a single one away.",
            hint=f"Take at least {colluders + 2} members"
            + (f", or at most {members - 2} colluders." if members >= 2 else "."),
        )
    return (members + colluders) // 2 + 1


def fewest_survivors(threshold: int, colluders: int) -> int:
    """Return how many members must survive a round: ``max(t, c + 2)``.

    Fewer cannot open the sum, or would leave an honest member alone among colluders.
    """
    return max(threshold, colluders + 2)


def share_secret(
    secret: npt.NDArray[np.int64],
    points: Sequence[int],
    threshold: int,
    *,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> dict[int, Share]:
    """Return one share for each point; any `threshold` of them determine the secret.

    Each is an array of its own: none keeps another, or the secret, alive.

    Parameters
    ----------
    secret : ndarray of int64, shape (2048,)
        Coefficients of magnitude at most `SECRET_BOUND`.
    points : sequence of int
        The holders' points, 1 + index in the roster: distinct, from 1 to `MAX_MEMBERS`.
    threshold : int
        t, from 1 to the number of points.
    random_bytes : callable, optional
        The source of randomness, unpredictable and never the same twice.

    Raises
    ------
    SharingError
        If the secret, a point or the threshold is not one of these.
    """
    if secret.shape != (RING_DEGREE,) or secret.dtype != np.int64:
        raise SharingError(
            f"A secret is {RING_DEGREE} int64 values, not {secret.dtype} of shape {secret.shape}."
        )
    if int(secret.min()) < -SECRET_BOUND or int(secret.max()) > SECRET_BOUND:
        raise SharingError(
            f"A coefficient of the secret is beyond {SECRET_BOUND}; nothing was shared out.",
            hint="Draw the key with OneTimeKey.fresh.",
        )
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise SharingError(
            f"{threshold} shares are to open a secret that only {len(points)} nodes hold.",
            hint="Wait for more nodes, or see threshold_for.",
        )
    polynomials = np.empty((threshold, RING_DEGREE), np.int64)
    polynomials[0] = secret % PRIME
    polynomials[1:] = _uniform(threshold - 1, random_bytes)
    values = _product(_powers(points, threshold), polynomials)
    shares = {point: row.astype(np.uint32) for point, row in zip(points, values, strict=True)}
    erase(polynomials, values)
    return shares


def add_shares(shares: Iterable[Share]) -> Share:
    """Return the share of the sum of the secrets whose shares at one point these are.

    Raises
    ------
    SharingError
        If there is none, more than `MAX_MEMBERS`, or one that is no share.
    """
    total = np.zeros(RING_DEGREE, np.uint64)
    count = 0
    for share in shares:
        total += check_share(share)
        count += 1
    if not 1 <= count <= MAX_MEMBERS:
        raise SharingError(f"{count} shares cannot be added: there are 1 to {MAX_MEMBERS}.")
    return (total % np.uint64(PRIME)).astype(np.uint32)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What shares add up to.

    Attributes
    ----------
    secret : ndarray of int64, shape (2048,)
        Centred: from -32768 to 32768.
    liars : tuple of int
        The points of shares that disagree with the secret, in ascending order.
    """

    secret: npt.NDArray[np.int64] = field(repr=False)
    liars: tuple[int, ...]


def reconstruct(shares: Mapping[int, Share], threshold: int) -> Reconstruction:
    """Return the secret that the shares agree on, and who does not agree.

    A function of the shares alone, so that all nodes find the same. With exactly `threshold`
    shares there is nothing to compare, and a false one goes unnoticed here.

    Parameters
    ----------
    shares : mapping of int to ndarray of uint32, shape (2048,)
        The opened shares by the points of their holders, m of them.
    threshold : int
        t: how many determine the secret.

    Raises
    ------
    SharingError
        If m is less than t, or more than ``(m - t) // 2`` of the shares are false.
    """
    points = sorted(shares)
    _check_points(points)
    count = len(points)
    if not 1 <= threshold <= count:
        raise SharingError(
            f"{count} shares were opened; {threshold} are needed to put the key together.",
            hint="Look at the nodes that did not answer, and run a new attempt of the round.",
        )
    values = np.stack([check_share(shares[point]) for point in points]).astype(np.int64)
    findable = (count - threshold) // 2
    liars: list[int] = []
    while (false := _some_liars(points, values, threshold)) != []:
        if false is None or len(liars) + len(false) > findable:
            raise SharingError(
                f"The {count} opened shares do not agree on a key: {threshold} determine it, so "
                f"up to {findable} false ones would have been found, and there are more.",
                hint="Run a new attempt of the round, with fresh keys; more nodes in it let "
                "more false shares be found.",
            )
        liars += [points[index] for index in false]
        kept = [index for index in range(len(points)) if index not in false]
        points, values = [points[index] for index in kept], values[kept]
    # The shares that are left agree, so any t of them give the secret.
    weights = _weights_at_zero(points[:threshold])
    secret = _product(weights[None, :], values[:threshold])[0]
    erase(values)
    secret[secret > PRIME // 2] -= PRIME
    return Reconstruction(secret, tuple(sorted(liars)))


def check_share(share: npt.NDArray[Any]) -> Share:
    """Return `share` after checking that it is one.

    Raises
    ------
    SharingError
        If it is not 2048 uint32 values below `PRIME`.
    """
    if share.shape != (RING_DEGREE,) or share.dtype != np.uint32:
        raise SharingError(
            f"A share is {RING_DEGREE} uint32 values, not {share.dtype} of shape {share.shape}."
        )
    if int(share.max()) >= PRIME:
        raise SharingError(f"Value {int(share.argmax())} of a share is not below {PRIME}.")
    return share


def erase(*arrays: npt.NDArray[Any]) -> None:
    """Overwrite secret arrays with zeros: shares after they were sealed, added up or opened.

    Nothing here keeps copies, but the interpreter and numpy may have made some that are out of
    reach; this shortens the time that a secret is in memory, and promises no more.
    """
    for array in arrays:
        array.fill(0)


def _check_points(points: Sequence[int]) -> None:
    beyond = [point for point in points if not 1 <= point <= MAX_MEMBERS]
    if beyond or len(set(points)) != len(points):
        raise SharingError(
            f"The points of shares are distinct and from 1 to {MAX_MEMBERS}, not {list(points)}."
        )


def _uniform(rows: int, random_bytes: Callable[[int], bytes]) -> _Matrix:
    """Return `rows` x 2048 independent, uniform elements of the field."""
    wanted = rows * RING_DEGREE
    words = np.frombuffer(random_bytes(4 * wanted), "<u4").copy()
    while (rejected := np.flatnonzero(words == _REJECTED_WORD)).size:
        words[rejected] = np.frombuffer(random_bytes(4 * rejected.size), "<u4")
    words %= np.uint32(PRIME)
    elements = words.astype(np.int64).reshape(rows, RING_DEGREE)
    erase(words)
    return elements


def _product(left: _Matrix, right: _Matrix) -> _Matrix:
    """Return the matrix product in the field.

    In floating point, because numpy multiplies integer matrices slowly. It is exact: a sum of
    780 products of field elements is below 2**42, and 2**53 would be.
    """
    exact = left.astype(np.float64) @ right.astype(np.float64)
    product = exact.astype(np.int64)
    erase(exact)
    product %= PRIME
    return product


def _powers(points: Sequence[int], count: int) -> _Matrix:
    """Return the powers 0 to `count` - 1 of each point, one row a point."""
    base = np.array(points, np.int64)
    powers = np.ones((len(points), count), np.int64)
    for exponent in range(1, count):
        powers[:, exponent] = powers[:, exponent - 1] * base % PRIME
    return powers


def _inverse_differences(points: Sequence[int]) -> _Matrix:
    """Return, for each point x, the inverse of the product of x - y over the others y."""
    base = np.array(points, np.int64)
    products = np.ones_like(base)
    for index, point in enumerate(points):
        differences = base - point
        differences[index] = 1
        products = products * differences % PRIME
    return np.array([pow(int(product), -1, PRIME) for product in products], np.int64)


def _weights_at_zero(points: Sequence[int]) -> _Matrix:
    """Return Lagrange's weights: the sum of weighted values is the polynomial's at zero."""
    product = 1
    for point in points:
        product = product * -point % PRIME
    # The product of 0 - y over all others y, and (x - y) for (0 - y): each by its inverse.
    inverses = np.array([pow(-point, -1, PRIME) for point in points], np.int64)
    return product * inverses % PRIME * _inverse_differences(points) % PRIME


def _some_liars(points: Sequence[int], values: _Matrix, threshold: int) -> list[int] | None:
    """Return indices of shares that are certainly false, if the shares can be decoded at all.

    Empty where all agree, and None where they cannot be decoded. Otherwise there is at least
    one, and whether all are found at once is chance; the caller asks again without those.

    If a codeword differs from the shares in at most e symbols, every combination of the
    coordinates differs from a codeword in some of these, at most, and decodes to them. So
    nothing but false shares is ever named, and no combination fails to decode.
    """
    redundancy = len(points) - threshold
    checks = (_powers(points, redundancy) * _inverse_differences(points)[:, None] % PRIME).T
    syndromes = _product(checks, values)
    disputed = np.flatnonzero(syndromes.any(axis=0))
    if not disputed.size:
        return []
    # Unpredictable, or liars could choose coordinates that cancel, and draw this out.
    mix = _uniform(1, os.urandom)[0, : disputed.size]
    mixed = syndromes[:, disputed] * mix % PRIME
    combined = mixed.sum(axis=1) % PRIME
    if not combined.any():
        combined = syndromes[:, disputed[0]]
    locator = _error_locator([int(value) for value in combined])
    roots = [index for index, point in enumerate(points) if _value_at(locator, point) == 0]
    errors = len(locator) - 1
    return roots if len(roots) == errors and 2 * errors <= redundancy else None


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

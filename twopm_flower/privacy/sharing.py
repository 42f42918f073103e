"""Sharing a one-time key out to t-of-n holders, and putting a sum of such keys together again.

Shamir's scheme (A. Shamir, "How to share a secret", 1979) over the integers modulo 65537,
coefficient by coefficient. Fewer than t holders, the server with them, learn nothing at all of
a key from their shares. Shares of several keys add up to a share of the sum of the keys, so
that survivors of a round open this sum and never a single key.

Of m opened shares, up to ``(m - t) // 2`` may be false, however their senders conspire: they
are found, named and left out.

What this does not protect from:

- t holders who open another sum than the agreed one. Whoever opens remembers for whom.
- More than ``(m - t) // 2`` conspirators, or just one liar where m is t: they may pass off
  another secret. Its size and the zero payloads of the ciphertext give it away, unless it was
  chosen with both in mind.
- A dealer who hands a holder another share than it should. The holder's sums then disagree
  with the others', so it is the holder that `reconstruct` names.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import ConfigError, SharingError
from twopm_flower.privacy.parameters import RING_DEGREE
from twopm_flower.privacy.share_decoding import some_false_shares
from twopm_flower.privacy.share_field import (
    PRIME,
    erase,
    powers,
    product,
    uniform,
    weights_at_zero,
)

SECRET_BOUND = 42
"""The largest magnitude of a coefficient of one key: that of the distribution CBD(42)."""

MAX_MEMBERS = PRIME // 2 // SECRET_BOUND
"""780: with more, a sum of keys could wrap around in the field."""

Share = npt.NDArray[np.uint32]
"""One holder's part of a secret: shape (2048,), each value below `PRIME`."""

_RUN_AGAIN = (
    "Run a new attempt of the round, with fresh keys; the more nodes open, the more false "
    "shares are found."
)


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
    polynomials[1:] = uniform(threshold - 1, random_bytes)
    values = product(powers(points, threshold), polynomials)
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
    total = np.zeros(RING_DEGREE, np.uint32)
    count = 0
    for share in shares:
        total += check_share(share)
        count += 1
    if not 1 <= count <= MAX_MEMBERS:
        raise SharingError(f"{count} shares cannot be added: there are 1 to {MAX_MEMBERS}.")
    return total % np.uint32(PRIME)


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What shares add up to.

    Attributes
    ----------
    secret : ndarray of int64, shape (2048,)
        Centred around zero.
    liars : tuple of int
        The points of shares that disagree with the secret, in ascending order.
    """

    secret: npt.NDArray[np.int64] = field(repr=False)
    liars: tuple[int, ...]


def reconstruct(
    shares: Mapping[int, Share],
    threshold: int,
    *,
    summands: int = MAX_MEMBERS,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Reconstruction:
    """Return the secret that all but ``(m - t) // 2`` shares agree on, and who disagrees.

    A function of the shares alone, so that all nodes find the same. With exactly `threshold`
    shares there is nothing to compare, and a false one goes unnoticed here.

    Parameters
    ----------
    shares : mapping of int to ndarray of uint32, shape (2048,)
        The opened shares by the points of their holders, m of them.
    threshold : int
        t: how many determine the secret.
    summands : int, optional
        How many keys the secret is the sum of: its size is bounded by that.
    random_bytes : callable, optional
        What liars cannot predict. It has no influence on the result, only on how many steps
        it takes to find them.

    Raises
    ------
    SharingError
        If m is less than t, or there is no such secret: more shares are false.
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
    while (false := some_false_shares(points, values, threshold, random_bytes)) != []:
        if false is None or len(liars) + len(false) > findable:
            raise SharingError(
                f"The {count} opened shares do not agree on a key: {threshold} determine it, so "
                f"up to {findable} false ones would have been found, and there are more.",
                hint=_RUN_AGAIN,
            )
        liars += [points[index] for index in false]
        kept = [index for index in range(len(points)) if index not in false]
        points, values = [points[index] for index in kept], values[kept]
    # The shares that are left agree, so any t of them give the secret.
    weights = weights_at_zero(points[:threshold])
    secret = product(weights[None, :], values[:threshold])[0]
    erase(values)
    secret[secret > PRIME // 2] -= PRIME
    if int(np.abs(secret).max()) > summands * SECRET_BOUND:
        raise SharingError(
            f"What the {count} opened shares add up to is no sum of {summands} keys: more than "
            f"{findable} of them are false, or a key was.",
            hint=_RUN_AGAIN,
        )
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


def _check_points(points: Sequence[int]) -> None:
    beyond = [point for point in points if not 1 <= point <= MAX_MEMBERS]
    if beyond or len(set(points)) != len(points):
        raise SharingError(
            f"The points of shares are distinct and from 1 to {MAX_MEMBERS}, not {list(points)}."
        )

"""The backend of one-time keys: ring learning with errors under a secret for each update.

In each attempt of each round a node i draws a secret s_i and the nodes grow the uniform
polynomials a, one for each row, from a public seed (`one_time_key.public_seed`)::

    c0_i = (m_i << g) + e_i - a * s_i                        (mod q)
    m    = (centred(sum c0_i + a * sum s_i) + 2**(g-1)) >> g

with secrets and noise from a centred binomial distribution of parameter 42. Whoever knows
sum s_i opens the sum, and nothing else; no single s_i is ever opened. The first coefficient
of each row carries 0: under a wrong key it opens as a uniform residue, which is noticed
unless it falls into the 84 n + 1 of noise. Only the coefficients in use are sent, and a
never is, so c1 has no rows.

Giving away sum s_i is the setting of hint-RLWE (Kim, Lee, Seo, Song, "Toward Practical
Lattice-Based Proof of Knowledge from Hint-MLWE", CRYPTO 2023). Secrets and noise have a
standard deviation of 4.58, of which 3.24 is left of one of two honest nodes whose sum is
known; degree 2048 and a modulus of 54 bits then give about 131 bits of security by the
lattice estimator. The products a * s_i would give away more and never leave this module.
There has been no independent review of this construction.
"""

import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from twopm_flower.errors import BadOpening, HeadroomError, PrivacyError
from twopm_flower.privacy import ring_numpy
from twopm_flower.privacy.backend import Coefficients, Key
from twopm_flower.privacy.ciphertext import SEED_BYTES, Ciphertext, SeededCiphertext
from twopm_flower.privacy.keys import SecretBytes, SharedKey
from twopm_flower.privacy.one_time_key import GROUP_KEY_BYTES, OneTimeKey
from twopm_flower.privacy.parameters import ONE_TIME_NOISE, RING_DEGREE, AdditiveParameters
from twopm_flower.privacy.residues import MODULUS, Residues, add_mod, centred
from twopm_flower.privacy.ring import Ring, ring_for
from twopm_flower.privacy.room import room_for
from twopm_flower.privacy.sampling import centred_binomial, fresh_stream, uniform_rows

_FEWEST_MEASURED = 16
_FEWEST_SHARED = 4
_MOST_THREADS = 8
_CARRYING = RING_DEGREE - 1
_CHUNK_ROWS = 32
_Q = np.uint64(MODULUS)


class OneTimeBackend:
    """Encrypts each update under a key of its own.

    Parameters
    ----------
    parameters : AdditiveParameters
        Those of the backend ``one-time-key``.
    """

    name: ClassVar[str] = "one-time-key"
    needs_key: ClassVar[bool] = True

    def __init__(self, parameters: AdditiveParameters) -> None:
        self._guard_bits = np.int64(parameters.guard_bits)
        self._largest = parameters.largest_coefficient
        self._noise = ONE_TIME_NOISE * parameters.max_nodes

    def generate_key(self) -> SharedKey:
        """Return a fresh group key: nodes seal with it what they open; it encrypts no update."""
        return SharedKey(self.name, SecretBytes(secrets.token_bytes(GROUP_KEY_BYTES)))

    def encrypt(self, coefficients: Coefficients, key: Key) -> SeededCiphertext:
        """Return the encryption of `coefficients`, an int64 array of shape (C,).

        Raises
        ------
        HeadroomError
            If a coefficient carries more than the limit: the sum of all nodes could wrap.
        PrivacyError
            If there is nothing to encrypt, or the key is no fresh `OneTimeKey`.
        """
        if coefficients.ndim != 1 or not coefficients.size:
            raise PrivacyError(f"Coefficients of shape {coefficients.shape} are not a vector.")
        if max(int(coefficients.max()), -int(coefficients.min())) > self._largest:
            raise HeadroomError(
                f"A coefficient exceeds {self._largest}, the largest that carries values within "
                "the limit. Nothing was encrypted."
            )
        used = self._one_time_key(key)
        used.use()
        rows = -(-coefficients.size // _CARRYING)
        ring = ring_for(rows)
        secret = _transformed_secret(used, ring)
        c0 = np.empty(coefficients.size + rows, np.uint64)

        def encrypt_rows(first: int) -> None:
            count = min(_CHUNK_ROWS, rows - first)
            carried = coefficients[first * _CARRYING : (first + count) * _CARRYING]
            phase = np.zeros((count, RING_DEGREE), np.int64)
            _fill(phase, carried)
            flat = phase.ravel()[: carried.size + count]
            flat <<= self._guard_bits
            flat += centred_binomial(fresh_stream(), flat.size)
            masks = ring.products(uniform_rows(used.public_seed, first, count), secret)
            start = first * RING_DEGREE
            c0[start : start + flat.size] = add_mod(
                _residues(flat), _Q - masks.ravel()[: flat.size]
            )

        _for_chunks(encrypt_rows, rows)
        return SeededCiphertext(c0, np.empty((0, SEED_BYTES), np.uint8))

    def expand(self, ciphertext: SeededCiphertext) -> Ciphertext:
        """Return the same residues: a is public, and no part of the ciphertext."""
        return ciphertext.with_c1(np.empty((0, RING_DEGREE), np.uint64))

    def decrypt(self, ciphertext: Ciphertext, key: Key) -> Coefficients:
        """Return the coefficients of a sum of ciphertexts, opened by the sum of their keys.

        Raises
        ------
        BadOpening
            If a coefficient that all nodes left at 0 does not open as one, or the noise is
            not that of honest nodes: no sum of their keys was opened.
        PrivacyError
            If the key is no `OneTimeKey`.
        """
        opening = self._one_time_key(key)
        rows = -(-ciphertext.c0.size // RING_DEGREE)
        ring = ring_for(rows)
        secret = _transformed_secret(opening, ring)
        opened = room_for(ciphertext.c0.size - rows).view(np.int64)
        rounded = _round_rows if ring is ring_numpy else _compiled_rounding()

        def decrypt_rows(first: int) -> None:
            c0 = ciphertext.c0[first * RING_DEGREE : (first + _CHUNK_ROWS) * RING_DEGREE]
            count = -(-c0.size // RING_DEGREE)
            masks = ring.products(uniform_rows(opening.public_seed, first, count), secret)
            flat = masks.ravel()[: c0.size]
            zeros = np.abs(centred(add_mod(c0[::RING_DEGREE], flat[::RING_DEGREE])))
            if int(zeros.max()) > self._noise:
                row = first + int(np.argmax(zeros > self._noise))
                raise _wrong_key(
                    f"row {row} of the sum has a coefficient that every node left at 0, and it "
                    "does not open as 0"
                )
            carried = opened[first * _CARRYING : (first + count) * _CARRYING]
            largest, squares = rounded(c0, flat, self._guard_bits, carried)
            self._check_noise(int(largest), int(squares) / c0.size, c0.size)

        _for_chunks(decrypt_rows, rows)
        return opened

    def _check_noise(self, largest: int, square: float, count: int) -> None:
        # A wrong key leaves noise that is uniform over the guard bits: its mean square is 80
        # times an honest one's and more. Chance makes that of 16 honest coefficients 12 times
        # as large as it should be with less than 2**-90 (chi-square tail), of more with less.
        allowed = self._noise / 2 * (8 + 64 / count)
        few = count < _FEWEST_MEASURED
        if largest > self._noise or (square > allowed and not few):
            raise _wrong_key(
                f"the noise has a mean square of {square:.0f} and values up to {largest}, honest "
                f"nodes leave at most {allowed:.0f} and {self._noise}"
            )

    def _one_time_key(self, key: Key) -> OneTimeKey:
        if not isinstance(key, OneTimeKey):
            found = "none" if key is None else f"a shared key of {key.backend!r}"
            raise PrivacyError(
                f"The backend {self.name!r} needs a one-time key; got {found}.",
                hint="OneTimeKey.fresh draws one to encrypt with, OneTimeKey.of_sum opens a sum; "
                "the group key only seals openings.",
            )
        return key


def _round_rows(
    c0: Residues, masks: Residues, guard_bits: np.int64, carried: Coefficients
) -> tuple[int, int]:
    """Do what `fused.round_rows` does."""
    phase = centred(add_mod(c0, masks))
    rounded = (phase + (np.int64(1) << (guard_bits - np.int64(1)))) >> guard_bits
    _gather(rounded, carried)
    noise = phase - (rounded << guard_bits)
    return int(np.abs(noise).max()), int(np.square(noise).sum())


def _compiled_rounding() -> Callable[..., Any]:
    # Compiled code is imported only where it is used: see `ring`.
    from twopm_flower.privacy import fused  # noqa: PLC0415

    return fused.round_rows


def _for_chunks(work: Callable[[int], None], rows: int) -> None:
    """Do a piece of work for the first row of each chunk, on several cores where it pays.

    What is compiled, and most of numpy, runs without the interpreter's lock.
    """
    chunks = range(0, rows, _CHUNK_ROWS)
    others = min(_MOST_THREADS, os.cpu_count() or 1) - 1
    if len(chunks) < _FEWEST_SHARED or not others:
        for first in chunks:
            work(first)
        return
    # Each takes the next chunk that nobody took: next() of an iterator of a range is atomic.
    waiting = iter(chunks)

    def take() -> None:
        for first in waiting:
            work(first)

    with ThreadPoolExecutor(others) as pool:
        helpers = [pool.submit(take) for _ in range(others)]
        take()
        for helper in helpers:
            helper.result()


def _wrong_key(reason: str) -> BadOpening:
    return BadOpening(
        f"The opened key is wrong: {reason}.",
        hint="Decode the openings again without the false ones, or start a new attempt with "
        "fresh keys.",
    )


def _transformed_secret(key: OneTimeKey, ring: Ring) -> Residues:
    transformed: Residues = ring.transform(_residues(key.secret).reshape(1, RING_DEGREE))[0]
    return transformed


def _residues(signed: Coefficients) -> Residues:
    """Return integers of less than q in magnitude modulo q."""
    words = signed.view(np.uint64)
    residues: Residues = np.minimum(words, words + _Q)
    return residues


def _fill(rows: Coefficients, carried: Coefficients) -> None:
    """Write to rows what they carry, behind the first coefficient of each."""
    whole = carried.size // _CARRYING
    rows[:whole, 1:] = carried[: whole * _CARRYING].reshape(whole, _CARRYING)
    rest = carried[whole * _CARRYING :]
    rows[whole:, 1 : 1 + rest.size] = rest


def _gather(phase: Coefficients, carried: Coefficients) -> None:
    """Write what rows carry, the last of them perhaps short, behind one another."""
    whole = phase.size // RING_DEGREE
    carried[: whole * _CARRYING].reshape(whole, _CARRYING)[:] = phase[
        : whole * RING_DEGREE
    ].reshape(whole, RING_DEGREE)[:, 1:]
    carried[whole * _CARRYING :] = phase[whole * RING_DEGREE + 1 :]

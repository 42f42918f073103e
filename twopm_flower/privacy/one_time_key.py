"""A node's secret for one attempt of one round, and the sum of such secrets that is opened."""

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from twopm_flower.errors import BadOpening, PrivacyError
from twopm_flower.privacy.binding import hexadecimal
from twopm_flower.privacy.keys import Unprintable
from twopm_flower.privacy.parameters import MAX_ONE_TIME_NODES, RING_DEGREE
from twopm_flower.privacy.sampling import (
    BINOMIAL,
    PUBLIC_SEED_BYTES,
    centred_binomial,
    fresh_stream,
)
from twopm_flower.records.digest import tagged_digest

Secret = npt.NDArray[np.int64]

GROUP_KEY_BYTES = 32
"""Of the key that openings are sealed with."""


class OneTimeKey(Unprintable):
    """A small secret polynomial s and the public seed that the polynomial a grows from.

    Make one with `fresh` to encrypt with, once, or with `of_sum` to open a sum.
    """

    backend: ClassVar[str] = "one-time-key"

    def __init__(self, secret: npt.NDArray[Any], public_seed: bytes, *, unused: bool) -> None:
        if len(public_seed) != PUBLIC_SEED_BYTES:
            raise PrivacyError(
                f"A public seed has {PUBLIC_SEED_BYTES} bytes; this one has {len(public_seed)}."
            )
        bound = BINOMIAL * (1 if unused else MAX_ONE_TIME_NODES)
        if secret.shape != (RING_DEGREE,) or not np.issubdtype(secret.dtype, np.signedinteger):
            raise PrivacyError(
                f"A one-time secret of {secret.dtype} {secret.shape} is not {RING_DEGREE} signed "
                "integers."
            )
        # The offending coefficient is secret, so the error does not name it.
        if int(secret.max()) > bound or int(secret.min()) < -bound:
            raise BadOpening(
                f"A coefficient of a one-time secret exceeds {bound} in magnitude: it is no sum of "
                "the secrets of honest nodes."
            )
        self.secret: Secret = secret.astype(np.int64)
        self.secret.setflags(write=False)
        self.public_seed = bytes(public_seed)
        self._unused = unused

    def __repr__(self) -> str:
        return f"OneTimeKey(public_seed=0x{self.public_seed.hex()}, <redacted>)"

    @classmethod
    def fresh(cls, seed: bytes) -> Self:
        """Return a key whose secret was drawn just now, for one encryption.

        Parameters
        ----------
        seed : bytes
            What `public_seed` gives for the attempt.
        """
        return cls(centred_binomial(fresh_stream(), RING_DEGREE), seed, unused=True)

    @classmethod
    def of_sum(cls, secret_sum: npt.NDArray[Any], seed: bytes) -> Self:
        """Return the key that opens the sum of the ciphertexts under the summed secrets.

        Parameters
        ----------
        secret_sum : ndarray of signed integers, shape (2048,)
        seed : bytes
            The public seed of the attempt.

        Raises
        ------
        BadOpening
            If a coefficient is larger than in any such sum.
        PrivacyError
            If the secret has another shape, or the seed another length.
        """
        return cls(secret_sum, seed, unused=False)

    def use(self) -> None:
        """Note that the key encrypts now.

        Raises
        ------
        PrivacyError
            If it did already, or is a sum: two ciphertexts under one key give away the
            difference of what they carry.
        """
        if not self._unused:
            raise PrivacyError(
                f"{self!r} was used before, or is a sum of keys: it encrypts nothing more.",
                hint="Draw a fresh key, in a new attempt.",
            )
        self._unused = False


def public_seed(chain_id: int, contract: str, task_id: str, round_: int, attempt: int) -> bytes:
    """Return the seed of the polynomial a that all nodes use in one attempt of one round.

    The digest is over fixed-width integers, little-endian: the chain id in 32 bytes, the
    contract's address (20), the task (32), round (8) and attempt (4).

    Parameters
    ----------
    chain_id : int
        Unsigned, 256 bits.
    contract : str
        The address of the contract that keeps the task.
    task_id : str
        ``0x`` and 64 hexadecimal digits.
    round_, attempt : int
        Unsigned, 64 and 32 bits.

    Raises
    ------
    PrivacyError
        If a value does not fit its width.
    """
    for name, value, bits in (
        ("chain id", chain_id, 256),
        ("round", round_, 64),
        ("attempt", attempt, 32),
    ):
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise PrivacyError(f"{name} {value!r} is not an unsigned integer of {bits} bits.")
    digest = tagged_digest(
        "one-time-seed/v1",
        chain_id.to_bytes(32, "little"),
        bytes.fromhex(hexadecimal("contract", contract, 20)[2:]),
        bytes.fromhex(hexadecimal("task_id", task_id, 32)[2:]),
        round_.to_bytes(8, "little"),
        attempt.to_bytes(4, "little"),
    )
    return bytes.fromhex(digest[2:])

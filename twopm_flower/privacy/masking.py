"""Sums of small integers that show no summand: pairwise masks that cancel.

The masking of Bonawitz et al., "Practical Secure Aggregation for Federated Learning on
User-Held Data" (arXiv 1611.04482), section 4, without the recovery of drop-outs: either
all members' vectors are there and the masks cancel, or the sum is uniform noise.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from twopm_flower.errors import HeadroomError, PrivacyError
from twopm_flower.privacy.keys import SealingKey
from twopm_flower.records.canonical import canonical_bytes

Masked = npt.NDArray[np.uint64]

_TAG = b"twopm-flower/pairwise-mask/v1\0"
_NONCE = bytes(16)
_ADDRESS_BYTES = 20


def mask(
    values: Sequence[int],
    *,
    own_address: str,
    own_key: SealingKey,
    peers: Sequence[tuple[str, str]],
    context: bytes,
) -> Masked:
    """Return `values` modulo 2**64 under one mask per peer.

    Of each pair of nodes, the one with the lower address adds the mask and the other
    subtracts it. A context must never be used for two different vectors of one node, or
    their difference shows.

    Parameters
    ----------
    values : sequence of int
        Signed; the sum over all members must fit 63 bits.
    own_address : str
        This node's chain address.
    own_key : SealingKey
        The private half of this node's registered key.
    peers : sequence of (str, str)
        Address and public X25519 key of every other member.
    context : bytes
        What the sum is of: chain, contract, task, round, attempt, roster.

    Returns
    -------
    ndarray of uint64, shape (len(values),)

    Raises
    ------
    PrivacyError
        If there is no peer, an address occurs twice, or the own one is among them.
    HeadroomError
        If a value is too large for the sum of so many members.
    KeyCeremonyError
        If a peer's key is not usable.
    """
    own = _address_bytes(own_address)
    others = [_address_bytes(address) for address, _ in peers]
    if not others or own in others or len(set(others)) != len(others):
        raise PrivacyError(
            f"{len(others)} peers do not make a group: list every other member once.",
            hint="Without a peer the value itself would be shown.",
        )
    bound = ((1 << 63) - 1) // (len(others) + 1)
    for value in values:
        if abs(value) > bound:
            raise HeadroomError(f"The value {value} does not fit a sum of {len(others) + 1}.")
    masked = np.array(values, np.int64).view(np.uint64).copy()
    for (_, public), other in zip(peers, others, strict=True):
        low, high = sorted((own, other))
        secret = own_key.agree(public).reveal()
        stream = _keystream(secret, context, low + high, len(values))
        if own == low:
            masked += stream
        else:
            masked -= stream
    return masked


def unmask_sum(masked: Sequence[Masked]) -> tuple[int, ...]:
    """Return the sums of the values behind the masked vectors of all members.

    Whether they are all is not visible here: with one missing, or made in another context,
    the result is uniform noise. The caller checks who signed them.

    Raises
    ------
    PrivacyError
        If there are fewer than two vectors, or their lengths or dtypes differ.
    """
    if len(masked) < 2:
        raise PrivacyError(f"{len(masked)} masked vectors are not the sum of a group.")
    shapes = {(vector.dtype.str, vector.shape) for vector in masked}
    if len(shapes) != 1 or masked[0].dtype != np.uint64 or masked[0].ndim != 1:
        raise PrivacyError(f"The masked vectors differ in kind: {sorted(map(str, shapes))}.")
    total: Masked = np.add.reduce(np.stack(masked))
    signed: npt.NDArray[np.int64] = total.view(np.int64)
    return tuple(int(signed[index]) for index in range(signed.size))


def _keystream(secret: bytes, context: bytes, pair: bytes, count: int) -> Masked:
    # The context has any length and the pair a fixed one, so the two cannot run together.
    key = HKDF(SHA256(), length=32, salt=None, info=_TAG + context + pair).derive(secret)
    encryptor = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(8 * count)), "<u8").astype(np.uint64)


def _address_bytes(address: str) -> bytes:
    try:
        data = bytes.fromhex(address.removeprefix("0x"))
    except ValueError:
        data = b""
    if len(data) != _ADDRESS_BYTES:
        raise PrivacyError(f"{address!r} is not an address of {_ADDRESS_BYTES} bytes.")
    return data


def mask_context(task_id: str, manifest_digest: str, model_round: int, *, closing: bool) -> bytes:
    """Return the bytes that bind masks to one exchange, so that no mask is used twice."""
    return canonical_bytes(
        {
            "closing": closing,
            "manifest": manifest_digest,
            "model_round": model_round,
            "task": task_id,
        }
    )

"""The parameters of an encrypted sum, derived from the number of nodes by formulas."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, Self, cast, get_args

from twopm_flower.errors import ConfigError, RecordError
from twopm_flower.privacy.residues import MODULUS, RESIDUE_BITS
from twopm_flower.records.canonical import canonical_bytes
from twopm_flower.records.digest import tagged_digest

BackendName = Literal["bfv", "one-time-key", "plaintext"]

RING_DEGREE = 2048
"""With a modulus of 54 bits this degree gives 128-bit security (HomomorphicEncryption.org
standard, 2018, table 1: at most 54 bits for degree 2048 and a ternary secret)."""

NOISE_FACTOR = 43
"""Twice the largest noise of one fresh ciphertext: 21 from SEAL's centred binomial
distribution and at most 1/2 from rounding the plaintext up to the modulus."""

ONE_TIME_NOISE = 42
"""The largest noise of one ciphertext under a one-time key, whose plaintext is not rounded."""

MAX_ONE_TIME_NODES = 780
"""Secrets are shared in the field of 65537 elements, and a coefficient of a sum of n of them
is at most 42 n in magnitude: ``2 * 42 * 780 < 65537``."""


@dataclass(frozen=True)
class AdditiveParameters:
    """How integers are packed into ciphertexts so that a sum of them is exact.

    Make one with `derive`. With n nodes, k fields and modulus q::

        t = 2**tau    the largest with 43 * n * t < q   (so decryption cannot fail)
        w = floor(tau / k)                              (bits of one field)
        L = floor((2**(w - 1) - 1) / n)                 (so n inputs cannot wrap)

    The backend ``one-time-key`` puts the integers above g bits that the noise stays in, and
    takes w and L in the same way::

        g = ceil(log2(84 * n + 1))                      (so rounding cannot fail)
        tau = 54 - g
        2**g * n * L * sum_f 2**(f * w) + 42 * n <= (q - 1) / 2

    The last line lowers L a little where k = 1 (q is below 2**54), and never elsewhere. The first
    coefficient of each row is 0 there, so that a wrongly opened key is noticed.

    Attributes
    ----------
    backend : str
        Name of the homomorphic encryption backend.
    ring_degree : int
        Coefficients of one row (one ring element).
    modulus : int
        The ciphertext modulus q.
    plain_bits : int
        tau: a coefficient carries an integer modulo ``2**tau``.
    fields : int
        k: signed fields packed into one coefficient.
    width : int
        w: bits of one field.
    max_nodes : int
        n: the most ciphertexts that may be added.
    limit : int
        L: the largest magnitude of a value of one node.
    """

    backend: BackendName
    ring_degree: int
    modulus: int
    plain_bits: int
    fields: int
    width: int
    max_nodes: int
    limit: int

    @classmethod
    def derive(cls, backend: BackendName, max_nodes: int, fields: int = 2) -> Self:
        """Return the parameters for up to `max_nodes` ciphertexts of `fields` fields.

        Raises
        ------
        ConfigError
            If the backend is unknown, a number is not positive, a field would be left without
            room for a value, or there are more nodes than one-time keys can be shared by.
        """
        if backend not in get_args(BackendName):
            known = ", ".join(get_args(BackendName))
            raise ConfigError(f"Backend {backend!r} is unknown.", hint=f"Use one of: {known}.")
        if max_nodes < 1 or fields < 1:
            raise ConfigError(
                f"max_nodes = {max_nodes} and fields = {fields} must both be at least 1."
            )
        if backend == "one-time-key":
            plain_bits = _one_time_plain_bits(max_nodes)
        else:
            plain_bits = ((MODULUS - 1) // (NOISE_FACTOR * max_nodes)).bit_length() - 1
        width = plain_bits // fields
        limit = ((1 << (width - 1)) - 1) // max_nodes if width > 0 else 0
        if backend == "one-time-key" and limit > 0:
            room = ((MODULUS - 1) // 2 - ONE_TIME_NOISE * max_nodes) >> (RESIDUE_BITS - plain_bits)
            limit = min(limit, room // (max_nodes * _ones(fields, width)))
        if limit < 1:
            raise ConfigError(
                f"{fields} fields for {max_nodes} nodes leave no room for a value.",
                hint="Use fewer fields per coefficient, or fewer nodes.",
            )
        return cls(backend, RING_DEGREE, MODULUS, plain_bits, fields, width, max_nodes, limit)

    @property
    def guard_bits(self) -> int:
        """g: the low bits that noise alone reaches; 0 where the backend sees to that itself."""
        return RESIDUE_BITS - self.plain_bits if self.backend == "one-time-key" else 0

    @property
    def largest_coefficient(self) -> int:
        """The largest magnitude of a coefficient that carries values within the limit."""
        return self.limit * _ones(self.fields, self.width)

    def coefficients(self, size: int) -> int:
        """Return C, the number of coefficients that `size` values take."""
        return -(-size // self.fields)

    def wire_coefficients(self, size: int) -> int:
        """Return how many coefficients a ciphertext of `size` values has: C and the zeros."""
        carrying = self.coefficients(size)
        if self.backend == "one-time-key":
            return carrying + -(-carrying // (self.ring_degree - 1))
        return carrying

    def rows(self, size: int) -> int:
        """Return how many rows of c1 belong to `size` values.

        0 where there is none, or everybody grows it from a public seed.
        """
        if self.backend != "bfv":
            return 0
        return -(-self.coefficients(size) // self.ring_degree)

    @cached_property
    def identifier(self) -> str:
        """The digest that frames, statements and the chain name these parameters by."""
        return tagged_digest("additive-parameters/v1", canonical_bytes(self.to_dict()))

    def to_dict(self) -> dict[str, str | int]:
        """Return a JSON-ready mapping; the modulus is a hexadecimal string.

        RFC 8785 numbers are exact up to 2**53 only, and the modulus has 54 bits.
        """
        return {**asdict(self), "modulus": hex(self.modulus)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises
        ------
        RecordError
            If anything differs from what the formulas give.
        """
        try:
            backend, nodes, fields = data["backend"], data["max_nodes"], data["fields"]
        except KeyError as missing:
            raise RecordError(f"Encryption parameters lack {missing}.") from missing
        if type(nodes) is not int or type(fields) is not int:
            raise RecordError(
                f"max_nodes = {nodes!r} and fields = {fields!r} must both be integers."
            )
        try:
            parameters = cls.derive(cast(BackendName, backend), nodes, fields)
        except ConfigError as error:
            raise RecordError(f"Encryption parameters are not usable: {error}") from error
        expected = parameters.to_dict()
        for name in sorted(expected.keys() | data.keys()):
            found, right = data.get(name), expected.get(name)
            if type(found) is not type(right) or found != right:
                raise RecordError(
                    f"Encryption parameter {name} is {found!r}; the formulas give {right!r}."
                )
        return parameters


def _one_time_plain_bits(nodes: int) -> int:
    if nodes > MAX_ONE_TIME_NODES:
        raise ConfigError(
            f"One-time keys serve at most {MAX_ONE_TIME_NODES} nodes, not {nodes}.",
            hint="Use several tasks, or the trust mode shared-key.",
        )
    return RESIDUE_BITS - (2 * ONE_TIME_NOISE * nodes).bit_length()


def _ones(fields: int, width: int) -> int:
    """Return the integer that has a 1 in each field."""
    return sum(1 << (field * width) for field in range(fields))

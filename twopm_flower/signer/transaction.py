"""An EIP-1559 transaction as a value: read from a request, encoded, decoded, compared.

Only this type of transaction is known here, and only without an access list
(https://eips.ethereum.org/EIPS/eip-1559). What an encoder drops or pads silently cannot pass:
bytes are read strictly and in one form only.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from twopm_flower.errors import RecordError
from twopm_flower.records.statements import recover

MAX_DATA_BYTES: Final = 256 * 1024
TYPE: Final = 2
# go-ethereum's txpool.pricebump
BUMP_PERCENT: Final = 10
# of a signed transaction; a list with more is not worth reading to its end
MAX_ITEMS: Final = 12
_NAMES: Final = {
    "chain_id": "chainId",
    "nonce": "nonce",
    "max_priority_fee_per_gas": "maxPriorityFeePerGas",
    "max_fee_per_gas": "maxFeePerGas",
    "gas": "gas",
    "value": "value",
}
_KNOWN: Final = {*_NAMES.values(), "to", "data", "input", "type", "from", "accessList"}
_LEGACY: Final = "gasPrice"
_OTHER_TYPES: Final = ("blobVersionedHashes", "maxFeePerBlobGas", "blobs", "authorizationList")
_HEX: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_QUANTITY: Final = re.compile(r"0x(?:0|[1-9a-fA-F][0-9a-fA-F]*)")


@dataclass(frozen=True)
class Transaction:
    """All fields of an EIP-1559 transaction without an access list.

    Attributes
    ----------
    chain_id, nonce : int
    max_priority_fee_per_gas, max_fee_per_gas : int
        In wei.
    gas : int
        The limit, in units of gas.
    to : str or None
        The EIP-55 address called; None deploys a contract.
    value : int
        In wei.
    data : bytes
        Call data, or the code that deploys.
    """

    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas: int
    to: str | None
    value: int
    data: bytes

    @classmethod
    def from_fields(cls, request: Mapping[str, Any]) -> Self:
        """Read a transaction as JSON-RPC and web3 name its fields.

        Numbers are integers or ``0x`` quantities. ``from`` may be there and is not looked at.

        Raises
        ------
        RecordError
            A field is missing, unknown or malformed, or it is a transaction of another type.
        """
        _require_type(request)
        values = {field: _quantity(request, name) for field, name in _NAMES.items()}
        if values["max_priority_fee_per_gas"] > values["max_fee_per_gas"]:
            raise RecordError("maxPriorityFeePerGas is above maxFeePerGas")
        if values["nonce"] >= 2**64 - 1:
            raise RecordError(f"nonce {values['nonce']} does not exist (EIP-2681)")
        return cls(**values, to=_recipient(request.get("to")), data=_data(request))

    def to_fields(self) -> dict[str, Any]:
        """Return the fields as a JSON-RPC request has them."""
        shown: dict[str, Any] = {name: hex(getattr(self, field)) for field, name in _NAMES.items()}
        shown |= {"type": hex(TYPE), "data": "0x" + self.data.hex()}
        return shown if self.to is None else shown | {"to": self.to}

    @property
    def signing_hash(self) -> bytes:
        """The 32-byte digest that is signed."""
        return keccak(bytes([TYPE]) + rlp_encode(self._items()))

    @property
    def max_fee(self) -> int:
        """The most that the transaction can cost, its value not counted, in wei."""
        return self.gas * self.max_fee_per_gas

    def with_signature(self, signature: bytes) -> bytes:
        """Return the raw transaction; `signature` is 65 bytes ``r || s || v`` with v 27 or 28."""
        parity = signature[64] - 27
        ends = [_number(parity), _number(int.from_bytes(signature[:32]))]
        return bytes([TYPE]) + rlp_encode(
            [*self._items(), *ends, _number(int.from_bytes(signature[32:64]))]
        )

    def differences(self, other: "Transaction") -> frozenset[str]:
        """Return the names of the fields that differ."""
        return frozenset(
            field.name
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        )

    def outbids(self, other: "Transaction") -> bool:
        """Tell whether both fees are at least 10 % higher, as nodes ask of a replacement."""
        return all(
            new * 100 >= old * (100 + BUMP_PERCENT)
            for new, old in (
                (self.max_fee_per_gas, other.max_fee_per_gas),
                (self.max_priority_fee_per_gas, other.max_priority_fee_per_gas),
            )
        )

    def _items(self) -> list[Any]:
        return [
            _number(self.chain_id),
            _number(self.nonce),
            _number(self.max_priority_fee_per_gas),
            _number(self.max_fee_per_gas),
            _number(self.gas),
            b"" if self.to is None else bytes.fromhex(self.to[2:]),
            _number(self.value),
            self.data,
            [],
        ]


def decode_signed(raw: bytes) -> tuple[Transaction, str]:
    """Return a raw transaction's fields and who signed it.

    Raises
    ------
    RecordError
        Another type, an access list, or not the one encoding of its values.
    SignatureError
        The signature is not canonical.
    """
    if raw[:1] != bytes([TYPE]):
        kind = f"of type {raw[0]}" if raw and raw[0] < 0x80 else "without a type"
        raise RecordError(f"the transaction is {kind}; only type {TYPE} (EIP-1559) is known here")
    items = rlp_decode(raw[1:])
    if not isinstance(items, list) or len(items) != 12:
        raise RecordError("the transaction does not have the 12 fields of a signed EIP-1559 one")
    if items[8] != []:
        raise RecordError("the transaction has an access list")
    if not all(isinstance(item, bytes) for item in items[:8] + items[9:]):
        raise RecordError("a field of the transaction is a list")
    if len(items[5]) not in (0, 20):
        raise RecordError(f"the recipient has {len(items[5])} bytes, not 20")
    numbers = [_integer(items[place]) for place in (0, 1, 2, 3, 4, 6, 9, 10, 11)]
    chain_id, nonce, priority, fee, gas, value, parity, r, s = numbers
    transaction = Transaction(
        chain_id=chain_id,
        nonce=nonce,
        max_priority_fee_per_gas=priority,
        max_fee_per_gas=fee,
        gas=gas,
        to=str(to_checksum_address(items[5])) if items[5] else None,
        value=value,
        data=items[7],
    )
    if parity not in (0, 1):
        raise RecordError(f"the signature's parity is {parity}, not 0 or 1")
    signature = f"0x{r:064x}{s:064x}{parity + 27:02x}"
    return transaction, recover(transaction.signing_hash, signature)


def rlp_encode(item: Any) -> bytes:
    """Return the RLP of bytes, or of a list of such items (Ethereum Yellow Paper, appendix B)."""
    if isinstance(item, list):
        return _headed(0xC0, b"".join(rlp_encode(element) for element in item))
    if len(item) == 1 and item[0] < 0x80:
        return bytes(item)
    return _headed(0x80, item)


def rlp_decode(data: bytes) -> Any:
    """Return what RLP bytes stand for; other bytes that stand for the same are refused.

    Raises
    ------
    RecordError
        Not RLP, or not in its one form.
    """
    try:
        item, rest = _read(data, depth=0)
    except IndexError:
        raise RecordError("the transaction is cut off") from None
    if rest or rlp_encode(item) != data:
        raise RecordError("the transaction is not RLP in its one form")
    return item


def _read(data: bytes, *, depth: int) -> tuple[Any, bytes]:
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    is_list, length = first >= 0xC0, (first - 0x80) % 0x40
    start = 1
    if length > 55:
        start += length - 55
        length = int.from_bytes(data[1:start])
    if len(data) < start + length or depth > 2:
        raise RecordError("the transaction is not RLP: a length leads beyond its end")
    body, rest = data[start : start + length], data[start + length :]
    if not is_list:
        return body, rest
    items = []
    while body:
        item, body = _read(body, depth=depth + 1)
        items.append(item)
        if len(items) > MAX_ITEMS:
            raise RecordError(f"a list in the transaction has more than {MAX_ITEMS} elements")
    return items, rest


def _headed(offset: int, body: bytes) -> bytes:
    if len(body) <= 55:
        return bytes([offset + len(body)]) + body
    length = _number(len(body))
    return bytes([offset + 55 + len(length)]) + length + body


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8)


def _integer(data: bytes) -> int:
    if data[:1] == b"\0" or len(data) > 32:
        raise RecordError("a number of the transaction is not in its one form")
    return int.from_bytes(data)


def _require_type(request: Mapping[str, Any]) -> None:
    if _LEGACY in request:
        raise RecordError(
            "a legacy transaction (gasPrice) is not signed: without EIP-1559 fields and a chain "
            "id it could be replayed elsewhere"
        )
    for name in _OTHER_TYPES:
        if name in request:
            raise RecordError(f"{name}: transactions with blobs or authorisations are not signed")
    unknown = sorted(str(name) for name in request.keys() - _KNOWN)
    if unknown:
        raise RecordError(f"the transaction has the unknown field {unknown[0][:40]!r}")
    if request.get("type", TYPE) not in (TYPE, "0x2", "0x02"):
        raise RecordError(
            f"a transaction of type {str(request['type'])[:20]!r} is not signed, only type 2 "
            "(EIP-1559)"
        )
    if request.get("accessList"):
        raise RecordError("a transaction with an access list is not signed")


def _quantity(request: Mapping[str, Any], name: str) -> int:
    value = request.get(name)
    if value is None:
        raise RecordError(f"the transaction has no {name}", hint="Every field has to be given.")
    if isinstance(value, str) and _QUANTITY.fullmatch(value) and len(value) <= 66:
        return int(value, 16)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**256:
        return value
    raise RecordError(f"{name} is {str(value)[:80]!r}, which is no quantity")


def _recipient(value: Any) -> str | None:
    if value in (None, "", "0x", b""):
        return None
    if isinstance(value, bytes) and len(value) == 20:
        return str(to_checksum_address(value))
    if isinstance(value, str) and re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        return str(to_checksum_address(value))
    raise RecordError(f"{str(value)[:80]!r} is not an address")


def _data(request: Mapping[str, Any]) -> bytes:
    if request.get("data") is not None and request.get("input") is not None:
        raise RecordError("the transaction has both data and input; only one may be given")
    value = request.get("data") if request.get("data") is not None else request.get("input")
    if value is None:
        return b""
    if isinstance(value, str) and _HEX.fullmatch(value):
        value = bytes.fromhex(value[2:])
    if not isinstance(value, bytes):
        raise RecordError("the transaction's data are not hexadecimal")
    if len(value) > MAX_DATA_BYTES:
        raise RecordError(f"the transaction has {len(value)} bytes of data; {MAX_DATA_BYTES} fit")
    return bytes(value)

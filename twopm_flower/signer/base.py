"""What a signer is: an address, and signatures over transactions and typed data."""

from collections.abc import Mapping
from typing import Any, Protocol


class Signer(Protocol):
    """Holds one secp256k1 key, or reaches somebody who does.

    Nothing else can be asked of it: in particular it signs no bare hash, because a hash
    cannot be shown to a person or judged by a policy.
    """

    @property
    def address(self) -> str:
        """The EIP-55 address of the key."""
        ...

    def sign_transaction(self, fields: Mapping[str, Any]) -> bytes:
        """Sign an EIP-1559 transaction.

        Parameters
        ----------
        fields : Mapping
            All fields as web3 names them (``chainId``, ``nonce``, ``to``, ``data``,
            ``value``, ``gas``, ``maxFeePerGas``, ``maxPriorityFeePerGas``); ``to`` is
            missing when a contract is deployed.

        Returns
        -------
        bytes
            The raw signed transaction, ready to be broadcast.
        """
        ...

    def sign_typed_data(
        self,
        domain: dict[str, Any],
        types: dict[str, list[dict[str, str]]],
        primary_type: str,
        message: dict[str, Any],
    ) -> bytes:
        """Sign EIP-712 typed data (https://eips.ethereum.org/EIPS/eip-712).

        Parameters
        ----------
        domain : dict
            The domain; its fields make up the type ``EIP712Domain``.
        types : dict
            The other types.
        primary_type : str
            Which of them `message` is.
        message : dict
            Exactly the fields of that type.

        Returns
        -------
        bytes
            65 bytes ``r || s || v``, low s, v 27 or 28.
        """
        ...

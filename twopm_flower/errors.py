"""Every error that twopm-flower raises on purpose.

Each says what was wrong, with which value, and what to do next::

    TwopmError
    ├── ConfigError              a setting is missing or cannot be used
    │   └── KeyExhausted         a key has opened as many sums as it may
    ├── DataError                a data set cannot be read: file, column and row are named
    │   └── RealDataMissingError real data was insisted on and none is to be had
    ├── RecordError              bytes that claim to be one of our records are not
    │   └── SignatureError       a signature is not canonical or not the claimed node's
    ├── PrivacyError             encryption, decryption or keys
    │   ├── FrameError           an encrypted update is malformed
    │   │   └── BindingError         it is well formed and bound to something else
    │   ├── HeadroomError        a value would not fit the encrypted sum
    │   ├── LayoutError          arrays or metrics are not the agreed ones
    │   ├── KeyCeremonyError     a key cannot be dealt, sealed or opened
    │   ├── SharingError         a secret cannot be shared out, or put together from shares
    │   │   ├── UnreadableShares     shares of some dealers do not open
    │   │   └── UnsignedShare        a share is not the one that its dealer signed
    │   ├── NativeCrash          the process that runs native code died or took too long
    │   └── BadOpening           the opened key is not the one that a sum was encrypted under
    ├── ImpossibleSum            an opened sum that honest nodes cannot have added up to
    ├── ChainError               the chain cannot be used
    │   ├── ChainUnavailable     nobody answers: worth trying again
    │   ├── WrongChain           somebody else's chain answers
    │   ├── TransactionReverted  the contract said no
    │   └── RecordConflict       the chain holds another record than ours: an alarm
    ├── SignerError              an isolated signer cannot be used
    │   ├── SignerUnavailable    nobody answers: worth trying again
    │   ├── SignerRefused        its policy says no; the reason is told
    │   ├── SignerRequestError   a request that is none, or that it does not know
    │   └── SignerMismatch       what came back is not what was to be signed: an alarm
    ├── InferenceError           a private prediction cannot be asked for or answered
    │   ├── InferenceUnavailable nobody answers in time, or is too busy: worth trying again
    │   ├── InferenceRefused     the service says no; its reason is told
    │   └── InferenceMismatch    what came back is not what was asked for: an alarm
    ├── NodeBehind               this node missed an opening and needs it again
    ├── StartedOver              the server starts a task again that this node has gone on in
    ├── ProtocolViolation        a party broke the protocol of a round; the node stops
    ├── StrategyRefused          a Flower strategy that cannot work on ciphertexts
    ├── QuorumError              too few valid replies or nodes
    ├── DeploymentError          a SuperLink, a SuperNode or a run does not start or fails
    ├── BenchmarkError           a benchmark cannot be run, or a peer cannot be installed
    └── VerificationError        a step of the verification does not hold
        └── ProvableFault        somebody signed what is shown to be wrong
"""

from collections.abc import Sequence


class TwopmError(Exception):
    """Base of all errors of twopm-flower.

    Parameters
    ----------
    message : str
        What was wrong, with the offending value.
    hint : str, optional
        What to do next, as an instruction or a command.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class ConfigError(TwopmError):
    """A setting is missing or cannot be used."""


class KeyExhausted(ConfigError):
    """A key has opened as many sums as it may; a new task deals a new one."""


class DataError(TwopmError):
    """A data set cannot be read."""


class RealDataMissingError(DataError):
    """Real data was insisted on, and none is to be had."""


class RecordError(TwopmError):
    """Bytes that claim to be one of our records are not."""


class SignatureError(RecordError):
    """A signature is not canonical, or not by the claimed node."""


class PrivacyError(TwopmError):
    """Encryption, decryption or key handling failed."""


class FrameError(PrivacyError):
    """An encrypted update is malformed, or bound to another context."""


class BindingError(FrameError):
    """An encrypted update is well formed, and bound to another task, round, node or key."""


class HeadroomError(PrivacyError):
    """A value would not fit the encrypted sum; nothing was encrypted."""


class LayoutError(PrivacyError):
    """Arrays or metrics are not the ones that the layout of the update agrees on."""


class KeyCeremonyError(PrivacyError):
    """A key cannot be dealt, sealed or opened."""


class SharingError(PrivacyError):
    """A secret cannot be shared out, or cannot be put together from the shares at hand."""


class UnreadableShares(SharingError):
    """Shares of some survivors do not open; nothing was opened.

    Attributes
    ----------
    dealers : tuple of str
        Who sealed them.
    """

    def __init__(self, dealers: Sequence[str]) -> None:
        super().__init__(
            f"the shares that {', '.join(dealers)} dealt to this node do not open",
            hint="They signed what does not open: ask their operators.",
        )
        self.dealers = tuple(dealers)


class UnsignedShare(SharingError):
    """A share that its dealer did not sign; this node cannot tell whose fault it is."""


class NativeCrash(PrivacyError):
    """The process that runs native code died, answered nonsense or took too long."""


class BadOpening(PrivacyError):
    """The opened key is not the sum of the keys that a sum was encrypted under."""


class ImpossibleSum(TwopmError):
    """An opened sum that honest nodes cannot have added up to."""


class ChainError(TwopmError):
    """The chain cannot be used."""


class ChainUnavailable(ChainError):
    """Nobody answers at the chain's endpoint: worth trying again."""


class WrongChain(ChainError):
    """The endpoint answers for another chain or contract than the pinned one."""


class TransactionReverted(ChainError):
    """The contract refused the transaction.

    Parameters
    ----------
    message : str
        What was refused and why.
    hint : str, optional
        What to do next.
    error_name : str, optional
        The contract's own error, such as ``OutOfOrder``, where it gave one that we know.
    arguments : dict, optional
        The values that came with it, by the names that the contract gives them.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        error_name: str | None = None,
        arguments: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.error_name = error_name
        self.arguments = arguments or {}


class RecordConflict(ChainError):
    """The chain holds another record than ours."""


class SignerError(TwopmError):
    """An isolated signer cannot be used."""


class SignerUnavailable(SignerError):
    """Nobody answers at the signer's socket or address: worth trying again."""


class SignerRefused(SignerError):
    """The signer's policy does not allow what was to be signed.

    Parameters
    ----------
    message : str
        What is not allowed.
    hint : str, optional
        What to do next.
    signed : dict, optional
        The transaction that the signer signed for this nonce before, as JSON-RPC names its
        fields, where that is the reason.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        signed: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.signed = signed


class SignerRequestError(SignerError):
    """A request that is none, or for a method that the signer does not have.

    Parameters
    ----------
    message : str
        What is wrong with it.
    code : int
        JSON-RPC's code for that.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class SignerMismatch(SignerError):
    """What the signer returned is not a signature over what it was asked to sign."""


class InferenceError(TwopmError):
    """A private prediction cannot be asked for or answered."""


class InferenceUnavailable(InferenceError):
    """Nobody answers in time, or the service is too busy: worth trying again."""


class InferenceRefused(InferenceError):
    """The service does not answer a request, and says why.

    Parameters
    ----------
    message : str
        What it said.
    hint : str, optional
        What to do next.
    status : int
        The HTTP status.
    """

    def __init__(self, message: str, *, hint: str | None = None, status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class InferenceMismatch(InferenceError):
    """What a service answered is not an honest answer to what it was asked."""


class NodeBehind(TwopmError):
    """A node missed an opening; the server has to send it again.

    Parameters
    ----------
    message : str
        What was asked, and how far the node is.
    opened_round : int
        The last round that the node opened.
    """

    def __init__(self, message: str, *, opened_round: int) -> None:
        super().__init__(message)
        self.opened_round = opened_round


class StartedOver(TwopmError):
    """The server starts a task again that this node has gone on in; the node waits and goes on."""


class ProtocolViolation(TwopmError):
    """Another party broke the protocol of a round; the node does not go on."""


class StrategyRefused(TwopmError):
    """A Flower strategy that cannot work on ciphertexts."""


class QuorumError(TwopmError):
    """Too few nodes, or too few valid replies."""


class DeploymentError(TwopmError):
    """A SuperLink, a SuperNode or a run does not start, or fails."""


class VerificationError(TwopmError):
    """A step of the verification does not hold."""


class ProvableFault(VerificationError):
    """Somebody signed what is wrong, and whoever has the same files sees it, too."""


class BenchmarkError(TwopmError):
    """A benchmark cannot be run, or a peer cannot be installed."""

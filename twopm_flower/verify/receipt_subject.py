"""The receipt under verification: the files, the chain, and what follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from twopm_flower.privacy.linear_frame import LinearRequest, parse_request
from twopm_flower.privacy.linear_parameters import LinearParameters
from twopm_flower.records.inference import (
    ModelCard,
    PredictionReceipt,
    PredictionRequest,
    ReceiptFile,
)
from twopm_flower.records.statements import Domain
from twopm_flower.verify.chain_view import ReceiptChainView
from twopm_flower.verify.stepping import SkippedStep, answering

ModelArrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class ReceiptSubject:
    """One receipt under verification; steps read it and share what is costly to derive.

    Attributes
    ----------
    file : ReceiptFile
        What is checked.
    request_frame, response_frame : bytes or None
        What went over the wire, where it is at hand.
    chain : ReceiptChainView or None
        What it is compared with.
    arrays : mapping of str to ndarray of float32, or None
        The model's arrays by name, to redo the answer with.
    """

    file: ReceiptFile
    request_frame: bytes | None
    response_frame: bytes | None
    chain: ReceiptChainView | None
    arrays: ModelArrays | None

    @property
    def card(self) -> ModelCard:
        """What the service said of the model."""
        return self.file.card

    @property
    def domain(self) -> Domain:
        """What both sides signed for."""
        return self.card.deployment.receipt_domain

    @property
    def asked(self) -> PredictionRequest:
        """What the requester said; steps 1 to 3 check it."""
        return self.file.request.statement

    @property
    def answered(self) -> PredictionReceipt:
        """What the service said; steps 1 to 3 check it."""
        return self.file.receipt.statement

    @cached_property
    def parameters(self) -> LinearParameters:
        """The parameters of the encryption, from the card.

        Raises
        ------
        RecordError
            They are none.
        """
        return LinearParameters.from_dict(self.card.parameters)

    @cached_property
    def request(self) -> LinearRequest:
        """The encrypted rows, parsed; their digest is not compared with what was signed.

        Raises
        ------
        SkippedStep
            The request is not at hand.
        PrivacyError
            It is none, or one for another model.
        """
        if self.request_frame is None:
            raise SkippedStep("the request is not at hand")
        return parse_request(
            self.request_frame,
            self.parameters,
            model_digest=self.answered.model_digest,
            max_rows=self.card.max_rows,
        )

    def require_chain(self) -> ReceiptChainView:
        """Return the chain.

        Raises
        ------
        SkippedStep
            None was given, or it does not answer.
        """
        return answering(self.chain)

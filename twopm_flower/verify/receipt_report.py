"""What the verification of a receipt found: one result per step, and what follows from all."""

from dataclasses import dataclass
from typing import Literal

from twopm_flower.verify.report import StepResult, Verdict

ReceiptLevel = Literal["redone", "compared", "signed"]


@dataclass(frozen=True)
class ReceiptReport(Verdict):
    """The outcome of verifying a receipt.

    Attributes
    ----------
    receipt_digest : str
        What the service signed.
    task_id, model_digest : str
        The model that is said to have answered, and the task that it is the outcome of.
    service, requester : str
        Who signed what.
    rows : int
        How many predictions it is about.
    price : int
        In wei.
    issued_at : int
        When the service says that it answered, in seconds since 1970.
    steps : tuple of StepResult
        All steps, in order.
    level : {"redone", "compared", "signed"}
        Whether the answer was computed again, or only request and response compared with what
        was signed about them, or signatures alone checked.
    anchored : bool
        Whether the chain has the model as the outcome of its task, and the receipt in a batch.
    fault : bool
        Whether the service signed a wrong answer, which anybody with the same files can show.
    notes : tuple of str
        What a reader should know besides the steps.
    """

    receipt_digest: str
    task_id: str
    model_digest: str
    service: str
    requester: str
    rows: int
    price: int
    issued_at: int
    steps: tuple[StepResult, ...]
    level: ReceiptLevel
    anchored: bool
    fault: bool
    notes: tuple[str, ...]

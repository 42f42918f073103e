"""What the verification of a receipt found: one result per step, and what follows from all."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from twopm_flower.verify.report import StepResult

ReceiptLevel = Literal["redone", "compared", "signed"]


@dataclass(frozen=True)
class ReceiptReport:
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

    @property
    def first_failure(self) -> StepResult | None:
        """The step that failed, or None."""
        return next((step for step in self.steps if step.status == "failed"), None)

    @property
    def exit_code(self) -> int:
        """0 when all steps hold, 1 when one failed, 2 when all hold but it is not anchored."""
        if self.first_failure is not None:
            return 1
        return 0 if self.anchored else 2

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON value."""
        failure = self.first_failure
        return {
            **asdict(self),
            "first_failure": None if failure is None else failure.number,
            "exit_code": self.exit_code,
        }

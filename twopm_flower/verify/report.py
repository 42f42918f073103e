"""What a verification found: one result per step, and what follows from all of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

StepStatus = Literal["passed", "failed", "skipped"]
Level = Literal["re-executed", "fingerprints"]


@dataclass(frozen=True)
class StepResult:
    """How one step of the checklist ended.

    Attributes
    ----------
    number : int
        Its place in the checklist, from 1.
    title : str
        What it checks.
    status : {"passed", "failed", "skipped"}
        How it ended.
    detail : str
        What was found, or what differs.
    seconds : float
        How long it took.
    """

    number: int
    title: str
    status: StepStatus
    detail: str
    seconds: float


class Verdict:
    """What follows from the steps of a checklist: a base of reports, which are dataclasses."""

    steps: tuple[StepResult, ...]
    anchored: bool

    @property
    def first_failure(self) -> StepResult | None:
        """The step that failed and ended the checklist, or None."""
        return next((step for step in self.steps if step.status == "failed"), None)

    @property
    def exit_code(self) -> int:
        """0 when all steps hold, 1 when one failed, 2 when all hold but no chain confirms it."""
        if self.first_failure is not None:
            return 1
        return 0 if self.anchored else 2

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON value."""
        failure = self.first_failure
        return {
            **asdict(self),  # type: ignore[call-overload]  # of a report
            "first_failure": None if failure is None else failure.number,
            "exit_code": self.exit_code,
        }


@dataclass(frozen=True)
class ModelMetrics:
    """What is known about the model of one round, as sums over the nodes that took part.

    Attributes
    ----------
    model_round : int
        The round whose aggregate gave the model; 0 is the initial model.
    contributors, samples : int
        How many updates are in that aggregate, of how many training rows; 0 for round 0.
    training : mapping of str to float, or None
        Sums of the metrics that travelled encrypted with those updates, each in its own unit.
    evaluators : int
        How many nodes evaluated the model on held-out rows.
    evaluation : mapping of str to float, or None
        Sums of their evaluation metrics, each in its own unit.
    """

    model_round: int
    contributors: int
    samples: int
    training: Mapping[str, float] | None
    evaluators: int
    evaluation: Mapping[str, float] | None


@dataclass(frozen=True)
class Report(Verdict):
    """The outcome of a verification.

    Attributes
    ----------
    task_id, title, trust_mode : str
        Which task, and who could read its updates.
    rounds, planned_rounds : int
        How many rounds the bundle holds, and how many the terms plan.
    steps : tuple of StepResult
        All steps, in order.
    level : {"re-executed", "fingerprints"}
        Whether every round's sum was added up again, or only its fingerprints.
    anchored : bool
        Whether everything was compared with the chain.
    finalised : bool
        Whether the chain holds the final model.
    metrics : tuple of ModelMetrics
        One entry per model that a passed step opened metrics of, in order.
    notes : tuple of str
        What a reader should know besides the steps.
    """

    task_id: str
    title: str
    trust_mode: str
    rounds: int
    planned_rounds: int
    steps: tuple[StepResult, ...]
    level: Level
    anchored: bool
    finalised: bool
    metrics: tuple[ModelMetrics, ...]
    notes: tuple[str, ...]

"""Verification of a run by anyone: a numbered checklist that needs neither Flower nor web3."""

from twopm_flower.verify.chain_view import ChainView
from twopm_flower.verify.checklist import STEPS, load_bundle, verify_bundle
from twopm_flower.verify.report import ModelMetrics, Report, StepResult

__all__ = [
    "STEPS",
    "ChainView",
    "ModelMetrics",
    "Report",
    "StepResult",
    "load_bundle",
    "verify_bundle",
]

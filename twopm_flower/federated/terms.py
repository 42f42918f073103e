"""The terms of a task that nobody wrote by hand: from a model and what the app reports."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from twopm_flower.errors import ConfigError
from twopm_flower.federated.exchange import Arrays
from twopm_flower.federated.excluded import local_digest, split_initial
from twopm_flower.privacy.layout import Layout, Metric
from twopm_flower.privacy.parameters import AdditiveParameters
from twopm_flower.privacy.sharing import fewest_survivors, threshold_for
from twopm_flower.records.terms import ArrayTerm, MetricTerm, TaskTerms, TrustMode, model_digest
from twopm_flower.verify.task_steps import BACKENDS

SAMPLES = "num-examples"
FLOAT_BOUND = 16.0
"""Largest mean per row that is foreseen for a metric with decimals, such as a loss."""
EVALUATION_SCALE = 1 << 16


def build_terms(
    initial: Arrays,
    *,
    title: str,
    rounds: int,
    trust_mode: TrustMode,
    clip: float,
    min_contributors: int,
    quorum: int,
    max_samples: int,
    max_nodes: int,
    train_metrics: dict[str, str],
    evaluation_metrics: dict[str, str],
    train_config: dict[str, Any],
    evaluate_config: dict[str, Any],
    run_config: dict[str, Any],
    app_bundle: str,
    dataset: dict[str, Any],
    colluders: int = 0,
    excluded: Sequence[str] = (),
) -> TaskTerms:
    """Return the terms of a task.

    Parameters
    ----------
    initial : dict of ndarray
        The public initial model: float32, but for the excluded arrays.
    train_metrics, evaluation_metrics : dict of str to str
        What the app reports: name to ``"int"`` (a count, summed) or ``"float"`` (a mean over
        the node's rows, summed over all rows). ``num-examples`` comes first in evaluations.
    max_nodes : int
        Room in the sums; decides how precise they are.
    colluders : int
        In ``one-time-key`` mode: nodes that may work together with the server and still
        learn no other node's update; no part of the other modes.
    excluded : sequence of str
        Patterns (``fnmatch``) of arrays that every node keeps to itself, such as
        ``"*.running_mean"``; see :mod:`twopm_flower.federated.excluded`.

    Raises
    ------
    ConfigError
        An array that is not float32 and not excluded, a pattern that matches none, or too few
        contributors for the colluders.
    """
    if trust_mode != "one-time-key":
        colluders = 0
    elif min_contributors < colluders + 2:
        raise ConfigError(
            f"a sum of {min_contributors} updates hides none from {colluders} colluders: "
            f"min-contributors must be at least {colluders + 2}",
            hint=f"Pass --min-contributors {colluders + 2}, or fewer --colluders.",
        )
    federated, local = split_initial(initial, excluded)
    parameters = AdditiveParameters.derive(BACKENDS[trust_mode], max_nodes)
    train_terms = _train_terms(train_metrics, parameters.limit, max_samples)
    layout = Layout(
        arrays=tuple((name, tuple(array.shape)) for name, array in federated.items()),
        metrics=tuple(Metric(m.name, m.scale, m.maximum) for m in train_terms),
    )
    weights = b"".join(np.ascontiguousarray(a, dtype="<f4").tobytes() for a in federated.values())
    return TaskTerms(
        title=title,
        trust_mode=trust_mode,
        rounds=rounds,
        min_contributors=min_contributors,
        quorum=quorum,
        colluders=colluders,
        max_samples=max_samples,
        clip=clip,
        parameters=parameters.to_dict(),
        parameters_id=parameters.identifier,
        arrays=tuple(ArrayTerm(name=n, shape=tuple(a.shape)) for n, a in federated.items()),
        train_metrics=train_terms,
        evaluation_metrics=_evaluation_terms(evaluation_metrics),
        layout_digest=layout.digest,
        initial_model=model_digest(layout.digest, weights),
        excluded=tuple(excluded),
        initial_excluded=local_digest(local),
        train_config=train_config,
        evaluate_config=evaluate_config,
        run_config=run_config,
        app_bundle=app_bundle,
        dataset=dataset,
    )


def automatic_terms(
    initial: Arrays,
    *,
    rounds: int,
    samples: tuple[int, ...],
    train_metrics: dict[str, str],
    evaluation_metrics: dict[str, str],
    train_config: dict[str, Any],
    evaluate_config: dict[str, Any],
    run_config: dict[str, Any],
    app_bundle: str,
    trust_mode: TrustMode,
    clip: float,
    min_contributors: int,
    colluders: int,
    excluded: Sequence[str],
    dataset: dict[str, Any],
) -> TaskTerms:
    """Return the terms of a simulated task, from what the nodes reported at enrolment.

    Raises
    ------
    ConfigError
        As `build_terms`, or the nodes are too few for the colluders.
    """
    if trust_mode == "one-time-key":
        threshold = threshold_for(len(samples), colluders)
        min_contributors = max(min_contributors, fewest_survivors(threshold, colluders))
    return build_terms(
        initial,
        title="simulation",
        rounds=rounds,
        trust_mode=trust_mode,
        clip=clip,
        min_contributors=min_contributors,
        quorum=min_contributors,
        max_samples=max(samples),
        max_nodes=max(10, len(samples)),
        train_metrics=train_metrics,
        evaluation_metrics=evaluation_metrics,
        train_config=train_config,
        evaluate_config=evaluate_config,
        run_config=run_config,
        app_bundle=app_bundle,
        dataset=dataset,
        colluders=colluders,
        excluded=excluded,
    )


def _train_terms(reported: dict[str, str], limit: int, max_samples: int) -> tuple[MetricTerm, ...]:
    terms = []
    for name, kind in sorted(reported.items()):
        if name == SAMPLES:
            # The number of training samples is public already: it was committed at joining.
            continue
        if kind == "int":
            terms.append(MetricTerm(name=name, scale=1, maximum=float(limit)))
        else:
            maximum = FLOAT_BOUND * max_samples
            scale = max(1, int(limit // maximum))
            terms.append(
                MetricTerm(
                    name=name, scale=scale, maximum=min(maximum, limit / scale), weighted=True
                )
            )
    return tuple(terms)


def _evaluation_terms(reported: dict[str, str]) -> tuple[MetricTerm, ...]:
    rows = MetricTerm(name=SAMPLES, scale=1, maximum=float(2**32))
    others = tuple(
        MetricTerm(name=name, scale=1, maximum=float(2**32))
        if kind == "int"
        else MetricTerm(name=name, scale=EVALUATION_SCALE, maximum=float(2**32), weighted=True)
        for name, kind in sorted(reported.items())
        if name != SAMPLES
    )
    return (rows, *others)

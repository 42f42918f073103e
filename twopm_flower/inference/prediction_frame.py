"""Opened scores as a data frame: probabilities, the most probable class, the receipt."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twopm_flower.inference.links import apply_link
from twopm_flower.records.inference import ModelCard


def prediction_frame(scores: NDArray[np.float64], card: ModelCard, *, receipt: str) -> pd.DataFrame:
    """Return the results of one request.

    Parameters
    ----------
    scores : numpy.ndarray
        float64, shape (rows, scores): the model's, before its link.
    card : ModelCard
    receipt : str
        The digest of the request's receipt.

    Returns
    -------
    pandas.DataFrame
        ``probability`` of the second class where there are two; ``probability_<class>`` of
        each where there are more; ``score`` or ``score_<class>`` where scores are no
        probabilities. Then ``class``, the most probable one (the largest score), and
        ``receipt``.
    """
    linked = apply_link(card.link, scores)
    what = "score" if card.link == "identity" else "probability"
    if linked.shape[1] == 1:
        columns = {what: linked[:, 0]}
    else:
        columns = {f"{what}_{name}": linked[:, k] for k, name in enumerate(card.classes)}
    if card.link == "sigmoid":
        best = (scores[:, 0] > 0).astype(np.intp)
    else:
        best = np.argmax(scores, axis=1)
    classes = np.array(card.classes, dtype=object)
    return pd.DataFrame({**columns, "class": classes[best], "receipt": receipt})

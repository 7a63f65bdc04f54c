"""The threshold of prediction sets, from labelled cases."""

import math

import numpy as np

from hiresattn.errors import ConfigError
from hiresattn.shapes import Float, Int


def least_probability(truth: Int[np.ndarray, " n"], scores: Float[np.ndarray, "n c"], risk: float) -> float:
    """The least probability of a class that is in a prediction set.

    Of a new case that was drawn like these, the set of all classes at least that probable holds the right one with
    probability ``1 - risk`` or more, and at most ``1 / (n + 1)`` more where no two scores are equal: on average over
    draws of these cases, whatever the model, if these had no part in making it. With one draw of them, the share of
    new cases whose set holds the class is Beta distributed, with ``n + 1 - l`` and ``l``, where ``l`` is the whole
    part of ``(n + 1) risk``.

    Args:
        truth: Index of the class.
        scores: Probability of each class; of cases that the model didn't learn from, and that didn't choose its epoch.
        risk: Share of cases whose set may miss the class, above 0 and below 1.

    Raises:
        ConfigError: If there are too few cases for that risk: every set would hold all classes.

    Source:
        The finite-sample quantile, the ``ceil((n + 1)(1 - risk))``-th smallest score: Vovk, Gammerman and Shafer,
        "Algorithmic Learning in a Random World", 2005. The share with one draw: Vovk, "Conditional Validity of
        Inductive Conformal Predictors", Machine Learning 92, 2013. One minus the probability of the class as the score:
        Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", JASA 114, 2019.
    """
    count = len(truth)
    rank = math.ceil((count + 1) * (1 - risk) - 1e-9)
    if rank > count:
        needed = math.ceil(1 / risk - 1e-9) - 1
        raise ConfigError(f"prediction sets at risk {risk:g} need {needed} cases or more; there are {count}")
    own = np.sort(np.asarray(scores, np.float64)[np.arange(count), truth])
    return float(own[count - rank])

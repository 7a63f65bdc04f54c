"""What measures are called where people read them."""

METRIC_NAMES = {
    "accuracy": "accuracy",
    "exact_match": "exact match",
    "micro_f1": "micro F1",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC, one against the rest",
    "auprc": "AUPRC (average precision)",
    "top_k": "top-{top_k}",
    "ece": "ECE, {bins} bins",
    "brier": "Brier, 0 to 2",
    "nll": "negative log-likelihood",
    "aurc": "risk-coverage, area (AURC)",
}
#: Measures of whether to believe an answer, by their names in the report.
BELIEF_NAMES = {
    "coverage": "prediction sets that hold the class",
    "set_size": "classes in a set",
    "review": "cases that need review",
    "accuracy_unreviewed": "accuracy of the others",
    "out_of_domain": "cases unlike the training images",
    "sufficient": "looks that carry an answer",
    "sufficiency": "sufficiency, area",
    "comprehensiveness": "lost without them",
}


def metric_names(*, several: bool, top_k: int, bins: int) -> dict[str, str]:
    """The name of every metric, by its name in the report; ``several``: of models with several labels."""
    named = METRIC_NAMES | ({"auroc": "AUROC, mean", "brier": "Brier, 0 to 1"} if several else {})
    return {name: words.format(top_k=top_k, bins=bins) for name, words in named.items()}

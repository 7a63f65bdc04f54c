"""What is said of a model after its training where the accuracy on the validation cases says little."""

from collections.abc import Iterator

from hiresattn.card import Card
from hiresattn.errors import counted
from hiresattn.evaluation.intervals import LEAST_CASES, wilson


def doubts(model: Card) -> Iterator[str]:
    """Sentences where the accuracy on the validation cases says little.

    They lack a class, are few, or one answer for all may do as well.
    """
    facts = model.training
    counts: dict[str, int] = facts.get("validated") or {}
    if absent := [name for name, count in counts.items() if not count]:
        names = ", ".join(map(repr, absent[:5])) + (", …" if len(absent) > 5 else "")
        yield f"No validation case is of class {names}: how well that is recognised stays unknown"
    cases = sum(counts.values())
    if model.config.multi_label or not cases:  # each case may have several labels, or none
        return
    low, high = wilson(facts["val_accuracy"], cases)
    if cases < LEAST_CASES:
        yield (
            f"{counted(cases, 'validation case')}: the accuracy says little, its 95 % interval is {low:.2f} to "
            f"{high:.2f}"
        )
        return
    answer = max(counts, key=lambda name: counts[name])
    share = counts[answer] / cases
    if low > share:
        return
    yield (
        f"Always answering {answer!r} would get {share:.3f} of these {cases} cases: the model may have learnt nothing "
        "yet. More epochs may help, more cases, a column boxes, a pretrained --encoder, or --recipe distil"
    )

"""What to expect of a cohort."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from hiresattn.datasets.example import SPLITS, split_names
from hiresattn.errors import counted

#: Cases in a split below which a figure measured on it is rough.
FEW = 30


def cohort_notes(
    counts: Mapping[str, Mapping[str, int]],
    total: Mapping[str, int],
    case_column: str | None,
    *,
    several: bool = False,
) -> Iterator[str]:
    """Sentences on a small cohort, one without patients, and classes that are missing somewhere.

    Args:
        counts: Cases in each split, by class.
        total: All cases in each split.
        case_column: Column of the manifest that names patients; None = none does.
        several: Whether a case may have several labels.
    """
    what = "case" if case_column == "case_id" else "slide"
    if case_column is None:
        yield (
            "No column names the patients, so each slide counts as one; where a patient has several, say which column "
            "it is (case_column), or they may be in two splits"
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        alike["".join(label.split()).casefold()].append(label)
    for labels in alike.values():
        if len(labels) > 1:
            yield f"{' and '.join(map(repr, labels))} are classes of their own; if they are one, write them alike"
    joint = [] if several else [label for label in counts if len(split_names(label)) > 1]
    if joint:
        yield f"{joint[0]!r} is a class of its own; if it means several labels, call the column labels"
    absent: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for label, own in counts.items():
        absent[tuple(split for split in SPLITS if total[split] and not own[split])].append(label)
    for splits, labels in absent.items():
        if splits:
            names = ", ".join(map(repr, labels[:5])) + (", …" if len(labels) > 5 else "")
            why = (
                "training needs one"
                if "train" in splits
                else "how well that is recognised stays unknown there"
            )
            yield f"No {what} of {names} is in {' or '.join(splits)}: {why}"
    for split in SPLITS:
        if not total[split]:
            yield f"No {what} is in {split}"
    few = [f"{counted(total[split], what)} in {split}" for split in SPLITS[1:] if 0 < total[split] < FEW]
    if few:
        more = (
            f"; `evaluate --calibrate` takes {FEW} in val: --val gives it more"
            if 0 < total["val"] < FEW
            else ""
        )
        yield f"{' and '.join(few)}: what is measured on fewer than {FEW} is rough{more}"

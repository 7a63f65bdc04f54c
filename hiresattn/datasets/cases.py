"""Cases: the sources that share one answer, such as the slides of a patient or the dates of a place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hiresattn.datasets.example import Example, Label
from hiresattn.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """Sources that share one answer.

    Args:
        name: What it is called, such as a patient's identifier.
        sources: Its images, or windows of them, each as ``classify`` takes one; one or more.

    Raises:
        ConfigError: If there are none, or they don't agree on label or split.

    Examples:
        >>> hiresattn.classify(hiresattn.Case("P1", ["p1_a.svs", "p1_b.svs"]), "model")
    """

    name: str
    sources: Sequence[Any]

    def __post_init__(self) -> None:
        one = isinstance(self.sources, str) or not isinstance(self.sources, Sequence)
        if one or not self.sources:
            raise ConfigError(f"case {self.name!r}: give its sources as a list of one or more")
        for what, values in (("label", self._labels), ("split", [e.split for e in self.examples])):
            if len(set(values)) > 1:
                first, second = list(dict.fromkeys(values))[:2]
                raise ConfigError(
                    f"case {self.name!r} has {what} {_words(first)} and {what} {_words(second)}; its sources share one "
                    "answer: mend the manifest, or take each source for itself (per_source)"
                )

    @property
    def examples(self) -> tuple[Example, ...]:
        """Its sources as examples."""
        return tuple(e if isinstance(e, Example) else Example(e, case=self.name) for e in self.sources)

    @property
    def label(self) -> Label | None:
        """Its label, where one of its sources has one."""
        return next(iter(self._labels), None)

    @property
    def _labels(self) -> list[Label]:
        return [example.label for example in self.examples if example.label is not None]


def cases_of(sources: Sequence[Any]) -> list[Any]:
    """Put examples of one case together, where the first of them is; whatever else there is stays as it is.

    Args:
        sources: Examples, and other sources.

    Returns:
        A ``Case`` for examples that name one, else the source itself.

    Raises:
        ConfigError: If the examples of a case don't agree on label or split.
    """
    together: dict[Any, list[Any]] = {}
    for number, source in enumerate(sources):
        named = isinstance(source, Example) and source.case is not None
        together.setdefault(source.case if named else number, []).append(source)
    return [Case(key, some) if isinstance(key, str) else some[0] for key, some in together.items()]


def share_labels(examples: Sequence[Example]) -> list[Example]:
    """Give the examples of a case that have no label that of the case, where one of them has one."""
    labels: dict[str, Label] = {}
    for example in examples:
        if example.case is not None and example.label is not None:
            labels.setdefault(example.case, example.label)
    return [
        replace(example, label=labels.get(example.case))
        if example.case and example.label is None
        else example
        for example in examples
    ]


def examples_of(source: Any) -> tuple[Example, ...]:
    """The examples of a source or case."""
    return source.examples if isinstance(source, Case) else (source,)


def _words(value: Any) -> str:
    return repr("|".join(value) if isinstance(value, tuple) else value)

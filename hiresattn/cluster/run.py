"""Classify on a cluster: one task a case, over ``dask.distributed``."""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from hiresattn.cluster.connect import connected, distributed
from hiresattn.cluster.tasks import Care, Lost, Tasks
from hiresattn.cluster.worker import ClassifyCase, ModelName, SendModel
from hiresattn.datasets.cases import Case, cases_of
from hiresattn.datasets.example import Example
from hiresattn.datasets.sources import Unusable
from hiresattn.errors import HiresattnError
from hiresattn.inference.options import ClassifyOptions
from hiresattn.inference.record import Record
from hiresattn.option_types import changed

if TYPE_CHECKING:
    from hiresattn.card import Card

#: What models were sent under, by client.
_sent: "WeakKeyDictionary[Any, WeakKeyDictionary[Any, str]]" = WeakKeyDictionary()


def classify(
    sources: Iterable[Any] | str | Path,
    model: "Card | str | Path",
    client: Any = None,
    *,
    ordered: bool = False,
    retries: int = 2,
    timeout: float | None = None,
    resources: Mapping[str, float] | None = None,
    **options: Any,
) -> Iterator[Record]:
    """Classify images on the workers of a cluster, one task a case.

    Sources must be what workers can read: paths that are the same on all machines, addresses, or arrays. A model that
    is given by its path is loaded by every worker process once, and must be the same there; a loaded model is sent.
    Records are those of ``classify_all`` one by one (``batch_images=1``).

    Args:
        sources: As ``classify_all`` takes them.
        model: A model directory, a hub name (``hf:owner/name``) or a loaded model.
        client: A ``distributed.Client``; None = that of the scheduler that ``DASK_SCHEDULER_ADDRESS`` names, else of
            processes that are started here, one for each core.
        ordered: Records in the order of the sources; else as they are done.
        retries: How often a case whose worker was lost is tried again. A case that ends its worker each time gets a
            record with an error, and those beside it don't.
        timeout: How long a case may take, s; one that takes longer gets a record with an error, and its worker is
            started again.
        resources: What a worker must have, such as ``{"GPU": 1}``.
        options: Fields of ``ClassifyOptions``; ``on_error`` is ``"record"``.

    Yields:
        One record per source or case.

    Raises:
        BackendMissingError: If distributed isn't installed.
        ClusterError: If the scheduler can't be reached, or is lost and doesn't come back.
        ConfigError: If an option can't be used, or no worker has the resources.

    Examples:
        >>> client = distributed.Client("tcp://head:8786")
        >>> for record in hiresattn.cluster.classify("slides.csv", "model", client, resources={"GPU": 1}):
        ...     print(record.source, record.class_name or record.error)
    """
    from hiresattn.inference.sources import all_of

    chosen = changed(None, {"on_error": "record"} | options, ClassifyOptions)
    care = Care(retries=retries, timeout=timeout, resources=resources)
    cases = all_of(sources)
    if isinstance(cases, Sequence) and not chosen.per_source:
        cases = cases_of(cases)
    with ExitStack() as stack:
        if client is None:
            address = os.environ.get("DASK_SCHEDULER_ADDRESS")
            count = None if address else os.cpu_count() or 1
            client = stack.enter_context(connected(address, workers=count))
        for _, record in classify_on(client, cases, model, chosen, care, ordered=ordered):
            yield record


def classifier(
    client: Any,
    *,
    retries: int = 2,
    timeout: float | None = None,
    resources: Mapping[str, float] | None = None,
) -> "Callable[[Iterable[Any], Card, ClassifyOptions], Iterator[Record]]":
    """What ``evaluate(classify=…)`` takes: cases, model and options to records in order, on the workers of a client.

    Args:
        client: A ``distributed.Client``.
        retries: As ``classify`` takes it.
        timeout: The same.
        resources: The same.

    Raises:
        ConfigError: If a value can't be used.

    Examples:
        >>> hiresattn.evaluate("model", "slides.csv", classify=hiresattn.cluster.classifier(client))
    """
    care = Care(retries=retries, timeout=timeout, resources=resources)

    def work(cases: Iterable[Any], model: "Card", options: ClassifyOptions) -> Iterator[Record]:
        return (record for _, record in classify_on(client, cases, model, options, care, ordered=True))

    return work


def classify_on(
    client: Any,
    cases: Iterable[Any],
    model: "Card | str | Path",
    options: ClassifyOptions,
    care: Care,
    *,
    ordered: bool = False,
    card: "Card | None" = None,
) -> Iterator[tuple[int, Record]]:
    """Classify cases on the workers of a client.

    Args:
        client: Of the scheduler.
        cases: Sources and cases.
        model: As ``classify`` takes it.
        options: How.
        care: What is done about lost workers.
        ordered: In the order of the cases; else as they are done.
        card: The card of a model's name, where it is read already.

    Yields:
        The position of a case, and its record.

    Raises:
        ClusterError: If the scheduler is lost.
        ConfigError: If no worker has the resources.
    """
    name, card = _model(client, model, card)
    kept: dict[int, Any] = {}

    def coming() -> Iterator[Any]:
        for number, case in enumerate(cases):
            kept[number] = case
            yield case

    for number, result in Tasks(client, ClassifyCase(name, options), care).run(coming(), ordered=ordered):
        case = kept.pop(number)
        yield number, lost_record(case, card, result.why) if isinstance(result, Lost) else result


def _model(client: Any, model: Any, card: "Card | None") -> "tuple[ModelName, Card]":
    """What workers know a model by, and its card."""
    from hiresattn.card import read_card

    if isinstance(model, str | Path):
        card = card or read_card(model, reference=True)
        path = str(model)
        return ModelName(path if path.startswith("hf:") else str(Path(path).resolve()), card.sha256), card
    sent = _sent.setdefault(client, WeakKeyDictionary())
    if model not in sent:
        key = uuid.uuid4().hex

        class _Plugin(SendModel, distributed().WorkerPlugin):  # type: ignore[misc]
            pass

        client.register_plugin(_Plugin(key, model))
        sent[model] = key
    return ModelName(None, sent[model]), model


def sent_model(client: Any, model: "Card") -> ModelName:
    """What workers know a loaded model by, which is sent to them once."""
    return _model(client, model, None)[0]


def lost_record(case: Any, model: "Card", why: str) -> Record:
    """The record of a case that no worker answered for."""
    from hiresattn.inference.opened import OpenedCase
    from hiresattn.inference.sources import Source, name_of
    from hiresattn.inference.to_record import case_error

    named = case.name if isinstance(case, Case) else None
    examples = case.examples if isinstance(case, Case) else (_example(case),)
    error = HiresattnError(f"{named or name_of(examples[0])}: {why}")
    opened = OpenedCase(0, named, [Source(example, error=error) for example in examples])
    return case_error(opened, model, error)


def _example(source: Any) -> Example:
    if isinstance(source, Unusable):
        return Example(source.source, source.label, region=source.region, case=source.case)
    return source if isinstance(source, Example) else Example(source)

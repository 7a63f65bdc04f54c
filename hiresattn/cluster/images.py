"""Features and boxes on a cluster: one task an image, over ``dask.distributed``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresattn.cluster.run import sent_model
from hiresattn.cluster.tasks import Care, Lost, Tasks
from hiresattn.cluster.worker import ModelName, kept, model_of, tell
from hiresattn.errors import HiresattnError

if TYPE_CHECKING:
    from hiresattn.checkpoint import Model
    from hiresattn.datasets.example import Example
    from hiresattn.inference.extract import Extracted
    from hiresattn.inference.options import ExtractOptions, LocateOptions


@dataclass(frozen=True)
class ExtractImage:
    """Extracts the features of one image into the folder, with an encoder that its process loads once."""

    encoder: str
    folder: Path
    options: "ExtractOptions"

    def __call__(self, image: Any, topic: str | None) -> "Extracted":
        """What became of it; whatever is wrong with the image is in it."""
        tell(topic)
        from hiresattn.inference.extract import extract_one, ready_encoder

        encoder = kept(
            ("encoder", self.encoder, self.options), lambda: ready_encoder(self.encoder, self.options)
        )
        return extract_one(image, self.folder, encoder)


@dataclass(frozen=True)
class LocateImage:
    """Finds what shows the label of one image, with a model that its process loads once."""

    model: ModelName
    options: "LocateOptions"

    def __call__(self, example: "Example", topic: str | None) -> Any:
        """What ``inference.locator.Locator`` finds; or the error that the image has."""
        tell(topic)
        from hiresattn.checkpoint import Model, load_model
        from hiresattn.inference.locator import Locator

        def ready() -> Locator:
            found = model_of(self.model)
            return Locator(
                found if isinstance(found, Model) else load_model(str(self.model.path)), self.options
            )

        locator = kept(("model", self.model, self.options), ready)
        try:
            return locator.find(example)
        except HiresattnError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this image's
            return HiresattnError(f"{example.source}: {error or type(error).__name__}")


def extractor(
    client: Any,
    *,
    retries: int = 2,
    timeout: float | None = None,
    resources: Mapping[str, float] | None = None,
) -> "Callable[[Sequence[Any], str, Path, ExtractOptions], Iterator[Extracted]]":
    """What ``extract(work=…)`` takes: images to what became of them, in order, on the workers of a client.

    The folder, the encoder and the images must have the same paths on all machines.

    Args:
        client: A ``distributed.Client``.
        retries: As ``classify`` takes it.
        timeout: The same, of an image.
        resources: The same.

    Raises:
        ConfigError: If a value can't be used.

    Examples:
        >>> hiresattn.extract("cohort.csv", "local-dir:uni", "features", work=hiresattn.cluster.extractor(client))
    """
    care = Care(retries=retries, timeout=timeout, resources=resources)

    def work(
        images: Sequence[Any], encoder: str, folder: Path, options: "ExtractOptions"
    ) -> "Iterator[Extracted]":
        from hiresattn.inference.extract import Extracted, image_name

        function = ExtractImage(encoder, folder.resolve(), options)
        for number, result in Tasks(client, function, care).run(images, ordered=True):
            lost = isinstance(result, Lost)
            yield Extracted(image_name(images[number]), "error", error=result.why) if lost else result

    return work


def locator(
    client: Any,
    *,
    retries: int = 2,
    timeout: float | None = None,
    resources: Mapping[str, float] | None = None,
) -> "Callable[[Sequence[Example], Model, LocateOptions], Iterator[Any]]":
    """What ``locate(work=…)`` takes: images to what shows their labels, in order, on the workers of a client.

    Args:
        client: A ``distributed.Client``.
        retries: As ``classify`` takes it.
        timeout: The same, of an image.
        resources: The same.

    Raises:
        ConfigError: If a value can't be used.

    Examples:
        >>> hiresattn.locate("slides.csv", "patch-model", "boxes.csv", work=hiresattn.cluster.locator(client))
    """
    care = Care(retries=retries, timeout=timeout, resources=resources)

    def work(examples: "Sequence[Example]", model: "Model", options: "LocateOptions") -> Iterator[Any]:
        function = LocateImage(sent_model(client, model), replace(options, work=None))
        for number, result in Tasks(client, function, care).run(examples, ordered=True):
            lost = isinstance(result, Lost)
            yield HiresattnError(f"{examples[number].source}: {result.why}") if lost else result

    return work

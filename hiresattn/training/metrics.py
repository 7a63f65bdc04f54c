"""What a network gets right, in training and on images that are held out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from hiresattn.model.net import GlimpseNet
from hiresattn.model.select import Selector
from hiresattn.model.traversal import Traversal
from hiresattn.training.box_supervision import hits
from hiresattn.training.curriculum import batch_size
from hiresattn.training.data import Batch, Loader
from hiresattn.training.distributed import Team
from hiresattn.training.estimators import rightness
from hiresattn.training.options import TrainOptions
from hiresattn.training.samples import Item


@dataclass
class Tally:
    """What was seen of some images."""

    right: int = 0
    labelled: int = 0
    """Images whose labels are known."""
    images: int = 0
    glimpses: int = 0
    boxed: int = 0
    """Images whose boxes are known."""
    found: int = 0
    """Those of them in which one was seen."""

    def add(self, batch: Batch, traversal: Traversal, finest: int) -> None:
        """Count a batch."""
        labels = torch.from_numpy(batch.main).to(traversal.logits.device)
        self.right += int((rightness(traversal.logits, labels) == 1).sum())
        self.labelled += len(labels) if labels.ndim == 2 else int((labels >= 0).sum())
        self.images += len(labels)
        self.glimpses += len(traversal.image)
        found = hits(traversal, batch.boxes, finest)
        self.boxed += len(found)
        self.found += int(found.sum())

    def joined(self, team: Team) -> "Tally":
        """What all processes saw."""
        return Tally(*map(round, team.sum(list(asdict(self).values()))))

    @property
    def accuracy(self) -> float | None:
        """Share of the labelled images that were answered rightly, in all of their labels; None without any."""
        return self.right / self.labelled if self.labelled else None

    @property
    def hit(self) -> float | None:
        """Share of the images with boxes in which one was seen; None without any."""
        return self.found / self.boxed if self.boxed else None


def evaluate(
    net: GlimpseNet, loader: Loader, items: Sequence[Item], select: Selector, options: TrainOptions
) -> Tally:
    """What is seen of images, of those that can be read, with the most cells per depth that training visits."""
    net.eval()
    seen = Tally()

    def work(batch: Batch) -> tuple[Batch, Traversal]:
        return batch, net(batch.fetch, batch.roots, batch.frames, select=select, k=options.k)

    with torch.inference_mode():
        size = batch_size(items, options) if items else 1
        for start in range(0, len(items), size):
            loader.expect(items[start + size : start + 2 * size], meanwhile=items[start : start + size])
            made, _ = loader.attempt(items[start : start + size], work)
            if made is not None:
                seen.add(*made, net.finest)
    return seen

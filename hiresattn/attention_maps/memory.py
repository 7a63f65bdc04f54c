"""Attention memory: the strongest map that was ever accepted, per image, class and region.

Merging takes the maximum, so it may happen in any order, any number of times and in any process.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from hiresattn.datasets.example import Example
from hiresattn.errors import CheckpointError
from hiresattn.files import atomic_write
from hiresattn.shapes import Float, UInt8

#: Maps kept by default.
MOST = 500_000
#: Maps beyond the most, as a share of it, before the least are dropped.
_SPARE = 0.125
#: A map's values are stored as whole multiples of its inverse.
_STEPS = 255


class Key(NamedTuple):
    """Whose map it is."""

    image: str
    """Name of the image; the same in all runs and processes."""
    label: int
    """Index of the class."""
    region: tuple[int, int, int, int]
    """``(y, x, height, width)``, level-0 px of the image as it is stored."""


def image_name(example: Example, number: int) -> str:
    """What an image, or window, is called in a memory.

    Args:
        example: The image.
        number: Its position among the training images, which names those that are given as arrays.
    """
    source = example.source
    name = str(source) if isinstance(source, str | Path) else f"array {number}"
    return name if example.region is None else f"{name} {list(example.region)}"


class AttentionMemory:
    """Maps ``[h w]`` of values of 0 to 1, eight bits each (off by at most 1/510), all of one shape.

    It holds at most ``most`` maps: those of the largest regions and, among equal regions, an arbitrary but fixed
    choice. So the bound doesn't depend on the order either. A map takes ``h * w`` bytes and about 400
    more; in a file far less.

    Args:
        most: Maps kept.

    Source:
        "Integral Object Mining via Online Attention Accumulation" (ICCV 2019), cumulative attention maps; differs:
        by region at every depth, 8 bits in memory, not rescaled when merged.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._rows: dict[Key, int] = {}
        self._maps: np.ndarray = np.zeros((0, 0, 0), np.uint8)

    def __len__(self) -> int:
        self._trim()
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[Key, UInt8[np.ndarray, "h w"]]]:
        """Keys and maps, 0 to 255, in the order of the keys."""
        self._trim()
        for key in sorted(self._rows):
            yield key, self._maps[self._rows[key]]

    def merge(self, key: Key, values: Float[np.ndarray, "h w"]) -> None:
        """Keep the larger of what is there and ``values``, px by px.

        Args:
            key: Whose map it is.
            values: 0 to 1, of the image as it is stored.

        Raises:
            ValueError: If it has another shape than the maps before.
        """
        self._merge(key, np.rint(np.clip(values, 0, 1) * _STEPS).astype(np.uint8))

    def recall(self, key: Key) -> Float[np.ndarray, "h w"] | None:
        """What has been kept, float32 of 0 to 1; None if nothing was."""
        row = self._rows.get(key)
        return None if row is None else self._maps[row].astype(np.float32) / _STEPS

    def absorb(self, other: "AttentionMemory") -> None:
        """Take over another memory, such as another process's."""
        for key, values in other:
            self._merge(key, values)

    def write(self, stream: IO[bytes]) -> None:
        """Write it as ``.npz``: plain arrays, the names as text."""
        self._trim()
        keys = sorted(self._rows)
        names = sorted({key.image for key in keys})
        number = {name: i for i, name in enumerate(names)}
        np.savez_compressed(
            stream,
            names=np.array(names, np.str_),
            image=np.array([number[key.image] for key in keys], np.int32),
            label=np.array([key.label for key in keys], np.int32),
            region=np.array([key.region for key in keys], np.int64).reshape(-1, 4),
            maps=self._maps[[self._rows[key] for key in keys]],
        )

    @classmethod
    def read(cls, stream: IO[bytes], most: int = MOST) -> "AttentionMemory":
        """Read what ``write`` wrote; nothing is unpickled.

        Raises:
            ValueError: If it is something else, or damaged.
        """
        memory = cls(most)
        try:
            with np.load(stream, allow_pickle=False) as stored:
                names, image, label, region, maps = (
                    stored[name] for name in ("names", "image", "label", "region", "maps")
                )
            keys = [
                Key(str(names[i]), c, (y, x, h, w))
                for i, c, (y, x, h, w) in zip(image.tolist(), label.tolist(), region.tolist(), strict=True)
            ]
        except Exception as error:  # the zip reader raises errors of many types
            raise ValueError(f"no attention memory ({error})") from error
        if maps.dtype != np.uint8 or maps.ndim != 3 or len(maps) != len(keys):
            raise ValueError(f"no attention memory (maps {maps.shape} {maps.dtype} for {len(keys)} keys)")
        memory._rows, memory._maps = {key: i for i, key in enumerate(keys)}, maps
        return memory

    def _merge(self, key: Key, values: np.ndarray) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._room(values.shape)
            self._rows[key] = row
            self._maps[row] = 0
        elif values.shape != self._maps.shape[1:]:
            raise ValueError(f"a map of {values.shape}; those kept are {self._maps.shape[1:]}")
        np.maximum(self._maps[row], values, out=self._maps[row])

    def _room(self, shape: tuple[int, ...]) -> int:
        """A row for another map."""
        if not self._rows:
            self._maps = np.zeros((0, *shape), np.uint8)
        elif shape != self._maps.shape[1:]:
            raise ValueError(f"a map of {shape}; those kept are {self._maps.shape[1:]}")
        if len(self._rows) >= self.most * (1 + _SPARE) + 1:
            self._trim()
        if len(self._rows) == len(self._maps):
            grown = np.zeros((max(2 * len(self._maps), 64), *shape), np.uint8)
            grown[: len(self._maps)] = self._maps
            self._maps = grown
        return len(self._rows)

    def _trim(self) -> None:
        """Drop what is beyond the most, the least regions first."""
        if len(self._rows) <= self.most:
            return
        kept = sorted(self._rows, key=_rank)[: self.most]
        self._maps = self._maps[[self._rows[key] for key in kept]]
        self._rows = {key: i for i, key in enumerate(kept)}


def _rank(key: Key) -> tuple[int, bytes]:
    """Large regions first; equal ones in an order that favours no image."""
    words = f"{key.image}|{key.label}|{key.region}"
    return -key.region[2] * key.region[3], hashlib.blake2b(words.encode(), digest_size=8).digest()


def save_attention(memory: AttentionMemory, path: Path) -> None:
    """Write a memory to a file, which is whole or not there.

    Raises:
        OSError: If it can't be written.
    """
    with atomic_write(path) as file, file.open("wb") as stream:
        memory.write(stream)


def load_attention(path: Path, most: int = MOST) -> AttentionMemory:
    """Read a memory from a file.

    Raises:
        CheckpointError: If there is none, or it is damaged.
    """
    try:
        with path.open("rb") as stream:
            return AttentionMemory.read(stream, most)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; train anew, or resume from a whole copy") from error


def share_attention(memory: AttentionMemory) -> None:
    """Give every process of a distributed run what all of them have accumulated; call it in all of them."""
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    stream = io.BytesIO()
    memory.write(stream)
    where = torch.device("cuda", torch.cuda.current_device()) if _on_cuda(distributed) else "cpu"
    mine = torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8).to(where)
    sizes = [torch.zeros(1, dtype=torch.int64, device=where) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(mine)], device=where))
    padded = torch.zeros(int(max(sizes)), dtype=torch.uint8, device=where)
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    for part, size in zip(parts, sizes, strict=True):
        memory.absorb(
            AttentionMemory.read(io.BytesIO(part[: int(size)].cpu().numpy().tobytes()), memory.most)
        )


def _on_cuda(distributed: Any) -> bool:
    return bool(distributed.get_backend() == "nccl")

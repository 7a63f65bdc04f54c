"""Which regions were visited, and whether another one shows much of the same. NumPy and torch are not needed."""

from collections import defaultdict

#: ``(y, x, height, width)``, level-0 px.
Region = tuple[int, int, int, int]


class Visited:
    """Visited regions by depth, found again by where they are: a look-up doesn't depend on their number.

    Regions of one depth and size lie in buckets of a grid, whose side is the largest offset at which two of them
    may still overlap too much.

    Args:
        most: Largest intersection over union of two regions of one depth, 0 to 1.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._sizes: defaultdict[int, dict[tuple[int, int], _Buckets]] = defaultdict(dict)

    def add(self, depth: int, region: Region) -> None:
        """Note that a region was visited."""
        size = region[2:]
        buckets = self._sizes[depth].get(size)
        if buckets is None:
            buckets = self._sizes[depth][size] = _Buckets(size, self._most)
        buckets.add(region)

    def shows(self, depth: int, region: Region) -> bool:
        """Whether a visited region of the depth overlaps this one by more than ``most``."""
        if self._most >= 1:
            return False
        return any(buckets.any_over(region) for buckets in self._sizes[depth].values())


class _Buckets:
    """Regions of one size."""

    def __init__(self, size: tuple[int, int], most: float) -> None:
        self._size, self._most = size, most
        self._sides = [max(int(side * (1 - most) / (1 + most)), 1) for side in size]
        self._regions: defaultdict[tuple[int, int], list[Region]] = defaultdict(list)

    def add(self, region: Region) -> None:
        self._regions[region[0] // self._sides[0], region[1] // self._sides[1]].append(region)

    def any_over(self, region: Region) -> bool:
        """Whether one overlaps a region by more than ``most``."""
        reach = []
        for axis in (0, 1):
            start, side = region[axis], region[2 + axis]
            # along one axis alone, the share in common is at least that of the areas
            common = self._most * (self._size[axis] + side) / (1 + self._most)
            if common > min(self._size[axis], side):
                return False
            low = int(start + common - self._size[axis]) - 1
            high = int(start + side - common) + 1
            bucket = self._sides[axis]
            reach.append(range(low // bucket, high // bucket + 1))
        if len(reach[0]) * len(reach[1]) > len(self._regions):
            near = list(self._regions.values())
        else:
            near = [
                self._regions[key]
                for row in reach[0]
                for column in reach[1]
                if (key := (row, column)) in self._regions
            ]
        return any(_iou(region, other) > self._most for regions in near for other in regions)


def _iou(one: Region, other: Region) -> float:
    """Intersection over union."""
    y, x, height, width = one
    y2, x2, height2, width2 = other
    rows = min(y + height, y2 + height2) - max(y, y2)
    columns = min(x + width, x2 + width2) - max(x, x2)
    if rows <= 0 or columns <= 0:
        return 0.0
    common = rows * columns
    return common / (height * width + height2 * width2 - common)

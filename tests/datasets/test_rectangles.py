import numpy as np
import pytest
from rasterio.features import rasterize

from hiresattn.datasets.rectangles import rectangles
from hiresattn.geometry import cells_on_target

L = ((0, 0), (1000, 0), (1000, 300), (300, 300), (300, 1000), (0, 1000), (0, 0))


def covered(boxes, height, width):
    mask = np.zeros((height, width), int)
    for y, x, h, w in boxes:
        mask[y : y + h, x : x + w] += 1
    return mask


def ring(radius, points=200, centre=500):
    turn = np.linspace(0, 2 * np.pi, points)
    return tuple((centre + radius * np.cos(a), centre + radius * np.sin(a)) for a in turn.tolist())


def test_a_rectangle_and_a_circle_stay_one():
    assert rectangles((((5, 7), (45, 7), (45, 17), (5, 17), (5, 7)),)) == ((7, 5, 10, 40),)
    assert rectangles((ring(400),)) == ((100, 100, 800, 800),)
    assert rectangles((((3.2, 4.8),),)) == ((4, 3, 1, 1),)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_the_empty_corner_of_an_l_is_in_no_rectangle(turns):
    points = np.array(L, float) - 500
    for _ in range(turns):
        points = points @ np.array([[0, 1], [-1, 0]])
    boxes = rectangles((tuple(map(tuple, (points + 500).tolist())),))
    assert len(boxes) == 2
    truth = np.rot90(covered([(0, 0, 300, 1000), (300, 0, 700, 300)], 1000, 1000), -turns)
    mask = covered(boxes, 1000, 1000)
    assert mask.max() == 1
    assert mask[truth > 0].all()
    assert (mask > truth).mean() < 0.02
    cells = np.array([[[y, x, 500, 500] for y in (0, 500) for x in (0, 500)]])
    on = cells_on_target(cells, np.array(boxes))[0].reshape(2, 2)
    wanted = np.rot90([[True, True], [True, False]], -turns)
    assert (on == wanted).all()


def test_a_hole_is_covered_by_little():
    mask = covered(rectangles((ring(400), ring(300))), 1000, 1000)
    y, x = np.mgrid[:1000, :1000] - 500
    far = np.hypot(y, x)
    assert mask.max() == 1
    assert mask[(far < 395) & (far > 305)].all()
    assert mask[far < 200].mean() < 0.1


def test_random_polygons_are_covered_whole_and_by_few():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        far = rng.uniform(30, 480, 12)
        corners = np.stack([500 + far * np.cos(angles), 500 + far * np.sin(angles)], axis=1)
        boxes = rectangles((tuple(map(tuple, corners.tolist())),))
        mask = covered(boxes, 1100, 1100)
        assert mask.max() == 1
        assert len(boxes) <= 16
        polygon = {"type": "Polygon", "coordinates": [[*corners.tolist(), corners[0].tolist()]]}
        truth = rasterize([polygon], out_shape=mask.shape).astype(bool)
        assert mask[truth].mean() > 0.999
        assert mask.sum() < 1.8 * truth.sum()

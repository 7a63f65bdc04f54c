"""Colours: no two of a model's classes have the same, and none that of looks."""

from hiresattn.report.colours import DEPTH_COLOURS, class_colours, depth_colour, rgb


def test_many_classes_have_a_colour_each():
    names = [f"c{number}" for number in range(62)]
    colours = class_colours(names)
    assert list(colours) == names
    assert len(set(colours.values())) == 62
    assert class_colours(names[:2]) == {name: colours[name] for name in names[:2]}


def test_looks_are_grey_and_classes_are_not():
    assert all(len(set(rgb(colour))) == 1 for colour in DEPTH_COLOURS)
    assert all(max(rgb(c)) - min(rgb(c)) > 60 for c in class_colours(map(str, range(62))).values())
    assert depth_colour(0) == DEPTH_COLOURS[0]
    assert depth_colour(9) == DEPTH_COLOURS[-1]

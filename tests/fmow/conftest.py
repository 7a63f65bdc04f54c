"""A synthetic tree of fMoW-rgb with its quirks, made once."""

import pytest

from scenes import fmow_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """What ``fmow_tree.write_tree`` says of it; not to be changed."""
    return fmow_tree.write_tree(tmp_path_factory.mktemp("fmow") / "fmow-rgb", places=4, seed=1)

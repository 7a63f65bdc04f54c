"""Options from a file: what is there is taken, what can't be is one clear error."""

import re

import pytest

from hiresattn.errors import ConfigError, NotFoundError
from hiresattn.model.aggregators import AGGREGATORS
from hiresattn.model.scorers import SCORERS
from hiresattn.training.config_file import read_settings
from hiresattn.training.options import CHOICES, TrainOptions


def _file(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_kind_of_value_is_read(tmp_path):
    text = """
    preset = "quick"
    epochs = 3
    batch-size = 4
    lr = 1
    vary_k = false
    k = [3, 1]
    bands = [3, 1]
    value-range = [0, 10000]
    augment = "turns"
    """
    expected = {
        "preset": "quick",
        "epochs": 3,
        "batch_size": 4,
        "lr": 1,
        "vary_k": False,
        "k": (3, 1),
        "bands": (3, 1),
        "value_range": (0, 10000),
        "augment": "turns",
    }
    assert read_settings(_file(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epocs = 3", "unknown key 'epocs'; did you mean 'epochs'?"),
        ("batchsize = 3", "did you mean 'batch_size'?"),
        ("[train]\nepochs = 3", "unknown key 'train'"),
        ("batch-size = 3\nbatch_size = 4", "twice"),
        ("epochs = '3'", "epochs = '3' is of a wrong type; it takes a whole number"),
        ("epochs = 3.0", "a whole number"),
        ("epochs = true", "a whole number"),
        ("lr = true", "lr = True is of a wrong type; it takes a number"),
        ("vary_k = 1", "true or false"),
        ("encoder = 6", "text in quotes"),
        ("k = 4", "a list of whole numbers"),
        ("k = [4, 'x']", "a list of whole numbers"),
        ("value_range = [1]", "a list of 2 numbers"),
        ("value_range = [2, 1]", "the first must lie below"),
        ("bands = [0, 1]", "counted from 1"),
        ("epochs = 0", "epochs must be at least 1; got 0"),
        ("lr = -1", "above 0"),
        ("lr = nan", "above 0"),
        ("k = []", "k needs"),
        ("epochs = ", "not readable as TOML"),
    ],
)
def test_what_cant_be_taken_is_one_error_that_names_the_file(tmp_path, text, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        read_settings(_file(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "run.toml"))


def test_bytes_that_are_no_text_and_a_file_that_isnt_there(tmp_path):
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not readable as TOML"):
        read_settings(tmp_path / "run.toml")
    with pytest.raises(NotFoundError, match="no such file"):
        read_settings(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not readable"):
        read_settings(tmp_path)


def test_options_out_of_bounds_are_refused_however_they_are_given():
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        TrainOptions(batch_size=0)
    with pytest.raises(ConfigError, match="k needs"):
        TrainOptions(k=(3, -1))


def test_names_of_scorers_and_aggregators_are_those_that_can_be_built():
    assert set(CHOICES["scorer"]) == set(SCORERS)
    assert set(CHOICES["aggregator"]) == set(AGGREGATORS)

"""`evaluate`: options, and what is refused before anything is read. The rest is in tests of its parts and commands."""

import pytest

from hiresattn.errors import ConfigError
from hiresattn.evaluation.run import EvaluateOptions, evaluate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 1, "split": "val"}, "give one of them"),
        ({"on_error": "ignore"}, "'skip' or 'raise'"),
        ({"bootstrap": -1}, "0 or more"),
        ({"budgets": (0, 4)}, "1 or more"),
        ({"policies": ("rendom",)}, "did you mean 'random'"),
        ({"stop": 2}, "at most 1"),
        ({"bands": (0,)}, "counted from 1"),
        ({"budget": "lots"}, "glimpses"),
        ({"foreground": "nowhere.png"}, "a mask's path"),
    ],
)
def test_options_that_can_not_be_used_are_refused_together(options, message):
    with pytest.raises(ConfigError, match=message):
        EvaluateOptions(**options)


def test_calibration_spends_the_budget_and_needs_a_card_to_write_to():
    assert EvaluateOptions(stop=0.9).classify().stop == 0.9
    assert EvaluateOptions(stop="off").classify().stop is None
    assert EvaluateOptions(stop=0.9, calibrate=True).classify().stop is None
    with pytest.raises(ConfigError, match="give the path of a model directory"):
        evaluate("hf:owner/name", "m.csv", calibrate=True)

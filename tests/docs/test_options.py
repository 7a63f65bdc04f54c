"""The page of options is what the command line and ``TrainOptions`` say."""

import importlib.util

from tests.docs.blocks import ROOT


def test_the_page_of_options_is_up_to_date():
    place = ROOT / "docs" / "options.py"
    spec = importlib.util.spec_from_file_location("docs_options", place)
    options = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(options)
    assert options.PAGE.read_text(encoding="utf-8") == options.page(), "run `python docs/options.py`"

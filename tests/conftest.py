"""What all tests share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that tests can import tests.images and the contracts

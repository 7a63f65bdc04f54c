"""What all tests share."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that tests can import tests.images and the contracts
sys.path.append(str(ROOT / "benchmarks"))  # and the scenes that benchmarks are run on

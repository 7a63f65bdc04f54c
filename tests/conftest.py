"""What all tests share."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that tests can import tests.images and the contracts
sys.path.append(str(ROOT / "benchmarks"))  # and the scenes that benchmarks are run on

# Before torch is loaded: threads that wait without sleeping take the cores of a loaded machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# GDAL asks once, at its first request, whether it is to count them: in any test, by whatever asks first.
os.environ.setdefault("CPL_VSIL_NETWORK_STATS_ENABLED", "YES")

# Nothing depends on how fast the machine is, or on whether the tree can be written to.
settings.register_profile("suite", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def no_network_for_onnx():
    """`train` writes one only where a test asks for it: it takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hiresattn_cli.train.onnx_installed", lambda: False)
        yield

"""What a training loads before its first step."""

import subprocess
import sys

import pytest

ASKED = (
    "import sys, solar.training.fit; print([n for n in ('matplotlib', 'scipy.signal', 'wandb') if n in sys.modules])"
)


@pytest.mark.slow
def test_training_loads_no_plotting_audio_or_tracker_packages():
    done = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_what_trains_prints_nothing():
    """Also where torchao is installed, which transformers imports then."""
    done = subprocess.run(
        [sys.executable, "-c", "import solar.training.fit"], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

import importlib
import json

import pytest
import transformers

from solar.growth import grow
from solar.growth.remap import residual_writers as residual
from solar.growth.remap import transformers_config

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

WORK = {"transformers_config": "_work", "residual_trace": "trace", "verify_logits": "judge"}


def ask_here(module, request, error):
    """What `solar.growth.process.ask` answers, without the second process."""
    work = getattr(importlib.import_module(module), WORK[module.rpartition(".")[2]])
    return json.loads(json.dumps(work(json.loads(json.dumps(request)))))


@pytest.fixture
def in_process(monkeypatch):
    """Seconds saved a test; that the processes really work, other tests show."""
    for module in (grow, residual, transformers_config):
        monkeypatch.setattr(module, "ask", ask_here)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Name of a family -> folder of a tiny random model of it, made once."""
    from tests.growth.tiny import make_tiny

    made = {}

    def folder(name):
        if name not in made:
            made[name] = make_tiny(name, tmp_path_factory.mktemp(name) / "model")
        return made[name]

    return folder

"""T-E6. No configuration makes solar, or Hydra, call or import what the configuration names."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solar.config.root import typed
from solar.config.store import register
from solar.errors import ConfigError
from solar.explain.hydra_settings import functions_named
from solar.run import conf_folder

TARGETS = [
    *("os.system", "os.popen", "os.execv", "os.spawnv", "os.remove", "os.rename", "os.mkdir", "os.symlink", "os.chmod"),
    *("os.putenv", "os.kill", "posix.system", "subprocess.run", "subprocess.call", "subprocess.Popen"),
    *("subprocess.check_output", "subprocess.getoutput", "builtins.eval", "builtins.exec", "builtins.open"),
    *("builtins.compile", "builtins.__import__", "builtins.getattr", "builtins.print", "pickle.loads", "pickle.load"),
    *("marshal.loads", "shelve.open", "torch.load", "torch.hub.load", "torch.classes.load_library", "numpy.load"),
    *("joblib.load", "yaml.load", "yaml.unsafe_load", "importlib.import_module", "importlib.reload", "runpy.run_path"),
    *("runpy.run_module", "code.interact", "pdb.run", "timeit.timeit", "cProfile.run", "trace.Trace"),
    *("functools.partial", "functools.reduce", "operator.methodcaller", "operator.attrgetter", "shutil.rmtree"),
    *("shutil.move", "ctypes.CDLL", "socket.create_connection", "urllib.request.urlopen", "webbrowser.open"),
    *("smtplib.SMTP", "http.server.test", "planted.Planted", "hydra.utils.instantiate", "hydra.utils.call"),
    *("solar.run.main", "transformers.AutoModel.from_pretrained", "logging.config.fileConfig", "antigravity.geohash"),
]
IN_STAGES = [
    "_target_",
    "trainer._target_",
    "logger._target_",
    "stages._target_",
    "stages.sft._target_",
    "stages.sft.optimizer._target_",
    "stages.sft.lr_factors._target_",
    "stages.merge.models",
    "stages.pretrain_data.sources._target_",
    "stages.pretrain_data.sources.docs._target_",
]
IN_HYDRA = [
    "callbacks.x._target_",
    "launcher._target_",
    "sweeper._target_",
    "job_logging.handlers.x.class",
    "job_logging.formatters.x.()",
    "hydra_logging.filters.x.()",
    "job.env_set.LD_PRELOAD",
]


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """Three stages of the quickstart, and Hydra's own settings."""
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        found = compose("config", overrides=["+experiment=quickstart"], return_hydra_config=True)
    OmegaConf.set_struct(found, False)
    found.stages = {name: found.stages[name] for name in ("sft", "merge", "pretrain_data")}
    return found


def test_the_untouched_configuration_names_no_function(composed: DictConfig) -> None:
    assert list(functions_named(composed)) == [] and len(set(TARGETS)) >= 60


@pytest.mark.parametrize("place", IN_STAGES)
def test_no_target_is_taken_or_imported(place: str, composed: DictConfig) -> None:
    changed, before = composed.copy(), set(sys.modules)
    del changed.hydra
    assert typed(changed)
    for target in TARGETS:
        value = {"_target_": target, "_partial_": True, "_args_": ["${oc.env:HOME}"]}
        with pytest.raises((ConfigError, OmegaConfBaseException)):
            # as Hydra takes `+key=value`
            OmegaConf.update(changed, place, [value] if place.endswith("models") else target, force_add=True)
            typed(changed)
    unloaded = {"planted", "antigravity", "webbrowser", "smtplib", "shelve"}
    assert not unloaded & (set(sys.modules) - before)


@pytest.mark.parametrize("place", IN_HYDRA)
def test_no_target_is_called_by_hydra(place: str, composed: DictConfig) -> None:
    for target in TARGETS:
        changed = composed.copy()
        OmegaConf.update(changed, f"hydra.{place}", target, force_add=True)
        (line,) = functions_named(changed)
        assert line.startswith(f"hydra.{place.split('.x.')[0].removesuffix('.LD_PRELOAD')}")


PLANTED = """
    from pathlib import Path
    Path(__file__).with_name("ran").touch()
    class Planted:
        def __init__(self, *_, **__): Path(__file__).with_name("called").touch()
"""
FILES = {
    "hydra: {callbacks: {x: {_target_: planted.Planted}}}": "hydra.callbacks: found settings",
    "hydra: {job_logging: {handlers: {x: {class: planted.Planted}}}}": "hydra.job_logging.handlers: found settings",
    "hydra: {hydra_logging: {filters: {x: {(): planted.Planted}}}}": "hydra.hydra_logging.filters: found settings",
    "hydra: {launcher: {_target_: planted.Planted}}": "hydra.launcher._target_: found 'planted.Planted'",
    "hydra: {sweeper: {_target_: planted.Planted}}": "hydra.sweeper._target_: found 'planted.Planted'",
    "stages: {sft: {_target_: planted.Planted}}": "stages.sft._target_: no such key",
    "stages: {sft: {optimizer: {_target_: planted.Planted}}}": "stages.sft.optimizer._target_: no such key",
    "a: planted.Planted\nstages: {sft: {optimizer: {_target_: '${a}'}}}": "a: no such key",
    "defaults: [../../planted]": "../../planted",
}
"""What an experiment's file says -> part of the refusal."""


@pytest.mark.parametrize("more", [["dry_run=true"], ["dry_run=true", "seed=1,2", "--multirun"]], ids=["run", "sweep"])
def test_an_experiment_of_a_stranger_runs_no_code(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "planted.py").write_text(textwrap.dedent(PLANTED))
    (tmp_path / "planted.yaml").write_text("hydra: {callbacks: {x: {_target_: planted.Planted}}}")
    for number, text in enumerate(FILES):
        defaults = "" if text.startswith("defaults") else "defaults: [/stage@stages.sft: sft, _self_]\n"
        (tmp_path / f"conf/experiment/e{number}.yaml").write_text(f"# @package _global_\n{defaults}{text}\n")
    program = f"""
        import sys
        from solar.run import main
        for number in range({len(FILES)}):
            words = ["--config-dir", {str(tmp_path / "conf")!r}, f"+experiment=e{{number}}"]
            sys.argv = ["solar.run", *words, "paths.root={tmp_path}/root", *{more!r}]
            try:
                main()
            except SystemExit as end:
                print(number, end.code, flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    ends = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert ends == [f"{number} 1" for number in range(len(FILES))], done.stdout
    lines = done.stderr.splitlines()
    assert len(lines) == len(FILES) and all(line.startswith("error: ") for line in lines), done.stderr
    assert [part for part, line in zip(FILES.values(), lines, strict=True) if part not in line] == [], done.stderr
    assert not (tmp_path / "ran").exists() and not (tmp_path / "called").exists() and not (tmp_path / "root").exists()

"""The executor runs what is needed, waits for what another run builds, and names the stage that the disk stopped."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from solar.artifacts.manifest import Manifest
from solar.artifacts.store import Store
from solar.config.data import PrepareDataConfig, PythonDocsConfig, SourceConfig, Task
from solar.config.evaluation import ReportConfig
from solar.config.growth import UpscaleConfig
from solar.config.growth_plan import PlanName
from solar.config.merging import MergeConfig, MergeMethod
from solar.config.model import ArchitectureConfig, InitModelConfig, TrainTokenizerConfig
from solar.config.optimizer import OptimizerConfig, OptimizerName
from solar.config.preference import ReferenceLogpsConfig
from solar.config.root import LoggerConfig, PathsConfig, SolarConfig, TrainerConfig
from solar.config.training import Precision, PretrainConfig
from solar.engine import execute, finished
from solar.engine.execute import Executor
from solar.engine.finished import verify_finished
from solar.engine.progress import Progress
from solar.errors import ArtifactError, StageError
from solar.plan.plan import Plan, make_plan

SIZES = ArchitectureConfig(4, 16, 32, 2, 1, 300, 64, True, 1e4, 1e-5)


def _config(root: Path, **renamed: str) -> SolarConfig:
    """docs <- tokenizer <- a and b (equal) <- merge <- up; `renamed` maps these names to others."""

    def name(stage: str) -> str:
        return renamed.get(stage, stage)

    init = {"kind": "init_model", "tokenizer": name("tokenizer"), "architecture": SIZES, "initializer_range": 0.02}
    stages = {
        name("docs"): PythonDocsConfig(kind="python_docs", packages=["numpy"], held_out_fraction=0.1, seed=1),
        name("tokenizer"): TrainTokenizerConfig(
            kind="train_tokenizer", text=name("docs"), vocab_size=300, template="solar"
        ),
        name("a"): InitModelConfig(**init, seed=1),
        name("b"): InitModelConfig(**init, seed=1),
        name("mean"): MergeConfig(kind="merge", models=[name("a"), name("b")], method=MergeMethod.average),
        name("up"): UpscaleConfig(kind="upscale", model=name("mean"), plan=PlanName.dus, m=1),
    }
    trainer = TrainerConfig(accelerator="cpu", devices=1, num_nodes=1, micro_batch_size=1)
    return SolarConfig(name="t", seed=1, stages=stages, trainer=trainer, paths=PathsConfig(str(root)))


def _executor(config: SolarConfig, store: Store) -> Executor:
    config.logger = LoggerConfig()
    return Executor(config, store, store.root / "run", Progress(Console(file=StringIO(), width=200)))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the stages that really ran; each leaves one file."""
    names: list[str] = []

    def launch(config, inputs, output, context):
        names.append(context.stage)
        (output / "made").write_text(context.stage)
        return {}

    monkeypatch.setattr(execute, "launch", launch)
    yield names


def _run(config: SolarConfig, store: Store) -> dict[str, Path]:
    plan = make_plan(config, store)
    return {name: artifact.path for name, artifact in _executor(config, store).run(plan).items()}


def test_a_renamed_stage_is_found_by_its_id(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    before = _run(_config(tmp_path), store)
    launched.clear()
    after = _run(_config(tmp_path, docs="corpus", mean="soup", up="deep"), store)
    assert launched == []
    assert (after["corpus"], after["soup"], after["deep"]) == (before["docs"], before["mean"], before["up"])


def test_two_equal_stages_run_once(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    plan = make_plan(_config(tmp_path), store)
    assert plan.headline == "plan t: 6 stages, 0 done, 5 to run, 1 the same as another"
    assert plan.stages["b"].same_as == "a" and plan.stages["b"].status == "same as a"
    paths = _run(_config(tmp_path), store)
    assert launched == ["docs", "tokenizer", "a", "mean", "up"] and paths["b"] == paths["a"]


def test_a_measured_peak_of_memory_gets_the_estimate_of_the_plan_at_its_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, gradients and two moments in float32: 16 bytes a weight."""
    config, store = _config(tmp_path), Store(tmp_path / "artifacts")
    text = SourceConfig(stage="docs")
    settings = {"sequence_length": 64, "task": Task.pretrain, "tokenizer": "tokenizer", "seed": 1}
    config.stages["data"] = PrepareDataConfig(kind="prepare_data", sources={"text": text}, **settings)
    training = {"model": "a", "data": "data", "duration": "4 steps", "global_batch_size": 1, "seed": 1}
    optimizer = OptimizerConfig(OptimizerName.adamw, 1e-3)
    config.stages["cpt"] = PretrainConfig(kind="pretrain", precision=Precision.fp32, optimizer=optimizer, **training)

    def launch(config, inputs, output, context):
        (output / "made").write_text("")
        return {"peak_memory_bytes": 5.0} if context.stage == "cpt" else {"tokens": 1}

    monkeypatch.setattr(execute, "launch", launch)
    artifacts = _executor(config, store).run(make_plan(config, store))
    expected = {"peak_memory_bytes": 5.0, "estimated_memory_bytes": 16 * SIZES.parameters()}
    assert artifacts["cpt"].manifest.metrics == expected
    assert artifacts["data"].manifest.metrics == {"tokens": 1}


def test_a_missing_stage_that_only_finished_stages_read_is_not_made_again(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    paths = _run(_config(tmp_path), store)
    shutil.rmtree(paths["a"])
    shutil.rmtree(paths["docs"])
    launched.clear()
    config = _config(tmp_path)
    config.stages["up"].m = 2
    plan = make_plan(config, store)
    assert plan.headline == "plan t: 6 stages, 2 done, 1 to run, 3 not needed"
    _executor(config, store).run(plan)
    assert launched == ["up"]
    config.until = "a"
    assert [stage.name for stage in make_plan(config, store).to_run] == ["a"]


def test_a_missing_stage_is_made_again_for_a_reader_that_runs(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    paths = _run(_config(tmp_path), store)
    shutil.rmtree(paths["mean"])
    shutil.rmtree(paths["up"])
    launched.clear()
    _run(_config(tmp_path), store)
    assert launched == ["mean", "up"]


def test_a_growth_without_weights_needs_its_base_when_it_is_read(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    config = _config(tmp_path)
    config.stages["up"].materialize = False
    paths = _run(config, store)
    shutil.rmtree(paths["mean"])
    assert make_plan(config, store).to_run == []
    config.stages["page"] = ReportConfig(kind="report", of=["up"])
    assert [stage.name for stage in make_plan(config, store).to_run] == ["mean", "page"]


BUILDER = """
    import sys
    from pathlib import Path
    from solar.artifacts.manifest import Manifest
    from solar.artifacts.store import Store
    store, identity = Store(Path(sys.argv[1])), sys.argv[2]
    partial = store.begin("other_name", identity)
    print("mine", flush=True)
    sys.stdin.readline()
    (partial / "made").write_text("by the other run")
    store.publish(Manifest("other_name", "python_docs", identity, 2, {}, {}, {}, {}, {}, 0.1))
"""


def _builder(store: Store, identity: str) -> "subprocess.Popen[str]":
    store.root.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-c", textwrap.dedent(BUILDER), str(store.root), identity]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "mine\n"
    return process


def _announcing(executor: Executor, then) -> None:
    """Call `then` as soon as the executor announces that it waits."""
    text = executor.progress.console.file

    def watch() -> None:
        while "waiting: " not in text.getvalue():
            threading.Event().wait(0.01)
        then()

    threading.Thread(target=watch, daemon=True).start()


def test_a_second_run_waits_for_the_first_and_uses_its_artifact(
    tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-F1."""
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.05)
    store, config = Store(tmp_path / "artifacts"), _config(tmp_path)
    config.until = "docs"
    plan = make_plan(config, store)
    builder, executor = _builder(store, plan.stages["docs"].id), _executor(config, store)
    _announcing(executor, lambda: (builder.stdin.write("go on\n"), builder.stdin.flush()))
    artifacts = executor.run(plan)
    assert launched == [] and (artifacts["docs"].path / "made").read_text() == "by the other run"
    printed = executor.progress.console.file.getvalue()
    assert printed.count("waiting: ") == 1 and f"process {builder.pid} is building it" in printed
    assert builder.wait() == 0


def test_a_run_takes_over_from_a_builder_that_dies(
    tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-F1."""
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.05)
    store, config = Store(tmp_path / "artifacts"), _config(tmp_path)
    config.until = "docs"
    plan = make_plan(config, store)
    builder, executor = _builder(store, plan.stages["docs"].id), _executor(config, store)

    def kill() -> None:
        builder.kill()
        builder.wait()

    _announcing(executor, kill)
    artifacts = executor.run(plan)
    assert launched == ["docs"] and (artifacts["docs"].path / "made").read_text() == "docs"
    assert not list(store.root.glob("*.partial"))


def test_a_damaged_input_stops_the_stage_that_reads_it_before_it_starts(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    paths = _run(_config(tmp_path), store)
    shutil.rmtree(paths["up"])
    (paths["mean"] / "made").write_text("mist")  # as long as "mean"
    launched.clear()
    with pytest.raises(ArtifactError, match=r"^mean: .*made: its content was changed"):
        _run(_config(tmp_path), store)
    assert launched == [] and not list(store.root.glob("*.partial"))


def test_the_plan_reads_no_contents_and_the_check_before_work_reads_all(tmp_path: Path, launched: list[str]) -> None:
    store = Store(tmp_path / "artifacts")
    paths = _run(_config(tmp_path), store)
    (paths["docs"] / "made").write_text("dock")  # no stage that runs reads it
    plan = make_plan(_config(tmp_path), store)
    assert plan.to_run == []
    with pytest.raises(ArtifactError, match=r"^docs: .*made: its content was changed"):
        verify_finished(plan, store, Progress(Console(file=StringIO())))


def test_long_reading_has_a_line(tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "WORTH_A_LINE_BYTES", 10)
    _run(_config(tmp_path), Store(tmp_path / "artifacts"))
    text = StringIO()
    for _ in range(2):
        store = Store(tmp_path / "artifacts")
        verify_finished(make_plan(_config(tmp_path), store), store, Progress(Console(file=text)))
    assert text.getvalue().count("verify") == 2 and "0.0 GB of artifacts read" in text.getvalue()


@pytest.mark.parametrize("changes", [{"kind": "pretrain"}, {"inputs": {"a": "f" * 12}}], ids=["kind", "inputs"])
def test_a_manifest_that_says_another_work_than_its_id_is_refused(
    tmp_path: Path, launched: list[str], changes: dict[str, object]
) -> None:
    store = Store(tmp_path / "artifacts")
    path = _run(_config(tmp_path), store)["mean"]
    replace(Manifest.read(path), **changes).write(path)  # with a hash of its own that is right
    with pytest.raises(ArtifactError, match=r"^mean: .*manifest\.json: says kind .*, expected merge and"):
        make_plan(_config(tmp_path), store)


@pytest.mark.parametrize(
    ("number", "filename", "message"),
    [
        (errno.ENOSPC, None, r"^docs: .*docs-\w+\.partial: No space left on device; free some space"),
        (errno.EACCES, "/data/a.jsonl", r"^docs: /data/a\.jsonl: Permission denied; change its permissions"),
    ],
)
def test_an_error_of_the_disk_names_stage_and_file(
    number: int, filename: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T-A6."""

    def launch(*_):
        raise OSError(number, os.strerror(number), *([filename] if filename else []))

    monkeypatch.setattr(execute, "launch", launch)
    store = Store(tmp_path / "artifacts")
    with pytest.raises(StageError, match=message):
        _run(_config(tmp_path), store)
    assert not list(store.root.glob("*"))


def test_the_first_ctrl_c_ends_a_pass_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after: list[str] = []

    def launch(config, inputs, output, context):
        signal.raise_signal(signal.SIGINT)
        after.append("went on")

    monkeypatch.setattr(execute, "launch", launch)
    config = _config(tmp_path)
    config.stages = {"logps": ReferenceLogpsConfig("reference_logps", "a", "tokens", Precision.fp32)}
    executor = _executor(config, Store(tmp_path / "artifacts"))
    from solar.plan.plan import Plan, PlannedStage

    stage = PlannedStage("logps", config.stages["logps"], "0" * 12, {}, None, None)
    with pytest.raises(KeyboardInterrupt):
        executor.run(Plan("t", {"logps": stage}, ()))
    assert after == []


@pytest.mark.parametrize("deterministic,expected", [(True, ":4096:8"), (False, "of the user")])
def test_variables_of_deterministic_mode_are_set_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool, expected: str
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of the user")
    config = _config(tmp_path)
    config.trainer.deterministic = deterministic
    assert not _executor(config, Store(tmp_path)).run(Plan("t", {}, ()))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected

"""What people get wrong comes back as one clear line, exit code 1, and nothing on disk."""

from pathlib import Path

import pytest

from tests.faults.disks import largest_file

from .conftest import Run

MISTAKES = {
    "stages.upscal.m=3": "stages.upscal: no such key in stages; did you mean 'upscale'?",
    "stages.upscale.mm=3": "stages.upscale.mm: no such key in stages.upscale; did you mean 'm'?",
    "stages.upscale.m=two": "stages.upscale.m: found 'two', expected a whole number",
    "stages.diagnosis.plans.dus_m1.m=9": "stages.diagnosis.plans.dus_m1.m: 9 found, expected 0..4",
    "stages.upscale.m=5": "stages.upscale.m: 5 found, expected 0..4 (half of the base's 8 layers); choose a smaller m",
    "stages.upscale.plan=dos": "stages.upscale.plan: found 'dos', expected dus, stack, repeat_each",
    "stages.dpo_a.optimizer.lrr=1": "no such key in stages.dpo_a.optimizer; did you mean 'lr'?",
    "stages.dpo_a.beta=-1": "stages.dpo_a.beta: found -1.0, expected more than 0",
    "stages.sft.duration=long": "stages.sft.duration: found 'long', expected a number and a unit such as '200k tokens'",
    "stages.dpo_a.model=sftt": "stages.dpo_a.model: names the stage 'sftt', which is not in the plan; did you mean 'sf",
    "stages.upscale.model=docs": "stages.upscale.model: 'docs' leaves text, expected a stage that leaves model",
    "stages.init.tokenizer=sft": "read each other in a circle; break one of the references",
    "~stages.tokenizer": "names the stage 'tokenizer', which is not in the plan",
    "stages.pretrain_data.sources.docs={stage: null, file: null, path: nowhere/*.jsonl, format: text}": (
        "stages.pretrain_data.sources.docs.path: found nothing to read at nowhere/*.jsonl"
    ),
    "until=pretrian": "until: names the stage 'pretrian', which is not in the plan; did you mean 'pretrain'?",
    "trainer=cpuu": "trainer: there is no 'cpuu'; did you mean 'cpu'?",
    "+experiment=quickstrt": "experiment: there is no 'quickstrt'; did you mean 'quickstart'?",
    "+stages.dpo_a.betta=1": "stages.dpo_a.betta: no such key",
    "trainer=1": "trainer: there is no '1'; there are: auto, cpu, ddp",
    "+experiment=inf": "experiment: there is no 'inf'; there are: dpo_losses",
    "=": "'=': no key, expected key=value",
    "~stages.dpo_a.optimizer": "~stages.dpo_a.optimizer: a setting of a schema cannot be taken away; give it another",
    "stages.dpo_a.lr_factors={1:2}": "stages.dpo_a.lr_factors.1: found the key 1, expected a word; quote it, as '1'",
    "+stages.pretrain_data.sources.a.path=x": "stages.pretrain_data.sources.a: a new entry starts from its schema: `+s",
    "+stages.pretrain_data.sources.a={path: x}": "`+schema@stages.pretrain_data.sources.a=source`, then its keys",
    "stages.sft.duration=99999999999T steps": "found '99999999999T steps', expected at most 1,000T",
    f"name={'x' * 300}": "expected up to 100 letters",
    f"stages.pretrain_data.sources.docs={{stage: null, file: null, path: {'x' * 300}, format: text}}": (
        "File name too long"
    ),
    "stages.dpo_a.beta=inf": "stages.dpo_a.beta: found inf, expected a finite number",
    "stages.dpo_a.duration=0": "stages.dpo_a.duration: found '0', expected a number and a unit",
    "stages.init.architecture.num_attention_heads=0": "num_attention_heads: found 0, expected at least 1",
    "stages.evaluation.max_tokens=-1": "stages.evaluation.max_tokens: found -1, expected at least 1 or null",
    "name=../elsewhere": "name: found '../elsewhere', expected up to 100 letters, digits",
    "trainer=null": "trainer: found 'null', expected one of auto, cpu, ddp",
    "+experiment=quickstart,dus_10b": "experiment: several values; add --multirun to run each",
    "stages.evaluation.models=[]": "stages.evaluation.models: found none, expected stages whose models are scored",
    "+stages.extra.kind=sft": "stages.extra: a stage starts from a recipe or a schema",
    "stages.dpo_a=5": "error: stages.dpo_a: a stage starts from a recipe or a schema",
    "stages.dpo_a=null": "error: stages.dpo_a: a stage starts from a recipe or a schema",
    "stages.dpo_a.duration=null": "error: stages.dpo_a.duration: found null, expected a value",
    "stages.merge.weights=0.5": "error: stages.merge.weights: found a number, expected a list such as [a,b]",
    "stages.dpo_a.lr_factors=3": "error: stages.dpo_a.lr_factors: found a whole number, expected keys with values",
    "optimizer=sgd": "optimizer: choose it where it stands, such as optimizer@stages.base.optimizer=...",
    "paths.root=/proc/nope": "error: paths.root: /proc/nope cannot be made",
    "sed=3": "sed: no such key in the configuration; did you mean 'seed'?",
    "stages.dpo_a.seed=${nothing}": "stages.dpo_a.seed: Interpolation key 'nothing' not found",
    "stages.sft.seed=${oc.env:NOT_SET_ANYWHERE}": "stages.sft.seed: KeyError raised while resolving interpolation",
    "seed=${seed}": "seed: Recursive interpolation detected",
    "stages.sft.duration=???": "stages.sft.duration: not set, expected a value; give it as stages.sft.duration=...",
    "stages.merge.models=[{a: 1}]": "stages.merge.models.0: found keys with values, expected a word",
    "stages.dpo_a.optimizer.betas=[[1],1]": "stages.dpo_a.optimizer.betas.0: found a list, expected a number",
    "stages.pretrain_data.decontaminate.ngram=5": "stages.pretrain_data.decontaminate is null, expected",
    "trainer.micro_batch_size=3": "is no multiple of micro-batches of 3; set trainer.micro_batch_sizes.",
    "stages.dpo_a.optimizer.betas.3=1": "stages.dpo_a.optimizer.betas.3: the list has no such entry",
    "stages.dpo_a.optimizer.betas.x=1": "stages.dpo_a.optimizer.betas.x: found 'x' below a list, expected the number",
    "stages.dpo_a.lr_factors.new=2": "stages.dpo_a.lr_factors is empty; a plus adds to it, as in '+stages.dpo_a.lr_f",
    "hydra=3": "hydra: holds Hydra's own settings, expected one of their keys",
    "stages=[1]": "stages: found a list, expected keys with values",
    "objective=evaluatoin.base": "objective: found 'evaluatoin.base', expected stage.metric",
}


def test_heads_that_devices_cannot_share_are_known_before_any_work(run: Run, tmp_path: Path) -> None:
    cut = ["trainer=tensor_parallel", "trainer.accelerator=cpu", "trainer.devices=4", "trainer.tensor_parallel=4"]
    done = run(tmp_path, *cut, "until=base")
    assert done.returncode == 1
    message = "expected a divisor of the model's num_attention_heads, 2 (stages.base)"
    assert f"error: trainer.tensor_parallel: found 4, {message}" in done.stderr.splitlines()
    assert not list(tmp_path.glob("artifacts/*"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_one_clear_line(mistake: str, run: Run, tmp_path: Path) -> None:
    """T-D1, T-D2, T-D3."""
    done = run(tmp_path / "root", mistake)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines and all(line.startswith("error: ") for line in lines), done.stderr
    assert any(MISTAKES[mistake] in line for line in lines), done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "root").glob("artifacts/*"))


def test_an_unknown_key_in_a_list_is_reported_with_the_list(run: Run, tmp_path: Path) -> None:
    steps = ["stages.sdpo.parts=null", "stages.sdpo.steps=[{shar: 1}]"]
    done = run(tmp_path, "+experiment=stepwise_dpo", *steps)
    message = "stages.sdpo.steps: no such key 'shar' in an entry of the list; did you mean 'share'?"
    assert done.returncode == 1 and done.stderr == f"error: {message}\n"


def test_all_problems_are_reported_together(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path, "stages.dpo_a.beta=-1", "stages.sft.duration=long", "trainer.devices=0")
    assert len(done.stderr.splitlines()) == 3


def test_empty_data_set_is_an_error_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """T-C3."""
    (tmp_path / "empty.jsonl").write_text("")
    source = (
        f"stages.pretrain_data.sources.docs={{stage: null, file: null, path: {tmp_path}/empty.jsonl, format: text}}"
    )
    done = run(tmp_path, source, "until=pretrain_data")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no training sample in its 0 rows" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("artifacts/pretrain_data*"))


def test_folder_that_cannot_be_written_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = run(tmp_path / "file", "until=docs")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_full_disk_is_one_line_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """T-A6."""
    with largest_file(200_000):  # the text of the documentation is more
        done = run(tmp_path, "until=docs")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("artifacts/docs*"))


WRITTEN = {
    "pretrain: {optimizer: {lr: abc}}": "stages.pretrain.optimizer.lr: found 'abc', expected a number",
    "pretrain: {optimzer: {lr: 1.0}}": "no such key in stages.pretrain; did you mean 'optimizer'?",
    "pretrain_data: {packing: bestfit}": "packing: found 'bestfit', expected none, concatenate, best_fit",
    "pretrain_data: {sources: {docs: {formt: text}}}": "docs.formt: no such key in stages.pretrain_data.sources",
    "pretrain_data: {sources: {docs: null}}": "stages.pretrain_data.sources.docs: found null, expected a value",
    "pretrain_data: {sources: {1: {path: x}}}": "stages.pretrain_data.sources.1: found the key 1, expected a word",
    "pretrain: 5": "stages.pretrain: found '5', expected the keys of PretrainConfig",
    "merge: {weights: {a: 1}}": "stages.merge.weights: found keys with values, expected a list such as [a,b]",
    "mine: {kind: sft, duration: 3 steps}": "stages.mine: a stage starts from a recipe or a schema",
}


TOP = b"# @package _global_\ndefaults: [/experiment/quickstart, _self_]\n"
UNREADABLE = {
    "a tab": (TOP + b"stages:\n\tupscale: {m: 1}\n", "experiment/mine.yaml:4: found character '\\t' that cannot start"),
    "a key twice": (TOP + b"name: a\nname: b\n", "experiment/mine.yaml:4: found duplicate key name"),
    "no alias": (TOP + b"name: *x\n", "experiment/mine.yaml:3: found undefined alias 'x'"),
    "Latin-1": (TOP + b"# caf\xe9\n", "experiment/mine.yaml: this is not UTF-8 text"),
    "UTF-16": (TOP.decode().encode("utf-16"), "experiment/mine.yaml: this is not UTF-8 text"),
    "no list": (b"# @package _global_\ndefaults: 3\n", "experiment/mine.yaml: defaults must be a list"),
    "no package": (TOP.splitlines()[1] + b"\nname: x\n", "its first line must be `# @package _global_`"),
    "empty": (b"", "its first line must be `# @package _global_`"),
    "a list of sources": (
        TOP + b"stages: {pretrain_data: {sources: [a]}}\n",
        "stages.pretrain_data.sources: found a list, expected keys with values",
    ),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_experiments_file_that_cannot_be_read_is_one_line(kind: str, run: Run, tmp_path: Path) -> None:
    content, message = UNREADABLE[kind]
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(content)
    done = run(tmp_path / "root", "--config-dir", str(tmp_path / "conf"), "+experiment=mine")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert message in done.stderr


@pytest.mark.parametrize("stage", WRITTEN)
def test_a_mistake_in_an_experiments_file_is_one_clear_line_with_the_file(stage: str, run: Run, tmp_path: Path) -> None:
    """T-D1, T-D2."""
    folder = tmp_path / "conf/experiment"
    folder.mkdir(parents=True)
    defaults = "# @package _global_\ndefaults: [/experiment/quickstart, _self_]\n"
    (folder / "mine.yaml").write_text(f"{defaults}stages:\n  {stage}\n")
    done = run(tmp_path / "root", "--config-dir", str(tmp_path / "conf"), "+experiment=mine")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: experiment/mine.yaml: ") and WRITTEN[stage] in line

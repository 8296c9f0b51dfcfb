"""Names become edges, edges become an order."""

import pytest

from solar.config.base import StageConfig
from solar.config.data import PythonDocsConfig
from solar.config.evaluation import EvaluateConfig, ReportConfig
from solar.config.merging import MergeConfig, MergeMethod
from solar.config.model import ArchitectureConfig, InitModelConfig, TrainTokenizerConfig
from solar.config.root import SolarConfig
from solar.errors import PlanError
from solar.plan.expansion.expand import expand as expand_config
from solar.plan.graph import link, order, upstream


def expand(stages: dict[str, StageConfig]) -> dict[str, StageConfig]:
    return expand_config(SolarConfig(name="some", seed=1, stages=stages)).stages


def _chain() -> dict[str, StageConfig]:
    docs = PythonDocsConfig(kind="python_docs", packages=["numpy"], held_out_fraction=0.1, seed=1)
    tokenizer = TrainTokenizerConfig(kind="train_tokenizer", text="docs", vocab_size=300, template="solar")
    sizes = ArchitectureConfig(4, 16, 32, 2, 1, 300, 64, True, 1e4, 1e-5)
    first = InitModelConfig(
        kind="init_model", tokenizer="tokenizer", architecture=sizes, initializer_range=0.02, seed=1
    )
    second = InitModelConfig(
        kind="init_model", tokenizer="tokenizer", architecture=sizes, initializer_range=0.02, seed=2
    )
    mean = MergeConfig(kind="merge", models=["first", "second"], method=MergeMethod.average)
    report = ReportConfig(kind="report", of=["*"])
    scores = EvaluateConfig(kind="evaluate", models=["*"], choices="docs")
    # Written back to front on purpose.
    return {
        "report": report,
        "scores": scores,
        "mean": mean,
        "second": second,
        "first": first,
        "tokenizer": tokenizer,
        "docs": docs,
    }


def test_every_stage_comes_after_what_it_reads() -> None:
    edges = link(expand(_chain()))
    ordered = order(edges)
    for name, sources in edges.items():
        assert all(ordered.index(source) < ordered.index(name) for source in sources)


def test_star_means_every_stage_that_leaves_the_product_but_not_the_reader() -> None:
    expanded = expand(_chain())
    assert expanded["scores"].models == ["mean", "second", "first"]
    assert set(expanded["report"].of) == {"scores", "mean", "second", "first", "tokenizer", "docs"}


def test_star_follows_when_a_stage_is_dropped() -> None:
    stages = _chain()
    del stages["mean"]
    assert expand(stages)["scores"].models == ["second", "first"]


def test_upstream_is_all_that_a_stage_is_made_from_and_nothing_else() -> None:
    assert upstream(link(expand(_chain())), "mean") == {"mean", "first", "second", "tokenizer", "docs"}


def test_a_missing_stage_is_named_with_the_key_and_what_was_meant() -> None:
    stages = _chain()
    stages["mean"].models = ["first", "secnd"]
    with pytest.raises(PlanError, match=r"stages\.mean\.models\.1: names the stage 'secnd'.*did you mean 'second'"):
        link(expand(stages))


def test_a_stage_that_leaves_something_else_is_refused() -> None:
    stages = _chain()
    stages["mean"].models = ["first", "docs"]
    with pytest.raises(PlanError, match=r"'docs' leaves text, expected a stage that leaves model"):
        link(expand(stages))


def test_a_model_may_stand_for_its_tokenizer() -> None:
    stages = _chain()
    stages["second"].tokenizer = "first"
    assert link(expand(stages))["second"] == ("first",)


def test_a_circle_is_told_whole() -> None:
    stages = _chain()
    stages["first"].tokenizer = "mean"
    with pytest.raises(PlanError, match=r"first -> mean -> first|mean -> first -> mean"):
        order(link(expand(stages)))


def test_only_stages_of_the_right_product_are_suggested() -> None:
    stages = _chain()
    stages["mean"].models = ["first", "dacs"]
    with pytest.raises(PlanError, match=r"models\.1: names the stage 'dacs', .*; there are: first, second$"):
        link(expand(stages))
    stages["mean"].models = ["first", "docs"]
    with pytest.raises(PlanError, match=r"'docs' leaves text, .* leaves model; there are: first, second$"):
        link(expand(stages))

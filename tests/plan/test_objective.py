"""What a sweep optimises must be measured; that is known before the work."""

import pytest

from solar.config.evaluation import EvaluateConfig
from solar.errors import ConfigError
from solar.plan.checks.objective import check_objective

STAGES = {
    "pretrain": EvaluateConfig(kind="evaluate", models=["base"], choices="docs"),  # any stage will do
    "evaluation": EvaluateConfig(kind="evaluate", models=["base", "pretrain"], data="text", choices="docs"),
}


@pytest.mark.parametrize(
    "objective",
    [None, "evaluation.base.nats_per_token", "evaluation.pretrain.choice_accuracy", "evaluation.base.accuracy_order"],
)
def test_what_will_be_measured_is_accepted(objective):
    check_objective(objective, None, STAGES)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("evaluation", "expected stage.metric"),
        ("evaluation.pretrian.nats_per_token", "does not score 'pretrian'; did you mean 'pretrain'?"),
        ("evaluation.base.nats_per_tokn", "does not measure 'nats_per_tokn'; did you mean 'nats_per_token'?"),
        ("evaluation.base", "does not measure ''"),
        ("evaluation.base.harness_mean", "does not measure 'harness_mean'"),
        ("merge.loss", "needs the stage merge, which does not run; until=pretrain stops before it"),
    ],
)
def test_what_nobody_will_say_is_refused(objective, said):
    with pytest.raises(ConfigError) as refusal:
        check_objective(objective, "pretrain" if "merge" in objective else None, STAGES)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)

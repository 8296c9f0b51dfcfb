"""Preference losses: each equal to a number worked by hand from its paper's formula.

The pair of all examples: log-probabilities of the chosen answer -2 (reference -3, 2 tokens), of the rejected one -4
(reference -3.5, 4 tokens). Rewards are 1 and -0.5, the margin is 1.5; with beta 0.5, beta times margin is 0.75.
"""

import math

import pytest
import torch
from tiny import settings

from solar.config.preference import DpoConfig, PreferenceLoss
from solar.training.preference.losses import LOSSES, AnswerLogps, preference_loss
from solar.training.preference.metrics import health

PAIR = [-2.0, -4.0, -3.0, -3.5, 2.0, 4.0]


def _loss(name, numbers=PAIR, point=0.0, **options):
    config = DpoConfig(loss=PreferenceLoss(name), beta=options.pop("beta", 0.5), **options)
    logps = AnswerLogps(*(torch.tensor([number], dtype=torch.float64) for number in numbers))
    return preference_loss(logps, config, point).item()


BY_HAND = {
    # ln(1 + e^-0.75) = ln 1.4723665527
    "sigmoid": (0.3868710, {}),
    # 0.9 * 0.3868710 + 0.1 * ln(1 + e^0.75) = 0.3481839 + 0.1 * 1.1368710
    "sigmoid smoothed": (0.4618710, {"label_smoothing": 0.1}),
    # (1.5 - 1 / (2 * 0.5))^2 = 0.5^2
    "ipo": (0.25, {}),
    # the chosen answer did not fall: as DPO
    "dpo_positive": (0.3868710, {"alpha": 5.0}),
    # 0.3868710 + 0.2 * 2 / 2
    "rpo": (0.5868710, {"alpha": 0.2}),
    # per token -1 and -1: ln(1 + e^-(0.5 * 0 - 0.3)) = ln 2.3498588
    "simpo": (0.8543552, {"gamma": 0.3}),
    # per token both -1, odds equal: 1 + 0.5 ln 2
    "orpo": (1.3465736, {}),
    # s(-0.5 * 1) = 0.3775407 and s(-0.5 * 0.5) = 0.4378235, their mean
    "kto": (0.4076821, {}),
    # 0.3775407 + s(0.5 * -0.5) = 0.3775407 + 0.4378235
    "apo_zero": (0.8153642, {}),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_a_number_worked_by_hand(case):
    expected, options = BY_HAND[case]
    assert _loss(case.split()[0], **options) == pytest.approx(expected, abs=5e-8)


def test_every_loss_has_its_number():
    assert {PreferenceLoss(case.split()[0]) for case in BY_HAND} == set(PreferenceLoss) == set(LOSSES)


def test_dpo_positive_makes_a_fallen_chosen_answer_pay():
    # chosen reward -1, rejected -2.5: margin 1.5, less alpha times the 1 nat it fell: ln(1 + e^-(0.5 * (1.5 - 2)))
    assert _loss("dpo_positive", [-4.0, -6.0, -3.0, -3.5, 2, 4], alpha=2.0) == pytest.approx(0.8259394, abs=5e-8)


def test_the_kto_reference_point_moves_both_answers():
    # s(-0.5 * (1 - 0.4)) = 0.42555748 and s(-0.5 * (0.4 + 0.5)) = 0.38936077
    assert _loss("kto", point=0.4) == pytest.approx((0.42555748 + 0.38936077) / 2, abs=5e-8)


def test_orpo_by_hand_with_unequal_odds():
    # per token -0.5 and -1: log odds -0.5 - ln(1 - e^-0.5) = 0.4327521 and -1 - ln(1 - e^-1) = -0.5413249;
    # ln(1 + e^-0.9740770) = ln 1.3775405 = 0.3202998
    assert _loss("orpo", [-1.0, -4.0, 0, 0, 2, 4], beta=0.1) == pytest.approx(0.5 + 0.03202998, abs=1e-7)


def test_per_token_divides_each_answer_by_its_own_length():
    # rewards 1/2 and -0.5/4: margin 0.625, times 0.5: ln(1 + e^-0.3125) = ln 1.7316157
    assert _loss("sigmoid", length_normalized=True) == pytest.approx(0.5490549, abs=5e-8)


@pytest.mark.parametrize("name", ["sigmoid", "rpo", "dpo_positive"])
def test_a_policy_that_is_the_reference_loses_ln_2_by_dpo(name):
    fields = _loss(name, [-3.0, -3.5, -3.0, -3.5, 2, 4], alpha=0.2)
    assert fields == pytest.approx(math.log(2) + (0.3 if name == "rpo" else 0.0))


@pytest.mark.parametrize("name", list(PreferenceLoss))
def test_raising_the_chosen_answer_never_costs(name):
    config = DpoConfig(loss=name, beta=0.1, alpha=0.5)
    numbers = [torch.tensor([n], dtype=torch.float64) for n in PAIR]
    numbers[0].requires_grad_()
    preference_loss(AnswerLogps(*numbers), config).sum().backward()
    assert numbers[0].grad.item() < 0


def test_health_numbers_by_hand():
    # the pair of all examples, and one with rewards -1 (2 tokens) and 0 (1 token): margins 1.5 and -1
    columns = zip(PAIR, [-5.0, -3.0, -4.0, -3.0, 2.0, 1.0], strict=True)
    logps = AnswerLogps(*(torch.tensor(column, dtype=torch.float64) for column in columns))
    sums = health(logps, DpoConfig(loss=PreferenceLoss.sigmoid, beta=0.5))
    # log-ratios per token 0.5, -0.125 and -0.5, 0; e^-x - 1 + x of each: 0.1065307, 0.0081485 and 0.1487213, 0
    expected = {"accuracy": 1, "margin": 0.5 * (1.5 - 1), "chosen_logps": -7, "rejected_logps": -7}
    expected |= {"chosen_tokens": 4, "rejected_tokens": 5, "chosen_reward": 0, "rejected_reward": 0.5 * -0.5}
    expected |= {"chosen_fell": 1, "kl_per_token": (0.1065307 + 0.0081485 + 0.1487213) / 2}
    assert {name: value.item() for name, value in sums.items()} == pytest.approx(expected, abs=1e-6)


def test_without_a_reference_margins_are_per_token_and_there_are_no_rewards():
    logps = AnswerLogps(*(torch.tensor([number]) for number in (-2.0, -4.0, 0.0, 0.0, 2.0, 4.0)))
    sums = health(logps, DpoConfig(loss=PreferenceLoss.simpo, beta=0.5))
    assert (sums["accuracy"].item(), sums["margin"].item()) == (0.0, 0.0)  # -2 / 2 and -4 / 4
    assert not {"chosen_reward", "rejected_reward", "chosen_fell", "kl_per_token"} & sums.keys()


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (
            {"loss": "ipo", "label_smoothing": 0.1},
            "label_smoothing: found 0.1, but ipo does not read it (sigmoid and rpo)",
        ),
        ({"loss": "sigmoid", "alpha": 1.0}, "alpha: found 1.0, but sigmoid does not read it (rpo and dpo_positive)"),
        ({"loss": "orpo", "gamma": 0.5}, "gamma: found 0.5, but orpo does not read it (simpo)"),
        ({"loss": "kto", "length_normalized": True}, "length_normalized: found true, but kto's reference point"),
        ({"loss": "rpo"}, "alpha: found 0.0, expected more than 0 for rpo"),
        ({"loss": "sigmoid", "beta": 0.0}, "beta: found 0.0, expected more than 0"),
        ({"loss": "sigmoid", "label_smoothing": 0.5}, "label_smoothing: found 0.5, expected 0 to below 0.5"),
        ({"loss": "sigmoid", "duration": "5 Mtokens"}, "duration: found '5 Mtokens', expected steps or epochs"),
    ],
)
def test_a_number_without_effect_or_out_of_range_is_refused(options, fields):
    config = DpoConfig(**settings(**{"reference": "base", "beta": 0.1} | options))
    config.loss = PreferenceLoss(config.loss)
    assert [problem for problem in config.problems() if problem.startswith(fields)]

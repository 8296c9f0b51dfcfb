"""Small charts of preference optimization, for each stage that trained on pairs.

A margin grows also while both answers become less likely; only the absolute log-probabilities show it.
"""

from collections.abc import Callable

from markupsafe import Markup

from solar.config.preference import ALARMING_SHARE
from solar.report.charts import Chart, Line, Point
from solar.report.entries import Entry, Run
from solar.report.numbers import is_finite, plain, share
from solar.report.sections.curves import Curve


def preference_curves(run: Run) -> list[Curve]:
    """Log-probabilities, margins, ranking, drift and fallen answers of every stage that trained on pairs."""
    return [curve for entry in run.entries if entry.kind == "dpo" for curve in _of_stage(entry)]


def _of_stage(entry: Entry) -> list[Curve]:
    log, name = entry.log(), entry.stage
    if not any("chosen_logps" in line for line in log):
        return []

    def points(key: str) -> list[Point]:
        return [(line["step"], line[key]) for line in log if is_finite(line.get(key))]

    def both(key: str) -> list[Line]:
        return [Line("train", points(key)), Line("held out", points(f"valid_{key}"), "b", dots=True)]

    answers = [Line("chosen", points("chosen_logps")), Line("rejected", points("rejected_logps"), "b")]
    fell = [value for _, value in points("valid_chosen_fell") or points("chosen_fell")]
    ends = f"{share(fell[-1])} of the pairs in the end" if fell else ""
    alarm = " · displacement: chosen answers are being unlearnt, too" if fell and fell[-1] > ALARMING_SHARE else ""
    pictures = [
        ("answers", _lengths(points), Chart(answers, "steps", "log-probability, nats")),
        ("margin", f"beta {plain(entry.manifest['config'].get('beta', ''))}", Chart(both("margin"), "steps", "margin")),
        ("pairs ranked right", "against the reference", Chart(both("accuracy"), "steps", "share of pairs")),
        ("drift", "k3 estimate on the data's answers", Chart(both("kl_per_token"), "steps", "KL a token, nats")),
        ("chosen answers that fell", ends + alarm, Chart(both("chosen_fell"), "steps", "share of pairs")),
    ]
    drawn = [Curve(f"{name}: {title}", words, chart.svg()) for title, words, chart in pictures]
    return [curve for curve in drawn if curve.svg != Markup("")]


def _lengths(points: Callable[[str], list[Point]]) -> str:
    chosen, rejected = points("chosen_tokens"), points("rejected_tokens")
    if not chosen or not rejected:
        return ""
    means = [sum(value for _, value in line) / len(line) for line in (chosen, rejected)]
    return f"mean length: chosen {means[0]:.0f}, rejected {means[1]:.0f} tokens"

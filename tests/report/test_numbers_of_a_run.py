"""Tables and sentences say what the files say."""

import pytest

from solar.report.card import ancestry, write_card
from solar.report.sections import tables
from solar.report.sections.controls import recoveries
from solar.report.sections.curves import training_curves
from solar.report.sections.preference import preference_curves
from solar.report.sections.recovery import Recovery

from .run_on_disk import curve, scored


def test_a_gap_and_where_it_closes_are_worked_by_hand(chain):
    (found,) = recoveries(chain.run)
    assert (found.base, found.grown, found.healed) == ("base", "upscale", "pretrain")
    assert found.base_loss == 3.0  # the base's own last reading of the same text, not its score on other rows
    assert found.gap == pytest.approx(0.5) and found.gain == pytest.approx(0.4)
    assert found.recovered_at == pytest.approx(1500)  # half of the way from 3.2 at 1000 to 2.8 at 2000


@pytest.mark.parametrize(
    ("losses", "at"), [((3.5, 3.2, 3.1), None), ((2.9, 2.8), 0.0), ((3.0, 2.5), 0.0), ((3.5, 3.0), 1.0)]
)
def test_a_gap_may_stay_open_or_never_have_been(losses, at):
    points = [(float(step), loss) for step, loss in enumerate(losses)]
    assert Recovery("base", "up", "heal", points, 3.0).recovered_at == at


def test_an_imported_base_is_known_by_its_score_on_the_same_data(disk):
    model = {"num_hidden_layers": 2}
    disk.add("data", "prepare_data", tokens_json={"splits": {"train": {"sources": {}}}})
    disk.add("other", "prepare_data", tokens_json={"splits": {"train": {"sources": {}}}})
    disk.add("base", "import_model", model__config_json=model)
    disk.add("up", "upscale", ("base",), model__config_json=model)
    disk.add("heal", "pretrain", ("up", "data"), model__config_json=model, logs__metrics_jsonl=curve(3.5, 3.0))
    disk.add("elsewhere", "evaluate", ("other",), scores_json=[scored("base", 9.0, 0.5)])
    assert recoveries(disk.run) == []
    disk.add("here", "evaluate", ("data",), scores_json=[scored("base", 3.25, 0.5)])
    assert recoveries(disk.run)[0].base_loss == 3.25


def test_the_best_of_each_column_is_marked(chain):
    titles, rows = tables.score_table(chain.run)
    assert titles == ["model", "layers", "parameters", "loss, nats a token", "bits a byte", "right choices"]
    best = {(entry.stage, titles[1 + place]) for entry, cells in rows for place, cell in enumerate(cells) if cell.best}
    assert best == {("pretrain", titles[3]), ("pretrain", titles[4]), ("merge", titles[5])}
    assert [entry.stage for entry, _ in rows] == ["base", "upscale", "pretrain", "dpo_a", "dpo_b", "merge"]
    assert rows[0][1][-1].note == "± 2.0"


def test_six_tasks_of_the_harness_are_h6(disk):
    disk.add("base", "import_model", model__config_json={})
    harness = {name: number / 10 for number, name in enumerate(("ARC", "HS", "MMLU", "TQA", "WG", "GSM"), 1)}
    row = {"stage": "base", "parameters": 1, "layers": 1, "harness_mean": 0.35, "details": {"harness": harness}}
    disk.add("h6", "evaluate", scores_json=[row])
    titles, ((_, cells),) = tables.score_table(disk.run)
    assert titles[3:] == [*harness, "H6"]
    assert [cell.text for cell in cells[2:]] == ["10.0 %", "20.0 %", "30.0 %", "40.0 %", "50.0 %", "60.0 %", "35.0 %"]


def test_models_that_wrote_the_same_stand_together(disk):
    rows = [scored(stage, 1.0, 0.5) for stage in ("a", "b", "c")]
    rows[1]["samples"] = rows[0]["samples"]
    disk.add("evaluation", "evaluate", scores_json=rows)
    assert tables.samples(disk.run) == [("What is it?", [("a, b", "I am a."), ("c", "I am c.")])]


def test_dropped_rows_are_shown_with_their_reason(chain):
    (row,) = tables.data_table(chain.run)
    assert (row.source, row.tokens, row.rows, row.dropped) == ("docs", "1.5M", "1,200", "34 too short")


def test_stages_that_trained_have_a_curve_and_others_none(chain):
    assert [found.title for found in training_curves(chain.run)] == ["base", "pretrain"]


def test_preference_stages_show_what_to_watch_and_an_alarm_when_chosen_answers_fall(disk):
    measured = {"loss": 0.7, "accuracy": 0.5, "chosen_logps": -9.0, "rejected_logps": -8.0, "chosen_fell": 0.7}
    disk.add("dpo", "dpo", logs__metrics_jsonl=[measured | {"step": step, "tokens": step} for step in (0, 1, 2)])
    found = {curve.title: curve.words for curve in preference_curves(disk.run)}
    assert list(found) == ["dpo: answers", "dpo: pairs ranked right", "dpo: chosen answers that fell"]
    assert found["dpo: chosen answers that fell"].startswith("70.0 % of the pairs in the end · displacement")


def test_descent_goes_by_identity_even_if_a_stage_was_renamed(chain):
    merge = chain.entries[-2]
    merge.manifest["inputs"] = {"old_name_a": "dpo_a-0123", "old_name_b": "dpo_b-0123"}
    names = [entry.stage for entry in ancestry(merge, chain.run)]
    assert names == ["base", "upscale", "pretrain", "dpo_a", "dpo_b", "merge"]


def test_a_card_says_how_the_model_was_grown_made_and_scored(chain, tmp_path):
    run = chain.run
    write_card(run.entries[-2], run, tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert "Grown in depth from 8 to 12 layers (dus)" in text and "`0 1 2 3 4 5 2 3 4 5 6 7`" in text
    assert text.index("**base**") < text.index("**upscale**") < text.index("**merge**")
    assert "| merge | 12 | 2M | 2.650 | 1.325 | 70.0 % ± 2.0 |" in text
    assert "from_pretrained" in text


def test_a_card_says_that_the_base_of_an_adapter_was_rounded(disk, tmp_path):
    entry = disk.add("sft", "sft", model__config_json={})
    entry.manifest["config"] |= {"duration": "2 steps", "adapter": {"rank": 8, "base": "nf4"}}
    write_card(entry, disk.run, tmp_path / "README.md")
    told = "(sft, `sft-0123`): duration 2 steps, an adapter beside weights rounded to nf4, which the model keeps"
    assert told in (tmp_path / "README.md").read_text()


def test_a_loss_that_is_not_finite_leaves_the_curve_and_is_counted_in_words(disk):
    log = curve(3.0, 2.5, 2.0)
    log[3]["valid_loss"] = None  # how the log writes a number that is not finite
    disk.add("pretrain", "pretrain", logs__metrics_jsonl=log)
    (picture,) = training_curves(disk.run)
    assert (
        "held-out loss not finite in 1 of 6 lines of the log" in picture.words and "training loss" not in picture.words
    )
    assert picture.svg

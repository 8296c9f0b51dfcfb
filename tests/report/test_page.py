"""One file says all of a run, to anybody, without a network and without a script."""

import json
import re
from html.parser import HTMLParser

from solar.report.page import write_page

from .run_on_disk import scored

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Checker(HTMLParser):
    """Finds tags that are never closed, and collects tags, texts and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(disk, experiment="quickstart"):
    """The page's text and what a parser finds in it."""
    target = disk.root / "index.html"
    write_page(disk.entries, experiment, target)
    text = target.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return text, checker


def test_every_tag_is_closed_and_every_stage_is_named(chain):
    _, found = page(chain)
    assert all(entry.stage in found.text for entry in chain.entries)
    assert all(entry.manifest["id"] in found.text for entry in chain.entries)
    assert "python -m solar.run +experiment=quickstart" in found.text


def test_nothing_is_fetched_and_nothing_runs(chain):
    text, found = page(chain)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not {"src", "href"} & {name for name, _ in found.attributes}
    assert not any(name.startswith("on") for name, _ in found.attributes)
    assert "://" not in text and "@import" not in text and "url(" not in text


def test_whatever_a_run_says_is_text_and_never_markup(disk):
    """T-E12."""
    evil = "<script>alert(1)</script>\"'><b>&"
    disk.add("base", "pretrain", model__config_json={"num_hidden_layers": evil}, logs__metrics_jsonl=[])
    disk.add("up", "upscale", ("base",), model__config_json={"solar": None})
    row = scored("base", 2.0, 0.5) | {"samples": [{"prompt": evil, "text": evil}]}
    row["details"]["harness"] = {evil: 0.5}
    diagnosis = {evil: [{evil: evil}], "x": [1.0, 2.0], "y": evil}
    disk.add("evaluation", "evaluate", scores_json=[row])
    disk.add("diagnosis", "diagnose", diagnosis_json=diagnosis)
    sources = {evil: {"rows": 1, "dropped": {evil: 2}}}
    header = {"splits": {"train": {"sources": {evil: {"tokens": 1}}}}}
    disk.add("data", "prepare_data", metrics={"sources": sources}, tokens_json=header)
    for entry in disk.entries:
        entry.manifest["config"]["note"] = evil
        entry.manifest["provenance"]["python"] = evil
    _, found = page(disk, experiment=evil)
    assert "script" not in found.tags and "b" not in [tag for tag in found.tags if tag != "b"]
    assert found.tags.count("b") == len(disk.entries)  # the page's own, one a stage
    assert found.text.count(evil) > 10


def test_light_and_dark_follow_the_reader(chain):
    text, _ = page(chain)
    assert "color-scheme: light dark" in text and "prefers-color-scheme: dark" in text
    assert 'name="viewport" content="width=device-width' in text
    light, dark = (set(re.findall(r"(--\w+(?:-\w+)?):", part)) for part in text.split("prefers-color-scheme: dark")[:2])
    assert light == dark and len(light) > 6


def test_the_most_important_numbers_come_first(chain):
    _, found = page(chain)
    text = " ".join(found.text.split())
    assert "Growing added 0.500 nats to the loss (3.000 to 3.500) before any training." in text
    assert "Training on closed this gap after 1.5k tokens." in text
    assert "2.600: 0.400 below the base's." in text
    assert "8 → 12" in text and "34 too short" in text


def test_what_a_stage_says_of_itself_stands_beside_its_name(disk):
    disk.add("merge", "merge", metrics={"summary": "a and b by average, weights 0.4 0.6"})
    _, found = page(disk)
    assert "a and b by average, weights 0.4 0.6" in found.text


def test_a_peak_of_memory_stands_beside_its_estimate(disk):
    memory = {"peak_memory_bytes": 2.5e9, "estimated_memory_bytes": 1_000_000_000}
    disk.add("sft", "sft", metrics=memory | {"adapter_base": "nf4, 4.13 bits a weight"})
    _, found = page(disk)
    assert "base in nf4, 4.13 bits a weight · memory 2.5 GB (estimate without activations 1 GB)" in found.text


def test_a_run_without_models_or_scores_still_has_a_page(disk):
    disk.add("docs", "python_docs")
    _, found = page(disk)
    assert "docs" in found.text and "The models" not in found.text and "svg" not in found.tags


def test_the_stage_leaves_the_page_and_a_card_for_each_last_model(chain, tmp_path):
    from types import SimpleNamespace

    from solar.artifacts.manifest import Manifest
    from solar.config.evaluation import ReportConfig
    from solar.stages.report import run

    inputs = {e.stage: SimpleNamespace(path=e.path, manifest=Manifest(**e.manifest)) for e in chain.entries}
    (tmp_path / "overrides.txt").write_text("trainer.threads=2\nstages.sft.duration=9 steps\n")
    context = SimpleNamespace(experiment="dus", run_dir=tmp_path, progress=lambda line: None)
    output = tmp_path / "report"
    output.mkdir()
    config = ReportConfig(kind="report", of=list(inputs))
    assert json.loads(json.dumps(run(config, inputs, output, context)))["stages"] == len(inputs)
    command = "python -m solar.run +experiment=dus &#39;stages.sft.duration=9 steps&#39;</pre>"
    assert command in (output / "index.html").read_text()
    assert "<h1>dus</h1>" in (output / "index.html").read_text()
    assert [path.name for path in (output / "cards").iterdir()] == ["merge.md"]

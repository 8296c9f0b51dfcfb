"""From rows to an artifact: what is written is what was asked for, and nothing is left out in silence."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solar.config.data import (
    DecontaminateConfig,
    Deduplicate,
    Format,
    OnError,
    Packing,
    PrepareDataConfig,
    SourceConfig,
    SwitchConfig,
    Task,
)
from solar.data.order.order import Order
from solar.data.prepare import prepare
from solar.data.store.dataset import IGNORED, TokenDataset
from solar.errors import DataError
from solar.plan.checks.values import value_problems

from conftest import run_program, write_rows  # isort: skip


def _texts(found, split="train") -> list[str]:
    """The documents of a split as text, without BOS and EOS."""
    documents = TokenDataset(found.folder, split).documents
    return [found.tokenizer.decode(documents.read(i)[1:-1]) for i in range(len(documents))]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tmp_path, tokenizers):
    """T-C2. The same program on 8 MB and on 240 MB of text: fifteen times the input may cost a few MB of index."""
    program = """
import sys
from conftest import peak_mib
from pathlib import Path
from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.data.prepare import prepare
source = SourceConfig(path=sys.argv[1], format=Format.text)
config = PrepareDataConfig(kind="prepare_data", sources={"a": source}, tokenizer="t", task=Task.pretrain,
    packing=Packing.concatenate, sequence_length=512, held_out_fraction=0.01, seed=0)
prepare(config, {}, Path(sys.argv[2]), Path(sys.argv[3]), shard_tokens=2**22)
print(peak_mib())
"""
    line = json.dumps({"text": "All work and no play makes a dull text. " * 100}) + "\n"
    peaks = []
    for number, lines in enumerate((2_000, 60_000)):
        text, output = tmp_path / f"{number}.jsonl", tmp_path / str(number)
        output.mkdir()
        with text.open("w") as file:
            file.writelines(line for _ in range(lines))
        peaks.append(int(run_program(program, str(text), str(tokenizers["solar"]), str(output))))
    assert peaks[1] - peaks[0] < 100, peaks


def test_documents_come_back_as_they_were(prepared, topics):
    found = prepared([{"text": text} for text in topics])
    assert _texts(found) == topics


def test_the_header_counts_what_the_rows_hold(prepared, topics):
    found = prepared([{"text": text} for text in topics[:20]])
    data = TokenDataset(found.folder, "train")
    rows = [data[i] for i in range(len(data))]
    assert sum(len(row.input_ids) for row in rows) == data.split.tokens == int(data.row_tokens.sum())
    assert sum(int((row.labels != IGNORED).sum()) for row in rows) == data.split.trained_tokens
    assert data.split.text_bytes == sum(len(text.encode()) for text in topics[:20])
    ids = np.concatenate([found.tokenizer(text).input_ids for text in topics[:20]])
    assert data.split.answer_tokens == len(ids)  # a BOS is not predicted, an EOS is, and comes on top


def test_bits_per_byte_by_hand(prepared):
    found = prepared([{"text": "abcd"}], sequence_length=64)
    data = TokenDataset(found.folder, "train")
    tokens = len(found.tokenizer("abcd", add_special_tokens=False).input_ids) + 1
    assert data.bits_per_byte(math.log(2)) == pytest.approx(tokens / 4)


def test_many_small_shards_read_like_one(prepared, topics):
    rows = [{"text": text[:3000]} for text in topics[:40]]
    one, many = prepared(rows), prepared(rows, shard_tokens=2000)
    assert len(list((many.folder / "train").glob("tokens-*.bin"))) > 10
    first, second = (TokenDataset(found.folder, "train") for found in (one, many))
    assert len(first) == len(second)
    assert all(np.array_equal(first[i].input_ids, second[i].input_ids) for i in range(len(first)))


def test_the_same_rows_give_the_same_bytes(prepared, topics):
    found = [prepared([{"text": text} for text in topics[:30]], held_out_fraction=0.2) for _ in range(2)]
    first, second = (
        {str(path.relative_to(one.folder)): path.read_bytes() for path in one.folder.rglob("*") if path.is_file()}
        for one in found
    )
    assert first == second and len(first) == 17


def test_a_sample_stays_in_its_split_when_others_are_added(prepared, topics):
    """T-C9."""
    rows = [{"text": text[:200]} for text in topics]
    few, many = prepared(rows[:60], held_out_fraction=0.3), prepared(rows, held_out_fraction=0.3)
    assert set(_texts(few, "valid")) == set(_texts(many, "valid")) & set(_texts(few) + _texts(few, "valid"))
    assert 0.15 < len(_texts(many, "valid")) / len(set(map(str, rows))) < 0.45
    assert not set(_texts(many)) & set(_texts(many, "valid"))


def test_no_label_crosses_from_one_document_into_the_next(prepared, topics):
    data = TokenDataset(prepared([{"text": text[:150]} for text in topics]).folder, "train")
    targets = 0
    for row in map(data.__getitem__, range(len(data))):
        first_tokens = np.cumsum([0, *row.document_lengths[:-1]])
        assert (row.labels[first_tokens] == IGNORED).all()
        is_target = row.labels != IGNORED
        assert (row.labels[is_target] == row.input_ids[is_target]).all()
        targets += int(is_target.sum())
    assert targets == data.split.trained_tokens == int(data.row_trained_tokens.sum())


def test_a_split_column_decides(prepared):
    rows = [{"text": f"number {n}", "split": "valid" if n % 3 == 0 else "train"} for n in range(30)]
    found = prepared(rows, held_out_fraction=0.0)
    assert sorted(_texts(found, "valid")) == sorted(f"number {n}" for n in range(0, 30, 3))


def test_every_sample_is_seen_once_an_epoch_whatever_the_workers(prepared):
    """T-C8. Samples carry their number in their text; it is read back from batches that two workers loaded."""
    found = prepared([{"text": f"sample {n}"} for n in range(150)], packing=Packing.best_fit, sequence_length=48)
    data = TokenDataset(found.folder, "train")
    order = Order.of(data, seed=3)
    streams = []
    for workers in (0, 2):
        sampler = order.rows(0, order.rows_per_epoch).tolist()
        loader = torch.utils.data.DataLoader(data, None, sampler=sampler, num_workers=workers)
        seen = []
        for row in loader:
            documents = np.split(row.input_ids, np.cumsum(row.document_lengths)[:-1])
            seen += [int(found.tokenizer.decode(document[1:-1]).removeprefix("sample ")) for document in documents]
        streams.append(seen)
    assert streams[0] == streams[1] and sorted(streams[0]) == list(range(150)) != streams[0]


def test_an_error_names_file_and_line_and_the_way_out(prepared, tmp_path):
    """T-C1."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "good"}\n{"text": 5}\n')
    with pytest.raises(DataError, match=r"bad.jsonl:2: `text` is int '5', expected text; .*on_error: skip"):
        prepared(file)


def test_skipped_rows_are_counted_by_reason_with_examples(prepared, tmp_path):
    """T-C1."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "good"}\n{"text": 5}\n{"text"\n{"text": ""}\n{"text": null}\n{"text": "fine"}\n')
    found = prepared(file, on_error=OnError["skip"])
    source = found.metrics["sources"]["rows"]
    assert source["dropped"] == {"wrong_type": 2, "invalid_json": 1, "empty": 1}
    examples = [json.loads(line) for line in (found.folder / "dropped.jsonl").read_text().splitlines()]
    assert [example["where"] for example in examples if example["reason"] == "invalid_json"] == [f"{file.name}:3"]
    assert sorted(_texts(found)) == ["fine", "good"]


KINDS_OF_ROWS = {
    "good": lambda n: json.dumps({"text": f"text number {n} is a good one"}),
    "blank": lambda n: "",
    "invalid_json": lambda n: '{"text": ',
    "wrong_type": lambda n: '{"text": 5}',
    "missing_field": lambda n: '{"words": "x"}',
    "empty": lambda n: '{"text": " "}',
    "not_kept": lambda n: json.dumps({"text": f"unwanted {n}"}),
    "duplicate": lambda n: json.dumps({"text": "the same again"}),
    "contaminated": lambda n: json.dumps({"text": f"{n} what is the sum of seven and five and three in all my friend"}),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.sampled_from(sorted(KINDS_OF_ROWS)), min_size=1, max_size=60))
def test_every_row_that_is_read_is_a_sample_or_left_out_for_one_reason(prepared, tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    file = folder / "rows.jsonl"
    kinds = ["good", *rows]
    file.write_text("".join(KINDS_OF_ROWS[kind](number) + "\n" for number, kind in enumerate(kinds)))
    exam = write_rows(folder / "exam.jsonl", [{"text": "what is the sum of seven and five and three in all my friend"}])
    found = prepared(
        file, on_error=OnError["skip"], deduplicate=Deduplicate.exact, held_out_fraction=0.3,
        keep={"text": "(?!unwanted)"},
        decontaminate=DecontaminateConfig({"exam": SourceConfig(path=str(exam), format=Format.text)}),
    )  # fmt: skip
    source, splits = found.metrics["sources"]["rows"], found.metrics["splits"]
    expected = Counter(kind for kind in kinds if kind not in ("good", "blank"))
    expected["duplicate"] = max(0, expected["duplicate"] - 1)
    assert source["dropped"] == +expected
    assert source["rows"] == len(kinds) - kinds.count("blank")
    assert sum(split["samples"] for split in splits.values()) == source["rows"] - expected.total()


def test_too_many_bad_rows_stop_the_run(prepared, tmp_path):
    """T-C1."""
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "good"}\n' + "nonsense\n" * 20)
    with pytest.raises(DataError, match=r"bad.jsonl:7: .*more than 5 bad rows \(max_bad_rows\)"):
        prepared(file, on_error=OnError["skip"], max_bad_rows=5)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(prepared, tmp_path, content):
    """T-C3."""
    file = tmp_path / "empty.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=r"sources\.rows: no training sample in its 0 rows"):
        prepared(file)


def test_a_source_that_filters_leave_empty_says_what_left_it_out(prepared, tmp_path):
    """T-C3."""
    file = write_rows(tmp_path / "a.jsonl", [{"text": "x", "type": "GSM"}] * 3)
    source = SourceConfig(path=str(file), format=Format.text, keep={"type": "MATH_"})
    with pytest.raises(DataError, match=r"sources.a: no training sample in its 3 rows \(left out: 3 not_kept\)"):
        prepared(sources={"a": source})


def test_keep_and_max_samples_draw_what_they_should(prepared, tmp_path):
    rows = [{"text": f"number {n}", "type": "MATH_x" if n % 2 else "GSM"} for n in range(200)]
    file = write_rows(tmp_path / "a.jsonl", rows)
    source = SourceConfig(path=str(file), format=Format.text, keep={"type": "MATH_"}, max_samples=30)
    found, again, other = (prepared(sources={"a": source}, seed=seed) for seed in (0, 0, 1))
    numbers = [int(text.split()[1]) for text in _texts(found)]
    assert len(set(numbers)) == 30 and all(number % 2 for number in numbers)
    assert max(numbers) > 150 and min(numbers) < 50
    assert _texts(found) == _texts(again) != _texts(other)
    assert found.metrics["sources"]["a"]["dropped"] == {"not_kept": 100, "not_drawn": 70}


def _sources(tmp_path, topics) -> dict[str, SourceConfig]:
    halves = {"big": topics[:60], "small": topics[60:]}
    return {
        name: SourceConfig(
            path=str(write_rows(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts])), format=Format.text
        )
        for name, texts in halves.items()
    }


def _asked(found) -> dict[str, float]:
    return {name: source["requested_share"] for name, source in found.metrics["sources"].items()}


def test_weights_shares_temperature_and_size_set_the_mixture(prepared, tmp_path, topics):
    sources = _sources(tmp_path, topics)
    by_size = prepared(sources=sources)
    data = TokenDataset(by_size.folder, "train")
    tokens = {name: place.tokens for name, place in data.split.sources.items()}
    assert _asked(by_size) == pytest.approx({name: count / data.split.tokens for name, count in tokens.items()})
    assert Order.of(data, 0).rows_per_epoch == len(data)

    roots = {name: math.sqrt(count) for name, count in tokens.items()}
    by_root = prepared(sources=sources, temperature=2.0)
    assert _asked(by_root) == pytest.approx({name: root / sum(roots.values()) for name, root in roots.items()})

    sources["big"].weight, sources["small"].weight = 3, 1
    assert _asked(prepared(sources=sources)) == {"big": 0.75, "small": 0.25}

    sources["big"].weight, sources["small"].weight, sources["small"].share = 7, None, 0.05
    replayed = prepared(sources=sources)
    assert _asked(replayed) == {"big": 0.95, "small": 0.05}
    order = Order.of(TokenDataset(replayed.folder, "train"), 0)
    shares = order.shares(0, order.position_at_tokens(1_000_000))
    assert shares["small"] == pytest.approx(0.05, abs=0.005)
    assert replayed.metrics["sources"]["small"]["realised_share"] == pytest.approx(0.05, abs=0.005)


def test_caps_and_switches_reach_the_order(prepared, tmp_path, topics):
    sources = _sources(tmp_path, topics)
    sources["small"].max_epochs = 0.5
    found = prepared(sources=sources, switches=[SwitchConfig(at_tokens=64 * 100, weights={"small": 1.0})])
    data = TokenDataset(found.folder, "train")
    order = Order.of(data, 0)
    rows = order.rows(0, order.total_rows)
    place = data.split.sources["small"]
    in_small = (rows >= place.start) & (rows < place.stop)
    assert in_small.sum() == pytest.approx((place.stop - place.start) / 2, abs=1)
    assert not in_small[:90].all() and in_small[110:].all()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sources": {"a": {"weight": 1.0}, "b": {}}}, "some have a weight and b none"),
        (
            {"sources": {"a": {"weight": 1.0, "share": 0.5}, "b": {"weight": 1.0}}},
            "sources.a.share, weight: both given",
        ),
        ({"sources": {"a": {"share": 0.5}, "b": {"share": 0.5}}}, "shares add up to 1"),
        ({"sources": {"a": {"share": 0.5}}}, "a source without a share"),
        ({"sources": {"a": {"max_epochs": 0.0}}}, "max_epochs: found 0.0"),
        ({"sources": {"a": {"weight": 1.0}}, "temperature": 2.0}, "temperature: given, but sources have weights"),
        ({"switches": [SwitchConfig(5, {"x": 1.0})]}, "switches.0.weights.x: no such source"),
        ({"switches": [SwitchConfig(5, {"a": 0.0})]}, "switches.0.weights.a: found 0.0"),
        ({"switches": [SwitchConfig(5, {"a": 1.0}), SwitchConfig(5, {"a": 1.0})]}, "expected rising numbers"),
        ({"task": Task.instruct}, "sources.a.format: text gives no samples for task instruct"),
        ({"task": Task.preference}, "packing: found concatenate, expected none"),
        ({"template": "sola"}, "template: found 'sola', expected one of solar, chatml"),
        ({"max_bad_rows": -1}, "max_bad_rows: found -1"),
        ({"sequence_length": 2**33}, "sequence_length: found 8589934592, expected 8 to 16,777,216"),
        ({"temperature": 1e-9}, "temperature: found 1e-09, expected at least 0.1"),
        ({"switches": [SwitchConfig(5, {})]}, "switches.0.weights: none given, expected at least one source"),
        ({"decontaminate": DecontaminateConfig({})}, "decontaminate.against: none given, expected at least one"),
        ({"sources": {"../a": {}}}, "sources: found the name '../a', expected one that begins with a letter or digit"),
        ({"sources": {"a\nb": {}}}, "sources: found the name 'a\\nb'"),
        ({"sources": {}}, "sources: none given"),
        (
            {"sources": {"a": {"columns": {"txet": "body"}}}},
            "sources.a.columns.txet: text reads no such field, expected",
        ),
        ({"sources": {"a": {"keep": {"type": "("}}}}, "sources.a.keep.type: found '(', which is no regular expression"),
        ({"sources": {"a": {"subset": "en"}}}, "sources.a.hub: not given, but revision or subset is"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_told_before_any_work(changes, problem):
    sources = {
        name: SourceConfig(path="x", format=Format.text, **values)
        for name, values in changes.pop("sources", {"a": {}}).items()
    }
    defaults = {"task": Task.pretrain, "packing": Packing.concatenate, "sequence_length": 64, "held_out_fraction": 0.0}
    values = defaults | changes
    problems = list(PrepareDataConfig(kind="prepare_data", sources=sources, tokenizer="t", seed=0, **values).problems())
    assert any(problem in found for found in problems), problems


def test_longer_documents_are_cut_and_counted_without_packing(prepared):
    found = prepared([{"text": "word " * 300}, {"text": "short"}], packing=Packing.none, sequence_length=32)
    data = TokenDataset(found.folder, "train")
    assert sorted(data.row_tokens.tolist())[1] == 32 and found.metrics["truncated_samples"] == 1
    assert data.split.text_bytes < 300


QUESTION = {"role": "user", "content": "Why?"}


def _talk(answer: str) -> dict:
    return {"messages": [QUESTION, {"role": "assistant", "content": answer}]}


def _instruct(prepared, rows, **changes):
    return prepared(rows, Format.messages, task=Task.instruct, packing=Packing.best_fit, **changes)


def test_only_answers_carry_loss(prepared):
    found = _instruct(prepared, [_talk("Because."), _talk("Why not?")])
    data = TokenDataset(found.folder, "train")
    trained = [found.tokenizer.decode(row.labels[row.labels != IGNORED]) for row in (data[i] for i in range(len(data)))]
    assert sorted("".join(trained).split("</s>")) == ["", "Because.", "Why not?"]
    split = found.metrics["splits"]["train"]
    assert split["trained_share"] == split["trained_tokens"] / split["tokens"] < 0.5
    assert data.split.text_bytes == len("Because.Why not?")


def test_an_answer_that_was_cut_off_entirely_is_dropped_and_counted(prepared):
    long = {"messages": [{"role": "user", "content": "why " * 200}, {"role": "assistant", "content": "So."}]}
    found = _instruct(prepared, [_talk("Because."), long])
    assert found.metrics["sources"]["rows"]["dropped"] == {"no_trained_token": 1}
    assert found.metrics["truncated_samples"] == 0 and TokenDataset(found.folder, "train").split.samples == 1


def test_when_every_answer_is_cut_off_the_run_stops_before_training(prepared):
    """T-C3."""
    long = {"messages": [{"role": "user", "content": "why " * 200}, {"role": "assistant", "content": "So."}]}
    with pytest.raises(DataError, match=r"no training sample in its 1 rows \(left out: 1 no_trained_token\)"):
        _instruct(prepared, [long])


def _pairs(prepared, rows, **changes):
    return prepared(rows, Format.preference, task=Task.preference, packing=Packing.none, **changes)


def _sides(found) -> list[list[tuple[str, str]]]:
    """For each pair and side: the prompt's end and the answer, as text."""
    data = TokenDataset(found.folder, "train")
    sides = []
    for i in range(len(data)):
        row = data[i]
        border = row.document_lengths[0]
        pair = []
        for ids, labels in zip(np.split(row.input_ids, [border]), np.split(row.labels, [border]), strict=True):
            start = int((labels != IGNORED).argmax())
            pair.append((found.tokenizer.decode(ids[:start]), found.tokenizer.decode(ids[start:])))
        sides.append(pair)
    return sides


def test_both_answers_of_a_pair_stand_behind_the_same_prompt(prepared):
    found = _pairs(prepared, [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}])
    prompt = "<s>### User:\nWhy?\n\n### Assistant:\n"
    assert _sides(found) == [[(prompt, "Because.</s>"), (prompt, "No.</s>")]]
    data = TokenDataset(found.folder, "train")
    assert data.split.samples == 1 and data[0].sample_ids == [0, 0] and len(data[0].document_lengths) == 2


def test_each_side_of_a_pair_has_a_row_of_places(prepared):
    found = _pairs(prepared, [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}])
    tokens, sequence_length = TokenDataset(found.folder, "train").split.tokens, 64
    padding_share = found.metrics["splits"]["train"]["padding_share"]
    assert padding_share == pytest.approx((2 * sequence_length - tokens) / (2 * sequence_length)) and padding_share > 0


def test_lengths_of_prompts_and_answers_are_told(prepared):
    rows = [{"prompt": "Q", "chosen": "a", "rejected": "b c d"}, {"prompt": "Q", "chosen": "a", "rejected": "b"}]
    lengths = _pairs(prepared, rows).metrics["lengths"]
    assert lengths["chosen"] == {"mean": 2.0, "max": 2} and lengths["rejected"] == {"mean": 3.0, "max": 4}
    assert lengths["prompt"]["mean"] == lengths["prompt"]["max"] > 10


def test_a_prompt_that_is_too_long_keeps_its_end_and_one_bos(prepared):
    row = {"prompt": "lost " * 100 + "the end?", "chosen": "Good.", "rejected": "Bad."}
    ((chosen, rejected),) = _sides(_pairs(prepared, [row], sequence_length=48))
    assert chosen[0] == rejected[0] and chosen[0].startswith("<s>") and chosen[0].count("<s>") == 1
    assert chosen[0].endswith("the end?\n\n### Assistant:\n")
    assert (chosen[1], rejected[1]) == ("Good.</s>", "Bad.</s>")


def test_never_is_only_one_answer_cut(prepared):
    rows = [
        {"prompt": "Q", "chosen": "long " * 80, "rejected": "short"},
        {"prompt": "Q", "chosen": "long " * 80, "rejected": "other " * 80},
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
    ]
    found = _pairs(prepared, rows)
    assert found.metrics["sources"]["rows"]["dropped"] == {"one_answer_too_long": 1}
    assert found.metrics["truncated_samples"] == 1
    cut = next(pair for pair in _sides(found) if pair[0][1].startswith("long"))
    data = TokenDataset(found.folder, "train")
    assert not any(answer.endswith("</s>") for _, answer in cut)
    assert sorted(map(int, data.row_tokens))[-1] == 2 * 64


def test_pairs_that_say_nothing_are_dropped_not_refused(prepared):
    """T-C10."""
    rows = [
        {"prompt": "Q", "chosen": "same", "rejected": "same "},
        {"prompt": "Q", "chosen": "", "rejected": "bad"},
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
    ]
    found = _pairs(prepared, rows)
    assert found.metrics["sources"]["rows"]["dropped"] == {"identical_sides": 1, "empty": 1}


@pytest.mark.parametrize("name", ["tokens-00000.bin", "documents.bin", "pieces.bin", "rows.bin", "row_tokens.bin"])
def test_damaged_arrays_are_refused(prepared, topics, name):
    """T-C7."""
    found = prepared([{"text": text} for text in topics[:5]])
    path = found.folder / "train" / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=rf"{name}: \d+ bytes, expected \d+ bytes; the artifact is damaged"):
        TokenDataset(found.folder, "train")
    path.unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        TokenDataset(found.folder, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no tokens.json in it"), ("{", "damaged"), ('{"format": 99}', "format 99, expected 1"), ("[]", "damaged")],
)
def test_a_folder_without_a_sound_header_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(DataError, match=message):
        TokenDataset(tmp_path, "train")


def test_an_artifact_holds_no_pickle_and_can_be_read_without_this_library(prepared):
    found = prepared([{"text": "abc"}])
    header = json.loads((found.folder / "tokens.json").read_text())
    ids = np.fromfile(found.folder / "train/tokens-00000.bin", header["dtype"])
    assert found.tokenizer.decode(ids) == "<s>abc</s>"


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path, tokenizers, monkeypatch, prepared):
    monkeypatch.setattr("solar.data.prepare._UINT16", 100)
    found = prepared([{"text": "abc"}])
    assert json.loads((found.folder / "tokens.json").read_text())["dtype"] == "uint32"
    assert _texts(found) == ["abc"]


def test_text_of_a_stage_is_read_by_its_file(tmp_path, tokenizers):
    write_rows(tmp_path / "documents.jsonl", [{"text": "from a stage"}])
    source = SourceConfig(stage="docs", file="documents.jsonl", format=Format.text)
    config = PrepareDataConfig(
        kind="prepare_data", sources={"a": source}, tokenizer="t", task=Task.pretrain, packing=Packing.none,
        sequence_length=64, held_out_fraction=0.0, seed=0,
    )  # fmt: skip
    metrics = prepare(config, {"docs": tmp_path}, tokenizers["solar"], tmp_path)
    assert metrics["splits"]["train"]["samples"] == 1


def test_real_questions_and_answers(prepared, gsm8k):
    source = SourceConfig(
        path=str(gsm8k), format=Format.prompt_completion, columns={"prompt": "question", "completion": "answer"}
    )
    found = prepared(
        sources={"gsm8k": source},
        task=Task.instruct,
        packing=Packing.best_fit,
        sequence_length=1024,
        held_out_fraction=0.05,
    )
    splits = found.metrics["splits"]
    dropped = sum(found.metrics["sources"]["gsm8k"]["dropped"].values())
    assert splits["train"]["samples"] + splits["valid"]["samples"] + dropped == 7473 and dropped < 5
    assert splits["train"]["padding_share"] < 0.05


def test_the_same_data_under_two_roots_gives_the_same_bytes(tmp_path, tokenizers):
    """T-G1."""
    made = []
    for root in (tmp_path / "a", tmp_path / "b/elsewhere"):
        (root / "rows").mkdir(parents=True)
        write_rows(root / "rows/one.jsonl", [{"text": "a b c"}, {"text": "a b c"}, {"text": ""}])
        write_rows(root / "stage.jsonl", [{"text": "a b c d"}, {"text": 3}])
        by_path, by_stage = SourceConfig(path=str(root / "rows"), format=Format.text), SourceConfig(format=Format.text)
        by_stage.stage, by_stage.file = "docs", "stage.jsonl"
        values = {"sources": {"path": by_path, "stage": by_stage}, "tokenizer": "t", "task": Task.pretrain, "seed": 0}
        values |= {"sequence_length": 64, "packing": Packing.concatenate, "held_out_fraction": 0.0}
        values |= {"deduplicate": Deduplicate.exact, "on_error": OnError["skip"]}
        config = PrepareDataConfig(kind="prepare_data", **values)
        (root / "out").mkdir()
        prepare(config, {"docs": root}, tokenizers["solar"], root / "out")
        files = sorted(path for path in (root / "out").rglob("*") if path.is_file())
        made.append({path.relative_to(root / "out"): path.read_bytes() for path in files})
    assert made[0] == made[1]
    dropped = [json.loads(line) for line in made[0][Path("dropped.jsonl")].splitlines()]
    assert [(row["source"], row["where"]) for row in dropped] == [
        ("path", "one.jsonl:2"),
        ("path", "one.jsonl:3"),
        ("stage", "stage.jsonl:2"),
    ]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"stage": "docs", "file": "../../other.jsonl"}, "file: found '../../other.jsonl', expected a name inside"),
        ({"stage": "docs", "file": "/etc/rows.jsonl"}, "file: found '/etc/rows.jsonl', expected a name inside"),
        ({"path": "a.jsonl", "file": "b.jsonl"}, "file: found 'b.jsonl' without a stage"),
    ],
)
def test_a_file_is_inside_the_artifact_of_its_stage(place, says):
    source = SourceConfig(format=Format.text, **place)
    (problem,) = [*source.problems(), *value_problems(source)]
    assert problem.startswith(says)

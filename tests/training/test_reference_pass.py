"""The reference pass: one artifact, the same bits in another process, in other batches, and in training."""

import itertools
import json
import pydoc_data.topics
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import MemoryRows, Place, llama_folder, pair, settings, train_rows
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.config.preference import DpoConfig, PreferenceLoss, ReferenceLogpsConfig
from solar.config.training import Precision
from solar.data.encode import tokenizer
from solar.data.prepare import prepare
from solar.data.store.dataset import IGNORED
from solar.engine.stop import Stop
from solar.errors import Interrupted, StageError
from solar.network.decoder import Decoder
from solar.network.head import read_head
from solar.network.loading import load_network
from solar.network.microbatch import from_pairs
from solar.training.preference import reference_pass
from solar.training.preference.module import PreferenceOptimization
from solar.training.preference.reference import ReferenceLogps, compute_table
from solar.training.preference.reference_pass import answer_sums

PAIRS = [pair(9 + n % 4, 8 + n % 5, 12 - n % 4, seed=n, sample=n) for n in range(10)]
"""As long as real ones in this: no matrix product has fewer rows than a kernel works on at once."""

ALONE = """
import sys, torch
sys.path[:0] = [{tests!r}]
from test_reference_pass import PAIRS, logps_of
from solar.training.preference.reference import compute_table
from tiny import MemoryRows
torch.set_num_threads(1)
torch.save(compute_table(logps_of({folder!r}), MemoryRows(PAIRS), 3), {output!r})
"""


def logps_of(folder):
    network = load_network(Path(folder), settings()["precision"]).eval()

    def logps(batch):
        hidden_TD = Decoder(network)(batch.input_ids_T, batch.position_ids_T, batch.segments)[0]
        return reference_pass.answer_sums(hidden_TD[batch.positions_N], read_head(network), batch)

    return logps


def _passed(tmp_path, base, data):
    """What the stage leaves, for rows in memory."""
    table = compute_table(logps_of(base), MemoryRows(PAIRS), 4)
    key = reference_pass.key_of(base, data, settings()["precision"])
    ReferenceLogps(table, table[:3].clone()).save(tmp_path / "logps" / reference_pass.NAME, key)
    return tmp_path / "logps"


def _train(tmp_path, name, base, logps, size=4, **changes):
    data = tmp_path / "data"
    fields = {"duration": "2 epochs", "reference": "base", "loss": PreferenceLoss.sigmoid, "beta": 0.1} | changes
    make = partial(PreferenceOptimization, model_dir=base, reference_dir=base, data_dir=data, logps_dir=logps)
    call = {"module": make, "held_out": PAIRS[:3], "micro_batch_size": size}
    metrics, _ = train_rows(PAIRS, DpoConfig(**settings(**fields)), base, tmp_path / name, **call)
    return metrics, load_file(tmp_path / name / "reference.safetensors")


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_another_process_computes_the_same_bits_although_the_config_has_dropout(tmp_path):
    base = llama_folder(tmp_path / "base", attention_dropout=0.5)
    output = str(tmp_path / "alone.pt")
    program = ALONE.format(tests=str(Path(__file__).parent), folder=str(base), output=output)
    subprocess.run([sys.executable, "-c", program], check=True)
    (tmp_path / "data").mkdir()
    _, cached = _train(tmp_path, "out", base, _passed(tmp_path, base, tmp_path / "data"))
    assert torch.equal(cached["train"], torch.load(output))


@pytest.mark.usefixtures("one_thread")
def test_values_that_are_read_equal_values_computed_in_training_to_the_last_bit(tmp_path):
    base = llama_folder(tmp_path / "base")
    (tmp_path / "data").mkdir()
    logps = _passed(tmp_path, base, tmp_path / "data")
    for size in (4, 2, 1):
        read, computed = (_train(tmp_path, f"{size} {own is None}", base, own, size) for own in (logps, None))
        assert torch.equal(read[1]["train"], computed[1]["train"])
        assert torch.equal(read[1]["valid"], computed[1]["valid"])
        assert read[0]["loss_last"] == computed[0]["loss_last"]
        assert read[0]["margin_first"] == 0.0


@pytest.mark.usefixtures("one_thread")
def test_values_do_not_depend_on_the_batch(tmp_path):
    logps = logps_of(llama_folder(tmp_path / "base"))
    tables = [compute_table(logps, MemoryRows(PAIRS), size) for size in (1, 2, 3, 10)]
    assert all(torch.equal(table, tables[0]) for table in tables)


def test_two_ranks_compute_every_row_once(tmp_path):
    logps = logps_of(llama_folder(tmp_path / "base"))
    halves = [compute_table(logps, MemoryRows(PAIRS), 2, rank, 2) for rank in (0, 1)]
    assert torch.allclose(halves[0] + halves[1], compute_table(logps, MemoryRows(PAIRS), 2), rtol=1e-6)
    assert not ((halves[0] != 0) & (halves[1] != 0)).any()


def preference_tokens(place):
    """Fifty pairs on disk, from the language reference."""
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())][:51]
    lines = [
        json.dumps({"prompt": one[:60], "chosen": one[60:160], "rejected": two[60:160]})
        for one, two in itertools.pairwise(texts)
    ]
    (place / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (place / "text").mkdir()
    (place / "text/rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer.train(place / "text", 600, "solar", place / "tokenizer/tokenizer")
    source = SourceConfig(format=Format.preference)
    source.path = str(place / "pairs.jsonl")
    values = {"tokenizer": "t", "sequence_length": 128, "packing": Packing.none, "seed": 0}
    fields = {"task": Task.preference, "sources": {"x": source}, "held_out_fraction": 0.2} | values
    (place / "data").mkdir()
    prepare(PrepareDataConfig(kind="prepare_data", **fields), {}, place / "tokenizer", place / "data")


@pytest.mark.slow
def test_two_processes_compute_the_table_of_one(tmp_path):
    preference_tokens(tmp_path)
    llama_folder(tmp_path / "base", vocab_size=600, attention_dropout=0.5)
    here = Path(__file__).parent
    path = f"{here}:{here.parent.parent}"
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HOME": str(tmp_path)}
    actual, keys = [], []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [*torchrun, str(here / "pass_on_ranks.py"), str(tmp_path), str(output)]
        done = subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        actual.append(load_file(output / reference_pass.NAME))
        with safe_open(output / reference_pass.NAME, framework="pt") as file:
            keys.append(file.metadata())
    one, two = actual
    assert keys[0] == keys[1] and len(one["train"]) + len(one["valid"]) > 40 and len(one["valid"]) > 3
    for split in ("train", "valid"):
        assert (one[split] < 0).all() and torch.allclose(one[split], two[split], rtol=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_ends_the_pass_before_its_next_batch(tmp_path, monkeypatch, number):
    """T-A7. Under the run, which holds signals back while a stage that trains is at work."""
    preference_tokens(tmp_path)
    llama_folder(tmp_path / "base", vocab_size=600)
    batches = []

    def signalled(*arguments):
        batches.append(arguments)
        signal.raise_signal(number)
        return answer_sums(*arguments)

    monkeypatch.setattr(reference_pass, "answer_sums", signalled)
    config = ReferenceLogpsConfig(kind="reference_logps", model="base", data="data", precision=Precision.fp32)
    paths = tmp_path / "base", tmp_path / "data", tmp_path / "out"
    stop = Stop()
    with stop.listening(), pytest.raises(Interrupted, match=number.name), stop.held():
        reference_pass.reference_pass(config, *paths, Place(tmp_path).trainer, 4)
    assert len(batches) == 1 and not (tmp_path / "out").exists()


def test_the_first_margin_is_0_even_if_the_pass_was_rounded_differently(tmp_path):
    base = llama_folder(tmp_path / "base")
    (tmp_path / "data").mkdir()
    logps = _passed(tmp_path, base, tmp_path / "data")
    kept = ReferenceLogps.load(
        logps / reference_pass.NAME, reference_pass.key_of(base, tmp_path / "data", settings()["precision"])
    )
    kept.train *= 1 + 1e-6
    kept.save(logps / reference_pass.NAME, reference_pass.key_of(base, tmp_path / "data", settings()["precision"]))
    metrics, _ = _train(tmp_path, "out", base, logps)
    assert metrics["margin_first"] == 0.0


@pytest.mark.parametrize("changed", ["model", "data", "precision"])
def test_a_stale_pass_is_refused_with_what_differs(tmp_path, changed):
    base, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    logps = _passed(tmp_path, base, data)
    fields = {}
    if changed == "model":
        llama_folder(base, seed=3)
    elif changed == "data":
        (data / "tokens.json").write_text('{"template": "another"}')
    else:
        fields["precision"] = type(settings()["precision"]).bf16_mixed
    where, way_out = (
        rf"logps\.safetensors: made for another reference \({changed}: found",
        "remove /.*/logps to compute",
    )
    with pytest.raises(StageError, match=f"{where}.*{way_out}"):
        _train(tmp_path, "out", base, logps, **fields)


def test_data_that_were_made_again_are_the_same_data(tmp_path):
    """Their manifest has other times, and for a moment there is an owner file."""
    base, data = llama_folder(tmp_path / "base"), tmp_path / "data"
    (data / "train").mkdir(parents=True)
    (data / "tokens.json").write_text("{}")
    (data / "train" / "tokens-00000.bin").write_bytes(b"one")
    keys = []
    for seconds, owner, content in ((1.5, False, b"one"), (2.5, True, b"one"), (2.5, True, b"two")):
        (data / "manifest.json").write_text(f'{{"wall_seconds": {seconds}}}')
        (data / "train" / "tokens-00000.bin").write_bytes(content)
        if owner:
            (data / "owner.json").write_text("{}")
        keys.append(reference_pass.key_of(base, data, settings()["precision"]))
    assert keys[0] == keys[1]
    assert keys[1].difference(keys[2]).startswith("data: ")


def _unshared(rows):
    """The same pairs with the prompt once for each answer."""
    apart = []
    for row in rows:
        split = row.document_lengths[0]
        ids, labels = row.input_ids.copy(), row.labels
        apart.append((ids[:split], labels[:split], ids[split:], labels[split:]))
    return apart


def _float64_norm(self, hidden):
    return torch.nn.functional.rms_norm(hidden, hidden.shape[-1:], self.weight, self.variance_epsilon)


def test_a_prompt_is_computed_once_and_gradients_are_those_of_two_prompts(tmp_path, monkeypatch):
    """In float64 throughout: transformers' Llama rounds to float32 in every norm."""
    monkeypatch.setattr(LlamaRMSNorm, "forward", _float64_norm)
    rows = [pair(30, 5, 7, seed=1, sample=0), pair(12, 9, 4, seed=2, sample=1)]
    batch = from_pairs(rows)
    assert len(batch.input_ids_T) == (30 + 5 + 7 + 1) + (12 + 9 + 4 + 1)
    network = load_network(llama_folder(tmp_path / "base"), settings()["precision"]).double()
    hidden_TD = Decoder(network)(batch.input_ids_T, batch.position_ids_T, batch.segments)[0]
    shared_P2 = _sums(hidden_TD[batch.positions_N] @ read_head(network).weight_VD.T, batch.targets_N, batch.answers_N)
    network.zero_grad()
    torch.nn.functional.logsigmoid(shared_P2[:, 0] - shared_P2[:, 1]).sum().backward()
    shared = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    network.set_attn_implementation("sdpa")
    apart = []
    for chosen, chosen_labels, rejected, rejected_labels in _unshared(rows):
        for ids, labels in ((chosen, chosen_labels), (rejected, rejected_labels)):
            logits = network(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0, :-1].log_softmax(-1)
            at = np.flatnonzero(labels[1:] != IGNORED)
            apart.append(logits[at, torch.from_numpy(labels[1:][at])].sum())
    apart_P2 = torch.stack(apart).view(-1, 2)
    torch.nn.functional.logsigmoid(apart_P2[:, 0] - apart_P2[:, 1]).sum().backward()
    assert torch.allclose(shared_P2, apart_P2, rtol=1e-12, atol=0)
    for name, parameter in network.named_parameters():
        assert (shared[name] - parameter.grad).norm() <= 1e-12 * parameter.grad.norm(), name


def _sums(logits_NV, targets_N, answers_N):
    logps_N = logits_NV.log_softmax(-1).gather(-1, targets_N[:, None]).squeeze(-1)
    return torch.zeros(int(answers_N.max()) + 1, dtype=logps_N.dtype).index_add(0, answers_N, logps_N).view(-1, 2)

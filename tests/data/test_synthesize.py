"""Synthetic mathematics: only answers that come to the seed's result are kept, and nothing is written twice."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import write_rows
from safetensors.torch import load_file, save_file

from solar.config.data import Format, SourceConfig
from solar.config.synthesis import SynthesizeConfig
from solar.data.encode.encode import Encoder
from solar.data.encode.tokenizer import load
from solar.data.synthesis import server as server_module
from solar.data.synthesis.answerers import LocalAnswerer, Sampling
from solar.data.synthesis.journal import go_on
from solar.data.synthesis.server import ServerAnswerer, _pace
from solar.data.synthesis.synthesize import Prompts, Seed, read_seeds, synthesize
from solar.engine.stop import Stop
from solar.errors import DataError, Interrupted, StageError
from solar.network.isolation import own_attention
from solar.network.loading import load_decoder
from solar.stages.synthesize import run

JOURNAL = "written.jsonl"
PROMPTS = Prompts.read(None, None)
SEEDS = [Seed(f"What is two times {n}?", f"2 * {n} = {2 * n} #### {2 * n}", str(2 * n)) for n in range(20)]


class Rephraser:
    """Answers by rule and remembers what it was asked; stops working after a number of calls."""

    group, ahead = 8, 1

    def __init__(self, calls: int = 10**6, solve=lambda number: f"It doubles. The answer is: {2 * number}") -> None:
        self.asked: list[str] = []
        self.calls = calls
        self.solve = solve

    async def answer(self, prompts, seed):
        self.calls -= 1
        if self.calls < 0:
            raise DataError("base_url: away")
        self.asked += prompts
        found = []
        for prompt in prompts:
            number = int(re.findall(r"\d+", prompt.rsplit("Problem:", 1)[1])[0])
            turned = f"Take {number} twice; how much is it? Twice {number}?"
            found.append(turned if prompt.endswith("Rewritten:") else self.solve(number))
        return found


def _run(tmp_path, answerer, found=SEEDS, questions=1, answers=1):
    return synthesize(iter(found), answerer, PROMPTS, tmp_path, tmp_path / JOURNAL, questions, answers, 0)


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_kept_answers_become_instructions_and_pairs(tmp_path):
    rephraser = Rephraser()
    rephraser.solve = lambda number: f"It doubles. The answer is: {2 * number if number % 2 else 1}"
    metrics = _run(tmp_path, rephraser)
    assert metrics == {"seeds": 20, "kept": 10, "left_out": {"wrong_final_answer": 10}}
    first = _read(tmp_path / "instruct.jsonl")[0]["messages"]
    assert first[0]["content"].startswith("Take 1 twice") and first[1]["content"] == "It doubles. The answer is: 2"
    pair = _read(tmp_path / "alignment.jsonl")[0]
    assert pair == {"prompt": first[0]["content"], "chosen": first[1]["content"], "rejected": SEEDS[1].answer}


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("", "The answer is: 6", "empty_question"),
        ("what is TWO times  3?", "The answer is: 6", "question_not_rephrased"),
        ("Twice 3?", "It is 6", "no_final_answer"),
        ("Twice 3?", "The answer is: 7", "wrong_final_answer"),
        ("Twice 3?", SEEDS[3].answer, "answer_not_rephrased"),
        ("Twice 3?", r"So it is $\boxed{6.0}$.", None),
        ("Twice 3?", "The answer is: 6\n\nProblem: another one", None),
    ],
)
def test_what_is_wrong_with_an_answer_is_counted(tmp_path, question, answer, reason):
    class Fixed:
        group, ahead = 8, 1

        async def answer(self, prompts, seed):
            return [question if prompt.endswith("Rewritten:") else answer for prompt in prompts]

    if reason is None:
        assert _run(tmp_path, Fixed(), [SEEDS[3]])["kept"] == 1
    else:
        with pytest.raises(DataError, match=rf"none of the answers to 1 seeds can be kept \(1 {reason}\)"):
            _run(tmp_path, Fixed(), [SEEDS[3]])


def test_several_questions_and_answers_a_seed_and_repetitions_are_counted(tmp_path):
    metrics = _run(tmp_path, Rephraser(), SEEDS[:3], questions=2, answers=3)
    assert metrics["kept"] == 3 and metrics["left_out"] == {"repeated": 15}


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = Rephraser()
    _run(tmp_path / "whole", whole)
    parts = [Rephraser(calls=3), Rephraser(calls=2), Rephraser()]
    for rephraser in parts[:-1]:
        with pytest.raises(DataError, match="away"):
            _run(tmp_path / "parts", rephraser)
        with (tmp_path / "parts" / JOURNAL).open("a") as journal:
            journal.write('[{"question": "half a line')
    _run(tmp_path / "parts", parts[-1])
    for name in ("instruct.jsonl", "alignment.jsonl", "left_out.jsonl", JOURNAL):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(parts[2].asked) == 8, "only the last group of 4 seeds was left to ask"


def test_seeds_without_a_final_answer_are_left_out_and_counted(gsm8k):
    rows = _read(gsm8k)[:300]
    talks = [
        [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}] for row in rows
    ]
    talks.append([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}])
    counts: Counter[str] = Counter()
    found = list(read_seeds(iter(talks), counts))
    assert len(found) == 300 and counts == {"seed_without_final_answer": 1}
    assert [one.final for one in found] == [row["answer"].split("#### ")[1] for row in rows]


def test_braces_in_questions_and_answers_stay_as_they_are(tmp_path):
    class Echo:
        group, ahead = 8, 1
        asked: list[str]

        async def answer(self, prompts, seed):
            self.asked = list(prompts)
            return [r"\frac{1}{2} and {answer} and {question}"] * len(prompts)

    echo, one = Echo(), Seed("Q {answer}", r"\boxed{5} {question}", "5")
    with pytest.raises(DataError):
        synthesize(
            iter([one]),
            echo,
            Prompts("Ask {question}", "Q {question} A {answer}"),
            tmp_path,
            tmp_path / JOURNAL,
            1,
            1,
            0,
        )
    assert echo.asked == [r"Q \frac{1}{2} and {answer} and {question} A \boxed{5} {question}"]


def test_a_prompt_file_without_a_place_for_the_question_is_refused(tmp_path):
    (tmp_path / "prompt.txt").write_text("Say something.")
    with pytest.raises(DataError, match=r"prompt.txt: no \{question\} in the prompt"):
        Prompts.read(tmp_path / "prompt.txt", None)
    (tmp_path / "prompt.txt").write_bytes(b"caf\xe9 {question}")
    with pytest.raises(DataError, match=r"prompt.txt: this is not UTF-8 text"):
        Prompts.read(tmp_path / "prompt.txt", None)


@pytest.fixture
def server(tmp_path, request):
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    log = tmp_path / "requests.jsonl"
    program = [
        sys.executable,
        str(Path(__file__).parent / "fake_server.py"),
        str(log),
        *getattr(request, "param", ["3"]),
    ]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    yield SimpleNamespace(url=f"http://127.0.0.1:{port}/v1", log=log)
    process.kill()
    process.wait()


def _config(tmp_path, **changes) -> SynthesizeConfig:
    rows = [{"question": seed.question, "answer": seed.answer} for seed in SEEDS]
    source = SourceConfig(
        path=str(write_rows(tmp_path / "seeds.jsonl", rows)),
        format=Format.prompt_completion,
        columns={"prompt": "question", "completion": "answer"},
    )
    values = {
        "kind": "synthesize", "seeds": source, "questions_per_seed": 1, "answers_per_question": 1, "temperature": 0.7,
        "max_new_tokens": 50, "seed": 0,
    }  # fmt: skip
    config = SynthesizeConfig(**(values | changes))
    assert not list(config.problems())
    return config


CONTEXT = SimpleNamespace(trainer=SimpleNamespace(device_type="cpu"), progress=lambda line: None)


def test_the_stage_with_a_server_in_another_process(tmp_path, server, monkeypatch):
    """It turns three requests away, fails at three and answers odd numbers wrongly; the key is written nowhere."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-this-test")
    config = _config(tmp_path, base_url=server.url, server_model="fake", connections=4)
    output = tmp_path / "out"
    output.mkdir()
    metrics = run(config, {}, output, CONTEXT)
    assert metrics.pop("summary") == "10 new answers to 20 seeds; left out: 10 wrong_final_answer"
    assert metrics == {"seeds": 20, "kept": 10, "left_out": {"wrong_final_answer": 10}}
    requests = _read(server.log)
    assert len(requests) == 46 and {request["path"] for request in requests} == {"/v1/chat/completions"}
    assert requests[0]["temperature"] == 0.7 and requests[0]["model"] == "fake"
    assert not any("secret" in file.read_text() for file in output.rglob("*.jsonl"))


EXPERIMENT = """# @package _global_
defaults: [/schema/synthesize@stages.synth, override /trainer: cpu, override /logger: none, _self_]
name: mathematics
stages:
  synth:
    seeds: {path: SEEDS, format: prompt_completion, columns: {prompt: question, completion: answer}}
    server_model: fake
    questions_per_seed: 1
    answers_per_question: 1
    temperature: 0
    max_new_tokens: 50
    seed: 0
"""


def test_a_signal_that_comes_in_the_middle_of_a_callback_is_not_lost(tmp_path):
    async def work(number, group):
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        await asyncio.sleep(2)
        return group

    before = signal.getsignal(signal.SIGTERM)
    with Stop().listening(), pytest.raises(Interrupted, match="stopped by SIGTERM"):
        asyncio.run(go_on(tmp_path / JOURNAL, iter(range(8)), work, 1, 2, lambda done, now: None))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("server", [["0", "0.3"]], indirect=True)
def test_a_run_that_is_stopped_and_killed_asks_for_nothing_twice(tmp_path, server):
    """At most twice as many seeds as connections are under way, with two requests each: only these are asked again."""
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    rows = [{"question": seed.question, "answer": seed.answer} for seed in SEEDS]
    experiment = tmp_path / "conf/experiment/mathematics.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(EXPERIMENT.replace("SEEDS", str(write_rows(tmp_path / "seeds.jsonl", rows))))
    command = [sys.executable, "-m", "solar.run", "--config-dir", str(tmp_path / "conf"), "+experiment=mathematics"]
    command += [f"paths.root={tmp_path / 'out'}", f"stages.synth.base_url={server.url}"]
    journal = f"artifacts/synth-*.partial/checkpoints/{JOURNAL}"
    enough = 0
    for number, code, connections in ((signal.SIGTERM, 75, 1), (signal.SIGKILL, -9, 2)):
        enough += 3
        paced = [*command, f"stages.synth.connections={connections}"]
        with subprocess.Popen(paced, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while sum(len(_read(found)) for found in (tmp_path / "out").glob(journal)) < enough:
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
            process.send_signal(number)
            assert process.wait(timeout=60) == code
    done = subprocess.run([*command, "stages.synth.connections=8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out/artifacts").glob("synth-????????????")
    assert len(_read(folder / "instruct.jsonl")) == 10
    asked = Counter(request["messages"][0]["content"] for request in _read(server.log))
    assert len(asked) == 40 and asked.total() <= 40 + 4 + 8, "what was in the journal was asked for again"


def test_a_server_that_is_away_is_one_line(monkeypatch):
    """T-E11."""
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    answerer = ServerAnswerer("http://127.0.0.1:9/v1", "fake", Sampling(0.0, 5), None, 1)
    answerer._client = answerer._client.with_options(max_retries=0)
    with pytest.raises(DataError, match=r"base_url: http://127.0.0.1:9/v1 does not answer \(.*\); what it has written"):
        asyncio.run(answerer.answer(["x"], 0))


def test_requests_are_paced(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("solar.data.synthesis.server.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("solar.data.synthesis.server.asyncio.sleep", sleep)
    wait = _pace(120)
    for _ in range(4):
        asyncio.run(wait())
    assert slept == [0.0, 0.5, 1.0, 1.5]


@pytest.fixture
def local(stories):
    """A function that gives the real small model, as the stage loads it, with a temperature."""
    network, encoder = load_decoder(stories).network, Encoder(load(stories))
    with own_attention(network):
        yield lambda temperature: LocalAnswerer(network, encoder, Sampling(temperature, 12))


def test_a_local_model_answers_the_same_alone_and_beside_longer_prompts(local):
    prompts = ["Once upon a time", "One day, a little girl named Lily went to the"]
    together = asyncio.run(local(0.0).answer(prompts, 0))
    assert together == [asyncio.run(local(0.0).answer([prompt], 0))[0] for prompt in prompts]
    assert all(text for text in together)


def test_sampled_answers_depend_on_the_seed_alone(local):
    torch.rand(3)
    first, again, other = (asyncio.run(local(1.0).answer(["Once upon a time"] * 2, seed)) for seed in (5, 5, 6))
    assert again == first != other
    assert first[0] != first[1]


def _artifact(tmp_path: Path, folder: Path) -> SimpleNamespace:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact/model").symlink_to(folder)
    return SimpleNamespace(path=tmp_path / "artifact")


def test_the_stage_with_a_local_model(tmp_path, stories):
    """A model of 260 thousand parameters rephrases nothing; the stage reports this in one line."""
    config = _config(tmp_path, model="small", max_new_tokens=4)
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(DataError, match=r"none of the answers to 20 seeds can be kept \(20 .*try a better model"):
        run(config, {"small": _artifact(tmp_path, stories)}, output, CONTEXT)


def test_a_local_model_that_lacks_a_weight_is_refused_by_the_weights_name(tmp_path, stories):
    """Plain transformers draws the weight at random, with a warning in its log."""
    folder = shutil.copytree(stories, tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        run(_config(tmp_path, model="small"), {"small": _artifact(tmp_path, folder)}, tmp_path / "out", CONTEXT)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "m", "base_url": "http://x", "server_model": "y"}, "model, base_url: expected exactly one"),
        ({}, "model, base_url: expected exactly one"),
        ({"base_url": "http://x"}, "server_model: expected with base_url"),
        ({"model": "m", "temperature": -1.0}, "temperature: found -1.0"),
        ({"model": "m", "questions_per_seed": 0}, "questions_per_seed: found 0"),
    ],
)
def test_a_stage_that_makes_no_sense_is_told_before_any_work(tmp_path, changes, problem):
    config = _config(tmp_path, model="m")
    config.model = None
    for name, value in changes.items():
        setattr(config, name, value)
    assert any(problem in found for found in config.problems())


@pytest.fixture
def answering():
    """A function that starts a server which gives these answers, the last one for ever, and tells its address."""
    servers = []

    def start(*answers: str, kind: str = "application/json", status: int = 200) -> str:
        left = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = (left.pop(0) if len(left) > 1 else left[0]).encode()
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/v1"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


CHOICE = '{{"id": "1", "object": "chat.completion", "choices": {}}}'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('{"choices": [', "application/json"),
        ("<html>It works!</html>", "text/html"),
        ("[" * 200_000, "application/json"),
        ('{"error": {"code": 502}, "choices": [{"message": {"content": ""}}]}', "application/json"),
        ('{"error": {"message": "no worker is free", "code": 502}}', "application/json"),
        *(
            (CHOICE.format(choices), "application/json")
            for choices in (
                "[]",
                "null",
                "[null]",
                '"abc"',
                '[{"index": 0}]',
                '[{"message": null}]',
                '[{"message": {"content": 5}}]',
                '[{"message": {"content": ""}, "finish_reason": "error"}]',
                '[{"message": {"content": null}, "error": {"code": 502}}]',
            )
        ),
    ],
)
def test_what_is_no_answer_is_asked_for_again_and_then_one_line(answering, monkeypatch, body, kind):
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    monkeypatch.setattr(server_module, "WAITS_SECONDS", (0.0, 0.0))
    url = answering(body, kind=kind)
    answerer = ServerAnswerer(url, "fake", Sampling(0.0, 5), None, 1)
    with pytest.raises(
        DataError, match=rf"^base_url: {url} answers, but not as an OpenAI server \(.+\).*kept, start again"
    ):
        asyncio.run(answerer.answer(["x"], 0))


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ('{"index": 0, "message": {"role": "assistant", "content": null}}', ""),
        ('{"index": 0, "message": null, "finish_reason": "content_filter"}', ""),
        ('{"message": {"content": [{"type": "text", "text": " A"}, {"type": "text", "text": "b"}]}}', "Ab"),
        ('{"message": {"content": "a\\ud800b"}}', "a?b"),
    ],
)
def test_whatever_way_a_server_says_something_or_refuses_to_it_is_understood(answering, choice, text):
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    url = answering(CHOICE.format(f"[{choice}]"))
    assert asyncio.run(ServerAnswerer(url, "fake", Sampling(0.0, 5), None, 1).answer(["x"], 0)) == [text]


def test_a_gateways_error_with_status_200_costs_a_question_again_and_no_seed(answering, monkeypatch):
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    monkeypatch.setattr(server_module, "WAITS_SECONDS", (0.0, 0.0))
    url = answering('{"error": {"code": 502}}', CHOICE.format("[]"), CHOICE.format('[{"message": {"content": "A"}}]'))
    assert asyncio.run(ServerAnswerer(url, "fake", Sampling(0.0, 5), None, 1).answer(["x"], 0)) == ["A"]


def test_a_request_that_is_never_answered_costs_its_seed_and_another_bad_one_is_shown(answering):
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    filtered, wrong = (
        ServerAnswerer(
            answering(f'{{"error": {{"message": "no", "code": "{code}"}}}}', status=400),
            "fake",
            Sampling(0.0, 5),
            None,
            1,
        )
        for code in ("content_filter", "unknown_parameter")
    )
    assert asyncio.run(filtered.answer(["x"], 0)) == [""]
    with pytest.raises(DataError, match=r"refuses a request \(Error code: 400 - no\); it began: 'two words'"):
        asyncio.run(wrong.answer(["two words"], 0))


def test_repetitions_of_the_client_wait_their_turn_too(answering, monkeypatch):
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    turns = []

    async def turn():
        turns.append(1)

    monkeypatch.setattr(server_module, "_pace", lambda per_minute: turn)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.0)
    url = answering("busy", status=429)
    with pytest.raises(DataError, match="does not answer"):
        asyncio.run(ServerAnswerer(url, "fake", Sampling(0.0, 5), 60, 1).answer(["x"], 0))
    assert len(turns) == 7

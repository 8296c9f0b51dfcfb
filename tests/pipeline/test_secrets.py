"""T-E8: whatever secret a run meets, no file that it leaves and no line that it prints holds the secret."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solar.redaction import redact, without_keys

from .conftest import command

IN_THE_ENVIRONMENT = {
    "OPENAI_API_KEY": "planted-openai-0001",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_plantedtokenplanted0003",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+secret+0004",
    "TEAM_PHRASE": "planted-phrase-0005",  # nothing in the name says secret, but the configuration reads the variable
    "DATABASE_PASSWORD": "planted-password-0006",
}
TYPED = [
    "planted-url-0007",
    "planted-query-0008",
    "sk-plantedplantedplanted0009",
    "ghp_plantedplantedplanted0010",
    "planted-netrc-0011",
    "planted-remote-0012",
]
PLANTED = [*IN_THE_ENVIRONMENT.values(), *TYPED]
assert len(PLANTED) == 12


def _found(folder: Path) -> list[str]:
    """Where a planted secret stands: in any file, also a binary one, in any of the usual spellings."""
    return [
        f"{path.relative_to(folder)}: {secret}"
        for path in folder.rglob("*")
        if path.is_file()
        for content in [path.read_bytes()]
        for secret in PLANTED
        if secret.encode() in content or secret.replace("/", "%2F").encode() in content
    ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A working folder whose git remote and .netrc hold secrets, too."""
    home = tmp_path / "home"
    (home / ".git").mkdir(parents=True)
    (home / ".netrc").write_text(f"machine api.wandb.ai login user password {TYPED[4]}\n")
    (home / ".netrc").chmod(0o600)
    (home / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (home / ".git" / "config").write_text(f'[remote "origin"]\n\turl = https://me:{TYPED[5]}@example.com/x.git\n')
    return home


def _run(root: Path, home: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **IN_THE_ENVIRONMENT, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    words = command(root, *overrides)
    return subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment, cwd=home)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that answers seed questions."""
    pytest.importorskip("openai", reason="extra `synthesize` is not installed")
    program = [sys.executable, str(Path(__file__).parents[1] / "data" / "fake_server.py"), str(tmp_path / "requests")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.kill()


def _maths(tmp_path: Path, address: str) -> list[str]:
    """A stage that asks a server; its address holds a password, and the model's name comes from the environment."""
    rows = [{"question": f"Twice {number}?", "answer": f"The answer is: {2 * number}"} for number in range(4)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "+stage@stages.maths=synthesize",
        f"stages.maths.seeds.path={tmp_path / 'seeds.jsonl'}",
        "stages.maths.seeds.format=prompt_completion",
        "+stages.maths.seeds.columns.prompt=question",
        "+stages.maths.seeds.columns.completion=answer",
        f"stages.maths.base_url='{address}'",
        "stages.maths.server_model='${oc.env:TEAM_PHRASE}'",
        "until=maths",
    ]


@pytest.mark.slow
def test_finished_runs_leave_no_secret(tmp_path: Path, home: Path, server: int) -> None:
    """Tracker files, logs, manifests, the runs' records, and the closing lines."""
    root = tmp_path / "outputs"
    done = _run(root, home, "logger=wandb", "until=base", "stages.base.duration=4 steps")
    assert done.returncode == 0, done.stderr
    assert list(root.rglob("*.wandb")), "the tracker wrote nothing, so this test would show nothing"
    asked = _run(root, home, *_maths(tmp_path, f"http://me:{TYPED[0]}@127.0.0.1:{server}/v1"))
    assert asked.returncode == 0, asked.stderr
    (manifest,) = root.glob("artifacts/maths-*/manifest.json")
    config = json.loads(manifest.read_text())["config"]
    assert config["base_url"] == f"http://***@127.0.0.1:{server}/v1"
    assert config["server_model"] == "${oc.env:TEAM_PHRASE}"
    last = max((root / "runs/quickstart").iterdir())
    assert "server_model='${oc.env:TEAM_PHRASE}'" in (last / "overrides.txt").read_text()
    assert _found(root) == []
    assert not [secret for secret in PLANTED for ran in (done, asked) if secret in ran.stdout + ran.stderr]


def test_a_refused_run_shows_no_secret_that_was_typed(tmp_path: Path, home: Path) -> None:
    words = _maths(tmp_path, f"http://me:{TYPED[0]}@127.0.0.1:9/v1?api_key={TYPED[1]}")
    done = _run(tmp_path / "outputs", home, *words, f"stages.maths.requests_per_minute={TYPED[2]}")
    assert done.returncode == 1
    assert "requests_per_minute" in done.stderr
    wrong = _run(
        tmp_path / "outputs", home, f"stages.base.duration={TYPED[3]}", "stages.sft.duration=${oc.env:HF_TOKEN}"
    )
    assert wrong.returncode == 1
    assert "stages.base.duration" in wrong.stderr
    assert not [secret for secret in PLANTED for ran in (done, wrong) if secret in ran.stdout + ran.stderr]
    assert _found(tmp_path / "outputs") == []


@pytest.mark.slow
def test_a_failed_run_and_a_sweep_leave_no_secret(tmp_path: Path, home: Path) -> None:
    """Nobody listens at port 9; Hydra writes the overrides of a sweep by itself."""
    root = tmp_path / "outputs"
    words = _maths(tmp_path, f"http://me:{TYPED[0]}@127.0.0.1:9/v1?api_key={TYPED[1]}")
    for more in ([], ["stages.maths.seed=1,2", "--multirun"]):
        done = _run(root, home, *words, "preflight=warn", *more)
        assert done.returncode == 1
        assert "base_url: http://***@127.0.0.1:9/v1?api_key=*** does not answer" in done.stderr
        assert not [secret for secret in PLANTED if secret in done.stdout + done.stderr]
    assert list(root.rglob("multirun.yaml"))
    assert _found(root) == []


def test_an_unforeseen_error_shows_no_secret() -> None:
    lines = [
        "import os",
        "from solar.redaction import redact_tracebacks",
        "redact_tracebacks()",
        "raise KeyError(os.environ['OPENAI_API_KEY'])",
    ]
    environment = {**os.environ, **IN_THE_ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, env=environment)
    assert "KeyError: '${oc.env:OPENAI_API_KEY}'" in done.stderr
    assert IN_THE_ENVIRONMENT["OPENAI_API_KEY"] not in done.stderr


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pw@host/x", "https://***@host/x"),
        ("s3://AKIAIOSFODNN7EXAMPLE:abc/def@bucket", "s3://***:abc/def@bucket"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer ***"),
        ("api_key: 'abcdefgh'", "api_key: '***'"),
        ("password=${oc.env:X}", "password=${oc.env:X}"),
        ("eos_token: </s>", "eos_token: </s>"),
        ("see https://example.com/a@b", "see https://example.com/a@b"),
        ("org/model@0123456789abcdef0123456789abcdef01234567", "org/model@0123456789abcdef0123456789abcdef01234567"),
        ("/home/me/sk-learn-data-of-mine", "/home/me/sk-learn-data-of-mine"),
    ],
)
def test_what_counts_as_a_key(text: str, clean: str) -> None:
    assert without_keys(text) == clean


def test_short_values_and_places_of_the_environment_stay_readable() -> None:
    environment = {"USE_TOKEN": "yes", "KEY_FOLDER": "/scratch/keys", "MY_TOKEN": "yes-yes-yes"}
    text = "yes /scratch/keys yes-yes-yes"
    assert redact(text, environment) == "yes /scratch/keys ${oc.env:MY_TOKEN}"

"""Every command reads its words in one way."""

import subprocess
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest

from solar.arguments import read, run
from solar.errors import ConfigError

COMMANDS = ("grow", "merge", "chat", "diagnose", "data", "sweep", "join", "artifacts")


class Colour(StrEnum):
    red = "red"
    blue = "blue"


@dataclass
class Options:
    count: int = 3
    share: float | None = None
    colour: Colour = Colour.red
    quiet: bool = False
    sizes: list[float] = field(default_factory=list)
    text_file: Path | None = None
    """Where the text is."""
    prompt: str = ""


def test_names_and_options_may_stand_in_any_order_and_an_option_has_two_spellings() -> None:
    words = ["count=4", "a/b", "--share", "1e-3", "--colour=blue", "./x=1", "text_file=~/t", "--quiet", "true"]
    names, options = read(words, Options, ("IN", "OUT"))
    assert names == ["a/b", "./x=1"]
    assert options == Options(4, 0.001, Colour.blue, True, text_file=Path("~/t").expanduser())
    assert read(["~/a"], Options, ("IN",))[0] == [str(Path("~/a").expanduser())]
    assert read(["--text-file", "t"], Options)[1].text_file == Path("t")
    assert read(["prompt=a=b", "share=null", "sizes=[1,0.5]"], Options)[1] == Options(prompt="a=b", sizes=[1, 0.5])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "count=x"], "count: found x, expected a whole number"),
        (["a", "count=1.5"], "count: found 1.5, expected a whole number"),
        (["a", "count=true"], "count: found true, expected a whole number"),
        (["a", "share="], "share: found no value, expected a number"),
        (["a", "colour=green"], "colour: found green, expected one of red, blue"),
        (["a", "quiet=yes"], "quiet: found yes, expected true or false"),
        (["a", "sizes=[1,x]"], "sizes: found [1,x], expected a list of numbers such as [0.5,0.5]"),
        (["a", "cuont=1"], "cuont: no such option; did you mean 'count'? (a folder's name with '=' begins with ./)"),
        (["a", "count=1", "count=2"], "count: found twice, expected one value"),
        (["a", "b"], "b: found a word without '=', expected key=value"),
        (["count=1"], "IN: found 0 of these, expected all; --help says more"),
        (["a", "--count"], "--count: found no value, expected count=value"),
    ],
)
def test_a_word_that_means_nothing_is_refused_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(words, Options, ("IN",))
    assert str(error.value) == message


def test_several_names_may_come_before_the_last() -> None:
    assert read(["a", "b", "c"], Options, ("IN...", "OUT"))[0] == ["a", "b", "c"]


def test_a_disk_that_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def body(names: list[str], options: Options) -> None:
        raise PermissionError(13, "Permission denied", "/out/model.safetensors")

    assert run(["a"], "usage", Options, ("IN",), body) == 1
    expected = "error: /out/model.safetensors: Permission denied; change its permissions, or choose another folder\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_the_command_does_and_names_every_option(command: str) -> None:
    module = f"solar.{command}"
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and f"python -m {module}" in done.stdout and not done.stderr
    nothing = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True)
    assert nothing.returncode == 2 and nothing.stdout == done.stdout

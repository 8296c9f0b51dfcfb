"""What reaches a terminal: names from files neither begin a line nor steer the terminal (T-E12)."""

import pickle
import warnings

import pytest

from solar import arguments, chat
from solar.errors import MOST_CHARACTERS, ArtifactError, SolarError, StageError, library_errors, printable

HOSTILE = "a\nerror: b\r\x1b[2J\x1b]0;t\x07\x9b31m\u202egpj\u2028\ud800"


def test_a_name_from_a_file_cannot_begin_a_line_or_steer_the_terminal():
    message = str(ArtifactError(f"{HOSTILE}: no such file"))
    assert message == r"a\nerror: b\r\x1b[2J\x1b]0;t\x07\x9b31m\u202egpj\u2028\ud800: no such file"
    assert len(message.splitlines()) == 1 and message.encode()


def test_an_error_inside_an_error_is_escaped_once_and_survives_another_process():
    error = StageError("stage: " + str(ArtifactError("a\x1bb")))
    assert str(error) == r"stage: a\x1bb" and str(pickle.loads(pickle.dumps(error))) == str(error)


def test_several_problems_are_a_line_each():
    assert SolarError("a: x", "b: y\n").lines == ["a: x", r"b: y\n"]
    assert str(SolarError("a: x", "b: y")) == "a: x\nb: y"


def test_a_long_name_loses_its_middle():
    line = str(SolarError("x" * 100_000 + "; the way out"))
    assert len(line) < MOST_CHARACTERS and line.startswith("xxx") and line.endswith("; the way out")


def test_languages_and_emoji_stay_as_they_are():
    text = "größer, 日本語, שלום, 👩‍🚀, 1\u200f2"
    assert printable(text) == text and printable("a\n\tb", keep="\n\t") == "a\n\tb"


class Panic(BaseException):
    """Like pyo3's PanicException, which is no Exception."""


@pytest.mark.parametrize(
    "raised", [Panic("no\nentry"), RecursionError("x"), MemoryError(), Exception("x"), ZeroDivisionError()]
)
def test_whatever_a_library_raises_names_the_file_in_one_line(raised):
    line = f"^folder: cannot be read \\({type(raised).__name__}: .*\\); fetch it again$"
    with pytest.raises(StageError, match=line), library_errors("folder", "fetch it again", StageError):
        raise raised


@pytest.mark.parametrize("raised", [ArtifactError("a: b"), KeyboardInterrupt(), SystemExit(3)])
def test_our_own_errors_and_requests_to_stop_pass(raised):
    with pytest.raises(type(raised)) as caught, library_errors("folder", "fetch it again", StageError):
        raise raised
    assert caught.value is raised


def test_a_command_prints_one_error_line(capsys):
    def body(names, options):
        raise ArtifactError(f"{HOSTILE}: damaged")

    assert arguments.run(["x"], "", chat.Options, ("MODEL",), body) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_command_prints_a_warning_as_one_line(capsys):
    def body(names, options):
        warnings.warn(HOSTILE, stacklevel=1)

    with pytest.warns(UserWarning):  # pytest-xdist cannot carry a warning with half a character
        arguments.run(["x"], "", chat.Options, ("MODEL",), body)
    assert warnings.formatwarning(HOSTILE, UserWarning, "f", 1) == f"warning: {printable(HOSTILE)}\n"


def test_what_a_model_writes_cannot_steer_the_terminal(capsys):
    class Speaker:
        def answer(self, text):
            yield from ("two\nlines\t", "\x1b]0;t\x07", "\x1b", "[2J", "\r\u202e")

    chat.talk(Speaker(), iter(["hi"]))
    assert capsys.readouterr().out == "two\nlines\t\\x1b]0;t\\x07\\x1b[2J\\r\\u202e\n"

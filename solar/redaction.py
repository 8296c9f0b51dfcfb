"""Secrets stay out of what solar writes and prints: values of the environment become references, keys become `***`.

A secret is the value of an environment variable whose name says so or that the configuration reads through
`${oc.env:NAME}`, the user and password of a URL, or a word that looks like a key of a known service.
"""

import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

HIDDEN = "***"
_LISTED = "SOLAR_ENVIRONMENT_REFERENCES"
"""Environment variable: the names that the configuration reads, for the processes of a run that do not compose it."""
_SECRET_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?<![A-Z])(AUTH|PWD|PAT)(?![A-Z])", re.IGNORECASE
)
_REFERENCE = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)")
_SHORTEST = 6
"""Characters of the shortest value of the environment that counts as a secret; `true` and `1` are none."""
_PATTERNS = [
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/?#\s@'\"]*@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?i)([?&](?:[a-z0-9_.-]*(?:key|token|secret|signature|password)|sig)=)[^&#\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/-]{8,}=*"), rf"\1 {HIDDEN}"),
    (
        re.compile(r"(?i)\b((?:[a-z0-9]+[_-])*(?:api[_-]?key|access[_-]?key|(?:access|auth)[_-]?token|secret|password))"
                   r"(['\"]?\s*[=:]\s*['\"]?)(?!\$\{|\*\*\*)[^\s'\",}&]{6,}"),
        rf"\1\2{HIDDEN}",
    ),
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
            r"|glpat-[A-Za-z0-9_-]{16,}|xox[abeprs]-[A-Za-z0-9-]{10,}|A[KS]IA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}"
            r"|wandb_v1_[A-Za-z0-9_]{20,}|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
        ),
        HIDDEN,
    ),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
]  # fmt: skip


def note_references(configuration: str) -> None:
    """Remember which environment variables a configuration reads, for this process and those that it starts."""
    names = {*_noted(os.environ), *_REFERENCE.findall(configuration)}
    os.environ[_LISTED] = ",".join(sorted(names))


def as_references(value: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """A text, or a structure of them, with `${oc.env:NAME}` in place of secret values of the environment.

    >>> as_references({"url": "http://s3cret-word@host"}, {"MY_TOKEN": "s3cret-word"})
    {'url': 'http://${oc.env:MY_TOKEN}@host'}
    """
    secrets = _secrets(environment)
    return _each(value, lambda text: _referred(text, secrets)) if secrets else value


def without_keys(value: Any) -> Any:
    """A text, or a structure of them, without passwords in URLs and words that look like keys.

    >>> without_keys(["https://me:pw@host/v1?token=abc&n=1", "eos_token=</s>", "n_keys=3"])
    ['https://***@host/v1?token=***&n=1', 'eos_token=</s>', 'n_keys=3']
    """
    return _each(value, _hidden)


def redact(value: Any, environment: Mapping[str, str] = os.environ) -> Any:
    """A text, or a structure of them, as solar may write and print it."""
    return without_keys(as_references(value, environment))


def redact_tracebacks() -> None:
    """Print the traceback of an unforeseen error without secrets. Ctrl-C is no error: then one line says so."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("error: stopped by the keyboard\n")
            return
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = show


def _noted(environment: Mapping[str, str]) -> list[str]:
    return [name for name in environment.get(_LISTED, "").split(",") if name]


def _secrets(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Value and name of each secret variable; longer values first, as one may be part of another.

    Places in the file system are no secrets: `${oc.env:SCRATCH}` is where a run writes, and must be readable.
    """
    noted = _noted(environment)
    names: Iterable[str] = {*noted, *(name for name in environment if _SECRET_NAME.search(name))} - {_LISTED}
    values = [(environment.get(name, ""), name) for name in sorted(names)]
    return sorted(
        (pair for pair in values if len(pair[0]) >= _SHORTEST and pair[0][0] not in "/~."), key=_longest_first
    )


def _longest_first(pair: tuple[str, str]) -> tuple[int, str]:
    return -len(pair[0]), pair[1]


def _referred(text: str, secrets: Iterable[tuple[str, str]]) -> str:
    for secret, name in secrets:
        text = text.replace(secret, f"${{oc.env:{name}}}")
    return text


def _hidden(text: str) -> str:
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_each(key, change): _each(entry, change) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_each(entry, change) for entry in value]
    return value

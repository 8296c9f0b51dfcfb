"""Turn docstrings into plain English: markup becomes words, and tables, directives and formulas are left out."""

import inspect
import re
import string

_ROLE = re.compile(r":[a-zA-Z:+_-]+:`[~!.]?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{1,2}")
_LITERAL = re.compile(r"``([^`]*)``")
_REFERENCE = re.compile(r"`([^`]+)`_\b")
_LATEX = re.compile(r"\\(?:text|mathrm|mathbf|operatorname)\{([^{}]*)\}|\\([a-zA-Z]+)")
_ADMONITION = re.compile(r"^(\s*)\.\.\s+(note|warning|seealso|tip|important|caution|example)::\s*", re.IGNORECASE)
_DIRECTIVE = re.compile(r"^\s*(\.\.\s|:(?:param|returns?|rtype|type|raises?|ref)\b.*:\s*$)")
_DROPPED_BLOCK = re.compile(r"^(\s*)\.\.\s+(math|image|figure|plot|table|list-table|csv-table|autosummary|only|raw)::")
_UNDERLINE = re.compile(r"^\s*([=\-~^*#\"'`+_])\1{2,}\s*$")
_TABLE = re.compile(r"^\s*([+|].*[+|]|=+(\s+=+)+|\|.*)\s*$")
_PLACEHOLDER = re.compile(r"^\s*(Args|Keyword args|Example|Examples|Parameters|Returns)?:?\s*\{\w+\}\s*$")
_SENTENCE_END = re.compile(r"(?<=[a-z0-9)\]`'\"])[.!?](?=\s|$)(?!\s+[a-z])")
_LETTERS = (string.ascii_letters + string.whitespace).encode()
_SECTION = re.compile(
    r"^(Args?|Arguments|Parameters|Returns?|Yields|Raises|Examples?|Attributes|Notes?)\b:?(?!\s+[a-z])"
)
_SIGNATURE_LINE = re.compile(r"^[\w.]+\(.*\)\s*(->.*)?$")


def clean(docstring: str) -> str:
    """The docstring as paragraphs without markup.

    >>> clean("Return a :class:`~torch.Tensor` of ``x``.\\n\\n    .. versionadded:: 3.2\\n\\n    .. note:: It is slow.")
    'Return a `Tensor` of `x`.\\n\\nNote: It is slow.'
    """
    lines: list[str] = []
    dropped_indent: int | None = None
    for line in inspect.cleandoc(docstring.replace("\x00", "")).splitlines():
        line = line.rstrip()
        indent = len(line) - len(line.lstrip())
        if dropped_indent is not None:
            if not line or indent > dropped_indent:
                continue
            dropped_indent = None
        if _DROPPED_BLOCK.match(line):
            dropped_indent = indent
            continue
        line = _ADMONITION.sub(lambda match: f"{match[1]}{match[2].capitalize()}: ", line)
        if _UNDERLINE.match(line) and lines and lines[-1] and lines[-1][-1] not in ".:!?":
            lines[-1] += ":"
        if _DIRECTIVE.match(line) or _UNDERLINE.match(line) or _TABLE.match(line) or _PLACEHOLDER.match(line):
            continue
        lines.append(_inline(line))
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").replace("::\n", ":\n")


def _inline(line: str) -> str:
    if ":math:" in line:
        line = _LATEX.sub(lambda match: match[1] or match[2], line)
    line = _ROLE.sub(lambda match: f"`{match[1].split('.')[-1] if '~' in match[0] else match[1]}`", line)
    line = _LINK.sub(r"\1", line)
    line = _LITERAL.sub(r"`\1`", line)
    return _REFERENCE.sub(r"\1", line)


def summary(text: str) -> str | None:
    """The first sentence of cleaned text, if it is a whole sentence of 20 to 160 characters; else None.

    >>> summary("Join two or more pathname components, inserting '/' as needed. If any component is absolute, ...")
    "Join two or more pathname components, inserting '/' as needed."
    >>> summary("see below") is None
    True
    """
    paragraphs = [part for part in text.split("\n\n") if not _SIGNATURE_LINE.match(part)]
    if not paragraphs:
        return None
    paragraph = " ".join(paragraphs[0].split())
    end = _SENTENCE_END.search(paragraph)
    sentence = paragraph[: end.end()] if end else paragraph
    proper = 20 <= len(sentence) <= 160 and sentence[0].isupper() and sentence.count(" ") >= 3
    if (
        not proper
        or _SECTION.match(sentence)
        or not is_english(sentence)
        or re.search(r"[{}<>|\\]|\$|::|\.\.\.|https?:", sentence)
    ):
        return None
    return sentence if sentence[-1] in ".!?" else sentence.rstrip(":;,") + "."


def is_english(text: str) -> bool:
    """Whether most characters are Latin letters or spaces: code, tables and formulas are not.

    >>> is_english("Return the number of items."), is_english("[[1, 0], [0, 1]]")
    (True, False)
    """
    others = text.encode("ascii", "replace").translate(None, _LETTERS)
    return len(others) <= 0.25 * len(text)

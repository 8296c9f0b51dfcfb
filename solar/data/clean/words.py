"""Texts as they are compared: words are the same behind case, underscores, composed letters, invisible characters."""

import re
import unicodedata

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_UNSPACED = re.compile("([\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
"""Letters of scripts that put no space between words (Thai, Lao, kana, Han): each counts as a word."""


def plain(text: str) -> str:
    """A text in which the same words are the same runs of letters.

    >>> plain("_Cafe\\u0301_ \\uff21 Stra\\xdfe 日本") == plain("Caf\\xe9 A STRASSE 日 本")
    True
    """
    text = text.replace("_", " ")
    if text.isascii():
        return text.lower().strip()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(_UNSPACED.sub(r" \1 ", _INVISIBLE.sub("", text)).split())

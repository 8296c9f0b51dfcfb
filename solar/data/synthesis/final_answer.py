"""The final answer of a worked solution, and whether two final answers are the same number or expression."""

import re
from fractions import Fraction

_MARKS = (re.compile(r"####\s*"), re.compile(r"answer is\s*:?\s*", re.IGNORECASE))
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n")
_BOLD = re.compile(r"\*\*|__|`")
_NO_NUMBER = re.compile(r"_|e[+-]?\d{4}")
_COUNTED = re.compile(r"\$?(-?[\d,]*\.?\d+(?:/\d+)?)((?:\s+(?:[^\W\d_]{3,}|per|an?|of|cm|km|kg|mm|m|g|L))+)")
_VALUES = {
    *("thousand", "million", "billion", "trillion", "hundred", "dozen", "half", "third", "quarter", "percent", "pairs"),
    *("and", "plus", "minus", "times", "over", "less", "more", "squared", "cubed", "mod", "sin", "cos", "tan", "log"),
    "sqrt",
}
"""Words after a number that change its value."""
_LONGEST_NUMBER = 100
"""Characters. A longer answer is text, and so is an exponent of four digits, which would take all memory."""
_UNITS = re.compile(r"\\(?:text|mbox|mathrm)\{[^{}]*\}|\\[,;:! ]|\\(?:left|right)\b|[\s$]|\^\\circ|\\%|%")


def final_answer(solution: str) -> str | None:
    r"""The text in the last box, after `####`, or after "The answer is"; None if the solution has none of them.

    >>> final_answer(r"So $x = \boxed{\frac{1}{2}}$."), final_answer("12 - 5 = 7 #### 7"), final_answer("maybe 7")
    ('\\frac{1}{2}', '7', None)
    """
    if (boxed := _boxed(solution)) is not None:
        return boxed
    for mark in _MARKS:
        if (parts := mark.split(solution))[1:]:
            return _SENTENCE_END.split(_BOLD.sub("", parts[-1]))[0].strip() or None
    return None


def _boxed(solution: str) -> str | None:
    start = solution.rfind(r"\boxed{")
    if start < 0:
        return None
    depth = 0
    for place in range(start + len(r"\boxed"), len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[place], 0)
        if depth == 0:
            return solution[start + len(r"\boxed{") : place]
    return None


def same_answer(first: str, second: str) -> bool:
    r"""Whether two final answers agree: as numbers where both are, else as text without layout and units.

    >>> same_answer("$1,200", "1200.0"), same_answer(r"\frac{1}{2}", "0.5"), same_answer("x+1", "x + 1")
    (True, True, True)
    >>> same_answer("7", "17"), same_answer("", "")
    (False, False)
    """
    texts = _plain(first), _plain(second)
    numbers = _number(texts[0]), _number(texts[1])
    if None not in numbers:
        return numbers[0] == numbers[1]
    return texts[0] != "" and texts[0] == texts[1]


def _plain(answer: str) -> str:
    text = (
        _UNITS.sub("", _worded_number(answer).replace("{,}", ","))
        .replace(r"\dfrac", r"\frac")
        .replace(r"\tfrac", r"\frac")
    )
    return text.strip(".").lower()


def _worded_number(answer: str) -> str:
    """The number without the words for what was counted; words that change the value stay.

    >>> _worded_number("7 apples"), _worded_number("7 million"), _worded_number("3 or 4")
    ('7', '7 million', '3 or 4')
    """
    match = _COUNTED.fullmatch(answer.strip().strip("."))
    if match is None or not _VALUES.isdisjoint(match[2].lower().split()):
        return answer
    return match[1]


def _number(text: str) -> Fraction | None:
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    if len(text) > _LONGEST_NUMBER or _NO_NUMBER.search(text):
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None

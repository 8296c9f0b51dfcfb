"""The final answer of a worked solution, and whether two of them are the same number or expression."""

import re
from fractions import Fraction

_MARKS = (re.compile(r"####\s*(.+)"), re.compile(r"(?:the )?(?:final )?answer is:?\s*(.+)", re.IGNORECASE))
_UNITS = re.compile(r"\\(?:text|mbox|mathrm)\{[^{}]*\}|\\[,;:! ]|\\(?:left|right)\b|[\s$]|\^\\circ|\\%|%")


def final_answer(solution: str) -> str | None:
    r"""What stands in the last box, after `####`, or after "The answer is"; None if nothing says so.

    >>> final_answer(r"So $x = \boxed{\frac{1}{2}}$."), final_answer("12 - 5 = 7 #### 7"), final_answer("maybe 7")
    ('\\frac{1}{2}', '7', None)
    """
    if (boxed := _boxed(solution)) is not None:
        return boxed
    for mark in _MARKS:
        if found := mark.findall(solution):
            return str(found[-1]).strip().rstrip(".") or None
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
    one, other = _plain(first), _plain(second)
    numbers = _number(one), _number(other)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return bool(one) and one == other


def _plain(answer: str) -> str:
    text = _UNITS.sub("", answer).replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    return text.strip(".").lower()


def _number(text: str) -> Fraction | None:
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\\frac\{(-?\d+)\}\{(\d+)\}", r"\1/\2", text)
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None

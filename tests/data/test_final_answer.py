"""What a solution comes to, however it is said, and when two results are one."""

import pytest

from solar.data.synthesis.final_answer import final_answer, same_answer


@pytest.mark.parametrize(
    ("solution", "final"),
    [
        ("The answer is: 5. So the answer is 7", "7"),
        ("The answer is 7. Hope this helps!", "7"),
        ("The answer is **7**.", "7"),
        ("So it is 3.5. The answer is $3.50.", "$3.50"),
        ("The final answer is:\n7", "7"),
        ("#### 1,000\n", "1,000"),
        (r"So $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("It is 7.", None),
    ],
)
def test_the_last_result_is_found_without_what_stands_around_it(solution, final):
    assert final_answer(solution) == final


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("1/2", "0.5"),
            ("1,000", "1000"),
            ("1{,}000", "1000"),
            ("7.", "7"),
            (r"-\frac{1}{2}", "-0.5"),
            ("50%", "50"),
        ),
        *(("7 apples", "7"), ("$7 per hour", "7"), ("5 cm", "5"), (r"5\text{ cm}", "5"), ("1e3", "1000")),
    ],
)
def test_the_same_result_in_other_words(one, other):
    assert same_answer(one, other) and same_answer(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("7 million", "7"), ("3 or 4", "3"), ("2 x", "2"), ("1_0", "10"), ("3 half", "3"), ("7", "17"), ("", "")],
)
def test_other_results_are_not_the_same(one, other):
    assert not same_answer(one, other)


def test_a_number_that_would_take_all_memory_is_text():
    assert not same_answer("1e999999999", "7")

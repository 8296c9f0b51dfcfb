"""The last line of a stage names the way of attention, unless it goes without saying."""

import pytest

from solar.engine.progress import Line


@pytest.mark.parametrize(
    "attention,line",
    [
        ("varlen (bfloat16 on cuda)", "loss 1.500 attention varlen (bfloat16 on cuda)"),
        ("one by one (sinks, cpu)", "loss 1.500 attention one by one (sinks, cpu)"),
        ("segments (cpu)", "loss 1.500"),
    ],
)
def test_the_way_of_attention_stands_in_the_line(attention: str, line: str) -> None:
    shown = Line("sft", None)
    shown.finish({"loss_last": 1.5, "attention": attention})
    assert shown.ended == line

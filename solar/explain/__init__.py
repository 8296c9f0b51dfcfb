"""One line for each mistake in a configuration."""

from solar.explain.files import unreadable
from solar.explain.groups import is_group, refuse_null_groups
from solar.explain.hydra_settings import refuse_functions
from solar.explain.keys import KNOWN, below_null, word_below_a_list
from solar.explain.mistakes import explain

__all__ = [
    "KNOWN",
    "below_null",
    "explain",
    "is_group",
    "refuse_functions",
    "refuse_null_groups",
    "unreadable",
    "word_below_a_list",
]

"""Registers the schemas with Hydra: the only module of `config` that imports Hydra."""

from hydra.core.config_store import ConfigStore

from solar.config.data import SourceConfig
from solar.config.evaluation import HarnessTaskConfig
from solar.config.growth_plan import GrowthPlan
from solar.config.kinds import STAGES
from solar.config.root import SolarConfig

ENTRIES: dict[str, type] = {"source": SourceConfig, "plan": GrowthPlan, "harness_task": HarnessTaskConfig}
"""Entries that the user names inside a stage; `+schema@stages.data.sources.mine=source` adds an entry."""


def register() -> None:
    """Make `solar_schema` (the root) and `schema/<kind>` (a kind of stage or entry) available to defaults lists."""
    store = ConfigStore.instance()
    store.store(name="solar_schema", node=SolarConfig)
    for name, kind in STAGES.items():
        store.store(group="schema", name=name, node=kind.config(kind=name))
    for name, entry in ENTRIES.items():
        store.store(group="schema", name=name, node=entry)

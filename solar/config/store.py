"""Where Hydra learns the schemas: the only module of `config` that knows Hydra."""

from hydra.core.config_store import ConfigStore

from solar.config.kinds import STAGES
from solar.config.root import SolarConfig


def register() -> None:
    """Make `solar_schema` (the root) and `schema/<kind>` (one a kind of stage) available to YAML defaults lists."""
    store = ConfigStore.instance()
    store.store(name="solar_schema", node=SolarConfig)
    for name, kind in STAGES.items():
        store.store(group="schema", name=name, node=kind.config(kind=name))

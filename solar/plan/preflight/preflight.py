"""Everything that would stop a run later, found before any work: weights, data, packages, disk, GPUs."""

from collections.abc import Iterator

from solar.config.root import SolarConfig
from solar.plan.plan import Plan
from solar.plan.preflight.hub import missing_from_hub
from solar.plan.preflight.packages import missing_packages
from solar.plan.preflight.resources import missing_resources


def preflight(plan: Plan, config: SolarConfig) -> Iterator[str]:
    """A line for each thing that this machine lacks for the stages that will run."""
    yield from missing_from_hub(plan.to_run)
    yield from missing_packages(plan.to_run, config)
    yield from missing_resources(plan, config)

"""What each tensor of the grown model is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from solar.config.growth_plan import GrowthPlan, Init
from solar.errors import PlanError
from solar.growth.files.recipes import Recipe
from solar.growth.plans import LayerPlan
from solar.growth.remap.decoder import Decoder, split_layer
from solar.weights.folder import ModelFolder
from solar.weights.header import DTYPE_OF, StoredTensor


@dataclass(frozen=True)
class Writers:
    """Tensors through which a layer writes to the residual stream, and by how much seams scale them."""

    names: frozenset[str] = frozenset()
    """Names in the base."""
    scales: Mapping[int, float] = field(default_factory=dict)
    """Position in the grown model -> factor."""


def grown_tensors(
    base: ModelFolder, decoder: Decoder, layers: LayerPlan, growth: GrowthPlan, writers: Writers
) -> dict[str, Recipe]:
    """Name -> recipe, for every tensor of the grown model. Raises `PlanError` for what the base does not allow."""
    in_layers = frozenset().union(*decoder.layers)
    recipes = {
        name: Recipe.copy(tensor)
        for name, tensor in base.tensors.items()
        if name not in in_layers and name not in decoder.beyond
    }
    new = set(layers.new_positions)
    for position, source in enumerate(layers.sources):
        for name in sorted(decoder.layers[source]):
            recipe = Recipe.copy(base.tensors[name])
            if position in new:
                recipe = _initialised(recipe, base, decoder, growth, writers)
            if name in writers.names:
                recipe = recipe.scaled(writers.scales.get(position, 1.0))
            recipes[decoder.rename(name, position)] = recipe
    if growth.dtype is not None:
        dtype = DTYPE_OF[growth.dtype.value]
        recipes = {
            name: recipe.stored_as(dtype) if base.may_be_cast(recipe.sources[0]) else recipe
            for name, recipe in recipes.items()
        }
    return recipes


def check_layers_alike(base: ModelFolder, decoder: Decoder, kinds: Sequence[object], layers: LayerPlan) -> None:
    """Layers of the same configuration must have the same tensors.

    The first or last layer may be special if the plan leaves it in its place.

    `kinds`: what the configuration says of each layer.
    """
    at_ends = [end for end in (0, decoder.num_hidden_layers - 1) if _stays_at_its_end(end, layers)]
    first: dict[tuple[object, ...], int] = {}
    for layer, kind in enumerate(kinds):
        other = first.setdefault((kind, layer if layer in at_ends else None), layer)
        difference = _signature(base, decoder, layer) ^ _signature(base, decoder, other)
        if difference:
            tensor = min(difference)[0]
            raise PlanError(
                f"{decoder.prefixes[0]}{layer}: differs from layer {other} in {tensor}, and nothing in config.json "
                f"says why; such a model cannot be grown this way"
            )


def _stays_at_its_end(layer: int, layers: LayerPlan) -> bool:
    """Whether the plan runs the base's first (last) layer once, first (last)."""
    place = 0 if layer == 0 else layers.num_hidden_layers - 1
    return layers.sources.count(layer) == 1 and layers.sources[place] == layer


def _signature(base: ModelFolder, decoder: Decoder, layer: int) -> set[tuple[str, tuple[int, ...]]]:
    """A layer's tensors: names below the layer, and shapes."""
    return {(decoder.rename(name, 0), base.tensors[name].shape) for name in decoder.layers[layer]}


def _initialised(recipe: Recipe, base: ModelFolder, decoder: Decoder, growth: GrowthPlan, writers: Writers) -> Recipe:
    """The recipe of a tensor in a new layer."""
    name = recipe.sources[0].name
    if growth.init is Init.zero_out:
        return recipe.zeroed() if name in writers.names else recipe
    if growth.init is Init.mean:
        return recipe if (after := _in_next_layer(name, base, decoder)) is None else recipe.averaged_with(after)
    if growth.init is Init.noise:
        assert growth.noise_std is not None and growth.seed is not None
        return recipe.noised(growth.noise_std, growth.seed)
    return recipe


def _in_next_layer(name: str, base: ModelFolder, decoder: Decoder) -> StoredTensor | None:
    """The same tensor of the layer above, or None above the last."""
    prefix, layer, rest = split_layer(name) or ("", 0, "")
    if layer + 1 == decoder.num_hidden_layers:
        return None
    above = f"{prefix}{layer + 1}.{rest}"
    if above not in base.tensors:
        raise PlanError(f"init: mean found, but layer {layer + 1} has no {rest} as layer {layer} has; choose copy")
    return base.tensors[above]

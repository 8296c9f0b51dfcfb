"""Pictures show what is so: each layer once, each seam where it is, each model below those it was made of."""

import re
from itertools import pairwise

from solar.report.charts import HEIGHT, WIDTH, Chart, Line, thinned, ticks
from solar.report.sections.diagnosis import diagnoses, heat_map
from solar.report.sections.pictures import family, layer_map

from .run_on_disk import GROWN


def test_each_layer_is_drawn_once_and_joined_to_its_source():
    svg = layer_map(GROWN)
    assert len(re.findall('class="layer base"', svg)) == 8
    assert len(re.findall('class="layer old"', svg)) == 8
    assert len(re.findall('class="layer new"', svg)) == 4
    assert len(re.findall('class="wire old"', svg)) == 8 and len(re.findall('class="wire new"', svg)) == 4
    numbers = re.findall(r'class="number"[^>]*>(\d+)<', svg)
    assert [int(number) for number in numbers] == [*range(8), *GROWN["layers"]]


def test_the_seam_is_drawn_between_its_layers_and_named():
    svg = layer_map(GROWN)
    (line,) = re.findall(r'class="seam" x1="188" x2="280" y1="([\d.]+)"', svg)
    tops = [float(y) for y in re.findall(r'class="layer (?:old|new)" x="196" y="([\d.]+)"', svg)]
    assert tops[6] < float(line) - 2 < tops[5]  # layer 6 stands right above the line, layer 5 right below
    assert ">5 | 2<" in svg


def test_deep_models_still_fit():
    layers = [*range(24), *range(8, 32)]
    svg = layer_map({"base_layers": 32, "layers": layers, "new": list(range(24, 40)), "seams": [[24, 23, 8]]})
    assert float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1]) < 700


def test_each_model_stands_below_those_it_was_made_of(chain):
    run = chain.run
    svg = family(run, lambda entry: "")
    places = {name: float(y) for y, name in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"[^>]*>(\w+)<', svg)}
    assert set(places) == {entry.stage for entry in run.models()}
    for entry in run.models():
        assert all(places[parent.stage] < places[entry.stage] for parent in run.parents(entry))
    assert places["dpo_a"] == places["dpo_b"]
    assert len(re.findall('class="arrow"', svg)) == 6


def test_a_curve_lies_inside_its_picture_and_falls_where_its_values_fall():
    svg = Chart([Line("loss", [(0, 3.0), (10, 2.0), (20, 1.0)])], "steps", "loss", [("base", 2.5)]).svg()
    points = [tuple(map(float, point.split())) for point in re.search(r'd="M([^"]+)"', svg)[1].split("L")]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted(y for _, y in points)  # down the page
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in points)


def test_what_is_not_a_number_is_left_out_and_nothing_draws_nothing():
    svg = Chart([Line("loss", [(0, 1.0), (1, float("nan")), (2, float("inf")), (3, 2.0)])], "steps", "loss").svg()
    assert "nan" not in svg and "inf" not in svg
    assert Chart([Line("loss", [])], "steps", "loss").svg() == ""
    assert Chart([Line("loss", [(0, float("nan"))])], "steps", "loss").svg() == ""


def test_a_long_log_becomes_a_small_picture_with_its_ends():
    points = [(float(step), 5.0 - step / 10_000) for step in range(20_000)]
    kept = thinned(points)
    assert len(kept) <= 240 and kept[0] == points[0] and kept[-1] == points[-1]


def test_ticks_enclose_their_range_with_round_numbers():
    for low, high in ((0.0, 1.0), (6.2259, 6.301), (-3.0, 0.2), (0, 1_234_567), (1e-5, 3e-5), (0.0, 0.0)):
        found = ticks(low, high)
        assert found[0] <= low and high <= found[-1] and 2 <= len(found) <= 8
        assert len({round(b - a, 9) for a, b in pairwise(found)}) == 1


def test_the_largest_value_of_a_heat_map_is_the_strongest():
    svg = heat_map([[0.1, 0.9], [0.5]], "distance")
    strength = [float(value) for value in re.findall(r'fill-opacity="([\d.]+)"', svg)]
    assert strength == [0.06, 1.0, 0.53]


def test_a_diagnosis_is_drawn_by_the_shape_of_its_values(disk):
    plans = [{"name": "dus_m2", "layers": 12, "step0_gap": 0.41234, "seams": [1]}, {"name": "stack", "layers": 16}]
    content = {"base_loss": 3.0, "block_influence": [0.3, 0.1], "angular_distance": [[0.1, 0.2], [0.3]], "plans": plans}
    disk.add("diagnosis", "diagnose", diagnosis_json=content)
    (found,) = diagnoses(disk.run)
    assert found.facts == [("base loss", "3.0000")]
    assert [picture.title for picture in found.pictures] == ["block influence", "angular distance"]
    assert found.tables[0].columns == ["name", "layers", "step0 gap"]
    assert found.tables[0].rows == [["dus_m2", "12", "0.4123"], ["stack", "16", ""]]

"""Model folders are loaded in `solar/network` and nowhere else."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "solar"


def _loads_a_model(path: Path) -> bool:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = [ast.unparse(call) for call in calls]
    return any(name.endswith(".from_pretrained") and "okenizer" not in name and "Config" not in name for name in names)


def test_only_network_loads_models():
    loading = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if _loads_a_model(path)}
    assert loading == {"network/loading.py", "network/quantised/dequantise.py"}

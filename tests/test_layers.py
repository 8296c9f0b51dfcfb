"""The layer table of the design, as data, held against every import in the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "solar"
WORK = {"growth", "data", "training", "merging", "evaluation", "report", "models"}

MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "artifacts": {"errors"},
    "plan": {"errors", "config", "artifacts", "growth"},
    "engine": {"errors", "config", "artifacts", "plan"},
    "explain": {"errors", "config", "plan"},
    "growth": {"errors", "config"},
    "data": {"errors", "config"},
    "models": {"errors", "config"},
    "training": {"errors", "config", "data", "growth"},
    "merging": {"errors", "config"},
    "evaluation": {"errors", "config", "data", "growth"},
    "report": {"errors", "config"},
    "stages": {"errors", "config", "artifacts", "engine", *WORK},
}
NO_TORCH = {"errors", "config", "artifacts", "plan", "engine", "explain"}


def _modules() -> list[Path]:
    """Every module but the commands, which may use anything."""
    commands = {path for path in PACKAGE.glob("*.py") if path.stem != "errors"} | set(PACKAGE.rglob("__main__.py"))
    return sorted(set(PACKAGE.rglob("*.py")) - commands)


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[layer] | {layer}
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "solar" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{layer} imports {name}"
        assert parts[0] != "lightning", "that name shipped malware; pytorch_lightning is the one"
        if parts[0] == "hydra":
            assert layer == "explain" or path.relative_to(PACKAGE).as_posix() == "config/store.py"
        if layer in NO_TORCH:
            assert parts[0] not in ("torch", "transformers", "pytorch_lightning"), f"{path} imports {name}"
        if parts[0] == "pytorch_lightning":
            assert layer == "training"


def test_plan_takes_only_integers_from_growth() -> None:
    taken = {
        name for path in (PACKAGE / "plan").glob("*.py") for name in _imports(path) if name.startswith("solar.growth")
    }
    assert taken <= {"solar.growth.plans", "solar.growth.plans.resolve"}


def test_stages_take_from_the_engine_only_the_types_they_are_called_with() -> None:
    taken = {
        name for path in (PACKAGE / "stages").glob("*.py") for name in _imports(path) if name.startswith("solar.engine")
    }
    assert all(name.startswith("solar.engine.context") for name in taken)


@pytest.mark.parametrize("command", (["dry_run=true"], ["--cfg", "job"]))
def test_planning_the_paper_imports_no_torch(command: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from solar.run import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'pytorch_lightning', 'datasets', 'wandb', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    arguments = ["+experiment=dus_10b", f"paths.root={tmp_path}", *command]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

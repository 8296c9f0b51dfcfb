"""The layer table of the design, as data, held against every import in the package."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "solar"
WORK = {"growth", "data", "network", "diagnosis", "training", "merging", "evaluation", "report", "models", "weights"}

MAY_IMPORT = {
    "errors": set(),
    "redaction": set(),
    "config": {"errors"},
    "artifacts": {"errors", "weights"},
    "weights": {"errors"},
    "plan": {"errors", "redaction", "config", "artifacts", "growth", "weights"},
    "engine": {"errors", "redaction", "config", "artifacts", "plan", "weights"},
    "explain": {"errors", "config", "plan"},
    "growth": {"errors", "config", "weights", "models"},
    "data": {"errors", "config", "weights"},
    "models": {"errors", "config", "weights"},
    "merging": {"errors", "config", "weights"},
    "network": {"errors", "config", "data", "weights", "growth"},
    "diagnosis": {"errors", "config", "weights", "growth", "network", "data"},
    "training": {"errors", "redaction", "config", "data", "growth", "network", "weights"},
    "evaluation": {"errors", "config", "data", "network"},
    "report": {"errors", "config", "weights"},
    "stages": {"errors", "config", "artifacts", "engine", *WORK},
}
"""Package -> the packages that its modules may import."""

FLOORS = {
    "data": [
        ["read", "store"],
        ["encode", "order", "held_out"],
        ["clean", "pack"],
        ["prepare", "synthesis", "python_docs"],
        ["show"],
    ],
    "plan": [
        ["checks", "digests", "graph", "work"],
        ["facts", "need"],
        ["identity"],
        ["expansion", "plan"],
        ["cost"],
        ["show"],
        ["preflight"],
    ],
    "report": [["numbers", "command"], ["entries", "charts"], ["sections"], ["page", "card", "sweep"]],
    "growth": [
        ["sources", "process"],
        ["plans"],
        ["remap"],
        ["provenance"],
        ["files", "roles"],
        ["job"],
        ["grow"],
        ["unmaterialized"],
    ],
    "training": [
        ["checkpoint", "determinism", "interrupt", "memory"],
        ["distributed"],
        ["optim"],
        ["batches"],
        ["modules"],
        ["preference"],
        ["callbacks"],
        ["lightning"],
        ["trainer"],
        ["fit"],
    ],
}
"""Package -> its folders and modules from the ground up; a floor imports only from the floors below its own."""
MOST_MODULES = 13
"""In one folder; `config` and `stages` are lists, where a row is a module."""
NO_TORCH = {"errors", "redaction", "config", "artifacts", "plan", "engine", "explain"}


def _modules() -> list[Path]:
    """Every module but the commands, which may use anything."""
    commands = {path for path in PACKAGE.glob("*.py") if path.stem not in ("errors", "redaction")} | set(
        PACKAGE.rglob("__main__.py")
    )
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


@pytest.mark.parametrize("package", FLOORS)
def test_inside_a_package_no_import_runs_back_up(package: str) -> None:
    floor_of = {room: number for number, floor in enumerate(FLOORS[package]) for room in floor}
    for path in _modules():
        first, *rest = path.relative_to(PACKAGE).with_suffix("").parts
        if first != package or rest == ["__init__"]:
            continue
        room = rest[0]
        for name in _imports(path):
            parts = name.split(".")
            if parts[:2] == ["solar", package] and len(parts) > 2 and parts[2] != room:
                assert floor_of[parts[2]] < floor_of[room], f"{package}/{room} imports {name}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {_dotted(path): {name for name in _imports(path) if name.startswith("solar.")} for path in _modules()}
    graph = {module: {name for name in names if name in graph} - {module} for module, names in graph.items()}
    graph = {module: {name for name in names if not _is_package(name)} for module, names in graph.items()}
    while leaves := [module for module, names in graph.items() if not names]:
        graph = {module: names - set(leaves) for module, names in graph.items() if module not in leaves}
    assert not graph, f"in circles: {sorted(graph)}"


def _dotted(path: Path) -> str:
    return ".".join(("solar", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def _is_package(module: str) -> bool:
    return (PACKAGE.parent / module.replace(".", "/")).is_dir()


@pytest.mark.parametrize("folder", sorted({path.parent for path in _modules()} - {PACKAGE}), ids=lambda path: path.name)
def test_a_folder_is_small_enough_to_be_one_idea(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
    assert folder.name in ("config", "stages") or len(modules) <= MOST_MODULES
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))), "says no idea"


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

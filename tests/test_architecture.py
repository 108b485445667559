"""The import rule of docs/architecture.md: downwards only."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "vae_exp"
# From the top down: a module imports from lower lines alone.
LAYERS = [
    {"__init__", "__main__", "evaluate", "export", "report"},
    {"training", "callbacks"},
    {"page"},
    {"generate"},
    {"what"},
    {"metrics"},
    {"samplers"},
    {"runs"},
    {"models", "cli", "loggers", "plots"},
    {"objectives", "ledger"},
    {"estimators"},
    {"chains", "draws", "schedules", "help"},
    {"encoders", "decoders", "posteriors", "likelihoods", "priors", "corruptions", "data"},
    {"config", "parts", "distributions", "layers", "precision"},
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vae_exp":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vae_exp.")}
    return found


def files(module: str) -> list[Path]:
    """Those of a module, which is a file or a folder."""
    return [SOURCE / f"{module}.py"] if (SOURCE / f"{module}.py").exists() else list((SOURCE / module).glob("*.py"))


def test_every_module_has_a_place():
    modules = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules == set(LEVEL)


@pytest.mark.parametrize("module", sorted(LEVEL))
def test_imports_go_down(module):
    for path in files(module):
        for imported in imports(path) - {module}:
            assert LEVEL[imported] > LEVEL[module], f"{path} imports {imported}"


def test_parts_and_data_know_nothing_of_each_other():
    for module in LAYERS[-2]:
        for path in files(module):
            assert imports(path) <= {module, *LAYERS[-1]}


def test_files_are_short():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path

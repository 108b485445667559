"""The import rule of docs/architecture.md: downwards only."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "vae_exp"
# From the top down: a module imports from lower lines alone.
LAYERS = [
    {"__main__", "evaluate"},
    {"train"},
    {"trainer"},
    {"runs", "callbacks"},
    {"shapes", "loop"},
    {"graph"},
    {"loggers", "plots", "record", "config", "models"},
    {"objectives", "ledger"},
    {"draws", "encoders", "decoders", "posteriors", "likelihoods", "priors", "data", "__init__"},
    {"distributions"},
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


def test_every_module_has_a_place():
    modules = {path.stem for path in SOURCE.glob("*.py")} | {"data"}
    assert modules == set(LEVEL)


def test_imports_go_down():
    for path in SOURCE.glob("*.py"):
        for imported in imports(path):
            assert LEVEL[imported] > LEVEL[path.stem], f"{path.stem} imports {imported}"


def test_parts_and_data_import_nothing_of_ours():
    for name in ("encoders", "decoders", "likelihoods", "draws", "distributions"):
        assert imports(SOURCE / f"{name}.py") == set()
    for name in ("posteriors", "priors"):  # of each other nothing, yet the KL of the two needs one class
        assert imports(SOURCE / f"{name}.py") <= {"distributions"}
    for path in (SOURCE / "data").glob("*.py"):
        assert imports(path) <= {"data"}


def test_files_are_short():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path

"""The import rule of docs/architecture.md: downwards only."""

import ast
from pathlib import Path

import pytest
from helpers.runs import ROOT

SOURCE = ROOT / "src" / "vae_exp"
# From the top down: a module imports from lower lines alone.
LAYERS = [
    {"__init__", "__main__", "compare", "evaluate", "explore", "export", "generate", "report", "sweep", "sync"},
    {"launchers", "run", "searches"},
    {"sweeps"},
    {"training", "comparison"},
    {"pruning"},
    {"callbacks"},
    {"page"},
    {"what"},
    {"metrics"},
    {"samplers"},
    {"calls", "runs"},
    {"models", "cli", "loggers", "plots"},
    {"objectives", "ledger", "charts", "resolvers", "words"},
    {"estimators"},
    {"chains", "draws", "schedules", "help", "overrides", "saved"},
    {"ranges", "records"},
    {"encoders", "decoders", "posteriors", "likelihoods", "priors", "corruptions", "data"},
    {"conditions"},
    {
        "arrays",
        "columns",
        "config",
        "files",
        "init",
        "lock",
        "paths",
        "parts",
        "distributions",
        "layers",
        "supports",
    },
    {"precision"},
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


def private_parts(path: Path) -> set[str]:
    """Attributes of other objects, and imports, whose name begins with one underscore."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self"):
            found |= {node.attr}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_lightnings_private_parts_are_known_in_two_places():
    # Of Hydra, OmegaConf, W&B and Optuna.
    of_others = {
        "_target_",
        "_get_node",
        "_is_none",
        "_wandb_init",
        "_trial_id",
        "_value",
        "_apply_overrides_to_config",
    }
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "training" and path != SOURCE / "models" / "module.py":
            assert private_parts(path) <= of_others, path


def test_one_module_of_the_models_knows_lightning():
    knows = {path.name for path in (SOURCE / "models").glob("*.py") if "pytorch_lightning" in path.read_text()}
    assert knows == {"module.py"}


def caught(path: Path) -> set[str]:
    """Names of the exceptions that a file catches or suppresses."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            found |= {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
            found |= {name.id for arg in node.args for name in ast.walk(arg) if isinstance(name, ast.Name)}
    return found


def test_one_module_finds_out_what_a_distribution_does_not_know():
    catches = {path.name for path in SOURCE.rglob("*.py") if "NotImplementedError" in caught(path)}
    assert catches == {"distributions.py", "lock.py"}  # the latter: a disk without locks


def test_models_and_distributions_say_what_they_can_do():
    """Nobody else asks a model for its class, or a distribution whether it is a chain."""
    classes = {"AE", "CVAE", "HVAE", "M2", "BetaVAE", "LabelDraw", "Chain"}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
                assert not asked & classes, f"{path}:{node.lineno}"
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
                assert not ast.unparse(node.left).endswith(".bounds"), f"{path}:{node.lineno}: ask has()"


def test_files_are_short():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/extending.md", "docs/extending_runs.md"])
def test_a_block_of_code_fits_on_a_screen(page):
    blocks = (ROOT / page).read_text().split("```")[1::2]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 120

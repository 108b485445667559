"""A cell: one training of a sweep, known by the content of its config, in a folder that sweeps share.

Nothing heavy is imported: a sweep learns which cells are finished before it imports torch.
"""

import json
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vae_exp.overrides import OF_SWEEPS
from vae_exp.paths import places
from vae_exp.runs.folder import fingerprint

__all__ = ["identity"]

# Raised with every change of the code that changes the numbers of some run: its cells are then computed again.
VERSION = 1
# What changes no number of a run: where it lies, how it is called, and what is written about it.
FREE = ("allow", "draw", "expected", "logger", "name", "report", "resume", *OF_SWEEPS)
# Keys that configs of earlier runs do not have: unset they change no cell.
LATER = ("init_from_parts", "freeze", "init", "weight_prior")
LATER_OF_DATA = ("attributes", "train_limit")
LATER_CALLBACKS = {"marginal": "every", "snapshots": "at_steps"}  # each is there if this key of it is set
FREE_OF = {
    "callbacks": ("curves", "explorer", "pictures", "progress", "speed"),
    "data": ("root",),
    "trainer": ("enable_model_summary", "enable_progress_bar"),
}


def identity(cfg: dict[str, Any]) -> str:
    """The name of the cell of a config: 16 hexadecimal digits that depend on all that fixes its numbers.

    They also depend on the code of the user's own parts, on the size and time of the user's own data, and on the
    weights that the run starts from.

    Arguments:
        cfg: The resolved config.
    """
    kept = {key: value for key, value in cfg.items() if key not in FREE and not (key in LATER and not value)}
    for key, names in FREE_OF.items():
        kept[key] = {name: value for name, value in (kept.get(key) or {}).items() if name not in names}
    kept["data"] = {key: value for key, value in kept["data"].items() if key not in LATER_OF_DATA or value}
    for name, key in LATER_CALLBACKS.items():
        if not (kept["callbacks"].get(name) or {}).get(key):
            kept["callbacks"].pop(name, None)
    if last := kept["callbacks"].get("last"):
        kept["callbacks"]["last"] = {
            key: value for key, value in last.items() if key not in ("minutes", "every_n_steps")
        }
    devices = kept["trainer"].get("devices")
    if isinstance(devices, list):  # which of the devices of one kind it is, changes nothing
        kept["trainer"]["devices"] = len(devices)
    if kept.get("init_from"):
        kept["init_from"] = fingerprint(Path(kept["init_from"]) / "checkpoints" / "best.ckpt")
    given, root = (kept["data"].get("source") or {}).get("path"), (cfg.get("data") or {}).get("root", "")
    paths = [path for path in places(str(given), root) if path.exists()][:1] if given else []
    files = [[file.stat().st_size, file.stat().st_mtime_ns] for file in paths]
    content = [VERSION, _plain(kept), files, _own_code(kept)]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value in which 4 and 4.0 are one."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _own_code(value: Any) -> dict[str, str]:
    """The hash of each of the user's own packages that a `_target_` of the config names."""
    if isinstance(value, list):
        return {name: code for each in value for name, code in _own_code(each).items()}
    if not isinstance(value, dict):
        return {}
    found = _own_code(list(value.values()))
    package = str(value.get("_target_", "")).partition(".")[0]
    if package not in ("", "vae_exp", "torch", *sys.stdlib_module_names):
        spec = find_spec(package)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin and "site-packages" not in origin.parts:
            files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
            found[package] = sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return found

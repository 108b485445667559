"""The reference of groups, options and keys: pages made of the comments in `conf/`, which `--help` shows, too."""

import re
from pathlib import Path

from vae_exp.config import CONF, options
from vae_exp.help import documented

__all__ = ["write_options"]

# Groups whose keys lie elsewhere in the config than under the name of the group.
PACKAGES = {"experiment": "", "sweep": "sweep", "what": "", "hydra": "", "schedule": "KEY"}
SHARED = {"data": "images.yaml"}  # what all options of a group begin with
ORDER = [
    *("model", "encoder", "decoder", "posterior", "prior", "likelihood", "objective", "corruption", "init"),
    *("optimizer", "schedule", "data", "trainer", "callbacks", "logger", "what", "metrics", "sweep", "launcher"),
]


def write_options(folder: Path) -> None:
    """Writes a page for each group of `conf/`, and one for the commands, into a folder that belongs to it."""
    conf = Path(CONF)
    groups = sorted((path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra"), key=_place)
    pages = {group: _group(group) for group in groups}
    commands = [path for path in sorted(conf.glob("*.yaml")) if path.name not in SHARED.values()]
    pages["commands"] = "\n\n".join(["# Commands", *map(_section, commands)])
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text() != text:  # an unchanged page is not built again
            page.write_text(text)


def _place(group: str) -> tuple[int, str]:
    return (ORDER.index(group) if group in ORDER else len(ORDER), group)


def _group(group: str) -> str:
    package = PACKAGES.get(group, group)
    shared = [_section(Path(CONF) / SHARED[group], package, f"every {group}")] if group in SHARED else []
    sections = [_section(file, package, f"{group}={name}") for name, file in options(group).items()]
    return "\n\n".join([f"# {group}", *shared, *sections])


def _section(file: Path, package: str = "", title: str | None = None) -> str:
    about, keys = documented(file, package)
    lines = [f"## {title or file.stem}", "", *about]
    if keys:
        lines += ["", "| key | value | what it is |", "|---|---|---|"]
        lines += [f"| `{key.name}` | {_code(key.value)} | {_cell(key.comment) or _source(key.value)} |" for key in keys]
    return "\n".join(lines)


def _source(value: str) -> str:
    follows = re.fullmatch(r"\$\{([\w.]+)\}", value)
    return f"follows `{follows[1]}`" if follows else ""


def _code(value: str) -> str:
    return f"`{value}`".replace("|", r"\|")


def _cell(words: str) -> str:
    return words.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_").replace("$", r"\$")

"""What the comments in `conf/` say of each key: the `--help` page of a command on runs, and the reference."""

import re
from pathlib import Path
from typing import NamedTuple

from vae_exp.config import CONF, options

__all__ = ["Key", "documented", "help_page"]

# Which file is meant, not what it sets.
UNNAMED = ("what", "rows", "metrics", "metric", "headline", "_target_")


class Key(NamedTuple):
    """A key of a file of `conf/`: its name as the command line writes it, its value there, and the comment beside."""

    name: str
    value: str
    comment: str

    def __str__(self) -> str:
        """The line of a `--help` page."""
        return f"  {self.name}={self.value.replace('???', '...')}".ljust(31) + f" {self.comment}".rstrip()


def help_page(command: str, what: str | None) -> str:
    """What `--help` shows of a command on runs: the comments in `conf/` on it and its keys.

    Arguments:
        command: Whose page it is.
        what: The chosen option of `conf/what/`, of a command that has this group.
    """
    about, keys = documented(Path(CONF) / f"{command}.yaml")
    page = [*about, ""]
    text = (Path(CONF) / f"{command}.yaml").read_text()
    for group in re.findall(r"^  - (what|metrics):", text, re.MULTILINE):
        about_options = {name: documented(file) for name, file in options(group).items()}
        page += [f"{group}=", *(f"  {name:<17}{' '.join(words)}" for name, (words, _) in about_options.items()), ""]
        # What is made has its keys at the top, and there is one of it at a time; each metric has its own block.
        keys += [key for name in about_options if name == what or group == "metrics" for key in about_options[name][1]]
    if keys:
        page += [f"keys of {f'what={what}' if what else command}:", *map(str, keys), ""]
    if "\n  - trained\n" in text:
        page += ["keys of every command on trained runs:", *map(str, documented(Path(CONF) / "trained.yaml")[1])]
    return "\n".join(page).replace("$", "$$")  # for the template that Hydra fills with it


def documented(file: Path, package: str = "") -> tuple[list[str], list[Key]]:
    """The comment that a file of `conf/` begins with, and its keys.

    A group with a comment of its own stands among the keys.

    Arguments:
        file: One of `conf/`.
        package: Where its keys lie in the config, unless its first line says so.
    """
    about: list[str] = []
    keys: list[Key] = []
    above: list[str] = []  # the keys that a line lies below
    text = file.read_text()
    if stated := re.match(r"# @package (\w+)", text):
        package = "" if stated[1] == "_global_" else stated[1]
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if line.startswith("#") and not above:
            about.append(line.removeprefix("# "))
        elif (chosen := re.fullmatch(r"  - (?:/\w+@)?(\w+): (\w+) # (.*)", line)) and chosen[1] != "what":
            keys.append(Key(*chosen.groups()))
        elif found := re.fullmatch(r"( *)(\w+):(?: (.*?))?(?: # (.*))?", line):
            indent, name, value, comment = found.groups()
            above = [*above[: len(indent) // 2], name]
            if value is not None and name not in UNNAMED and above[0] not in ("defaults", "hydra", *UNNAMED):
                keys.append(Key(".".join((*([package] if package else []), *above)), value, comment or ""))
    return about, keys

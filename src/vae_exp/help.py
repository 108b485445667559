"""The `--help` page of a command on runs, made of the comments in `conf/`."""

import re
from pathlib import Path

from vae_exp.config import CONF, options

__all__ = ["help_page"]


def help_page(command: str, what: str | None) -> str:
    """What `--help` shows of a command on runs: the comments in `conf/` on it and its keys.

    Arguments:
        command: Whose page it is.
        what: The chosen option of `conf/what/`, of a command that has this group.
    """
    about, keys = _documented(Path(CONF) / f"{command}.yaml")
    page = [*about, ""]
    text = (Path(CONF) / f"{command}.yaml").read_text()
    for group in re.findall(r"^  - (what|metrics):", text, re.MULTILINE):
        about_options = {name: _documented(file) for name, file in options(group).items()}
        page += [f"{group}=", *(f"  {name:<17}{' '.join(words[1:])}" for name, (words, _) in about_options.items()), ""]
        # What is made has its keys at the top, and there is one of it at a time; each metric has its own block.
        keys += [key for name in about_options if name == what or group == "metrics" for key in about_options[name][1]]
    if keys:
        page += [f"keys of {f'what={what}' if what else command}:", *keys, ""]
    if "\n  - trained\n" in text:
        page += ["keys of every command on trained runs:", *_documented(Path(CONF) / "trained.yaml")[1]]
    return "\n".join(page).replace("$", "$$")  # for the template that Hydra fills with it


def _documented(file: Path) -> tuple[list[str], list[str]]:
    """The comment that a file of `conf/` begins with, and its keys as the command line writes them, comments beside.

    A group with a comment of its own stands among the keys.
    """
    about: list[str] = []
    keys: list[str] = []
    group = ""
    text = file.read_text()
    package = re.match(r"# @package (?!_global_)(\w+)", text)
    prefix = f"{package[1]}." if package else ""
    for line in text.splitlines():
        if line.startswith("#") and not group:
            about.append(line.removeprefix("# "))
        elif (chosen := re.fullmatch(r"  - (?:/\w+@)?(\w+): (\w+) # (.*)", line)) and chosen[1] != "what":
            keys.append(f"  {chosen[1]}={chosen[2]}".ljust(31) + " " + chosen[3])
        elif found := re.fullmatch(r"( *)(\w+):(?: (.*?))?(?: # (.*))?", line):
            indent, key, value, comment = found.groups()
            group = group if indent else key
            if value is not None and group not in (
                "defaults",
                "hydra",
                "what",
                "rows",
                "metrics",
                "metric",
                "headline",
            ):
                full = f"{prefix}{group}.{key}" if indent else f"{prefix}{key}"
                keys.append(f"  {full}={value.replace('???', '...')}".ljust(31) + " " + (comment or ""))
    return about, [line.rstrip() for line in keys]

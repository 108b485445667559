"""conf/: every file says in its first line what it is, every key what it is for; `--help` prints these comments."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from vae_exp.config import CONF

FILES = sorted(path.relative_to(CONF).as_posix() for path in Path(CONF).rglob("*.yaml") if path.parent.name != "local")
OF_HYDRA = ("_target_", "_partial_", "defaults")  # named by Hydra's documentation
WIDTH = 120


def lines(file: str) -> list[str]:
    return (Path(CONF) / file).read_text().splitlines()


def keys(node: yaml.Node) -> Iterator[tuple[str, int, yaml.Node]]:
    """Names of all keys at all depths, the number of the line each is on, and their values."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.value, key.start_mark.line, value
            yield from keys(value)


def needs_comment(name: str, value: yaml.Node) -> bool:
    """All but three keys of Hydra's, those that head a block, and those that repeat another key (`${...}`)."""
    heads_block = isinstance(value, yaml.MappingNode) and bool(value.value)
    repeats = isinstance(value, yaml.ScalarNode) and re.fullmatch(r"\$\{[\w.]+\}", value.value)
    return not (name in OF_HYDRA or heads_block or repeats)


@pytest.mark.parametrize("file", FILES)
def test_every_file_begins_with_what_it_is(file):
    head = next(line for line in lines(file) if not line.startswith("# @package"))
    assert re.match(r"# \S.+", head), f"{file} begins with {head!r}"


@pytest.mark.parametrize("file", FILES)
def test_every_key_says_what_it_is_for(file):
    text = lines(file)
    silent = [
        text[line]
        for name, line, value in keys(yaml.compose("\n".join(text)))
        if needs_comment(name, value) and not re.search(r" # \S", text[line])
    ]
    assert not silent, f"{file}: {silent} have no comment"


@pytest.mark.parametrize("file", FILES)
def test_a_line_is_as_wide_as_one_of_code(file):
    assert [line for line in lines(file) if len(line) > WIDTH] == []

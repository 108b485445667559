"""Wrong command lines: refused in a few lines that name the key and the way out, with nothing left behind."""

import shlex
from functools import cache
from pathlib import Path

import pytest
from helpers.lines import NEEDS_TORCH, Lines
from helpers.runs import SMALL, TESTS
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, ListConfig, OmegaConf

from vae_exp.config import CONF, ConfigError
from vae_exp.overrides import _check_secrets
from vae_exp.ranges import RANGES
from vae_exp.words import options_first, with_quotes

# What only sounds like a number or a list of numbers is read by nobody of ours.
NO_RANGE = ("devices", "levels", "version", "kind", "precision", "save_last", "default_hp_metric")


@pytest.fixture(scope="module")
def lines():
    lines = Lines()
    yield lines
    lines.close()


@pytest.fixture(scope="module")
def with_torch():
    lines = Lines(torch=True)
    yield lines
    lines.close()


def values(node, prefix=""):
    """Dotted keys with their values as they are written."""
    for name in node:
        child, key = node._get_node(name), f"{prefix}{name}"
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from values(child, f"{key}.")
        elif isinstance(child, ListConfig) and not child._is_none():
            yield key, OmegaConf.to_container(child, resolve=False)
        else:
            yield key, child._value()


def of(file):
    """The keys that a file of conf/ states."""
    cfg = OmegaConf.load(file)
    return (
        {} if isinstance(cfg, ListConfig) else {k: v for k, v in values(cfg) if not k.startswith(("hydra", "defaults"))}
    )


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_number_of_conf_has_a_range():
    for file in Path(CONF).rglob("*.yaml"):
        if "hydra" in file.parts:
            continue
        for key, value in of(file).items():
            word = key.rpartition(".")[2]
            if is_number(value) or (isinstance(value, list) and value and all(map(is_number, value))):
                assert word in RANGES or word in NO_RANGE, f"{file}: {key}"
            if word in RANGES and not isinstance(value, str):
                assert RANGES[word].holds(value), f"{file}: {key}={value}"


FAST = [
    ("train", "latent_dim=0", "latent_dim=0: a whole number from 1 to"),
    ("train", "encoder.hidden=[1.5]", "encoder.hidden=[1.5]: a list of whole numbers from 1 on is needed"),
    ("train", "seed=1 --resume", "unrecognized arguments: --resume"),
    ("train", "model=[vae]", "model=[vae]: model is one of ae,"),
    ("train", "hydra.run.dir=", "hydra.run.dir=: a folder is needed; the current one is hydra.run.dir=."),
    ("train", "name='\"open'", 'name="open: cannot be read'),
    ("train", "'name=${oc.env:NOT_SET_HERE}'", "name=${oc.env:NOT_SET_HERE}: "),
    ("export", "run=x seed=-1", "seed=-1: a whole number from 0 to 2^32 - 1 is needed"),
    ("evaluate", "run=x split=all", "split=all: choose one of test, val, train"),
    ("report", "run=x data_root=3", "data_root=3: a path is needed"),
]


@pytest.mark.parametrize(("command", "line", "said"), FAST)
def test_a_wrong_line_is_refused_before_torch_is_imported(lines, command, line, said):
    outcome = lines(*shlex.split(line), command=command)
    assert not outcome.wrong(), f"{outcome.wrong()}: {outcome.said}"
    assert f"error: {said}" in outcome.said


def test_options_of_hydra_stand_anywhere():
    assert options_first(["seed=0,1", "-cn", "train", "a=1", "-m"]) == ["-cn", "train", "-m", "seed=0,1", "a=1"]


@pytest.mark.parametrize("value", ["https://me:hush@host/x", "postgresql://:hush@h/d", "${oc.env:HUSH_API_KEY}"])
def test_secrets_are_refused_and_not_repeated(value):
    with pytest.raises(ConfigError, match=r"^logger\.uri: the .* would stand in config.yaml") as error:
        _check_secrets(OmegaConf.create({"logger": {"uri": value}, "fine": ["http://host:80/a@b", "${oc.env:HOME}"]}))
    assert "hush@" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("line", (TESTS / "fixtures" / "wrong_lines.txt").read_text().splitlines())
def test_each_wrong_line_of_the_list_is_refused(with_torch, line):
    command, _, words = line.partition("\t")
    try:
        words = shlex.split(words)
    except ValueError:  # an open quote, as a program may pass it
        words = [words]
    small = SMALL if command == "train" and words[0].startswith(tuple("abcdefghijklmnopqrstuvwxyz+")) else ()
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    small = [word for word in small if word.partition("=")[0] not in keys]
    outcome = with_torch(*small, *words, command=command)
    assert not outcome.wrong(), f"{outcome.wrong()}: {outcome.said}"


@cache
def settable():
    """Keys of the default training and of the commands on runs, with the value each is given in conf/."""
    found = [("train", k, v) for k, v in of(Path(CONF) / "train.yaml").items()]
    for group, option in (
        ("encoder", "mlp"), ("decoder", "mlp"), ("objective", "elbo"), ("optimizer", "adam"), ("trainer", "auto"),
        ("data", "mnist"),
    ):  # fmt: skip
        stated = of(Path(CONF) / group / f"{option}.yaml") | (of(Path(CONF) / "images.yaml") if group == "data" else {})
        found += [("train", f"{group}.{k}", v) for k, v in stated.items()]
    for command in ("evaluate", "export", "report", "generate"):
        found += [
            (command, k, v) for k, v in (of(Path(CONF) / "trained.yaml") | of(Path(CONF) / f"{command}.yaml")).items()
        ]
    kinds = {bool: BOOL, int: INT, float: FLOAT, list: LIST}
    return [
        (command, key, value, bad)
        for command, key, value in found
        if type(value) in kinds and key.rpartition(".")[2] not in NO_RANGE
        for bad in kinds[type(value)]
    ]


EVERY = ("abc", "{a:1}", "[[1]]", "[a,b]", "''")
BOOL = (*EVERY, "3", "[true]", "nan", "null")
INT = (*EVERY, "1.5", "nan", "inf", "true", "[1]", "-7", "99999999999999999999")
FLOAT = (*EVERY, "nan", "-inf", "true", "[1.0]")
LIST = ("abc", "{a:1}", "3.5", "nan", "true", "[-1]", "[[[1]]]", "[nan]")


@pytest.mark.parametrize("key", ["trainer.val_check_interval", "data.levels", "trainer.devices"])
def test_a_mapping_is_no_value_of_a_key_of_several_types(lines, key):
    outcome = lines(f"{key}={{a:1}}", command="train")
    assert not outcome.wrong(), f"{outcome.wrong()}: {outcome.said}"
    assert key in outcome.said


@pytest.mark.slow
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_value_of_another_kind_is_taken(lines, data):
    command, key, _, bad = data.draw(st.sampled_from(settable()))
    run = [] if command == "train" else ["run=nowhere"]
    outcome = lines(*run, f"{key}={bad}", command=command)
    assert not outcome.wrong(), f"{outcome.wrong()}: {outcome.said}"
    assert key in outcome.said


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8), st.data())
def test_no_text_ends_in_a_trace(lines, text, data):
    key = data.draw(
        st.sampled_from(["latent_dim=", "name=", "model=", "+x=", "~", "-", "", "trainer.precision=", "resume="])
    )
    outcome = lines(key + text)
    assert outcome.code in (0, 2, NEEDS_TORCH), outcome.said
    assert "Traceback" not in outcome.said
    if outcome.code == 2:
        assert not outcome.wrong(), f"{outcome.wrong()}: {outcome.said}"


def test_a_path_needs_no_quotes(tmp_path, monkeypatch):
    """Hydra reads the text that was typed; all other words stay as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b (1)=c").mkdir()
    for path in ("~/good", "~", "a, b (1)=c", str(tmp_path / "a, b (1)=c"), "~/it's"):
        (word,) = with_quotes([f"data.source.path={path}"])
        assert OverridesParser.create().parse_override(word).value() == path
    words = ["seed=1,2", "name=a=b", "x='~/a'", "~data.x", "encoder.hidden=[8]", "-m", "--cfg=job", "data=digits", "y="]
    assert with_quotes(words) == words

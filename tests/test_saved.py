"""Configs of run folders as data."""

import time

import pytest
from helpers.runs import SMALL, composed
from omegaconf import OmegaConf

from vae_exp.comparison.read import read_runs
from vae_exp.config import ConfigError
from vae_exp.loggers.push import push
from vae_exp.runs.folder import load_config
from vae_exp.saved import DEEPEST, LONGEST, check_text, read_config

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
REFUSED = {
    "bomb": BOMB,
    "anchor": "name: &x 1",
    "anchor in a key": "? &x a\n: 1",
    "anchor of a map": "a: &x {b: 1}",
    "alias of nothing": "a: *b",
    "merge": "a: &x {b: 1}\nc:\n  <<: *x",
    "environment": "name: ${oc.env:HOME}",
    "decoded": r'name: "\x24{oc.env:HOME}"',
    "escaped": r'name: "\u0024\u007boc.env:HOME}"',
    "folded": 'name: "$\\\n  {oc.env:HOME}"',
    "in a key": "'${oc.env:HOME}': 1",
    "in a list": "a: [[1, '${a}']]",
    "within another": "a: $${run_dir:}{oc.env:HOME}",
    "argument of a known one": "a: ${run_dir:${oc.env:HOME}}",
    "known one of another kind": "a: ${run_dir:x}",
    "only a reference": "a: ${b}\nb: 1",
    "block": "a: |\n  ${oc.env:HOME}",
    "tag": "a: !!python/object/apply:os.system [ls]",
    "plain tag": "a: !!str 1",
    "own tag": "!x\na: 1",
    "verbatim tag": "a: !<tag:yaml.org,2002:python/name:os.system> x",
    "no tag": "a: ! 1",
    "documents": "a: 1\n---\nb: 1",
    "levels": "a: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
    "many levels": "a: " + "[" * 90_000,
    "block levels": "- " * 90_000,
    "nodes": "a: [" + "1," * 50_000 + "]",
    "long": "# " + "x" * LONGEST,
    "digits": "seed: " + "9" * 5000,
    "keys twice": "a: 1\na: 2",
    "not closed": "a: [1",
    "a list": "- 1",
    "a word": "encoder",
    "empty": "",
    "null": "null",
    "zeros": "\0" * 100,
    "tabs": "a:\n\t- b",
    "date": "a: 2026-01-01",
    "nothing needed": "a: 1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_config_has_is_refused_at_once(tmp_path, name):
    path = tmp_path / "config.yaml"
    path.write_text(REFUSED[name])
    start = time.process_time()
    with pytest.raises(ConfigError) as error:
        read_config(path)
    assert time.process_time() - start < 1
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc", b"PK\x03\x04" + bytes(range(256))])
def test_bytes_are_no_config(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be used"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("name", ["bomb", "environment", "tag"])
def test_no_command_composes_it(tmp_path, caplog, name):
    """compare and sync have readers of their own; the other commands begin with `load_config`."""
    for file, content in (("config.yaml", REFUSED[name]), ("run.json", '{"status": "finished", "run_id": "x"}')):
        (tmp_path / file).write_text(content)
    start = time.process_time()
    with pytest.raises(ConfigError):
        load_config(tmp_path)
    with pytest.raises(ConfigError):
        read_runs([str(tmp_path)])
    push([tmp_path])
    assert "cannot be used" in caplog.text
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data", 3),
        ("data", None),
        ("encoder", []),
        ("model", "x"),
        ("latent_dim", "x"),
        ("seed", None),
        ("trainer", 1),
        ("logger", 3),
    ],
)
def test_a_group_of_another_type_is_named(tmp_path, key, value):
    cfg = composed(*SMALL)
    cfg[key] = value
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=f"config.yaml cannot be used: {key} missing, or of another type"):
        read_config(tmp_path / "config.yaml")
    if key == "logger":  # there need not be one
        return
    del cfg[key]
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=f"{key} missing"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("words", [(), ("logger=wandb",), ("logger=mlflow",), ("model=cvae", "objective=beta_elbo")])
def test_what_training_saves_is_read_back_as_it_is(tmp_path, words):
    cfg = composed(*SMALL, *words)
    cfg.name = "a & b * c ! d: 'e' \"f\" {g} $h %i @j `k` é"
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    check_text(text)
    assert OmegaConf.to_yaml(read_config(tmp_path / "config.yaml")) == text

"""Files that are whole or absent, and links that nothing is written through."""

import logging
from io import UnsupportedOperation

import pytest

from vae_exp.files import LogFile, appended, written


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with written(path) as file:
        file.write("n\N{LATIN SMALL LETTER E WITH ACUTE}w")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_bytes() == "n\N{LATIN SMALL LETTER E WITH ACUTE}w".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")

    def fail() -> None:
        with written(path, "wb") as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_a_link_is_replaced_and_not_followed(tmp_path, mode):
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "run" / "report.html"
    elsewhere.write_text("mine")
    path.parent.mkdir()
    path.symlink_to(elsewhere)
    with written(path, mode) as file:
        file.write("yours" if mode == "w" else b"yours")
    assert elsewhere.read_text() == "mine"
    assert path.read_text() == "yours"
    assert not path.is_symlink()


def test_nobody_can_lay_a_link_at_the_part(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr("secrets.token_hex", lambda n: "known")
    (tmp_path / ".known.part").symlink_to(elsewhere)
    with pytest.raises(FileExistsError), written(tmp_path / "run.json") as file:
        file.write("x")
    assert not elsewhere.exists()


def test_a_link_to_append_to_is_removed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    for name in ("train.log", "metrics.csv"):
        (tmp_path / name).symlink_to(elsewhere)
    handler = LogFile(tmp_path / "train.log")
    handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "a line", None, None))
    handler.close()
    with appended(tmp_path / "metrics.csv") as file:
        file.write("a row")
    assert elsewhere.read_text() == "mine"
    assert (tmp_path / "train.log").read_text() == "a line\n"
    with appended(tmp_path / "metrics.csv", "ab") as file:
        file.write(b", another")
    assert (tmp_path / "metrics.csv").read_text() == "a row, another"


def test_what_is_written_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with written(tmp_path / "whole") as file, pytest.raises(UnsupportedOperation):
        file.read()
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode

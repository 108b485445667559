"""Records that are damaged in any way: one line names the file, and what is sound of it is read."""

import json
import os
import shutil

import pytest
from helpers.folders import write_run
from helpers.runs import SMALL, composed, composed_on, resume
from omegaconf import OmegaConf

from vae_exp import records
from vae_exp.config import ConfigError
from vae_exp.loggers.csv import CSV
from vae_exp.metrics.score import score_runs
from vae_exp.page.embedded import picture
from vae_exp.page.report import report_runs
from vae_exp.page.write import write_page
from vae_exp.records import DamagedError, read_evaluation, read_made, read_record, read_rows, sound_record
from vae_exp.runs.record import Record
from vae_exp.runs.state import State, state_of
from vae_exp.sweeps.sweep import read_sweep
from vae_exp.what.make import generate_runs

NO_OBJECT = {
    "list": b"[]", "empty": b"", "half": b'{"status": "finis', "null": b"null", "none": b"{}", "number": b"3",
    "bytes": bytes(range(256)), "zeros": bytes(100), "levels": b"[" * 100_000, "two": b"{}{}",
}  # fmt: skip
OF_OTHER_TYPES = [
    {"status": 3}, {"metrics": [1]}, {"metrics": {"test/elbo": "x"}}, {"metrics": {"test/elbo": [1]}}, {"starts": 3},
    {"starts": [3]}, {"starts": [{"argv": "x"}]}, {"starts": [{"git": 3}]}, {"starts": [{"git": {"commit": 1}}]},
    {"bound": "x"}, {"data": [1]}, {"choices": []}, {"wall_seconds": "x"}, {"steps": 1.5}, {"epochs": True},
    {"seed": "0"}, {"run_id": 1}, {"error": {}},
]  # fmt: skip
HEAD = "step,epoch,val/elbo,seconds\r\n"
SOUND = "4,0,-100.5,1.5\r\n9,1,-90.25,3.0\r\n"


@pytest.fixture(autouse=True)
def said(caplog):
    """What is logged; each line once."""
    records.say.cache_clear()
    caplog.set_level("WARNING", logger="vae_exp")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("name", NO_OBJECT)
def test_a_record_that_is_none_is_named_in_one_line(tmp_path, said, name):
    path = tmp_path / "run.json"
    path.write_bytes(NO_OBJECT[name])
    with pytest.raises(DamagedError, match="is damaged"):
        sound_record(tmp_path)
    assert read_record(tmp_path) == read_record(tmp_path) == {}
    assert state_of(tmp_path) is State.NEW
    (line,) = said()
    assert line.startswith(f"{path} is damaged: ")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("changes", OF_OTHER_TYPES)
def test_a_value_of_another_type_is_named(tmp_path, changes):
    (tmp_path / "run.json").write_text(json.dumps({"status": "finished"} | changes))
    with pytest.raises(DamagedError, match=next(iter(changes))):
        sound_record(tmp_path)


def test_what_is_missing_or_null_is_no_damage(tmp_path, said):
    (tmp_path / "run.json").write_text('{"status": "failed", "error": null, "metrics": {"a": NaN, "b": 1, "c": null}}')
    assert read_record(tmp_path) == {"status": "failed", "metrics": {"b": 1}}
    assert read_record(tmp_path / "nowhere") == {}
    assert not said()


def test_a_pipe_or_a_folder_is_no_record(tmp_path, said):
    os.mkfifo(tmp_path / "metrics.csv")
    (tmp_path / "run.json").mkdir()
    (tmp_path / "evaluation.json").symlink_to("/dev/zero")
    assert (read_rows(tmp_path / "metrics.csv"), read_record(tmp_path)) == ([], {})
    assert read_evaluation(tmp_path / "evaluation.json") == {}
    assert len(said()) == 3


@pytest.mark.parametrize(
    ("torn", "count"),
    [
        (b"", 0), (b"14,2,-8", 1), (b"14,2\r\n", 1), (b"14,2,-80.0,4.0,1\r\n", 1), (b"\xff\x00\x80,,,\r\n", 1),
        (b"\0\0\0\0\0\0\r\n", 1), (b"x,2,-80,4\r\n", 1), (b"-4,2,-80,4\r\n", 1), (b"4.5,2,-80,4\r\n", 1),
        (b"nan,2,-80,4\r\n", 1), (b'"14,2,-80,4\r\n', 1), (b"14,2,-8O,4\r\n", 1), (b",,,\r\n", 1),
        (b"14,2,-80,4", 1), (b"{}\r\n[1]\r\n", 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["last", "first"])
def test_torn_rows_are_left_out_and_counted(tmp_path, said, torn, count, place):
    if place == "first" and not torn.endswith(b"\n"):
        return
    path = tmp_path / "metrics.csv"
    parts = [SOUND.encode(), torn] if place == "last" else [torn, SOUND.encode()]
    path.write_bytes(HEAD.encode() + b"".join(parts))
    assert [row["val/elbo"] for row in read_rows(path)] == ["-100.5", "-90.25"]
    assert len(said()) == bool(count)
    assert all(f"{count} of {2 + count} rows" in line for line in said())


def test_a_number_that_is_not_finite_is_an_empty_cell(tmp_path):
    (tmp_path / "x.csv").write_text(HEAD + "4,nan,inf,1e999\r\n" + SOUND)
    assert read_rows(tmp_path / "x.csv")[0] == {"step": "4", "epoch": "", "val/elbo": "", "seconds": ""}


@pytest.mark.parametrize("content", [b"", bytes(range(256)) * 9, b'{"a": 1}', b"epoch,kl\n1,2\n", b"step,step\n1,2\n"])
def test_a_table_without_steps_has_no_rows(tmp_path, said, content):
    (tmp_path / "x.csv").write_bytes(content)
    assert read_rows(tmp_path / "x.csv") == []
    assert len(said()) == 1


@pytest.mark.parametrize("name", NO_OBJECT)
def test_an_evaluation_and_what_a_picture_says_are_read_likewise(tmp_path, said, name):
    (tmp_path / "x.json").write_bytes(NO_OBJECT[name])
    assert read_evaluation(tmp_path / "x.json") == read_made(tmp_path / "x.json") == {}
    assert len(said()) == (0 if name == "none" else 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": 3},
        {"bound": []},
        {"elbo": "x"},
        {"kl": [1]},
        {"elbo_se_images": "x"},
        {"settings": [1]},
        {"data": 1},
    ],
)
def test_an_evaluation_with_a_wrong_type_is_left_out(tmp_path, said, changes):
    content = {"checkpoint": "best.ckpt", "split": "test", "bound": {}, "elbo": -1.0}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_evaluation(tmp_path / "x.json") == content
    (tmp_path / "x.json").write_text(json.dumps(content | changes))
    assert read_evaluation(tmp_path / "x.json") == {}
    assert next(iter(changes)) in said()[0]


@pytest.mark.parametrize("cut", [0, 8, 40, 200, -40, -1])
def test_a_truncated_picture_is_left_out(tmp_path, said, cut):
    from PIL import Image

    path = tmp_path / "x.png"
    Image.effect_noise((40, 30), 50).save(path)
    assert picture(path)["size"] == (40, 30)
    path.write_bytes(path.read_bytes()[:cut])
    if cut != -1:  # PIL does not need the last bytes
        assert picture(path) is None
        assert str(path) in said()[0]


def test_a_damaged_record_is_kept_beside_the_new_one(tmp_path, said):
    (tmp_path / "run.json").write_text("[1]")
    Record(tmp_path, run_id="new")
    assert (tmp_path / "run.json.damaged").read_text() == "[1]"
    assert read_record(tmp_path)["run_id"] == "new"
    assert len(said()) == 2


def test_a_table_goes_on_without_its_torn_rows(tmp_path):
    (tmp_path / "metrics.csv").write_text(HEAD + SOUND + "14,2,-8")
    logger = CSV(str(tmp_path), first_step=10)
    logger.log_metrics({"epoch": 2, "val/elbo": -80.0}, step=14)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["4", "9", "14"]


@pytest.mark.parametrize("content", [*NO_OBJECT.values(), b'{"jobs": [3], "front": [], "grid": {}, "command": []}'])
def test_a_damaged_sweep_is_named(tmp_path, content):
    (tmp_path / "sweep.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        read_sweep(tmp_path)


@pytest.mark.parametrize("record", [b"[]", b"{}", b'{"status": "finished"}', b'{"status": "new", "starts": [{}]}'])
def test_a_page_needs_only_the_config(tmp_path, record):
    folder = write_run(tmp_path / "run")
    OmegaConf.save(composed(*SMALL), folder / "config.yaml")
    (folder / "run.json").write_bytes(record)
    (folder / "kl_per_dim.csv").write_text("epoch,step,z0,z1\r\n0,4,nan,nan\r\n0,4,1")
    (folder / "evaluation.json").write_text("{")
    (folder / "images").mkdir()
    (folder / "images" / "x.png").write_bytes(b"no picture")
    assert "latent_dim" in write_page(folder).read_text()


@pytest.mark.slow
def test_each_command_goes_on_with_what_is_sound(run, said, tmp_path):
    """Of three runs the first is damaged in all its records, the second in its config, the third in nothing."""
    good, _ = run("report=true", small=tuple(word for word in SMALL if "pictures" not in word))
    runs = [shutil.copytree(good, tmp_path / "runs" / name) for name in ("a", "b", "c")]
    for name in ("run.json", "evaluation.json"):
        (runs[0] / name).write_text('{"half": [')
    for name in ("metrics.csv", "kl_per_dim.csv"):
        with (runs[0] / name).open("a") as file:
            file.write("9,\0")
    for path in (runs[0] / "images").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:100])
    (runs[1] / "config.yaml").write_text("- 1")
    for module, work in (
        ("report", lambda cfg: report_runs(cfg)),
        ("evaluate", lambda cfg: score_runs(cfg)),
        ("generate", lambda cfg: generate_runs(cfg, "samples")),
    ):
        more = {"evaluate": ["metrics=elbo", "num_samples=5"], "generate": ["what=samples"]}.get(module, [])
        with pytest.raises(ConfigError, match=r"1 of 3 runs failed:\n.*b/config.yaml cannot be used"):
            work(composed_on(tmp_path, module, f"run='{tmp_path}/runs/*'", *more))
    for name in ("run.json", "metrics.csv", "kl_per_dim.csv"):
        assert sum(f"a/{name} is damaged" in line for line in said()) == 1
    assert all(
        (folder / "report.html").exists() and (folder / "evaluation.json").exists() for folder in (runs[0], runs[2])
    )
    resume(runs[0], trainer__max_epochs=3)
    assert json.loads((runs[0] / "run.json").read_text())["status"] == "finished"
    assert (runs[0] / "run.json.damaged").exists()

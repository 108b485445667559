"""Pushing what W&B logged offline, with a `wandb` of our own in the place of W&B's; the view of it, never saved."""

import json
import os

import pytest
from helpers.runs import command

from vae_exp.lock import locked
from vae_exp.loggers.workspace import workspace

WANDB = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$2" in
*bad*) echo "wandb: ERROR permission denied"; exit 1;;
*lost*) echo "wandb: Syncing 1 run(s):"; exit 0;;
*) for file in "$2"/*.wandb; do touch "$file.synced"; done;;
esac
"""


@pytest.fixture
def outputs(tmp_path):
    """Folders of runs as they lie after training, without weights."""

    def make(name, run_id="id", status="finished", files=1):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"run_id": run_id, "status": status}))
        (folder / "config.yaml").write_text("logger: {wandb: {project: vae_exp}}")
        for number in range(files):
            run = folder / "wandb" / f"offline-run-{number}-{run_id}"
            run.mkdir(parents=True)
            (run / f"run-{run_id}.wandb").touch()
        return folder

    return make


def sync(tmp_path, *words):
    """The exit code of the command, what it said, and the folders that it gave to `wandb sync`."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    (tmp_path / "bin" / "wandb").write_text(WANDB)
    (tmp_path / "bin" / "wandb").chmod(0o755)
    calls = tmp_path / "calls"
    calls.write_text("")
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    done = command(*words, module="vae_exp.sync", cwd=tmp_path, PATH=path, CALLS=str(calls))
    return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()


@pytest.mark.slow
def test_every_run_is_told_whether_it_was_pushed_and_why_not(tmp_path, outputs):
    outputs("a/good", "one", files=2)
    outputs("a/bad", "bad")
    outputs("a/lost", "lost")
    outputs("a/online", "two", files=0)
    outputs("a/begun", "three", status="running")
    with locked(tmp_path / "outputs" / "a" / "begun"):
        code, said, calls = sync(tmp_path, "outputs/**")
    assert code == 2
    assert sorted(call.split("/")[-1] for call in calls) == [
        "offline-run-0-bad", "offline-run-0-lost", "offline-run-0-one", "offline-run-1-one"
    ]  # fmt: skip
    for line in (
        "pushed          outputs/a/good",
        "failed          outputs/a/bad: ERROR permission denied",
        "failed          outputs/a/lost: Syncing 1 run(s):",
        "nothing offline outputs/a/online",
        "still running   outputs/a/begun",
        "2 of 5 runs were not pushed",
    ):
        assert line in said
    code, said, calls = sync(tmp_path, "outputs/a/good")
    assert (code, calls) == (0, [])
    assert "already pushed  outputs/a/good" in said
    assert sorted(path.name for path in (tmp_path / "outputs").glob("offline-run-*")) == [
        "offline-run-0-bad", "offline-run-0-lost", "offline-run-0-one", "offline-run-0-three", "offline-run-1-one"
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pydantic, in wandb-workspaces
def test_the_view_has_curves_the_plane_coordinates_and_pictures():
    pytest.importorskip("wandb_workspaces")
    view = workspace("us", "vae_exp", ["objective.beta", "latent_dim"])
    by_name = {section.name: section.panels for section in view.sections}
    assert [(panel.x, panel.y) for panel in by_name["curves"]] == [
        ("trainer/global_step", [name]) for name in ("val/elbo", "val/recon", "val/kl")
    ]
    plane, coordinates = by_name["comparison"]
    assert (plane.x.name, plane.y.name) == ("test/kl", "test/recon")
    assert [column.metric.name for column in coordinates.columns] == [
        "objective.beta", "latent_dim", "test/elbo.max"
    ]  # fmt: skip
    assert by_name["pictures"][0].media_keys == ["images/samples", "images/reconstructions", "images/classes"]
    assert [key.name for key in view.runset_settings.groupby] == ["objective.beta", "latent_dim"]
    view._to_model()  # as it would be sent

"""Rounds of kills: a run is stopped at events, resumed until it ends, and held against one that was left alone.

An event is a state of the run folder: rows of metrics.csv, files. The command runs in a fork of this process, which has
imported torch, so that a round takes seconds.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from helpers.runs import SMALL, curve, environment
from PIL import Image

import vae_exp.__main__
import vae_exp.training.job
from vae_exp.__main__ import main

EPOCHS, STEPS = 4, 12  # of a run, and steps of an epoch
BASE = (
    *SMALL, "data.source.size=208", "data.eval_batch_size=4", f"trainer.max_epochs={EPOCHS}", "optimizer.lr=0.01",
    "callbacks.early_stopping.patience=3", "callbacks.last.every_n_steps=5", "data.binarize=dynamic", "likelihood=bce",
)  # fmt: skip
KINDS = {
    "plain": (),
    "fifty steps a call": ("trainer.log_every_n_steps=12", "callbacks.last.every_n_steps=7"),
    "schedules": (
        "+schedule@optimizer.lr=linear", "optimizer.lr.start=0.01", "optimizer.lr.end=0.001", "optimizer.lr.steps=40",
        "objective=beta_elbo", "+schedule@objective.beta=linear", "objective.beta.steps=30",
    ),
    "accumulation": ("trainer.accumulate_grad_batches=3",),
    "bf16": ("trainer.precision=bf16-mixed",),
    "validation within epochs": ("trainer.val_check_interval=5",),
    "labels, momentum": ("model=cvae", "optimizer=sgd", "trainer.gradient_clip_val=1"),
    "workers": (
        "data=image_folder", "data.root=.", "data.source.path=pictures", "data.image_shape=[1,8,8]", "data.val_size=16",
        "data.test_size=16", "data.source.in_memory=false", "data.source.workers=2", "data.binarize=none",
        "likelihood=gaussian_shared", "~data.source.size",
    ),
    "DDP": ("trainer=ddp", "trainer.max_epochs=2"),
}  # fmt: skip
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
EVENTS = ("start", "step", "validation", "checkpoint", "test", "pictures")


class Outcome(NamedTuple):
    """What became of a round: what it was, and what was wrong, empty if nothing was."""

    kind: str
    stops: list[str]
    fault: str


def words_of(kind: str, pictures: bool) -> tuple[str, ...]:
    """The command line of a kind of run."""
    words = [word for word in BASE if not (word.endswith("=null") and pictures and word.startswith("callbacks."))]
    if kind == "workers":
        words = [word for word in words if not word.startswith(("data=", "data.source.size", "data.binarize"))]
        again = ("data.image_shape=[1,8,8]", "data.val_size=16", "likelihood=bce")
        words = [word for word in words if word not in again]
        return (*words, *[word for word in KINDS[kind] if not word.startswith("~")])
    keys = {word.partition("=")[0].lstrip("+").partition("@")[2] or word.partition("=")[0] for word in KINDS[kind]}
    return (*(word for word in words if word.partition("=")[0] not in keys), *KINDS[kind])


def forked(words: list[str], cwd: Path) -> int:
    """The command in a process of its own; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.chdir(cwd)
        os.environ.update(environment(PYTHONPATH=os.pathsep.join(path for path in sys.path if path)))
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = [vae_exp.__main__.__file__, *words]  # the other processes of DDP run it, too
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def number_of_rows(run: Path, column: str) -> int:
    """The rows of metrics.csv that have a number in a column."""
    path = run / "metrics.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    names = lines[0].split(",") if lines else []
    if column not in names:
        return 0
    place = names.index(column)
    return sum(len(cells) > place and cells[place] != "" for cells in (line.split(",") for line in lines[1:]))


def event(kind: str, name: str, run: Path, draw: random.Random) -> Callable[[], bool]:
    """Whether the moment has come to stop the run."""
    steps = 1 if kind in ("fifty steps a call", "DDP") else STEPS // (3 if kind == "accumulation" else 1)
    began = time.time()
    before = number_of_rows(run, "train/loss"), number_of_rows(run, "val/loss")
    if name == "start":
        return lambda: is_new(run / "run.json", began)
    if name == "step":
        wanted = before[0] + draw.randint(1, steps + 2)
        return lambda: number_of_rows(run, "train/loss") >= wanted
    if name == "validation":  # all rows of an epoch's steps, and not yet that of its validation
        wanted = (before[0] // steps + 1) * steps
        return lambda: number_of_rows(run, "train/loss") >= wanted
    if name == "checkpoint":
        left = draw.randint(1, 3)
        seen: set[str] = set()

        def written() -> bool:
            found = (run / "checkpoints").glob(".*.part") if (run / "checkpoints").exists() else ()
            seen.update(path.name for path in found)
            return len(seen) >= left

        return written
    if name == "test":
        epochs = 2 if kind == "DDP" else EPOCHS
        return lambda: is_new(run / "metrics.csv", began) and number_of_rows(run, "val/loss") >= epochs
    return lambda: any(is_new(path, began) for path in run.glob("images/*/*.png"))


def is_new(path: Path, began: float) -> bool:
    """Whether a file was written since."""
    try:
        return path.stat().st_mtime > began
    except FileNotFoundError:
        return False


def stopped(words: list[str], cwd: Path, has_come: Callable[[], bool], number: int, delay: float) -> int | None:
    """The exit code of a run that is given a signal at an event; None if it ended before."""
    pid = forked(words, cwd)
    until = time.monotonic() + 240
    while time.monotonic() < until:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            os.waitpid(pid, 0)
            return None
        if has_come():
            break
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(pid, number)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finished(words: list[str], cwd: Path) -> int:
    """The exit code of a run that is left alone."""
    return os.waitstatus_to_exitcode(os.waitpid(forked(words, cwd), 0)[1])


def differences(one: Path, other: Path) -> list[str]:
    """What differs in what two runs computed."""
    found = []
    for name in ("last", "best"):
        states = [torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for run in (one, other)]
        for key in ("state_dict", "optimizer_states", "global_step", "lr_schedulers"):
            if not equal(*(state.get(key) for state in states)):
                found.append(f"{key} of {name}.ckpt")
    found += ["rows of metrics.csv"] if curve(one) != curve(other) else []
    tables = [(run / "kl_per_dim.csv").read_text() for run in (one, other)]
    found += ["kl_per_dim.csv"] if tables[0] != tables[1] else []
    metrics = [json.loads((run / "run.json").read_text())["metrics"] for run in (one, other)]
    metrics = [{key: value for key, value in each.items() if "second" not in key} for each in metrics]
    found += ["metrics of run.json"] if metrics[0] != metrics[1] else []
    return found


def equal(one: object, other: object) -> bool:
    """Whether two trees of tensors are the same to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def pictures(folder: Path) -> None:
    """Fifty-six pictures, for the runs with workers."""
    draw = random.Random(0)
    (folder / "pictures").mkdir(parents=True)
    for number in range(208 + 16):
        image = Image.frombytes("L", (8, 8), bytes(draw.randrange(256) for _ in range(64)))
        image.save(folder / "pictures" / f"{number:03}.png")


def round_of(place: Path, alone: Path, kind: str, stops: list[tuple[str, signal.Signals]], seed: int) -> Outcome:
    """One round: the run is stopped at each event in turn, then resumed to its end."""
    draw, run = random.Random(seed), place / "run"
    said = [f"{name} {number.name.removeprefix('SIG')}" for name, number in stops]
    words = [*words_of(kind, any(name == "pictures" for name, _ in stops)), "hydra.run.dir=run"]
    for name, number in stops:
        start = ["resume=run"] if (run / "run.json").exists() else words
        delay = draw.choice((0, 0, 0.001, 0.005, 0.02))
        code = stopped(start, place, event(kind, name, run, draw), number, delay)
        status = json.loads((run / "run.json").read_text())["status"]
        if code is None or code == 0:
            break  # it was quicker
        expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
        if code != expected:
            return Outcome(kind, said, f"{name}: exit code {code}, not {expected}")
        if number != signal.SIGKILL and status not in ("interrupted", "finished"):
            return Outcome(kind, said, f"{name}: run.json says {status}")
        if number != signal.SIGKILL and list(run.rglob(".*.part")):
            return Outcome(kind, said, f"{name}: a part of a file is left")
    if json.loads((run / "run.json").read_text())["status"] != "finished" and (code := finished(["resume=run"], place)):
        return Outcome(kind, said, f"resume ended with {code}")
    text = (place / "log.txt").read_text()
    # The other process of DDP finds its peer gone, and torch writes a trace of that.
    if "Traceback" in text and not (kind == "DDP" and any(number == signal.SIGKILL for _, number in stops)):
        return Outcome(kind, said, "a stack trace")
    if list(run.rglob(".*.part")):
        return Outcome(kind, said, "a part of a file is left")
    return Outcome(kind, said, ", ".join(differences(run, alone)))


def rounds(folder: Path, number: int, seed: int, say: Callable[[str], None] = print) -> list[Outcome]:
    """So many rounds, of every kind and event, drawn by a seed."""
    torch.set_num_threads(1)
    draw, outcomes, alone = random.Random(seed), [], {}
    for count in range(number):
        kind = list(KINDS)[count % len(KINDS)]
        events = [EVENTS[(count + other) % len(EVENTS)] for other in draw.sample(range(len(EVENTS)), 2)]
        events.sort(key=EVENTS.index)
        stops = [(name, SIGNALS[draw.randrange(3)]) for name in events]
        if kind not in alone:
            alone[kind] = folder / f"alone{len(alone)}"
            pictures(alone[kind])
            assert finished([*words_of(kind, False), "hydra.run.dir=run"], alone[kind]) == 0, alone[kind] / "log.txt"
        place = folder / f"round{count}"
        pictures(place)
        outcomes.append(round_of(place, alone[kind] / "run", kind, stops, draw.randrange(2**31)))
        say(f"{count + 1:3} {outcomes[-1].kind}: {', '.join(outcomes[-1].stops)}: {outcomes[-1].fault or 'the same'}")
        if not outcomes[-1].fault:
            shutil.rmtree(place)
    return outcomes

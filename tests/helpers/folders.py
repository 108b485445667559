"""Run folders written by hand: what a finished run leaves, without a training."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

BOUND = {
    "of": "log p(x)", "representation": "bits, dynamic", "kind": "mass", "is_bound": True, "units": "nats per image",
}  # fmt: skip
DATA = {"train": "aaaa", "val": "bbbb", "test": "cccc"}


def write_run(
    folder: Path,
    seed: int = 0,
    elbo: float = -100.0,
    kl: float = 20.0,
    choices: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    bound: Mapping[str, Any] | None = None,
    data: Mapping[str, str] | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
    **record: Any,
) -> Path:
    """A folder with config.yaml, run.json and metrics.csv.

    Arguments:
        folder: Where.
        seed: Of the run.
        elbo: Of the test; recon follows from it.
        kl: Of the test.
        choices: Beside model=vae, data=mnist; {} for a run that did not record any.
        config: Values by dotted key, beside the few that a config here has.
        bound: What differs from `BOUND`.
        data: Checksums that differ from `DATA`.
        rows: Of metrics.csv; by default ten validations that end half a nat above the test.
        more: Metrics beside those of the test.
        record: What differs in run.json.
    """
    folder.mkdir(parents=True)
    recon = -elbo - kl
    chosen = {} if choices == {} else {"choices": {"model": "vae", "data": "mnist", **(choices or {})}}
    leaves = {
        "name": folder.name, "seed": seed, "latent_dim": 20, "monitor": "val/elbo", "monitor_mode": "max",
        "data.root": "data", "data.train_seed": seed, "data.source._target_": "vae_exp.data.IDX",
        "model._target_": "vae_exp.models.VAE", **(config or {}),
    }  # fmt: skip
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    if rows is None:
        rows = [
            {
                "step": 10 * row + 9, "epoch": row, "seconds": 0.5 * (row + 1), "val/elbo": elbo + 0.5 - 3 * (9 - row),
                "val/kl": kl, "val/recon": recon - 0.5 + 3 * (9 - row),
            }
            for row in range(10)
        ]  # fmt: skip
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    best = max((row["val/elbo"] for row in rows if row.get("val/elbo") not in (None, "")), default=None)
    metrics = {"test/elbo": elbo, "test/kl": kl, "test/recon": recon, "best/val/elbo": best, **(more or {})}
    content = {
        "run_id": folder.name, "seed": seed, "status": "finished", "bound": BOUND | (bound or {}),
        "data": DATA | (data or {}), "metrics": metrics, "starts": [{"time": "2026-01-01 00:00:00+0000", "argv": []}],
        **chosen, **record,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(content))
    return folder

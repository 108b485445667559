"""A run from Python: what the commands do, without a command line."""

import logging
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from vae_exp.calls import called
from vae_exp.cli import job
from vae_exp.config import ConfigError, options
from vae_exp.overrides import check_overrides
from vae_exp.records import read_record
from vae_exp.runs.folder import load_config

if TYPE_CHECKING:
    from vae_exp.comparison.groups import Section
    from vae_exp.data.given import Given
    from vae_exp.models import VAE
    from vae_exp.runs.trained import Trained

__all__ = ["Made", "Run", "compose", "train"]

KEPT = Path("outputs", "data")  # arrays that were given

log = logging.getLogger("vae_exp")


def train(data: Any = "mnist", model: str = "vae", **overrides: Any) -> "Run":
    """Trains a model as `python -m vae_exp` does, in a run folder of its own, and returns the run.

    Arguments:
        data: The name of an option of data/, such as "mnist"; or your own data: an array, a tensor, a pair (x, y), a
            mapping of arrays, a Dataset of torch or a DataFrame, see `vae_exp.data.given.given`. They are kept in
            outputs/data/, from where the run is read back.
        model: An option of model/.
        overrides: Keys of the config: `latent_dim=10`, `optimizer={"lr": 1e-3}`, `**{"optimizer.lr": 1e-3}`.

    Raises:
        ConfigError: For what the command line would refuse, with the same message.
    """
    from vae_exp.training.job import train_job

    settings, own = _settings(data, model, overrides)
    with called("train", settings, writes_log=True) as cfg, job():
        check_overrides(cfg, "train")
        if own is not None:
            own.write()
            own.say()
        return Run(train_job(cfg), allow=overrides.get("allow"))


def compose(data: Any = "mnist", model: str = "vae", **overrides: Any) -> DictConfig:
    """The resolved config that `train` would train with, for the same arguments; only a DataFrame is written.

    Raises:
        ConfigError: For what the command line would refuse, with the same message.
    """
    with called("train", _settings(data, model, overrides)[0]) as cfg:
        check_overrides(cfg, "train")
        return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[return-value]


def _settings(data: Any, model: str, overrides: dict[str, Any]) -> tuple[dict[str, Any], "Given | None"]:
    """What the command line would set: what the data ask for, unless the user says otherwise; and the user's data."""
    if isinstance(data, str):
        if data not in options("data"):
            raise ConfigError(f"data={data}: choose one of {', '.join(options('data'))}, or give an array or a Dataset")
        return {"data": data, "model": model, **overrides}, None
    from vae_exp.data.given import given

    folder = Path(overrides.get("data.root", KEPT)).absolute()
    own = given(data, folder, overrides.get("data.image_shape"))
    if own.is_table:  # the config names its columns
        own.write()
    return {**own.settings, "model": model, **overrides, "data.root": str(folder)}, own


class Made(dict[str, Any]):
    """Numbers by name, with the pictures that came with them; a notebook shows both.

    Attributes:
        folder: Where the files are.
        pictures: Paths of the PNG files.
    """

    def __init__(self, numbers: dict[str, Any], folder: Path, pictures: Sequence[Path]) -> None:
        super().__init__(numbers)
        self.folder = folder
        self.pictures = list(pictures)

    def _repr_png_(self) -> bytes | None:
        return self.pictures[0].read_bytes() if len(self.pictures) == 1 else None

    def _repr_html_(self) -> str:
        images = [
            f'<img src="data:image/png;base64,{b64encode(path.read_bytes()).decode()}" alt="{escape(path.name)}"><br>'
            for path in self.pictures
        ]
        return "".join([*images, _table(self)])


class Run:
    """A run folder, and what the commands do with it. A notebook shows its numbers.

    Arguments:
        folder: As under outputs/.
        allow: Your own modules that the config of the run may name, see docs/security.md.

    Raises:
        ConfigError: If the folder holds no run.
    """

    def __init__(self, folder: str | Path, allow: str | Sequence[str] | None = None) -> None:
        self.folder = Path(folder)
        self.cfg = load_config(self.folder)
        self._common = {"run": str(self.folder), **({} if allow is None else {"allow": allow})}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.cfg.name)}: {escape(str(self.folder))}</p>{_table(self.metrics)}"

    @property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return read_record(self.folder)

    @property
    def metrics(self) -> dict[str, float]:
        """The numbers at the end of training: `test/elbo`, ..., nats per image."""
        return self.record.get("metrics", {})

    @property
    def model(self) -> "VAE":
        """The model in evaluation mode, on the CPU, see `vae_exp.load`."""
        return self.load()

    def load(self, checkpoint: str = "best", device: Any = "cpu") -> "VAE":
        """The model, see `vae_exp.load`."""
        return self.restore(checkpoint=checkpoint, accelerator="cpu").model.requires_grad_().to(device)

    def restore(self, **options: Any) -> "Trained":
        """The model and its data, see `vae_exp.restore`."""
        from vae_exp.runs.trained import restore

        return restore(self.folder, **({"allow": self._common.get("allow")} | options))

    def evaluate(self, metrics: str | Sequence[str] = "all", **options: Any) -> Made:
        """Scores the run, as `vae_exp evaluate`: the numbers by name, in nats per image unless a metric says otherwise.

        Arguments:
            metrics: An option of metrics/, or a list of them.
            options: Further keys, such as `split="val"`, `num_samples=100`, `nll={"num_images": 500}`.

        Raises:
            ConfigError: For what the command refuses.
        """
        from vae_exp.metrics.score import score_runs

        with called("evaluate", {**self._common, "metrics": metrics, **options}) as cfg:
            check_overrides(cfg, "evaluate")
            (numbers,) = score_runs(cfg).values()
        return Made(numbers, self.folder, [])

    def generate(self, what: str = "samples", **options: Any) -> Made:
        """Makes pictures and numbers, as `vae_exp generate what=...`, in the `images/` of the run folder.

        Arguments:
            what: An option of what/.
            options: Its keys, such as `num_images=25`, `input="photo.png"`, and those of all commands on trained runs.

        Raises:
            ConfigError: For what the command refuses.
        """
        from vae_exp.what.make import generate_runs

        with called("generate", {**self._common, "what": what, **options}) as cfg:
            check_overrides(cfg, "generate")
            (numbers,) = generate_runs(cfg, what).values()
        out = self.folder / "images" / what
        return Made(
            numbers, out, [out / f"{what}.png"] if (out / f"{what}.png").exists() else sorted(out.glob("*.png"))
        )

    def report(self, **options: Any) -> Path:
        """Writes `report.html`, the run on one page, and returns its path.

        Raises:
            ConfigError: For what the command refuses.
        """
        from vae_exp.page.report import report_runs

        with called("report", {**self._common, **options}) as cfg:
            check_overrides(cfg, "report")
            (path,) = report_runs(cfg).values()
        return path

    def explore(self, **options: Any) -> Path:
        """Writes `explore.html`, the decoder in a page with sliders, and returns its path.

        Raises:
            ConfigError: For what the command refuses.
        """
        from vae_exp.page.explore import explore_runs

        with called("explore", {**self._common, **options}) as cfg:
            check_overrides(cfg, "explore")
            (path,) = explore_runs(cfg).values()
        return path

    def export(self, **options: Any) -> dict[str, Any]:
        """Writes ONNX files and safetensors into `export/`, and returns their description, `export.json`.

        Raises:
            ConfigError: For what the command refuses.
        """
        try:
            from vae_exp.what.onnx import export_runs
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"export needs {error.name}: pip install '.[export]' in the checkout of vae_exp"
            ) from error
        with called("export", {**self._common, **options}) as cfg:
            check_overrides(cfg, "export")
            (about,) = export_runs(cfg).values()
        return about

    def compare(self, *others: "str | Path | Run", **options: Any) -> "list[Section]":
        """This run beside others: tables, figures and a page in outputs/comparisons/.

        Arguments:
            others: Runs, or run folders.
            options: The keys of `vae_exp compare`, such as `by="model"`.

        Returns:
            Sections whose runs compare, the largest first.

        Raises:
            ConfigError: For what the command refuses.
        """
        from vae_exp.comparison.compare import compare_runs

        folders = [str(other.folder if isinstance(other, Run) else other) for other in (self, *others)]
        with called("compare", {"run": folders, **options}) as cfg:
            check_overrides(cfg, "compare")
            return compare_runs(cfg)

    def resume(self, **overrides: Any) -> "Run":
        """Goes on with the run, for instance `resume(**{"trainer.max_epochs": 50})`.

        Raises:
            ConfigError: For what the command refuses.
        """
        from vae_exp.training.job import train_job

        allow = self._common.get("allow")
        settings = {"resume": str(self.folder), **({} if allow is None else {"allow": allow}), **overrides}
        with called("train", settings, writes_log=True) as cfg, job():
            check_overrides(cfg, "train")
            return Run(train_job(cfg), allow)


def _table(numbers: dict[str, Any]) -> str:
    """Numbers as a table of HTML."""
    rows = [
        f"<tr><td>{escape(name)}</td><td>{value:.4f}</td></tr>"
        for name, value in numbers.items()
        if isinstance(value, int | float)
    ]
    return f"<table>{''.join(rows)}</table>"

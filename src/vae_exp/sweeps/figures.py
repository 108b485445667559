"""The figures that a sweep ends with, of its finished jobs; `sweep.figures` names them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from vae_exp.charts import COLOURS, save
from vae_exp.config import ConfigError
from vae_exp.records import read_record

__all__ = ["Against", "Curves", "Rows"]

WHATS = ("samples", "reconstructions")
SEEDS = ("seed", "data.fold")


class Curves:
    """Figures of `python -m vae_exp.compare`: curves over training, rate and distortion.

    Where bounds do not compare, each section has a picture of its own.

    Arguments:
        figure: elbo, kl, recon, iwae, rate_distortion or parallel.
        axis: step, epoch or seconds: under the curves.
    """

    def __init__(self, figure: str, axis: str = "step") -> None:
        self.figure, self.axis = figure, axis

    def __call__(self, jobs: Sequence[tuple[dict[str, str], Path]], path: Path) -> list[Path]:
        """Draws the jobs, what each varies with its folder; returns the files."""
        from vae_exp.comparison.curves import curves
        from vae_exp.comparison.figures import figures
        from vae_exp.comparison.groups import sections
        from vae_exp.comparison.read import TERMS, read_runs

        runs, _ = read_runs([str(folder.resolve()) for _, folder in jobs])
        varied = [key for key in dict.fromkeys(key for words, _ in jobs for key in words) if key not in SEEDS]
        found, _ = sections(runs, varied, None)
        lines = {group: own for section in found for group in section.groups if (own := curves(group, TERMS))}
        files = []
        for number, section in enumerate(found, start=1):
            drawn = figures(section, lines, self.axis)
            if self.figure not in drawn:
                raise ConfigError(f"{self.figure}: the runs have {', '.join(drawn)}")
            to = path if len(found) == 1 else path.with_name(f"{path.stem}_{number}.png")
            files.append(save(drawn[self.figure], to, "vae_exp sweep"))
        return files


class Against:
    """Numbers of the runs against the number that the sweep varies, a panel for each list of metrics.

    Arguments:
        panels: Lists of metrics of `run.json`, such as `[[train/elbo, test/elbo], [test/kl]]`.
        key: What the sweep varies.
    """

    def __init__(self, panels: Sequence[Sequence[str]], key: str) -> None:
        self.panels, self.key = panels, key

    def __call__(self, jobs: Sequence[tuple[dict[str, str], Path]], path: Path) -> list[Path]:
        """Draws the jobs, what each varies with its folder; returns the files."""
        try:
            points = [(float(words[self.key]), read_record(folder).get("metrics", {})) for words, folder in jobs]
        except (KeyError, ValueError) as error:
            raise ConfigError(f"key={self.key}: the sweep varies no such number") from error
        places = sorted({x for x, _ in points})

        def draw() -> Any:
            from matplotlib.figure import Figure
            from matplotlib.ticker import FixedLocator, NullLocator

            figure = Figure(figsize=(3.1 * len(self.panels), 2.9), layout="constrained")
            for number, metrics in enumerate(self.panels, start=1):
                axes = figure.add_subplot(1, len(self.panels), number)
                for metric, colour in zip(metrics, COLOURS, strict=False):
                    known = [(x, numbers[metric]) for x, numbers in points if metric in numbers]
                    line = [(x, mean(y for at, y in known if at == x)) for x in sorted({x for x, _ in known})]
                    if not known:
                        raise ConfigError(f"{metric}: no run has such a number")
                    axes.plot(*zip(*line, strict=True), color=colour, lw=1.6, label=metric)
                    axes.plot(*zip(*known, strict=True), "o", color=colour, ms=4)
                if places[0] > 0 and places[-1] / places[0] >= 8:
                    axes.set_xscale("log")
                axes.xaxis.set_major_locator(FixedLocator(places))
                axes.xaxis.set_minor_locator(NullLocator())
                axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
                axes.set_xlabel(self.key)
                axes.legend()
            return figure

        return [save(draw, path, "vae_exp sweep")]


class Rows:
    """A row of images for each run: samples of its prior, or reconstructions of the first images of its test split.

    Samples of runs with latents of the same shape are of the same latents in a column.

    Arguments:
        what: samples or reconstructions.
        num_images: Images in a row.
        corruption: What is done to the images before they are reconstructed, a part; None for nothing.
    """

    def __init__(self, what: str = "samples", num_images: int = 12, corruption: Any = None) -> None:
        if what not in WHATS:
            raise ConfigError(f"what={what}: choose {' or '.join(WHATS)}")
        self.what, self.num_images, self.corruption = what, num_images, corruption

    def __call__(self, jobs: Sequence[tuple[dict[str, str], Path]], path: Path) -> list[Path]:
        """Draws the jobs, what each varies with its folder; returns the files."""
        import torch

        from vae_exp import plots
        from vae_exp.runs.trained import restore
        from vae_exp.what import codes

        rows: dict[str, torch.Tensor] = {}
        for words, folder in jobs:
            name = "\n".join(f"{key}={value}" for key, value in words.items())
            trained = restore(folder.resolve(), progress=False)
            model = trained.model
            with torch.no_grad():
                trained.reseed(self.what)
                if self.what == "samples":
                    model.require("prior", "what=samples")
                    c = model.context(model.example_y(self.num_images))
                    p = model.prior(c)
                    z = p.sample() if p.batch_shape else p.sample((self.num_images,))
                    rows[name] = trained.shown(codes.decode(model, z, c))
                    continue
                x, y, _ = codes.given(trained, None, None, range(self.num_images))
                rows["x"] = trained.shown(x)
                if self.corruption is not None:
                    x = self.corruption.train()(x)
                    rows["seen"] = trained.shown(x)
                rows[name] = trained.shown(model.reconstruct(x, y))
        shown = {
            "samples": "means of p(x|z), z from the prior",
            "reconstructions": "test images and their reconstructions",
        }
        images = torch.cat([row.cpu() for row in rows.values()])
        return [plots.grid(images, shown[self.what], path, rows=list(rows), columns=self.num_images)]

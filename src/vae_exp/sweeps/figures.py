"""The figures that a sweep ends with, of its finished jobs; `sweep.figures` names them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from vae_exp.charts import COLOURS, save
from vae_exp.config import ConfigError
from vae_exp.records import read_record, read_rows
from vae_exp.saved import read_config

__all__ = ["Against", "Curves", "Each", "Learning", "Rows"]

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


class Learning:
    """Columns of `metrics.csv` against the training images seen so far, a panel for each value of a key.

    Arguments:
        columns: Such as `[train/elbo, val/elbo]`; the first has a full line, the others are dashed.
        panel: The key with a panel for each value; each other combination has a colour.
        unit: What the vertical axes show, with its unit.
    """

    def __init__(self, columns: Sequence[str], panel: str, unit: str) -> None:
        self.columns, self.panel, self.unit = columns, panel, unit

    def __call__(self, jobs: Sequence[tuple[dict[str, str], Path]], path: Path) -> list[Path]:
        """Draws the jobs, what each varies with its folder; returns the files."""
        if not all(self.panel in words for words, _ in jobs):
            raise ConfigError(f"panel={self.panel}: the sweep does not vary it")
        panels: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
        for words, folder in jobs:
            name = ", ".join(value for key, value in words.items() if key != self.panel)
            size = read_config(folder / "config.yaml").data.batch_size
            rows = read_rows(folder / "metrics.csv")
            for column in self.columns:
                line = [((int(row["step"]) + 1) * size, float(row[column])) for row in rows if row.get(column)]
                panels.setdefault(words[self.panel], {})[name, column] = line
        names = list(dict.fromkeys(name for lines in panels.values() for name, _ in lines))
        if not any(any(lines.values()) for lines in panels.values()):
            raise ConfigError(f"columns={list(self.columns)}: no run has logged them")

        def draw() -> Any:
            from matplotlib.figure import Figure
            from matplotlib.ticker import NullFormatter

            figure = Figure(figsize=(2.6 * len(panels) + 1.6, 2.8), layout="constrained")
            for number, (value, lines) in enumerate(panels.items(), start=1):
                axes = figure.add_subplot(1, len(panels), number)
                for (name, column), line in lines.items():
                    style = "-" if column == self.columns[0] else "--"
                    colour = COLOURS[names.index(name) % len(COLOURS)]
                    label = f"{name} {column}".strip() if number == 1 else None
                    if line:
                        axes.plot(*zip(*line, strict=True), style, color=colour, lw=1.4, label=label)
                late = sorted(y for line in lines.values() for _, y in line[len(line) // 10 :])
                if late:  # the first tenth is far from all that follows: it may leave the picture
                    margin = 0.06 * (late[-1] - late[0]) or 1.0
                    axes.set_ylim(late[0] - margin, late[-1] + margin)
                axes.set_xscale("log")
                axes.xaxis.set_minor_formatter(NullFormatter())
                axes.set_title(f"{self.panel}={value}")
                axes.set_xlabel("training images seen")
                if number == 1:
                    axes.set_ylabel(self.unit)
            figure.legend(loc="outside lower center", ncols=4)
            return figure

        return [save(draw, path, "vae_exp sweep")]


class Each:
    """What `python -m vae_exp.generate` makes, of each run by itself, in its folder.

    Arguments:
        what: Its name.
        options: Its keys.
    """

    def __init__(self, what: str, **options: Any) -> None:
        self.what, self.options = what, options

    def __call__(self, jobs: Sequence[tuple[dict[str, str], Path]], path: Path) -> list[Path]:
        """Makes them of the jobs, what each varies with its folder; returns the files."""
        from vae_exp.calls import called
        from vae_exp.what.make import generate_runs

        settings = {"run": [str(folder) for _, folder in jobs], "what": self.what, "progress": False, **self.options}
        with called("generate", settings) as cfg:
            generate_runs(cfg, self.what)
        return [file for _, folder in jobs for file in sorted((folder / "images" / self.what).glob("*.png"))]


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
        from vae_exp.samplers import sampler
        from vae_exp.what import codes

        rows: dict[str, torch.Tensor] = {}
        for words, folder in jobs:
            name = "\n".join(f"{key}={value}" for key, value in words.items())
            trained = restore(folder.resolve(), progress=False)
            model = trained.model
            with torch.no_grad():
                trained.reseed(self.what)
                if self.what == "samples":
                    c = model.context(model.example_y(self.num_images))
                    z = sampler(trained, "prior")(self.num_images, c)
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

"""The page of a run: whole, well-formed, from the run's own numbers, and the same in a browser."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.runs import PICTURED, SMALL, composed, composed_on, evaluated
from hydra.conf import HydraConf
from omegaconf import OmegaConf
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torchvision.utils import make_grid

from vae_exp import plots
from vae_exp.config import ConfigError
from vae_exp.page.advice import advice
from vae_exp.page.embedded import picture
from vae_exp.page.report import report_runs
from vae_exp.page.words import glossary
from vae_exp.page.write import write_page
from vae_exp.runs.resume import resumed_config
from vae_exp.training import job as training

VOID = {"meta", "img", "br", "input", "link", "hr", "source"}
OVER = ("images", "draws")


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed where it must be, every id is there once."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.addresses, self.words = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    def _note(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        names = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
        self.addresses += [value for name, value in attrs if name in names]


def reported(folder, *overrides):
    """The page of `python -m vae_exp.report run=folder`."""
    (path,) = report_runs(composed_on(folder, "report", *overrides)).values()
    return Page(path.read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    return folder, training.train(composed(*PICTURED, "report=true"), folder)


@pytest.fixture
def done(finished, tmp_path):
    """A copy of a finished run, and its metrics."""
    return shutil.copytree(finished[0], tmp_path / "run"), finished[1]


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def check_self_contained(page):
    for address in page.addresses:
        assert address.startswith(("data:image/", "#")) or address == "explore.html"
        assert not address.startswith("#") or address[1:] in page.ids
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        if tag == "style":
            continue
        urls = re.findall(r"url\(([^)]*)\)", attrs.get("style", "") + attrs.get("clip-path", ""))
        assert all(url.startswith("#") for url in urls)


@pytest.mark.parametrize("model", slow_but(["cvae", "ae"], ["vae", "cvae", "ae", "hvae"]))
def test_training_ends_with_a_page_of_its_run(run, caplog, model):
    caplog.set_level("INFO", logger="vae_exp")
    folder, metrics = run(f"model={model}", "report=true", small=PICTURED)
    assert str(folder / "report.html") in caplog.text
    html = (folder / "report.html").read_text()
    page = Page(html)
    check_self_contained(page)
    assert "@import" not in html
    assert len(html) < 2e6
    record = json.loads((folder / "run.json").read_text())
    start = record["starts"][0]
    for known in (
        record["run_id"], "finished", f"{record['wall_seconds']} s", *record["data"].values(), start["cpu"],
        start["platform"], start["time"], f"torch {start['versions']['torch']}", *start["argv"][1:2],
        record["bound"]["representation"], "latent_dim: 3", "batch_size: 16",
    ):  # fmt: skip
        assert known in page.text
    if start["git"]:
        assert start["git"]["commit"] in page.text
    terms = ["recon"] if model == "ae" else ["elbo", "recon", "kl"]
    for term in terms:
        assert f"{metrics[f'test/{term}']:.2f}" in page.text
    assert ("lower bound of log p(x)" in page.text) == (model in ("vae", "hvae"))
    assert ("lower bound of log p(x|y)" in page.text) == (model == "cvae")
    assert ("there is no bound" in page.text) == (model == "ae")
    pictures = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    titles = {"elbo": "ELBO", "recon": "Reconstruction", "kl": "KL"}
    assert [alt for alt in pictures if "steps of training" in alt] == [
        f"{titles[term]} over the steps of training" for term in terms
    ]
    assert sum(alt.startswith("KL of 3 latent dimensions") for alt in pictures) == (
        2 if model in ("vae", "cvae") else 0
    )
    assert len([tag for tag, _ in page.tags if tag == "source"]) == sum(
        " over the " in a or "KL of" in a for a in pictures
    )
    assert sum("above their reconstructions" in alt for alt in pictures) == 1
    assert sum("latents of its prior" in alt for alt in pictures) == (model != "ae")
    assert sum("row for each class" in alt for alt in pictures) == (model == "cvae")
    if model == "ae":
        assert "No samples : an autoencoder has no density over its codes" in page.text


@pytest.mark.slow
def test_a_page_is_the_same_each_time(done):
    folder, _ = done
    reported(folder)
    first = (folder / "report.html").read_bytes()
    assert write_page(folder).read_bytes() == first
    assert not list(folder.glob("*.part"))


def test_no_page_is_written_where_none_is_wanted(run):
    assert not (run("trainer.max_epochs=1")[0] / "report.html").exists()


@pytest.mark.slow
def test_an_evaluation_stands_on_the_page_with_its_errors(done):
    folder, _ = done
    numbers = evaluated(folder, "num_samples=10")
    page = reported(folder)
    table = page.text.partition("images of the test split")[2]
    for name in ("elbo", "recon", "kl", "nll"):
        shown = [float(number) for number in re.search(rf" {name} (\S+) (\S+) (\S+)", table).groups()]
        assert shown == pytest.approx([numbers[name], *(numbers[f"{name}_se_{over}"] for over in OVER)], rel=6e-3)
    assert f"1 {numbers['nll_curve'][1]:.3f} 10 {numbers['nll_curve'][10]:.3f}" in page.text
    assert numbers["bits_per_dim_refused"] in page.text
    assert f"ELBO (test) {numbers['elbo']:.2f} ± {numbers['elbo_se_images']:.2g}" in page.text
    assert "Computed with earlier weights" not in page.text


@pytest.mark.slow
def test_any_evaluation_has_a_table(done):
    folder, metrics = done
    evaluated(folder, "metrics=[elbo]")
    rewrite(
        folder / "evaluation.json",
        kl_per_dim=[0.25, 1.5, 3], confusion=[[1, 2], [3, 4]], verdict="2 of 3 dimensions are used", saturated=True,
        tiny=1.23e-7, count=12345, gap=0.5, gap_se_runs=0.125, refused={"bpd": "a density <has> no bits"},
    )  # fmt: skip
    of_before = json.loads((folder / "evaluation.json").read_text()) | {"split": "val", "elbo": -12.375}
    for key in ("settings", "weights", "refused"):  # as version 0.1 wrote it
        del of_before[key]
    (folder / "evaluation_val.json").write_text(json.dumps(of_before))
    page = reported(folder)
    for known in (
        "kl_per_dim 3 values 0.250, 1.500, 3", "confusion 2 values [[1, 2], [3, 4]]", "verdict 2 of 3 dimensions",
        "saturated yes", "tiny 1.23e-07", "count 12,345", "± over runs", "bpd a density <has> no bits",
        "images of the val split", "elbo -12.375",
    ):  # fmt: skip
        assert known in page.text
    assert re.search(r"gap 0\.500 +0\.125", page.text)
    assert f"ELBO (test) {metrics['test/elbo']:.2f}" in page.text


def test_results_of_earlier_weights_are_marked_and_make_no_headline(done):
    folder, metrics = done
    evaluated(folder, "metrics=[elbo]")
    rewrite(folder / "evaluation.json", weights="0" * 16, elbo=-1.0)
    page = reported(folder)
    assert "Computed with earlier weights" in page.text
    assert f"ELBO (test) {metrics['test/elbo']:.2f} nats per image" in page.text


def test_rows_of_a_table_are_not_called_images(done):
    folder, _ = done
    evaluated(folder, "metrics=[elbo]")
    rewrite(
        folder / "run.json", bound=json.loads((folder / "run.json").read_text())["bound"] | {"units": "nats per row"}
    )
    page = Page(write_page(folder).read_text())
    said = page.text.partition("What the words on this page mean")[0]
    assert "nats per row" in said
    assert "64 rows of the test split" in said
    assert "± over rows" in said
    charts = [
        base64.b64decode(attrs["src"].partition(",")[2]) for tag, attrs in page.tags if "svg" in attrs.get("src", "")
    ]
    assert charts
    assert not any(b"per image" in chart for chart in charts)


def test_a_hostile_name_is_text(run):
    folder, _ = run("name='<b>x</b><script>alert(1)</script>'", "report=true", "trainer.max_epochs=1")
    page = Page((folder / "report.html").read_text())
    assert "<b>x</b><script>alert(1)</script>" in page.text
    check_self_contained(page)


def test_a_run_that_failed_has_a_page_that_says_why(run, tmp_path):
    with pytest.raises(ConfigError):
        run("optimizer.lr=1e30", "report=true")
    folder = tmp_path / "run"
    assert not (folder / "report.html").exists()
    page = reported(folder)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "failed"
    assert "failed" in page.text
    assert " ".join(record["error"].split()) in page.text
    assert "No samples : the run has no checkpoints/best.ckpt" in page.text


def test_what_was_not_logged_or_drawn_is_told_or_drawn(run):
    folder, _ = run("logger=none", "callbacks.latents=null")
    page = reported(folder)
    assert "The run has no metrics.csv" in page.text
    assert "No KL per dimension" in page.text
    alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    assert sum("latents of its prior" in alt or "above their reconstructions" in alt for alt in alts) == 2


def test_a_finished_training_does_not_fail_for_its_page(run, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no space left")

    monkeypatch.setattr(training, "write_page", fail)
    folder, metrics = run("report=true")
    assert "test/elbo" in metrics
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "no report: RuntimeError: no space left" in caplog.text


@pytest.mark.slow
def test_several_runs_have_a_page_each(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "other")
    assert list(report_runs(composed_on(tmp_path / "*", "report"))) == [tmp_path / "other", tmp_path / "run"]
    with pytest.raises(ConfigError, match="is not a run folder"):
        reported(tmp_path)


def test_a_resumed_run_may_turn_its_page_on(done):
    folder, _ = done
    hydra = HydraConf()
    hydra.overrides.task = [f"resume={folder}", "report=true", "trainer.max_epochs=3"]
    cfg = composed(*SMALL, "report=true", "trainer.max_epochs=3")
    cfg.resume = str(folder)
    assert resumed_config(cfg, hydra).report


@pytest.mark.slow
def test_a_browser_shows_the_page_and_asks_for_nothing_else(run, browser, tmp_path):
    folder, metrics = run("model=cvae", "report=true")
    for width in (1200, 500):
        console, dom, picture = browser(folder / "report.html", width)
        assert console == []
        assert f"{metrics['test/elbo']:.2f}" in dom
        assert dom.count("data:image/svg+xml") == 10
        assert picture.shape == (2400, width)
        # Of four bands of the page each has something dark on light paper.
        for band in np.array_split(picture, 4):
            assert np.percentile(band, 90) > 230
            assert 0.003 < (band < 128).mean() < 0.6
    # The check can fail: a page that asks for something is told off by its own policy.
    asking = tmp_path / "asking.html"
    html = (folder / "report.html").read_text()
    asking.write_text(html.replace("</main>", '<img src="http://localhost/x.png"></main>'))
    assert any("Content Security Policy" in line for line in browser(asking, 1200)[0])


@pytest.mark.parametrize(
    ("shape", "num", "columns"), [((1, 28, 28), 30, 10), ((3, 64, 64), 20, 7), ((1, 8, 8), 400, 20)]
)
def test_a_grid_stands_on_the_page_pixel_for_pixel(tmp_path, shape, num, columns):
    """The page takes the images out of the picture, which has enlarged them and written around them."""
    images = torch.randint(256, (num, *shape), generator=torch.Generator().manual_seed(0)) / 255
    rows = [f"row {k}" for k in range(-(-num // columns))]
    known = picture(plots.grid(images, "a run\nwhat it is", tmp_path / "grid.png", rows=rows, columns=columns))
    assert known["title"] == ["a run", "what it is"]
    assert known["tiles"]["rows"] == rows
    content = base64.b64decode(known["tiles"]["source"].partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)
    zoom = max(1, 28 // shape[-1])
    enlarged = images.repeat_interleave(zoom, dim=-2).repeat_interleave(zoom, dim=-1)
    expected = (make_grid(enlarged, nrow=columns, padding=1, pad_value=0.5) * 255).permute(1, 2, 0)
    assert np.abs(shown - expected.numpy()).max() <= 1


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"box": 3}', '{"box": [0, 0, 9e9, 9], "size": [1, 1], "rows": [], "heads": []}']
)
def test_a_picture_of_somebody_else_is_shown_as_it_is(tmp_path, said):
    info = PngInfo()
    info.add_text("Description", said)
    Image.new("L", (20, 10)).save(tmp_path / "a.png", pnginfo=info)
    assert picture(tmp_path / "a.png")["tiles"] is None


def test_advice_follows_where_the_run_stands(tmp_path):
    cfg = OmegaConf.create({"monitor": "val/elbo", "monitor_mode": "max"})
    rising = [{"epoch": str(k), "val/elbo": str(elbo)} for k, elbo in enumerate((-9, -8, -7))]
    falling = [{"epoch": str(k), "val/elbo": str(elbo)} for k, elbo in enumerate((-9, -7, -8))]

    def commands(status, rows, made, unit="image"):
        return [each["command"] for each in advice("outputs/a/b", cfg, status, rows, made, unit)]

    assert commands("finished", rising, [])[0] == "python -m vae_exp resume=outputs/a/b trainer.max_epochs=6"
    assert commands("finished", falling, [])[0] == "python -m vae_exp.explore run=outputs/a/b"
    assert commands("interrupted", falling, [])[0] == "python -m vae_exp resume=outputs/a/b"
    assert (
        commands("finished", falling, ["evaluation"], "row")[0]
        == "python -m vae_exp.generate run=outputs/a/b what=impute"
    )
    everything = ["evaluation", "explore", "interpolation", "embeddings", "anomalies"]
    assert len(commands("finished", falling, everything)) == 2
    assert all(commands("finished", rising, [])[-1] == "python -m vae_exp.compare 'outputs/a/*'" for _ in everything)


def test_the_words_of_the_glossary_are_explained():
    words = dict(glossary())
    assert {"nats", "bound", "posterior", "active unit", "ELBO"} <= set(words)
    assert list(words) == sorted(words, key=str.lower)
    assert "<code>q(z|x)</code>" in words["posterior"]

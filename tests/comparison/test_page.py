"""The page: whole, self-contained, true to the numbers; in a browser its axis switches and its groups hide."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.folders import write_run
from PIL import Image

from vae_exp.comparison.compare import by_reason
from vae_exp.comparison.curves import curves
from vae_exp.comparison.figures import spread
from vae_exp.comparison.groups import sections
from vae_exp.comparison.page import write_page
from vae_exp.comparison.read import TERMS, read_runs


@pytest.fixture
def runs(tmp_path):
    """Two models by two seeds, one of another bound, one that failed; one has a page and samples."""
    for model, elbo in (("vae", -100.0), ("beta_vae", -110.0), ("cvae", -90.0)):
        for seed in (0, 1):
            changes = {"bound": {"of": "log p(x|y)"}} if model == "cvae" else {}
            config = {"model._target_": f"vae_exp.models.{model}"}
            folder = tmp_path / "runs" / f"{model} {seed}"
            write_run(folder, seed, elbo - seed, choices={"model": model}, config=config, **changes)
    first = tmp_path / "runs" / "vae 0"
    (first / "report.html").write_text("the page of the run")
    (first / "images" / "samples").mkdir(parents=True)
    Image.new("L", (20, 10)).save(first / "images" / "samples" / "samples.png")
    write_run(tmp_path / "runs" / "dead", status="failed", error="<b>NaN</b>")
    (tmp_path / "runs" / "beta_vae 1" / "metrics.csv").unlink()
    return tmp_path


def page_of(folder):
    runs, left_out = read_runs([str(folder / "runs")])
    found, repeats = sections(runs, ["model"], None)
    drawn = {group: own for s in found for group in s.groups if (own := curves(group, TERMS))}
    (folder / "out").mkdir(exist_ok=True)
    return write_page(folder / "out", found, drawn, by_reason(left_out | repeats))


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_holds_what_compares_in_sections_of_their_own(runs):
    html = page_of(runs).read_text()
    first, second = data_of(html)
    assert [group["name"] for group in first["groups"]] == ["vae", "beta_vae"]
    assert [group["name"] for group in second["groups"]] == ["cvae"]
    assert first["groups"][0]["plane"] == [[20, 80], [20, 81]]
    assert first["groups"][0]["curves"]["elbo"][0][-1] == -100  # the mean of -99.5 and -100.5
    assert "bound: log p(x|y), a mass in place of log p(x), a mass" in html
    assert "Does not compare with section 1." in html
    assert html.count("<table") == 2


def test_the_page_needs_nothing_else_and_leads_to_the_runs(runs):
    html = page_of(runs).read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    links = [address for address in addresses if not address.startswith(("data:image/png;base64,", "#"))]
    assert links == ["../runs/vae%200/report.html"] * 2  # in the table and above its samples
    assert "http:" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in html
    assert html.count("<img ") == 1


def test_what_is_left_out_is_named_and_text_is_text(runs):
    html = page_of(runs).read_text()
    assert "failed: &lt;b&gt;NaN&lt;/b&gt;" in html
    assert "runs/dead" in html
    assert "1 run: no metrics.csv: no curves" in html


def test_a_name_cannot_end_the_data(runs):
    config = {"model._target_": "</script><script>alert(1)</script>"}
    write_run(runs / "runs" / "evil", choices={"model": "</script><script>alert(1)</script>"}, config=config)
    html = page_of(runs).read_text()
    assert html.count("</script>") == 2
    assert any("alert" in group["name"] for section in data_of(html) for group in section["groups"])


PROBE = """
const done = {};
const section = document.querySelector(".compared");
const lines = () => [...section.querySelectorAll(".draw figure")].map((f) => f.querySelectorAll(".line").length);
const chart = section.querySelector("figure svg");
const words = () => [...chart.querySelectorAll("text")].map((t) => t.textContent);
const look = () => ({ lines: lines(), words: words(), first: chart.querySelector(".line")?.getAttribute("d") });
const press = (selector) => section.querySelector(selector).click();
done.start = look();
press("[data-axis=seconds]");
done.seconds = look();
press("tr[data-group='0'] .switch");
done.hidden = look();
press("[data-pick=none]");
done.none = look();
press("[data-pick=all]");
press("[data-axis=step]");
done.all = look();
const box = chart.getBoundingClientRect();
chart.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 3, clientY: box.top + 30 }));
done.tip = section.querySelector(".tip").textContent;
done.on = section.querySelector("figure .group.on").dataset.group;
done.spread = spread(WANTED, 0.05, 0, 1);
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(done);
document.body.append(result);
"""


def probed(dom):
    text = re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)[1]
    return json.loads(text.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.slow
def test_a_browser_shows_it_by_itself_and_obeys(runs, browser, tmp_path):
    page = page_of(runs)
    for width in (1300, 500):
        console, dom, picture = browser(page, width)
        assert console == []
        assert len(re.findall(r'class="line d\d"', dom)) == 3 * 2 + 3  # three terms: two groups, and one apart
        assert picture.std() > 5
    html = page.read_text()
    copy = Path(tmp_path / "copy.html")
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    wanted = list(np.random.default_rng(0).uniform(0, 0.5, 12))
    probe = PROBE.replace("WANTED", str([float(place) for place in wanted]))
    copy.write_text(without_policy.replace("</body>", f"<script>{probe}</script></body>"))
    console, dom, _ = browser(copy, 1300)
    assert console == []
    seen = probed(dom)
    assert seen["start"]["lines"] == [2, 2, 2, 0, 4]  # elbo, kl, recon, rate and distortion, a line for each run
    assert "steps" in seen["start"]["words"]
    assert "seconds of training" in seen["seconds"]["words"]
    assert {"1", "5"} <= set(seen["seconds"]["words"])
    assert seen["seconds"]["first"] != seen["start"]["first"]
    assert seen["hidden"]["lines"] == [1, 1, 1, 0, 2]
    assert "vae" in seen["start"]["words"]
    assert "vae" not in seen["hidden"]["words"]
    assert seen["none"]["lines"] == [0, 0, 0, 0, 0]
    assert seen["all"] == seen["start"]
    assert "vae" in seen["tip"]
    assert seen["on"] == "0"
    assert seen["spread"] == pytest.approx(spread(wanted, 0.05, 0, 1))
    # The check can fail: a script that is not the page's own is refused, and the console says so.
    copy.write_text(html.replace("</body>", "<script>1</script></body>"))
    assert any("Content Security Policy" in line for line in browser(copy, 1300)[0])


def test_rows_of_a_table_are_not_called_images(tmp_path):
    for seed, elbo in enumerate((-9.0, -8.0)):
        write_run(tmp_path / "runs" / f"{seed}", seed, elbo, bound={"units": "nats per row"})
    html = page_of(tmp_path).read_text()
    assert "nats per row" in html
    assert "nats per image" not in html
    assert "rows val" in html

"""The table on the terminal and in its three files: the numbers, in their order."""

import csv
import io

import pytest
from helpers.folders import write_run
from scipy import stats

from vae_exp.comparison.groups import sections
from vae_exp.comparison.read import read_runs
from vae_exp.comparison.table import as_csv, as_latex, as_markdown, as_text

ELBOS = {"a_b": [-100.0, -101.5, -101.0], "50%": [-103.0, -104.0, -103.5]}


@pytest.fixture
def found(tmp_path):
    for option, elbos in ELBOS.items():
        for seed, elbo in enumerate(elbos):
            more = {} if option == "a_b" and seed == 0 else {"test/kl": None}
            config = {"prior._target_": option}
            write_run(tmp_path / f"{option}{seed}", seed, elbo, choices={"prior": option}, config=config, more=more)
    write_run(tmp_path / "other", choices={"model": "cvae"}, bound={"of": "log p(x|y)"}, config={"model.x": 1})
    return sections(read_runs([str(tmp_path)])[0], ["prior"], None)[0]


def half(values):
    return stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def test_the_terminal_shows_means_intervals_and_differences(found):
    lines = list(as_text(found))
    table = [line.split() for line in lines]
    (row,) = [words for words in table if words[:1] == ["50%"]]
    gaps = [b - a for a, b in zip(*ELBOS.values(), strict=True)]
    mean = f"{sum(ELBOS['50%']) / 3:.2f} ± {half(ELBOS['50%']):.2f}".split()
    gap = f"{sum(gaps) / 3:.2f} ± {half(gaps):.2f}".split()
    assert row[1:8] == ["3", *mean, *gap]
    assert any("does not compare with the first table: bound: log p(x|y)" in line for line in lines)
    (best,) = [line for line in lines if line.startswith("a_b")]
    assert "best  20.00 (n=1)" in best


def test_csv_has_every_number_at_full_precision(found):
    first, second, other = csv.DictReader(io.StringIO(as_csv(found)))
    assert (first["section"], other["section"]) == ("1", "2")
    assert first["compares"] != other["compares"]
    assert float(first["test/elbo"]) == pytest.approx(sum(ELBOS["a_b"]) / 3, rel=1e-15)
    assert float(first["test/elbo ±"]) == pytest.approx(half(ELBOS["a_b"]), rel=1e-12)
    assert (first["seeds"], first["test/kl n"], second["test/kl"]) == ("0 1 2", "1", "")
    assert float(second["difference"]) == pytest.approx(-8 / 3)
    assert (first["difference"], other["prior"]) == ("", "")


def test_markdown_and_latex_have_a_table_for_each_section(found):
    text = as_markdown(found)
    assert text.count("## ") == 2
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows[:4]} == {rows[0].count("|")}
    latex = as_latex(found)
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 2
    assert r"\textbf{a\_b}" in latex
    assert r"50\% & 3 & $-$103.50 $\pm$" in latex
    head = latex.splitlines()[5]
    assert head.count(" & ") == rows[0].count("|") - 2

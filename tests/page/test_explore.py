"""The explorer: its page computes what torch computes, holds what it needs, and what it cannot draw is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.in_memory import untrained
from helpers.runs import SMALL, composed

import vae_exp.page.explore as explorer
from vae_exp.config import ConfigError
from vae_exp.page.network import Network, packed
from vae_exp.runs.build import build
from vae_exp.runs.trained import restore
from vae_exp.training.job import train

HERE = Path(explorer.__file__).parent
GREY, COLOUR = "data.image_shape=[1,28,28]", "data.image_shape=[3,64,64]"
REAL = "data.binarize=none"
# Each decoder with each normalisation, sides that are odd, and each kind of mean; widths are small, for the clock.
SHALLOW = {
    "mlp": ["decoder.hidden=[30,20]"],
    "conv": ["decoder.channels=[8,6]", "decoder.hidden=20"],
    "resnet": ["decoder.channels=[6,4]", "decoder.blocks=1"],
}
DECODERS = [
    [f"decoder={name}", f"decoder.normalization={norm}", shape, *SHALLOW[name]]
    for name in SHALLOW
    for norm, shape in (("none", GREY), ("batch", COLOUR), ("layer", "data.image_shape=[2,29,31]"))
]
MEANS = [
    [GREY, "decoder=mlp", "decoder.hidden=[9]", REAL, f"likelihood={name}"]
    for name in ("sse", "gaussian", "gaussian_shared", "continuous_bernoulli", "sigma_vae")
]
# One of each kind: bent, cut, smooth by the error function.
ACTIVATIONS = [
    [GREY, "decoder.hidden=[9,9]", f"decoder.activation={name}"]
    for name in ("GELU", "SiLU", "ELU", "LeakyReLU", "Softplus", "Tanh", "Hardtanh", "Mish", "SELU", "Hardswish")
]
MODELS = [["model=cvae", "decoder.hidden=[9]"], ["model=hvae", "model.upper_dims=[2]", "decoder.hidden=[9]"]]
CASES = [*DECODERS, *MEANS, *ACTIVATIONS, *MODELS]


def decoder(*overrides):
    """The model of a command line, with norms as if it had been trained."""
    torch.manual_seed(0)
    small = [word for word in SMALL if not word.startswith(("decoder.", "data.image_shape"))]
    model, _ = build(composed(*small, *overrides), to_train=False)
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)
    return model.eval().requires_grad_(False)


def asked(page, probe, to, browser):
    """What a script added to a page says as `done`, and what the console said."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    says = (
        'const pre = Object.assign(document.createElement("pre"), { id: "result", textContent: JSON.stringify(done) });'
    )
    says += "document.body.append(pre);"
    to.write_text(html.replace("</body>", f"<script>{probe}\n{says}</script></body>"))
    console, dom, _ = browser(to, 1250)
    assert console == []
    return json.loads(re.search(r'<pre id="result">(.*?)</pre>', dom, re.DOTALL)[1])


@pytest.mark.slow
def test_each_network_in_a_page_gives_what_torch_gives(browser, tmp_path):
    content, expected = [], []
    for overrides in CASES:
        model = decoder(*overrides)
        z = 2 * torch.randn(3, model.decoder.latent_dim)
        inputs = [z, torch.rand(3, model.context_dim)] if model.context_dim else [z]
        network = Network(model, lambda z, c=None, model=model: model.decode(z, c).mean, [each[:1] for each in inputs])
        given = [[each[k].tolist() for each in inputs] for k in range(3)]
        content.append({"network": network.as_dict(is_half=False), "inputs": given})
        expected.append(model.decode(*inputs).mean.flatten(1))
    script = (HERE / "network.js").read_text()
    html = f"<!DOCTYPE html><body><script>{script}\nconst cases = {json.dumps(content)};</script></body>"
    probe = "const done = cases.map((each) => each.inputs.map((given) => [...network(each.network)(...given)]));"
    for overrides, given, wanted in zip(
        CASES, asked(html, probe, tmp_path / "networks.html", browser), expected, strict=True
    ):
        far = (torch.tensor(given) - wanted).abs().max()
        assert far < 1e-5, f"{overrides}: {far}"


def test_numbers_survive_the_way_into_a_page():
    assert packed(torch.tensor([1.0, -2.0], dtype=torch.float16)) == "ADwAwA=="  # 0x3c00 and 0xc000, little end first
    assert packed(torch.tensor([0, 255], dtype=torch.uint8)) == "AP8="


def read(path):
    html = path.read_text()
    return html, json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


@pytest.mark.parametrize(
    ("overrides", "draws"),
    slow_but(
        [((), 1)],
        [
            ((), 1),
            (("model=cvae", "prior=mixture"), 4),
            (("model=ae",), 0),
            (("model=hvae", "model.upper_dims=[2]"), 1),
        ],
    ),
)
def test_the_page_holds_what_it_needs(tmp_path, overrides, draws):
    trained = untrained(tmp_path, *overrides)
    html, data = read(explorer.explore(trained))
    assert set(re.findall(r'(?:src|href)="([^"]*)"', html)) <= {"report.html"}
    assert "http" not in html.replace('<meta http-equiv="Content-Security-Policy"', "")
    assert html.count("<script") == 2
    assert len(data["draws"]) == draws
    assert (data["contexts"] is None) == ("model=cvae" not in overrides)
    kl = [latent["kl"] for latent in data["latents"]]
    if overrides:  # of a mixture, an autoencoder and several layers it is no sum over latents
        assert kl == [None] * 3
    else:
        assert kl == sorted(kl, reverse=True)


def test_sliders_have_the_range_of_the_codes_and_the_kl_of_each(tmp_path):
    """Of a posterior that copies x into two latents and ignores it in the third, KL and quantiles are known."""
    trained = untrained(tmp_path)
    means = torch.linspace(-2, 2, 401)[:, None] * torch.tensor([1.0, 0.5, 0.0])
    # q = N(mean, 0.5^2) from N(0, 1): the KL is (0.25 + mean^2 - 1) / 2 + log 2.
    kl = (0.25 + means.square() - 1) / 2 + torch.tensor(2.0).log()
    found = explorer.Codes(means, means, torch.full((401,), -1), None, kl.mean(dim=0))
    first, second, third = explorer._latents(found)
    assert [latent["d"] for latent in (first, second, third)] == [0, 1, 2]
    assert (first["low"], first["high"]) == pytest.approx((-1.98, 1.98))
    assert (second["low"], second["high"]) == pytest.approx((-0.99, 0.99))
    variance = 4 / 3 * (402 / 400)  # of 401 numbers in equal steps
    assert first["kl"] == pytest.approx((0.25 + variance - 1) / 2 + 0.693147, abs=1e-3)
    assert [latent["dead"] for latent in (first, second, third)] == [False, False, True]
    assert trained.model.has("prior")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("likelihood=categorical_256", REAL), r"^explore: the page has no movedim"),
        (("posterior=bernoulli", "posterior.relaxed=true"), r"^explore: the codes are bits or categories"),
    ],
)
def test_what_it_cannot_draw_is_refused_in_one_sentence(tmp_path, overrides, said):
    with pytest.raises(ConfigError, match=said) as error:
        explorer.explore(untrained(tmp_path, *overrides))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "explore.html").exists()


PROBE = """
const wait = () => show();
const done = { pictures: [], labels: buttons.length };
for (const [z, k] of ASKED) done.pictures.push([...decode(z, data.contexts[k])]);
const pixelsOf = (id) => find(id).toDataURL();
buttons[0].click();
wait();
const before = pixelsOf("picture");
buttons[1].click();
wait();
done.classChanges = before !== pixelsOf("picture") && buttons[1].getAttribute("aria-pressed") === "true";
sliders[0].input.value = latents[0].high;
sliders[0].input.dispatchEvent(new Event("input"));
wait();
done.moved = z[latents[0].d] - latents[0].high;
thumbs[3].click();
wait();
done.atImage = Math.max(...z.map((each, d) => Math.abs(each - examples[3].z[d])));
done.ends = ends;
find("share").value = 0;
find("share").dispatchEvent(new Event("input"));
wait();
done.atOther = Math.max(...z.map((each, d) => Math.abs(each - examples[ends[0]].z[d])));
const plain = plane.place(z);
plane.go([plain[0] + 1, plain[1] - 0.5]);
wait();
done.dragged = plane.place(z).map((each, k) => each - plain[k]);
find("random").click();
wait();
done.random = draws.flat().some((each) => each.every((value, d) => value === z[d]));
"""


@pytest.mark.slow
def test_the_page_of_a_run_shows_torchs_pictures_and_obeys(run, browser, tmp_path):
    folder, _ = run(
        "model=cvae", "decoder=conv", "decoder.channels=[8,6]", small=[w for w in SMALL if "decoder" not in w]
    )
    trained = restore(folder, accelerator="cpu", progress=False)
    path = explorer.explore(trained)
    for width in (1250, 400):
        console, dom, picture = browser(path, width)
        assert console == []
        assert dom.count('class="latent') == 3
        assert picture.std() > 5
    torch.manual_seed(1)
    z = torch.randn(5, 3)
    y = torch.tensor([0, 1, 2, 3, 3])
    probe = PROBE.replace(
        "ASKED", str(list(zip(z.tolist(), y.tolist(), strict=True))).replace("(", "[").replace(")", "]")
    )
    seen = asked(path.read_text(), probe, tmp_path / "copy.html", browser)
    expected = trained.model.decode(z, trained.model.context(y)).mean.flatten(1)
    assert (torch.tensor(seen["pictures"]) - expected).abs().max() < 1e-3
    assert seen["labels"] == 4
    assert seen["classChanges"]
    assert seen["moved"] == pytest.approx(0, abs=0.02)
    assert seen["atImage"] == pytest.approx(0, abs=1e-6)
    assert seen["ends"][1] == 3
    assert seen["atOther"] == pytest.approx(0, abs=1e-6)
    assert seen["dragged"] == pytest.approx([1, -0.5], abs=1e-5)
    assert seen["random"]


@pytest.mark.slow
def test_attributes_have_sliders_of_their_values(tmp_path):
    """A binary one has two values, a real one goes from -2 to 2 standard deviations, which c is in."""
    rng = np.random.default_rng(0)
    y = np.stack([rng.integers(0, 2, 64), rng.normal(30, 10, 64)], axis=1)
    np.savez(
        tmp_path / "my.npz", x=rng.integers(0, 256, (64, 1, 8, 8), dtype=np.uint8), y=y, attributes=["smile", "age"]
    )
    own = (f"data.source.path={tmp_path / 'my.npz'}", "data.val_size=8", "data.test_size=8", "data.image_shape=[1,8,8]")
    small = [word for word in SMALL if not word.startswith("data")]
    folder = tmp_path / "run"
    train(composed(*small, "data=npz", *own, "data.batch_size=16", "model=cvae", "trainer.max_epochs=1"), folder)
    _, data = read(explorer.explore(restore(folder, accelerator="cpu", progress=False)))
    smile, age = data["attributes"]
    assert (smile["name"], smile["places"], smile["c"]) == ("smile", [0], [[0], [1]])
    assert (age["name"], age["places"]) == ("age", [1])
    assert [c for (c,) in age["c"]] == pytest.approx(np.linspace(-2, 2, 25).tolist(), abs=1e-4)
    assert float(age["texts"][12]) == pytest.approx(y[:, 1].mean(), abs=4)
    assert len(data["examples"]["c"]) == len(data["examples"]["y"])
    assert set(data["codes"]["y"]) == {-1}

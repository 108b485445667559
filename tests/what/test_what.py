"""What is made of given images and codes: against closed forms, and the model by itself."""

import csv
import math

import numpy as np
import pytest
import torch
from helpers.runs import SMALL, composed, generated
from PIL import Image
from scipy.stats import norm
from zuko.flows import MAF, NSF

from vae_exp import load
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.runs.trained import restore
from vae_exp.training.job import train
from vae_exp.what.edit import vector_of
from vae_exp.what.embeddings import _project
from vae_exp.what.interpolation import linear, spherical
from vae_exp.what.manifold import quantiles

MODELS = {
    "vae": (),
    "vae1d": ("latent_dim=1",),
    "vae2d": ("latent_dim=2",),
    "colour": ("data.image_shape=[3,6,8]",),
    "cvae": ("model=cvae",),
    "m2": ("model=m2", "model.classifier.hidden=[8]", "data.labelled=8"),
    "hvae": ("model=hvae", "model.upper_dims=[2]"),
    "ae": ("model=ae",),
    "flow_prior": ("prior=flow",),
    "cvae_flow_prior": ("model=cvae", "prior=flow"),
    "cvae_mixture": ("model=cvae", "prior=mixture"),
    "mixture": ("prior=mixture",),
    "vamp": ("prior=vamp", "prior.pseudo_inputs=25"),
    "cvae_vamp": ("model=cvae", "prior=vamp", "prior.pseudo_inputs=10"),
    "full_normal": ("posterior=full_normal",),
    "laplace": ("posterior=laplace",),
    "flow": ("posterior=flow",),
    "bernoulli": ("posterior=bernoulli", "posterior.relaxed=true"),
    "categorical": ("posterior=categorical", "posterior.relaxed=true", "latent_dim=6", "posterior.categories=3"),
    "real": ("data=linear_gaussian", "data.train_size=48", "data.source.val_size=16", "data.batch_size=16"),
}  # fmt: skip
REFUSED = {
    "interpolation": ("bernoulli", "categorical"),
    "manifold": ("vae1d", "hvae", "ae", "mixture", "cvae_mixture", "vamp", "cvae_vamp", "bernoulli", "categorical"),
    "classes": tuple(name for name in MODELS if not name.startswith(("cvae", "m2"))),
    "edit": ("bernoulli", "categorical", "real"),
    "pseudo_inputs": tuple(name for name in MODELS if "vamp" not in name),
}
NO_MAP = tuple(name for name in REFUSED["manifold"] if name not in ("ae", "vae1d"))
WHATS = ("reconstructions", "interpolation", "traversal", "manifold", "classes", "edit", "embeddings", "pseudo_inputs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run folder of one of `MODELS`, trained when first asked for."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("runs") / name
            small = [override for override in SMALL if name != "real" or not override.startswith("data")]
            train(composed(*small, *MODELS[name], "trainer.max_epochs=1"), folders[name])
        return folders[name]

    return folder


def of(folder):
    """The model, and the test images with their labels."""
    trained = restore(folder, accelerator="cpu", progress=False)
    return trained.model, *trained.images(10**6)


def picture(path, shape=(8, 8), mode="L", seed=0):
    pixels = np.random.default_rng(seed).integers(256, size=shape if mode == "L" else (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).float() / 255


T = torch.linspace(0, 1, 9)


@pytest.mark.parametrize("angle", [1e-3, 0.3, math.pi / 2, 3.0])
def test_the_arc_is_a_rotation_by_equal_angles(angle):
    """In the plane of a and b: `2 (cos(t angle), sin(t angle))`, and by White's formula (2016)."""
    basis = torch.linalg.qr(torch.randn(5, 2, generator=torch.Generator().manual_seed(0)))[0].T
    a, b = 2 * basis[0], 2 * (math.cos(angle) * basis[0] + math.sin(angle) * basis[1])
    path = spherical(a, b, T)
    plane = torch.stack([(T * angle).cos(), (T * angle).sin()], dim=1)
    torch.testing.assert_close(path, 2 * plane @ basis, rtol=0, atol=2e-6)
    white = (((1 - T) * angle).sin()[:, None] * a + (T * angle).sin()[:, None] * b) / math.sin(angle)
    torch.testing.assert_close(path, white, rtol=0, atol=2e-4 if angle < 0.01 else 5e-6)


def test_the_arc_between_lengths():
    a, b = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    path = spherical(a, b, T)
    torch.testing.assert_close(path.norm(dim=1), 3 - 2 * T)
    torch.testing.assert_close(torch.atan2(path[:, 1], path[:, 0]), T * math.pi / 2)
    torch.testing.assert_close(path[[0, -1]], torch.stack([a, b]))


@pytest.mark.parametrize("b", [[2.0, 4.0], [-3.0, -6.0], [0.0, 0.0]])
def test_without_a_shortest_arc_the_path_is_linear(b):
    a, b = torch.tensor([1.0, 2.0]), torch.tensor(b)
    torch.testing.assert_close(spherical(a, b, T), (1 - T[:, None]) * a + T[:, None] * b)
    torch.testing.assert_close(linear(a, b, T), (1 - T[:, None]) * a + T[:, None] * b)


def test_interpolation_decodes_both_paths(folder, drawn):
    model, x, y = of(folder("vae"))
    generated(folder("vae"), "interpolation", "pairs=[[3,1]]", "num_steps=5")
    z = model.encode(x[[3, 1]]).mean.detach()
    t = torch.linspace(0, 1, 5)[:, None]
    line = model.decode((1 - t) * z[0] + t * z[1]).mean
    cosine = (z[0] @ z[1]) / (z[0].norm() * z[1].norm())
    angle = cosine.arccos()
    arc = (((1 - t) * angle).sin() * z[0] / z[0].norm() + (t * angle).sin() * z[1] / z[1].norm()) / angle.sin()
    arc = model.decode(arc * ((1 - t) * z[0].norm() + t * z[1].norm())).mean
    both = torch.cat([x[[3]], arc, x[[1, 3]], line, x[[1]]])
    torch.testing.assert_close(drawn["images"], both, rtol=0, atol=1e-4)
    of_row = f"y = {int(y[3])} → {int(y[1])}"
    assert drawn["rows"] == [f"{of_row}\nspherical", f"{of_row}\nlinear"]
    assert drawn["heads"] == ["x", "0", "0.25", "0.5", "0.75", "1", "x"]


def test_interpolation_goes_from_class_to_class(folder, drawn):
    _, _, y = of(folder("vae"))
    pairs = generated(folder("vae"), "interpolation")["pairs"]
    assert [[int(y[a]), int(y[b])] for a, b in pairs] == [[0, 1], [2, 3]]
    assert all((y[:i] != y[i]).all() for pair in pairs for i in pair)
    assert generated(folder("real"), "interpolation")["pairs"] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]


def test_a_conditional_model_interpolates_within_a_class_or_between_labels(folder, drawn):
    model, x, y = of(folder("cvae"))
    pairs = generated(folder("cvae"), "interpolation", "num_steps=3")["pairs"]
    assert len(pairs) == 4
    assert all(y[a] == y[b] and a != b for a, b in pairs)
    assert drawn["rows"][2] == "y = 1\nspherical"
    other = int((y != y[0]).nonzero()[0])
    generated(folder("cvae"), "interpolation", f"pairs=[[0,{other}]]", "num_steps=3")
    z = model.encode(x[[0, other]], y[[0, other]]).mean
    c = model.context(y[[0, other]])
    ends = model.decode(z, c).mean
    torch.testing.assert_close(drawn["images"][[1, 3, 6, 8]], ends.repeat(2, 1, 1, 1))
    torch.testing.assert_close(drawn["images"][[7]], model.decode(z.mean(0, True), c.mean(0, True)).mean)
    assert drawn["rows"][0] == f"y = {int(y[0])} → {int(y[other])}\nspherical"


def test_traversal_is_in_the_order_of_the_kl_over_the_range_of_the_aggregate(folder, drawn):
    model, x, _ = of(folder("vae"))
    numbers = generated(folder("vae"), "traversal", "num_steps=5", "image=2", "num_dims=2")
    q = model.encode(x).base_dist
    kl = torch.stack([0.5 * (m**2 + s**2 - 1 - (s**2).log()).mean() for m, s in zip(q.loc.T, q.scale.T, strict=True)])
    order = sorted(range(3), key=lambda d: -float(kl[d]))
    assert numbers["latents"] == order
    assert numbers["kl"] == pytest.approx(kl[order].tolist(), rel=1e-4)
    # Of the aggregate, an equal mixture of all posteriors: E z^2 - (E z)^2.
    mean = q.loc.mean(dim=0)
    std = ((q.loc**2 + q.scale**2).mean(dim=0) - mean**2).sqrt()
    assert numbers["mean"] == pytest.approx(mean[order].tolist(), abs=1e-5)
    assert numbers["std"] == pytest.approx(std[order].tolist(), rel=1e-4)
    rows = []
    for d in order[:2]:
        rows.append(x[2:3])
        for k in (-3, -1.5, 0, 1.5, 3):
            z = q.loc[2:3].clone()
            z[0, d] = mean[d] + k * std[d]
            rows.append(model.decode(z).mean)
    torch.testing.assert_close(drawn["images"], torch.cat(rows), rtol=0, atol=1e-4)
    assert drawn["rows"][0].startswith(f"z{order[0]}  KL {kl[order[0]]:.2f}\n")
    assert drawn["heads"] == ["x", "-3", "-1.5", "mean", "+1.5", "+3"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full_normal", "hvae", "ae", "flow", "mixture"])
def test_traversal_without_a_kl_of_each_latent_is_in_the_order_of_the_variance(folder, drawn, name):
    numbers = generated(folder(name), "traversal")
    assert "kl" not in numbers
    assert numbers["variance"] == sorted(numbers["variance"], reverse=True)
    if name == "flow":  # samples, of which only moments are known
        return
    model, x, _ = of(folder(name))
    q = model.encode(x)
    mean = (q.first if name == "hvae" else q).mean
    variance = ((mean - mean.mean(dim=0)) ** 2).mean(dim=0)
    assert numbers["variance"] == pytest.approx(variance[numbers["latents"]].tolist(), rel=1e-4)


@pytest.mark.slow
def test_traversal_sets_bits_and_categories(folder, drawn):
    model, x, _ = of(folder("bernoulli"))
    numbers = generated(folder("bernoulli"), "traversal")
    prob = model.encode(x).mean
    kl = (prob * (2 * prob).log() + (1 - prob) * (2 * (1 - prob)).log()).mean(dim=0)  # against a fair coin
    assert numbers["kl"] == pytest.approx(sorted(kl.tolist(), reverse=True), rel=1e-3)
    z = (prob[0] > 0.5).float().repeat(6, 1)
    for row, d in enumerate(numbers["latents"]):
        z[2 * row, d], z[2 * row + 1, d] = 0, 1
    rows = drawn["images"].unflatten(0, (3, 3))
    torch.testing.assert_close(rows[:, 1:].flatten(0, 1), model.decode(z).mean)
    torch.testing.assert_close(rows[:, 0], x[:1].expand(3, -1, -1, -1))

    model, x, _ = of(folder("categorical"))
    numbers = generated(folder("categorical"), "traversal")
    prob = model.encode(x).mean.unflatten(-1, (2, 3))
    kl = (prob * (3 * prob).log()).sum(dim=-1).mean(dim=0)
    assert numbers["kl"] == pytest.approx(sorted(kl.tolist(), reverse=True), rel=1e-3)
    z = torch.zeros(6, 2, 3)
    other = {d: int(prob[0, d].argmax()) for d in (0, 1)}
    for row, d in enumerate(numbers["latents"]):
        for k in range(3):
            z[3 * row + k, d, k] = 1
            z[3 * row + k, 1 - d, other[1 - d]] = 1
    rows = drawn["images"].unflatten(0, (2, 4))
    torch.testing.assert_close(rows[:, 1:].flatten(0, 1), model.decode(z.flatten(1)).mean)
    assert drawn["heads"] == ["x", "0", "1", "2"]


def test_manifold_is_the_grid_of_even_probability(folder, drawn):
    """Kingma & Welling (2014), figure 4: the first latent to the right, the second upwards."""
    model, *_ = of(folder("vae2d"))
    generated(folder("vae2d"), "manifold", "num_points=4")
    z = norm.ppf([0.125, 0.375, 0.625, 0.875])
    grid = torch.tensor([[across, up] for up in z[::-1] for across in z], dtype=torch.float32)
    torch.testing.assert_close(drawn["images"], model.decode(grid).mean, rtol=0, atol=1e-5)
    assert drawn["heads"] == ["-1.15", "-0.32", "0.32", "1.15"] == drawn["rows"][::-1]

    model, *_ = of(folder("vae"))
    generated(folder("vae"), "manifold", "num_points=4", "dims=[2,0]")
    grid = torch.tensor([[up, 0, across] for up in z[::-1] for across in z], dtype=torch.float32)
    torch.testing.assert_close(drawn["images"], model.decode(grid).mean, rtol=0, atol=1e-5)
    assert "at their median" in drawn["title"]


@pytest.mark.parametrize("flow", [MAF, NSF])
def test_quantiles_of_a_flow_map_as_it_samples(flow):
    """A sample is the quantile of its base's sample; back in the base the grid has the probabilities it was made of."""
    torch.manual_seed(0)
    prior = flow(2, transforms=2, hidden_features=[8]).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    p = prior()
    torch.manual_seed(1)
    z = p.sample((50,)).detach()
    torch.manual_seed(1)
    base = p.base.sample((50,))
    torch.testing.assert_close(quantiles(p, torch.from_numpy(norm.cdf(base)).to(z)), z, rtol=1e-3, atol=1e-4)
    u = torch.rand(20, 2, dtype=z.dtype)
    back = p.transform(quantiles(p, u)).detach()
    np.testing.assert_allclose(norm.cdf(back), u, atol=1e-4)
    assert not torch.allclose(back, quantiles(p, u), atol=0.1)  # the flow does something


def test_manifold_of_a_conditional_flow_is_told_the_label(folder, drawn):
    model, *_ = of(folder("cvae_flow_prior"))
    generated(folder("cvae_flow_prior"), "manifold", "num_points=3", "label=2", "dims=[0,1]")
    c = model.context(torch.full((9,), 2))
    z = norm.ppf([1 / 6, 1 / 2, 5 / 6])
    base = torch.tensor([[across, up, 0] for up in z[::-1] for across in z], dtype=torch.float32)
    torch.testing.assert_close(
        drawn["images"], model.decode(model.prior(c).transform.inv(base), c).mean, rtol=0, atol=1e-4
    )
    assert "y = 2" in drawn["title"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cvae", "cvae_mixture", "cvae_vamp", "m2"])
def test_classes_are_rows_of_the_same_noise(folder, drawn, name):
    model, *_ = of(folder(name))
    generated(folder(name), "classes", "num_images=3")
    assert drawn["rows"] == [f"y = {k}" for k in range(4)]
    assert drawn["images"].shape == (12, 1, 8, 8)
    if name in ("cvae", "m2"):  # whose prior is the same for all
        trained = restore(folder(name), accelerator="cpu")
        trained.reseed("classes")
        z = torch.randn(3, 3)
        rows = [model.decode(z, model.context(torch.full((3,), k))).mean for k in range(4)]
        torch.testing.assert_close(drawn["images"], torch.cat(rows))


def test_the_attribute_is_the_difference_of_the_mean_codes(folder, drawn):
    trained = restore(folder("vae"), accelerator="cpu", progress=False)
    x, y = trained.images(10**6, "train")
    means = {
        k: trained.model.encode(torch.stack([a for a, b in zip(x, y, strict=True) if b == k])).mean for k in (1, 3)
    }
    vector = means[1].mean(dim=0) - means[3].mean(dim=0)
    found, counts = vector_of(trained, source=3, target=1)
    torch.testing.assert_close(found.float(), vector)
    assert counts == [len(means[3]), len(means[1])]

    numbers = generated(folder("vae"), "edit", "source=3", "target=1", "strengths=[-1,0,2]", "num_images=2")
    assert numbers["vector"] == pytest.approx(vector.tolist(), rel=1e-4)
    assert numbers["norm"] == pytest.approx(float(vector.norm()), rel=1e-4)
    x, y = trained.images(10**6)
    chosen = torch.cat([x[y == 3][:2], x[y == 1][:2]])
    z = trained.model.encode(chosen).mean
    rows = [[chosen[i], *trained.model.decode(z[i] + torch.tensor([[-1.0], [0], [2]]) * vector).mean] for i in range(4)]
    torch.testing.assert_close(drawn["images"], torch.stack([cell for row in rows for cell in row]), rtol=0, atol=1e-5)
    assert drawn["rows"] == ["y = 3", "y = 3", "y = 1", "y = 1"]
    assert drawn["heads"] == ["x", "-1", "recon", "+2"]


@pytest.mark.parametrize("name", ["cvae", "m2"])
def test_edit_of_a_conditional_model_keeps_z_and_changes_the_label(folder, drawn, name):
    model, x, y = of(folder(name))
    assert generated(folder(name), "edit", "source=3", "target=1", "num_images=1") == {}
    chosen = torch.stack([x[y == 3][0], x[y == 1][0]])
    told = torch.tensor([3, 1]) if name == "cvae" else model.classify(chosen).argmax(dim=-1)
    z = model.encode(chosen, told).mean
    for row in (0, 1):
        every = model.decode(z[row].expand(4, -1), torch.eye(4)).mean
        torch.testing.assert_close(drawn["images"][5 * row : 5 * row + 5], torch.cat([chosen[row : row + 1], every]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "full_normal", "laplace", "cvae", "hvae", "bernoulli"])
def test_embeddings_are_what_the_encoder_says(folder, drawn, name):
    model, x, y = of(folder(name))
    numbers = generated(folder(name), "embeddings")
    q = model.encode(x, y) if name != "hvae" else model.encode(x).first
    with np.load(folder(name) / "images/embeddings/embeddings.npz") as arrays:
        np.testing.assert_allclose(arrays["mean"], q.mean.detach(), atol=1e-6)
        np.testing.assert_allclose(arrays["scale"], q.variance.sqrt().detach(), rtol=1e-5)
        assert (arrays["y"] == y.numpy()).all()
        with (folder(name) / "images/embeddings/embeddings.csv").open(newline="") as file:
            head, *rows = csv.reader(file)
        assert head == ["image", "name", "y", *(f"mean_{d}" for d in range(3)), *(f"scale_{d}" for d in range(3))]
        both = np.concatenate([arrays["mean"], arrays["scale"]], axis=1)
        np.testing.assert_allclose(np.array(rows)[:, 3:].astype(float), both, rtol=1e-6, atol=1e-9)
        assert [[row[0], row[2]] for row in rows] == [[str(i), str(int(k))] for i, k in enumerate(y)]
    # PCA by the singular values: the picture's axes explain what they say, and are not correlated.
    centred = (q.mean - q.mean.mean(dim=0)).detach().double()
    singular = torch.linalg.svdvals(centred) ** 2
    assert numbers["explained_variance"] == pytest.approx((singular / singular.sum())[:2].tolist(), rel=1e-4)
    products = drawn["points"].T @ drawn["points"]
    torch.testing.assert_close(products.double(), torch.diag(singular[:2]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "has_scale"), [("ae", False), ("flow", False), ("vae", True)])
@pytest.mark.slow
def test_embeddings_leave_out_a_scale_there_is_not(folder, drawn, name, has_scale):
    generated(folder(name), "embeddings", "num_images=10", "projection=tsne")
    with np.load(folder(name) / "images/embeddings/embeddings.npz") as arrays:
        assert ("scale" in arrays) == has_scale
        assert arrays["mean"].shape == (10, 3)
    with (folder(name) / "images/embeddings/embeddings.csv").open(newline="") as file:
        rows = [int(row["image"]) for row in csv.DictReader(file)]
    assert rows == restore(folder(name), accelerator="cpu", progress=False).chosen(10).tolist()
    assert drawn["points"].shape == (10, 2)


def test_two_latents_are_shown_as_they_are(folder, drawn):
    generated(folder("vae2d"), "embeddings", "projection=tsne")
    model, x, _ = of(folder("vae2d"))
    torch.testing.assert_close(drawn["points"], model.encode(x).mean)
    assert drawn["axis_names"] == ["z0", "z1"]


@pytest.mark.parametrize("name", ["vamp", "cvae_vamp"])
def test_pseudo_inputs_stand_with_their_class(folder, drawn, name):
    model, *_ = of(folder(name))
    generated(folder(name), "pseudo_inputs")
    u = model.prior.pseudo_inputs
    if name == "vamp":
        torch.testing.assert_close(drawn["images"][:25], u)
        assert (drawn["columns"], drawn["rows"], len(drawn["images"])) == (20, ["", ""], 40)
    else:  # 10 of 4 classes: 3, 3, 2, 2
        assert (drawn["columns"], drawn["rows"]) == (3, ["y = 0", "y = 1", "y = 2", "y = 3"])
        assert model.prior.context[[2, 6]].argmax(dim=1).tolist() == [2, 2]
        torch.testing.assert_close(drawn["images"][6:9], torch.cat([u[[2, 6]], torch.ones_like(u[:1])]))


def test_files_go_in_and_come_out_at_their_size(folder, tmp_path):
    """A pixel a pixel, of whatever colours; files of the same name do not overwrite each other."""
    run = folder("colour")
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "photo.png", tmp_path / "b/photo.png", tmp_path / "reconstructions.png"]
    pixels = torch.stack([picture(path, (6, 8), "RGB", seed) for seed, path in enumerate(paths)]).permute(0, 3, 1, 2)
    generated(run, "reconstructions", f"input=[{','.join(map(str, paths))}]")
    recon = load(run).reconstruct(pixels)
    for name, image in zip(["photo", "photo_2", "reconstructions_2"], recon, strict=True):
        with Image.open(run / f"images/reconstructions/{name}.png") as written:
            assert written.size == (8, 6)
            levels = torch.from_numpy(np.array(written)).permute(2, 0, 1).float()
        assert (levels / 255 - image.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-5
    with Image.open(run / "images/reconstructions/reconstructions.png") as written:
        assert min(written.size) > 200


@pytest.mark.slow
def test_files_come_out_of_interpolation_edit_traversal_and_embeddings(folder, tmp_path, drawn):
    run, (a, b) = folder("vae"), (tmp_path / "a.png", tmp_path / "b.png")
    x = torch.stack([picture(a, seed=1), picture(b, seed=2)])[:, None]
    model = load(run)
    z = model.encode(x).mean.detach()

    def levels(path):
        with Image.open(run / "images" / path) as image:
            return torch.from_numpy(np.array(image)).float() / 255

    generated(run, "interpolation", f"input=[{a},{b}]", "num_steps=3")
    assert len(list((run / "images/interpolation").glob("a_b_*.png"))) == 6
    middle = model.decode(z.mean(dim=0, keepdim=True)).mean.clamp(0, 1).detach()
    torch.testing.assert_close(levels("interpolation/a_b_linear_1.png"), middle[0, 0], rtol=0, atol=0.003)
    numbers = generated(run, "edit", f"input={a}", "strengths=[0.0,1.0]")
    more = model.decode(z[:1] + torch.tensor(numbers["vector"])).mean.clamp(0, 1).detach()
    torch.testing.assert_close(levels("edit/a_+1.png"), more[0, 0], rtol=0, atol=0.003)
    generated(run, "traversal", f"input={b}", "num_steps=3")
    assert "the code of b" in drawn["title"]
    generated(run, "embeddings", f"input=[{a},{b}]")
    with np.load(run / "images/embeddings/embeddings.npz") as arrays:
        assert arrays["name"].tolist() == [str(a), str(b)]
        np.testing.assert_allclose(arrays["mean"], z, atol=1e-6)
    # In the picture they lie where PCA of the split puts them.
    mean = of(run)[0].encode(of(run)[1]).mean.detach()
    axes = torch.linalg.svd((mean - mean.mean(dim=0)).double(), full_matrices=False)[2][:2]
    torch.testing.assert_close(
        drawn["marked"]["a"].abs(), ((z[0] - mean.mean(dim=0)).double() @ axes.T).abs(), rtol=1e-3, atol=1e-4
    )


def test_files_of_a_conditional_model_need_a_label(folder, tmp_path, drawn):
    x = picture(tmp_path / "a.png")[None, None]
    with pytest.raises(ConfigError, match="label=null: the model needs the label"):
        generated(folder("cvae"), "reconstructions", f"input={tmp_path / 'a.png'}")
    generated(folder("cvae"), "reconstructions", f"input={tmp_path / 'a.png'}", "label=3")
    torch.testing.assert_close(drawn["images"][1:], load(folder("cvae")).reconstruct(x, torch.tensor([3])))
    generated(folder("m2"), "reconstructions", f"input={tmp_path / 'a.png'}")
    model = load(folder("m2"))
    torch.testing.assert_close(drawn["images"][1:], model.reconstruct(x, model.classify(x).argmax(dim=-1)))


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("ae", "manifold", "no prior"),
        ("vae1d", "manifold", "no plane"),
        *((name, "manifold", "no map from the unit square") for name in NO_MAP),
        ("bernoulli", "interpolation", "bits or categories"),
        ("categorical", "edit", "bits or categories"),
        ("vae", "classes", "train model=cvae"),
        ("mixture", "pseudo_inputs", "prior=vamp"),
        ("real", "edit", "no labels"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(folder, name, what, said):
    with pytest.raises(NoMeaningError, match=said):
        generated(folder(name), what)
    assert not (folder(name) / "images" / what).exists()


@pytest.mark.parametrize(
    ("name", "what", "options", "said"),
    [
        ("vae", "reconstructions", ("num_images=0",), "num_images=0"),
        ("vae", "reconstructions", ("label=1",), "VAE is given no label"),
        ("vae", "reconstructions", ("input=[]",), "at least one file"),
        ("vae", "reconstructions", ("input=nowhere.png",), "input=nowhere.png"),
        ("cvae", "reconstructions", ("label=4",), "labels of this run are 0 to 3"),
        ("vae", "interpolation", ("num_steps=1",), "at least 2"),
        ("vae", "interpolation", ("pairs=[[0,64]]",), "images 0 to 63"),
        ("vae", "interpolation", ("pairs=[0,1]",), "pairs of images"),
        ("vae", "interpolation", ("input=a.png",), "two files"),
        ("vae", "traversal", ("image=64",), "test images are 0 to 63"),
        ("vae", "traversal", ("input=[a.png,b.png]",), "one file"),
        ("vae", "traversal", ("num_dims=0",), "num_dims=0"),
        ("vae", "manifold", ("dims=[0,3]",), "dimensions 0 to 2"),
        ("vae", "manifold", ("dims=[1,1]",), "dimensions 0 to 2"),
        ("vae", "manifold", ("num_points=1",), "num_points=1"),
        ("cvae", "classes", ("num_images=0",), "num_images=0"),
        ("vae", "edit", ("target=0",), "two classes"),
        ("vae", "edit", ("num_images=0",), "num_images=0"),
        ("vae", "edit", ("target=4",), "target=4: the labels are 0 to 3"),
        ("vae", "embeddings", ("projection=umap",), "choose pca or tsne"),
        ("vae", "embeddings", ("num_images=1",), "num_images=1"),
    ],
)
def test_an_option_that_is_none_is_refused(folder, name, what, options, said):
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        generated(folder(name), what, *options)


@pytest.mark.parametrize("what", ["interpolation", "traversal", "manifold", "edit", "embeddings", "classes"])
def test_pictures_are_written(folder, what):
    run = folder("cvae" if what == "classes" else "vae")
    generated(run, what)
    with Image.open(run / "images" / what / f"{what}.png") as image:
        assert min(image.size) > 300


@pytest.mark.slow
def test_the_same_seed_makes_the_same(folder, drawn):
    """Of a flow, whose codes are samples, too."""
    for what in ("traversal", "interpolation", "embeddings"):
        first = generated(folder("flow"), what)
        images = drawn.get("points" if what == "embeddings" else "images")
        assert generated(folder("flow"), what) == first
        torch.testing.assert_close(drawn["points" if what == "embeddings" else "images"], images, rtol=0, atol=0)


def test_codes_that_are_all_the_same_have_no_share_of_a_variance(folder):
    trained = restore(folder("vae"), accelerator="cpu", progress=False)
    *_, numbers = _project(trained, torch.ones(10, 3), torch.zeros(0, 3), is_tsne=False)
    assert numbers == {"explained_variance": [0, 0]}

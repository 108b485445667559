"""The models: exact sums, exact gradients, and who is told what."""

from functools import partial
from itertools import product
from math import sqrt

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.utils.data import DataLoader, TensorDataset
from zuko.flows import MAF
from zuko.mixtures import GMM

from vae_exp import decoders, encoders, likelihoods
from vae_exp.ledger import NonFiniteError
from vae_exp.models import CVAE, VAE, BetaVAE
from vae_exp.objectives import ELBO, BetaELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal
from vae_exp.runs.dry_run import check_shapes

B, K, D, FEATURES, CLASSES = 5, 3, 3, 6, 4
IMAGE = (1, 8, 8)
NETWORKS = ["mlp", "conv"]
ENCODERS = {
    "mlp": partial(encoders.MLP, hidden=[7], out_features=FEATURES, activation="Tanh"),
    "conv": partial(encoders.Conv, channels=[2, 3], out_features=FEATURES, activation="Tanh"),
}
DECODERS = {
    "mlp": partial(decoders.MLP, hidden=[7], activation="Tanh"),
    "conv": partial(decoders.Conv, channels=[3, 2], hidden=7, activation="Tanh"),
}
PRIORS = {
    "standard_normal": lambda d, c: StandardNormal(d),
    "mixture": partial(GMM, components=2, covariance_type="diagonal", activation=nn.Tanh),
    "flow": partial(MAF, transforms=2, hidden_features=[8]),
}

networks = pytest.mark.parametrize("network", NETWORKS)
models = pytest.mark.parametrize("cls", [VAE, CVAE, BetaVAE])
priors = pytest.mark.parametrize("prior", ["standard_normal", "mixture"])
num_samples = pytest.mark.parametrize("k", [1, K])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(cls=VAE, encoder="mlp", decoder="mlp", prior="standard_normal", image=IMAGE, d=D, **parts):
    """A small model; encoder, decoder and prior are names of the above or modules, `parts` whatever else differs."""
    context_dim = CLASSES if cls is CVAE else 0
    default = {
        "posterior": DiagonalNormal(FEATURES, d),
        "likelihood": likelihoods.Bernoulli(),
        "objective": BetaELBO(4.0) if cls is BetaVAE else ELBO(),
    }
    return cls(
        encoder=ENCODERS[encoder](image, context_dim) if isinstance(encoder, str) else encoder,
        decoder=DECODERS[decoder](d, image, context_dim) if isinstance(decoder, str) else decoder,
        prior=PRIORS[prior](d, context_dim) if isinstance(prior, str) else prior,
        context_dim=context_dim,
        **{**default, **parts},
    )


def make_batch(b=B, image=IMAGE):
    return torch.rand(b, *image).round(), torch.arange(b) % CLASSES


# --- Brute force: every image, every latent ---------------------------------------------------------------------


@models
@priors
def test_elbo_bounds_a_likelihood_that_sums_to_one_over_all_images(cls, prior):
    image, samples = (1, 2, 2), 1000
    model = make(cls, prior=prior, image=image, d=2).requires_grad_(False)
    x = torch.tensor(list(product([0.0, 1.0], repeat=4))).view(16, *image)
    for weight in model.prior.parameters():
        weight *= 0.5  # no component too narrow or too far out for the grid
    side = torch.linspace(-12, 12, 161)
    z = torch.cartesian_prod(side, side)[:, None].expand(-1, 16, -1)
    for label in range(CLASSES if cls is CVAE else 1):
        y = torch.full((16,), label)
        grid = model.draw(x, y, z=z)
        log_px = (grid.log_px + grid.log_pz).double().logsumexp(0) + 2 * (side[1] - side[0]).double().log()
        assert log_px.exp().sum().item() == pytest.approx(1, abs=1e-4)  # p(x), for a CVAE p(x | y)
        draw = model.draw(x, y, samples)
        ratio = (draw.log_px + draw.log_pz - draw.log_qz).double()
        error = (ratio if draw.kl_per_dim is None else draw.log_px).std(0) / sqrt(samples)
        assert (draw.elbo < log_px + 4 * error).all()
        if prior == "standard_normal":  # E_q[p(x, z) / q(z)] = p(x); of a mixture's tails q sees too little
            error = ratio.exp().std(0) / sqrt(samples)
            assert ((ratio.exp().mean(0) - log_px.exp()).abs() < 4 * error).all()


# --- Draws ------------------------------------------------------------------------------------------------------


@models
@networks
@priors
def test_every_term_of_an_image_and_latent_is_that_of_the_image_and_latent_alone(cls, network, prior):
    model = make(cls, network, network, prior).requires_grad_(False)
    x, y = make_batch()
    draw = model.draw(x, y, K)
    assert draw.z.shape == (K, B, D)
    for k, b in product(range(K), range(B)):
        one = model.draw(x[b : b + 1], y[b : b + 1], z=draw.z[k : k + 1, b : b + 1])
        for term in ("log_px", "log_pz", "log_qz"):
            torch.testing.assert_close(getattr(draw, term)[k, b], getattr(one, term)[0, 0], rtol=1e-4, atol=1e-4)


@num_samples
@priors
def test_elbo_is_the_mean_over_latents(prior, k):
    model, (x, y) = make(prior=prior, objective=ELBO(k)), make_batch()
    loss, draw = model.objective(model, x, y, model.step)
    assert draw.z.shape == (k, B, D)
    logits = torch.stack([model.decoder(z) for z in draw.z])
    log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").flatten(2).sum(2)
    if prior == "standard_normal":
        mu, var = draw.q.mean, draw.q.variance
        kl = -0.5 * (1 + var.log() - mu**2 - var).sum(-1)
    else:
        kl = (draw.q.log_prob(draw.z) - model.prior().log_prob(draw.z)).mean(0)
    torch.testing.assert_close(draw.recon, -log_px.mean(0))
    torch.testing.assert_close(draw.elbo, log_px.mean(0) - kl)
    torch.testing.assert_close(loss, -(log_px.mean(0) - kl).mean())


@pytest.mark.parametrize("objective", [ELBO, partial(BetaELBO, 1.0)])
@pytest.mark.parametrize("k", [0, -1])
def test_at_least_one_latent_is_needed(objective, k):
    with pytest.raises(ValueError, match=r"objective\.num_samples"):
        objective(num_samples=k)


# --- Gradients --------------------------------------------------------------------------------------------------

TRAININGS = {
    "vae": (VAE, ELBO()),
    "vae_k3": (VAE, ELBO(K)),
    "vae_beta": (VAE, BetaELBO(4.0)),
    "cvae": (CVAE, ELBO()),
    "cvae_k3": (CVAE, ELBO(K)),
    "cvae_beta": (CVAE, BetaELBO(4.0)),
    "beta_vae": (BetaVAE, BetaELBO(4.0)),
    "beta_vae_k3": (BetaVAE, BetaELBO(4.0, K)),
}


@pytest.mark.parametrize(("cls", "objective"), TRAININGS.values(), ids=TRAININGS)
@pytest.mark.parametrize("encoder", NETWORKS)
@pytest.mark.parametrize("decoder", NETWORKS)
@priors
def test_gradient_reaches_every_parameter_and_is_that_of_the_loss(cls, objective, encoder, decoder, prior):
    model = make(cls, encoder, decoder, prior, objective=objective)
    x, y = make_batch(16)

    def loss():
        torch.manual_seed(1)  # the same noise
        return model.objective(model, x, y, model.step)[0]

    loss().backward()
    parameters = dict(model.named_parameters())
    untouched = [name for name, p in parameters.items() if p.grad is None or not p.grad.all()]
    assert untouched == []

    # The slope along the gradient, by central differences, is its length.
    gradient = [p.grad for p in parameters.values()]
    length = torch.sqrt(sum((g**2).sum() for g in gradient))
    ahead_and_behind = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            for p, g in zip(parameters.values(), gradient, strict=True):
                p += step * g / length
            ahead_and_behind.append(loss())
    slope = (ahead_and_behind[0] - ahead_and_behind[1]) / 2e-2
    torch.testing.assert_close(slope, length, rtol=5e-3, atol=0)


# --- The conditional VAE ----------------------------------------------------------------------------------------


@torch.no_grad()
def make_blind(vae, network):
    """A CVAE with the weights of `vae` and zeros wherever a label enters."""
    cvae = make(CVAE, network, network)
    state = vae.state_dict()
    for name in ("encoder.layers.0.weight", "decoder.layers.0.weight"):
        zeros = torch.zeros_like(state[name][:, :1]).repeat_interleave(CLASSES, dim=1)
        state[name] = torch.cat([state[name], zeros], dim=1)
    cvae.load_state_dict(state)
    return cvae


@networks
@num_samples
def test_a_cvae_blind_to_labels_is_a_vae(network, k):
    vae, (x, y) = make(VAE, network, network), make_batch()
    cvae, draws = make_blind(vae, network), []
    for model in (vae, cvae):
        torch.manual_seed(1)
        draws.append(model.draw(x, y, k))
    for term in ("z", "log_px", "log_pz", "log_qz", "kl", "elbo"):
        torch.testing.assert_close(getattr(draws[0], term), getattr(draws[1], term), rtol=1e-5, atol=1e-5)


@networks
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_cvae_that_sees_labels_depends_on_them_in_that_part(network, part):
    model, (x, y) = make_blind(make(VAE, network, network), network).requires_grad_(False), make_batch()
    getattr(model, part).layers[0].weight[:, -CLASSES:].normal_()
    z = torch.randn(K, B, D)
    one, other = (model.draw(x, labels, z=z) for labels in (y, (y + 1) % CLASSES))
    changed, same = ("log_qz", "log_px") if part == "encoder" else ("log_px", "log_qz")
    assert ((getattr(one, changed) - getattr(other, changed)).abs().mean(0) > 1e-3).all()
    torch.testing.assert_close(getattr(one, same), getattr(other, same))


def test_the_context_of_a_cvae_is_the_one_hot_label():
    assert make(CVAE).context(torch.tensor([2, 0])).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert make(VAE).context(torch.tensor([2, 0])) is None


@pytest.mark.parametrize("call", ["draw", "encode", "reconstruct"])
def test_a_cvae_without_labels_is_an_error(call):
    with pytest.raises(ValueError, match="labels y"):
        getattr(make(CVAE), call)(make_batch()[0])
    with pytest.raises(ValueError, match="labels y"):
        make(CVAE).sample(2)


# --- The beta-VAE -----------------------------------------------------------------------------------------------


def train(model, steps=5):
    """Every parameter after `steps` steps of Adam."""
    torch.manual_seed(1)
    optimizer = model.configure_optimizers()
    for i in range(steps):
        optimizer.zero_grad()
        model.training_step(make_batch(), i).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_beta_one_is_a_vae_step_for_step():
    vae, one, four = make(VAE), make(BetaVAE, objective=BetaELBO(1.0)), make(BetaVAE)
    for model in (one, four):
        model.load_state_dict(vae.state_dict())
    expected = train(vae)
    torch.testing.assert_close(train(one), expected, rtol=0, atol=1e-6)
    assert (train(four) - expected).abs().max() > 1e-3


@num_samples
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_beta_weights_the_kl_in_the_loss_and_nothing_in_the_draw(beta, k):
    model, (x, y) = make(BetaVAE, objective=BetaELBO(beta, k)), make_batch()
    loss, draw = model.objective(model, x, y, model.step)
    q = draw.q
    kl = kl_divergence(q, Independent(Normal(torch.zeros(B, D), 1.0), 1))
    torch.testing.assert_close(draw.kl, kl)
    torch.testing.assert_close(draw.elbo, draw.log_px.mean(0) - kl)
    torch.testing.assert_close(loss, (-draw.log_px.mean(0) + beta * kl).mean())


def test_a_beta_vae_on_another_objective_names_the_model_to_choose():
    with pytest.raises(ValueError, match="model=vae"):
        make(BetaVAE, objective=ELBO())
    with pytest.raises(ValueError, match=r"objective\.beta"):
        BetaELBO(-1.0)


# --- The ledger -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")  # Lightning's
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_validation_logs_means_over_images_when_the_last_batch_is_smaller(beta, tmp_path):
    model = make(BetaVAE, objective=BetaELBO(beta))
    nn.init.constant_(model.posterior.logvar.bias, -60.0)  # no noise to speak of, so that batches do not matter
    x, y = make_batch(11)
    nn.init.constant_(model.decoder.layers[-1].bias, 1.0)
    x[8:] = 0  # the smaller last batch is far worse
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    logged = trainer.validate(model, data, verbose=False)[0]
    with torch.no_grad():
        q = model.encode(x)
        recon = F.binary_cross_entropy_with_logits(model.decoder(q.mean), x, reduction="none").sum((1, 2, 3))
    kl = -0.5 * (1 + q.variance.log() - q.mean**2 - q.variance).sum(-1)
    expected = {"elbo": -(recon + kl), "recon": recon, "kl": kl, "loss": recon + beta * kl}
    assert abs(sum(part.mean() for part in recon.split(4)) / 3 - recon.mean()) > 1  # the mean of batch means
    assert logged == {f"val/{name}": pytest.approx(v.mean().item(), rel=1e-5) for name, v in expected.items()}


def test_a_loss_that_is_no_number_stops_the_training_and_names_the_term():
    model, (x, y) = make(), make_batch()
    nn.init.constant_(model.decoder.layers[-1].bias, torch.nan)
    model.training_step((x, y), 7)
    with pytest.raises(NonFiniteError, match=r"batch 7\): recon is nan for 5 of 5 images\."):
        model.ledgers["train"].add_up()


# --- Mixed precision --------------------------------------------------------------------------------------------


@models
@networks
@priors
def test_densities_are_float32_under_bf16_autocast(cls, network, prior):
    model, (x, y) = make(cls, network, network, prior), make_batch()
    seen = {}
    for part in ("encoder", "decoder"):
        getattr(model, part).register_forward_hook(lambda _, args, out, part=part: seen.setdefault(part, out))
    with torch.autocast("cpu", torch.bfloat16):
        loss, draw = model.objective(model, x, y, model.step)
        terms = (draw.log_px, draw.log_pz, draw.log_qz, draw.kl, draw.recon, draw.elbo)
    assert seen["encoder"].dtype == seen["decoder"].dtype == torch.bfloat16
    assert {t.dtype for t in (draw.z, loss, *terms)} == {torch.float32}
    # The same numbers in float32, from what the networks gave in bf16
    expected = F.binary_cross_entropy_with_logits(seen["decoder"].float(), x, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(draw.recon, expected, rtol=1e-6, atol=0)
    q, p = model.posterior(seen["encoder"].float()), model.prior(model.context(y))
    torch.testing.assert_close(draw.log_qz, q.log_prob(draw.z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(draw.log_pz, p.log_prob(draw.z), rtol=1e-6, atol=1e-6)


def test_a_flow_is_float32_under_bf16_autocast():
    model, (x, y) = make(prior="flow"), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        draw = model.draw(x, y, K)
        log_pz = draw.log_pz
    torch.testing.assert_close(log_pz, draw.p.log_prob(draw.z), rtol=1e-5, atol=1e-5)


def test_encode_and_draw_mean_the_same_posterior_under_bf16_autocast():
    model, (x, _) = make(), make_batch()
    with torch.autocast("cpu", torch.bfloat16):
        q, expected = model.encode(x), model.draw(x).q
    torch.testing.assert_close(q.mean, expected.mean)


# --- Samples and reconstructions --------------------------------------------------------------------------------


@models
@networks
@priors
def test_samples_and_reconstructions_are_mean_images(cls, network, prior):
    model, (x, y) = make(cls, network, network, prior), make_batch()
    for images in (model.reconstruct(x, y), model.sample(B, y)):
        assert images.shape == (B, *IMAGE)
        assert not images.requires_grad
        assert ((images > 0) & (images < 1)).all()
    with torch.no_grad():
        logits = model.decoder(model.encode(x, y).mean, model.context(y))
    torch.testing.assert_close(model.reconstruct(x, y), logits.sigmoid())


class Reshape(nn.Module):
    """A decoder: the latents are the pixels."""

    def forward(self, z, c):
        return z.unflatten(1, (1, 1, CLASSES))


class Island(nn.Module):
    """A prior: a narrow normal around 10 times the label's one-hot code."""

    def forward(self, c):
        return Independent(Normal(10 * c, 0.01), 1)


def test_samples_come_from_the_prior_of_their_own_label():
    posterior = DiagonalNormal(FEATURES, CLASSES)
    model = make(CVAE, decoder=Reshape(), posterior=posterior, prior=Island(), likelihood=likelihoods.Normal(1.0))
    y = torch.tensor([2, 0, 3, 3, 1])
    images = model.sample(5, y).flatten(1)
    torch.testing.assert_close(images, 10 * F.one_hot(y, CLASSES).float(), rtol=0, atol=0.1)


# --- The fit of the parts ---------------------------------------------------------------------------------------


def frozen(model):
    """Everything a check may not change: weights, buffers, modes."""
    return (
        {name: t.clone() for name, t in model.state_dict().items()},
        {name: module.training for name, module in model.named_modules()},
    )


@models
@pytest.mark.parametrize("encoder", NETWORKS)
@pytest.mark.parametrize("decoder", NETWORKS)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("image", [(1, 8, 8), (3, 9, 5)])
def test_parts_that_fit_are_accepted(cls, encoder, decoder, prior, image):
    check_shapes(make(cls, encoder, decoder, prior, image), image)


@pytest.mark.parametrize("training", [True, False])
def test_a_check_changes_nothing(training):
    model = make()
    model.encoder.layers.extend([nn.BatchNorm1d(FEATURES), nn.Dropout()])
    model.train(training)
    weights, modes = frozen(model)
    check_shapes(model, IMAGE)
    weights_after, modes_after = frozen(model)
    torch.testing.assert_close(weights_after, weights, rtol=0, atol=0)
    assert modes_after == modes
    assert all(p.grad is None for p in model.parameters())


def test_a_check_leaves_a_frozen_part_frozen():
    model = make()
    model.encoder.eval()
    check_shapes(model, IMAGE)
    assert not model.encoder.training
    assert model.decoder.training


def test_a_check_that_fails_leaves_the_mode():
    model = make(posterior=DiagonalNormal(FEATURES + 1, D))
    with pytest.raises(ValueError, match="posterior"):
        check_shapes(model, IMAGE)
    assert model.training


MISFITS = [
    ("encoder", VAE, {"encoder": encoders.MLP((1, 8, 7))}),
    ("encoder", VAE, {"encoder": encoders.Conv((3, 8, 8), channels=[2])}),
    ("encoder", VAE, {"encoder": nn.Module()}),
    ("encoder", CVAE, {"encoder": encoders.MLP(IMAGE)}),
    ("posterior", VAE, {"posterior": DiagonalNormal(FEATURES + 1, D)}),
    ("prior", VAE, {"prior": StandardNormal(D + 1)}),
    ("prior", VAE, {"prior": StandardNormal(1)}),
    ("prior", VAE, {"prior": GMM(D + 1)}),
    ("prior", CVAE, {"prior": GMM(D, CLASSES + 1)}),
    ("prior", CVAE, {"prior": GMM(D)}),
    ("prior", VAE, {"prior": GMM(D, CLASSES)}),
    ("decoder", VAE, {"decoder": decoders.MLP(D + 1, IMAGE)}),
    ("decoder", VAE, {"decoder": decoders.MLP(D, (1, 8, 7))}),
    ("decoder", VAE, {"decoder": decoders.Conv(D, (3, 8, 8))}),
    ("decoder", VAE, {"decoder": decoders.MLP(D, IMAGE, params_per_pixel=2)}),
    ("decoder", CVAE, {"decoder": decoders.MLP(D, IMAGE)}),
]


@pytest.mark.parametrize(("part", "cls", "parts"), MISFITS)
def test_parts_that_do_not_fit_are_named(part, cls, parts):
    with pytest.raises(ValueError, match=f"^{part} "):
        check_shapes(make(cls, **parts), IMAGE)


# --- What a user gives a model by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "call", "said"),
    [
        (VAE, lambda m: m.encode(torch.rand(8, 8)), r"encoder reads .* \(N, 1, 8, 8\), not torch.float32 \(8, 8\)"),
        (VAE, lambda m: m.log_marginal(torch.rand(2, 8, 8)), r"\(N, 1, 8, 8\), not torch.float32 \(2, 8, 8\)"),
        (VAE, lambda m: m.reconstruct(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), "not torch.uint8"),
        (VAE, lambda m: m.decode(torch.rand(2, D + 1)), rf"decoder reads .* \(N, {D}\), not .* \(2, {D + 1}\)"),
        (VAE, lambda m: m.decode(torch.rand(2, D), torch.rand(2, 4)), r"nothing beside .*; c is \(2, 4\)"),
        (CVAE, lambda m: m.decode(torch.rand(2, D)), r"c = model.context\(y\), \(N, 4\)"),
        (CVAE, lambda m: m.encode(torch.rand(2, 1, 8, 8), torch.zeros(3, dtype=torch.long)), r"c is \(3, 4\)"),
        (CVAE, lambda m: m.encode(torch.rand(1, 1, 8, 8), torch.tensor([4])), "whole numbers from 0 to 3"),
        (CVAE, lambda m: m.sample(1, torch.tensor([0.5])), "whole numbers from 0 to 3"),
        (CVAE, lambda m: m.sample(2, torch.tensor([0])), "1 labels y for 2 samples"),
    ],
)
@networks
def test_what_does_not_fit_is_said_in_words_of_the_model(network, cls, call, said):
    with pytest.raises(ValueError, match=said):
        call(make(cls, encoder=network, decoder=network))

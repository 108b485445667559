"""How well the label is known from the latents, or from the model itself."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from vae_exp.columns import Column
from vae_exp.config import NoMeaningError
from vae_exp.estimators.importance import importance_sampling
from vae_exp.metrics.nll import with_errors
from vae_exp.metrics.options import at_least
from vae_exp.precision import on_cpu
from vae_exp.runs.trained import Trained

__all__ = ["bayes", "labels", "of_attributes", "probes"]

DRAWS = 16  # samples whose mean replaces a posterior mean that has no formula


def labels(trained: Trained, num_train: int, neighbours: int, num_samples: int) -> dict[str, Any]:
    """How well the label is predicted: from the posterior means or, if the model is given the label, by Bayes' rule; of
    attributes each one from the posterior means.

    Arguments:
        trained: The run.
        num_train: The largest number of labelled training images that probes learn from, drawn at random.
        neighbours: k of the k nearest neighbours.
        num_samples: Latents for each image and class, for Bayes' rule.

    Returns:
        See `probes` and `bayes`; of attributes see `of_attributes`.

    Raises:
        ValueError: If an option is out of its range.
        NoMeaningError: If the data have no labels, a conditional model is given attributes, the training images are of
            one class, or probes would be scored on them.
    """
    at_least(1, num_train=num_train, neighbours=neighbours, num_samples=num_samples)
    condition = trained.data.condition
    if not condition.width:
        raise NoMeaningError(condition.no_classes)
    if trained.model.needs_labels and not condition.num_classes:
        raise NoMeaningError(
            "the posterior is given the attributes, so a probe would find them in its codes, and Bayes' rule is for "
            "classes: choose model=vae"
        )
    if trained.model.needs_labels:  # its posterior is given the label, so a probe would find it there
        return bayes(trained, num_samples)
    if trained.split == "train":
        raise NoMeaningError("split=train: probes would be scored on the images they learn from, choose test or val")
    (z, y), (z_train, y_train) = _means(trained, trained.split), _means(trained, "train")
    if not condition.num_classes:
        trained.reseed("labels")
        some = torch.randperm(len(z_train))[:num_train].sort().values
        return of_attributes(condition.columns, z_train[some], y_train[some], z, y, neighbours)
    known = (y_train >= 0).nonzero()[:, 0]
    trained.reseed("labels")
    chosen = known[torch.randperm(len(known))[:num_train]].sort().values
    if len(y_train[chosen].unique()) < 2:
        raise NoMeaningError("the labelled training images are all of one class: there is nothing to predict")
    has_label = y >= 0
    return probes(z_train[chosen], y_train[chosen], z[has_label], y[has_label], neighbours)


def of_attributes(
    columns: Sequence[Column], z_train: Tensor, y_train: Tensor, z: Tensor, y: Tensor, neighbours: int
) -> dict[str, Any]:
    """Probes of each attribute, `(N, A)`: those of `probes` for binary and categorical ones, `probe_r2` and `knn_r2` of
    a linear regression and of the mean of the nearest neighbours for real ones; names end in that of the attribute."""
    from sklearn.linear_model import LinearRegression
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers: dict[str, Any] = {"probe_train_images": len(z_train)}
    codes, codes_train = z.cpu().numpy(), z_train.cpu().numpy()
    for d, column in enumerate(columns):
        of, of_train = y[:, d].cpu(), y_train[:, d].cpu()
        if len(of_train.unique()) < 2 or len(of.unique()) < 2:
            numbers[f"probe_refused_{column.name}"] = "all images have one value: there is nothing to predict"
        elif column.kind == "real":
            methods = {
                "probe": make_pipeline(StandardScaler(), LinearRegression()),
                "knn": KNeighborsRegressor(min(neighbours, len(codes_train))),
            }
            for name, method in methods.items():
                found = method.fit(codes_train, of_train.numpy()).score(codes, of.numpy())
                numbers[f"{name}_r2_{column.name}"] = float(found)
        else:
            found = probes(z_train, of_train.long(), z, of.long(), neighbours)
            numbers |= {
                key.replace("accuracy", f"accuracy_{column.name}"): value
                for key, value in found.items()
                if "acc" in key
            }
    return numbers


def probes(z_train: Tensor, y_train: Tensor, z: Tensor, y: Tensor, neighbours: int) -> dict[str, Any]:
    """Classifiers of codes `(N, D)` with labels `(N,)`, trained on the codes of training images.

    Returns:
        `probe_accuracy`, for a logistic regression on standardised codes, and `knn_accuracy`, for the vote of the
        nearest neighbours, with standard errors over images; `probe_train_images`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifiers = {
        "probe": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        # Not standardised, because a dead dimension would become as large as one that is used.
        "knn": KNeighborsClassifier(min(neighbours, len(z_train))),
    }
    numbers: dict[str, Any] = {"probe_train_images": len(z_train)}
    for name, classifier in classifiers.items():
        share = classifier.fit(z_train.cpu().numpy(), y_train.cpu().numpy()).score(z.cpu().numpy(), y.cpu().numpy())
        numbers |= _accuracy(name, float(share), len(y))
    return numbers


@torch.no_grad()
def bayes(trained: Trained, num_samples: int) -> dict[str, Any]:
    """Classification by `p(y | x) = p(x | y) p(y) / sum_y p(x | y) p(y)`.

    log p(x | y) of every class is estimated by importance sampling, p(y) is the share of the class in the training
    images.

    Returns:
        `bayes_accuracy`; `nll_given_label`, `-log p(x | y)` of the true label; `nll_marginal`,
        `-log sum_y p(y) p(x | y)`, which can be compared with the nll of a model that is given no label. Both are upper
        bounds on average, with standard errors over images and over draws. `bayes_samples`, latents for each image and
        class.
    """
    model, num_classes = trained.model, trained.model.num_classes
    trained.setup("train")
    counts = torch.bincount(trained.data.splits["train"].y, minlength=num_classes)
    log_py = (counts / counts.sum()).log()
    marginal, given, right, spread, spread_given = [], [], [], [], []
    total = trained.num_images() * num_classes * num_samples
    with trained.bar(total, f"Bayes' rule, {num_samples} latents a class", "latents") as bar:
        for x, y in trained.batches():
            parts = [
                importance_sampling(model.draw(x, torch.full_like(y, k)), num_samples, bar.update)
                for k in range(num_classes)
            ]
            log_px = torch.stack([part.log_px for part in parts], dim=1)  # (B, Y)
            variance = torch.stack([part.variance for part in parts], dim=1).clamp(min=0)
            log_joint = log_px + log_py.to(log_px)
            marginal.append(log_joint.logsumexp(dim=1))
            # To first order, the log of the sum changes by p(y | x) times the change of log p(x | y).
            spread.append((log_joint.softmax(dim=1).square() * variance).sum(dim=1))
            right.append(on_cpu(log_joint.argmax(dim=1) == y))
            given.append(log_px.gather(1, y[:, None])[:, 0])
            spread_given.append(variance.gather(1, y[:, None])[:, 0])
    numbers: dict[str, Any] = _accuracy("bayes", float(torch.cat(right).mean()), trained.num_images())
    for name, values, spreads in (("marginal", marginal, spread), ("given_label", given, spread_given)):
        numbers |= with_errors(f"nll_{name}", -torch.cat(values), torch.cat(spreads))
    return numbers | {"bayes_samples": num_samples}


def _accuracy(name: str, share: float, num_images: int) -> dict[str, float]:
    return {f"{name}_accuracy": share, f"{name}_accuracy_se_images": sqrt(share * (1 - share) / num_images)}


@torch.no_grad()
def _means(trained: Trained, split: str) -> tuple[Tensor, Tensor]:
    """`E_q z`, `(N, D)`, and labels `(N,)`, -1 for none."""
    z, labels = [], []
    with trained.bar(trained.num_images(split), f"{split} codes") as bar:
        for x, y in trained.batches(split):
            z.append(trained.model.draw(x, y).mean(DRAWS))
            labels.append(y)
            bar.update(len(x))
    return torch.cat(z), torch.cat(labels)

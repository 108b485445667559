"""Networks whose features measure sample quality: a small classifier of the same data, or Inception from a file."""

from dataclasses import replace
from hashlib import sha256

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.encoders import Conv
from vae_exp.files import written
from vae_exp.runs.trained import Trained

__all__ = ["Classifier", "Inception", "classifier"]

WIDTH = 64
NUM_IMAGES, EPOCHS, BATCH, RATE = 20000, 8, 100, 2e-3  # with fewer images, more epochs, up to 40


class Classifier(nn.Module):
    """A classifier: two convolutions that halve the image (fewer if it is tiny) and a layer of 64 features.

    Arguments:
        image_shape: `(C, H, W)`.
        num_classes: Y.

    Attributes:
        accuracy: Its accuracy on validation images.
    """

    mean: Tensor
    std: Tensor
    accuracy: Tensor

    def __init__(self, image_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        halvings = min(2, min(image_shape[1:]).bit_length() - 1)
        # Features with mean 0 and variance 1: each one counts, and the kernel distance has its usual scale.
        self.norm = nn.BatchNorm1d(WIDTH, affine=False)
        self.convolutions = Conv(image_shape, channels=(16, 32)[:halvings], out_features=WIDTH, activation="GELU")
        self.head = nn.Linear(WIDTH, num_classes)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.register_buffer("accuracy", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Features, `(B, C, H, W) -> (B, 64)`."""
        return self.norm(self.convolve(x))

    def convolve(self, x: Tensor) -> Tensor:
        """Features before they are scaled to mean 0 and variance 1."""
        return self.convolutions((x - self.mean) / self.std)


class Inception(nn.Module):
    """Inception v3 of torchvision with weights from a file; its features are the 2048 inputs of its last layer.

    Arguments:
        path: A state dict of `torchvision.models.inception_v3`, as torchvision distributes it.

    Raises:
        ConfigError: If the file is not such a state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: str) -> None:
        from torchvision.models import inception_v3

        super().__init__()
        self.network = inception_v3(weights=None, init_weights=False)
        try:
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a corrupt file can fail in any way
            reason = str(error).splitlines()[0]
            what = "not a state dict of torchvision's inception_v3"
            raise ConfigError(f"quality.inception={path} is {what}: {reason}") from error
        self.network.fc = nn.Identity()
        # Mean and standard deviation of ImageNet, because the weights were trained with these.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Features of images in [0, 1], grey or RGB, `(B, C, H, W) -> (B, 2048)`."""
        x = F.interpolate(x.clamp(0, 1), size=(299, 299), mode="bilinear", antialias=True)
        return self.network((x.expand(-1, 3, -1, -1) - self.mean) / self.std)


def classifier(trained: Trained) -> Classifier:
    """A classifier of the training images, always the same one: its weights depend only on the data.

    It is trained once, on the CPU, and saved in the run folder. Other runs next to this folder that use the same data
    load it from there.

    Raises:
        NoMeaningError: If the data have no labels.
    """
    if trained.data.num_classes is None:
        raise NoMeaningError(
            f"{trained.data.condition.no_classes}: there are no labels to train a classifier with, so no features to "
            "compare: quality.inception=<file> uses those of Inception"
        )
    trained.setup("train")
    data = trained.with_all_labels().data.on(torch.device("cpu"))  # same weights for any accelerator
    whole = replace(trained, data=data, seed=0)
    whole.reseed("classifier")
    network = Classifier(data.image_shape, trained.data.num_classes)
    settings = (data.checksums["train"], data.representation.title, NUM_IMAGES, EPOCHS, str(network))
    path = trained.folder / f"classifier-{sha256(repr(settings).encode()).hexdigest()[:12]}.pt"
    found = [path for path in [path, *sorted(path.resolve().parent.parent.glob(f"*/{path.name}"))] if path.exists()]
    if found:
        network.load_state_dict(torch.load(found[0], weights_only=True))
    else:
        _train(network, whole)
    if path not in found:
        with written(path, "wb") as file:
            torch.save(network.state_dict(), file)
    return network.to(trained.data.device).eval().requires_grad_(False)


@torch.enable_grad()
def _train(network: Classifier, trained: Trained) -> None:
    x, y = trained.images(NUM_IMAGES, "train")  # this also seeds torch
    network.mean, network.std = x.mean(), x.std().clamp(min=1e-6)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    epochs = min(5 * EPOCHS, EPOCHS * NUM_IMAGES // len(x))
    with trained.bar(epochs * len(x), "classifier of the data") as bar:
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = RATE * (1 - epoch / epochs)
            for rows in torch.randperm(len(x))[: max(1, len(x) // BATCH) * BATCH].split(BATCH):
                loss = F.cross_entropy(network.head(network(x[rows])), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update(len(rows))
    # Mean and variance of the features with the final weights, not with those of the last steps.
    network.norm.reset_running_stats()
    network.norm.momentum = 1.0
    with torch.no_grad():
        network.norm(torch.cat([network.convolve(rows) for rows in x.split(BATCH)]))
    network.eval()
    with torch.no_grad():
        right = [network.head(network(x)).argmax(dim=-1) == y for x, y in trained.batches("val")]
    network.accuracy = torch.cat(right).float().mean()

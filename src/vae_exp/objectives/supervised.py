"""The objective of models that learn from labels: arXiv:1406.5298."""

from torch import Tensor

from vae_exp.draws import Draw
from vae_exp.objectives.model import Model, Objective, check_count
from vae_exp.schedules import Number, at, check

__all__ = ["SemiSupervised"]


class SemiSupervised(Objective):
    """`-elbo` of every image, plus `alpha` times the cross-entropy of its label if it has one.

    Equation 9 of Kingma et al. (2014), divided by the number of images; their alpha is ours times that number. If
    batches hold more labelled images than their share of the training set (`data.labelled_per_batch`), these get a
    smaller weight, so that the loss is the same in expectation. In evaluation the loss is `-elbo`.

    Arguments:
        alpha: Weight of the cross-entropy, a mean over the labelled images. May be a schedule.
        labelled: Number of labelled training images; None for all.
        train_size: Number of training images.
        labelled_per_batch: Labelled images in each batch; None: as many as the shuffled order gives.
        batch_size: Images in a batch.
        num_samples: K, latents per image and class.
    """

    learns_labels = True

    def __init__(
        self,
        alpha: Number,
        labelled: int | None = None,
        train_size: int | None = None,
        labelled_per_batch: int | None = None,
        batch_size: int | None = None,
        num_samples: int = 1,
    ) -> None:
        self.alpha = check("objective.alpha", alpha)
        self.num_samples = check_count("num_samples", num_samples)
        if labelled is not None and train_size is None:
            raise ValueError("objective.train_size: the number of training images is needed, set data.train_size")
        share = 1.0 if labelled is None or train_size is None else labelled / train_size
        self.share = share if labelled_per_batch is None or batch_size is None else labelled_per_batch / batch_size
        self.labelled_weight = share / self.share
        self.unlabelled_weight = 0.0 if share == 1 else (1 - share) / (1 - self.share)

    def __call__(self, model: Model, x: Tensor, y: Tensor, step: Tensor) -> tuple[Tensor, Draw]:
        """`(B, C, H, W), (B,), () -> ` scalar loss, draw.

        Raises:
            ValueError: If the model has no classifier.
        """
        draw = model.draw(x, y, self.num_samples)
        log_qy, labels = draw.log_qy, draw.labels
        if log_qy is None:
            raise ValueError("objective=semi_supervised trains a classifier, and this model has none: choose model=m2")
        if labels is None:
            return (draw.recon + draw.kl).mean(), draw
        is_labelled = (labels >= 0).to(log_qy.dtype)
        weight = self.unlabelled_weight + (self.labelled_weight - self.unlabelled_weight) * is_labelled
        log_q_label = log_qy.gather(1, labels.clamp(min=0)[:, None])[:, 0]
        cross_entropy = -(is_labelled * log_q_label).mean() / self.share
        return (weight * (draw.recon + draw.kl)).mean() + at(self.alpha, step) * cross_entropy, draw

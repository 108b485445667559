"""A trained run without a training: a model made by hand, on images made by hand."""

import json

from omegaconf import OmegaConf

from vae_exp.data import Images
from vae_exp.runs.trained import Trained


class Given:
    """A source of the splits that it is given."""

    def __init__(self, splits):
        self.splits = splits

    def fetch(self, root): ...

    def load(self, root):
        return dict(self.splits)


def made(model, splits, folder, num_classes=None, levels=None, **options):
    """Splits of `train`, `val` and `test`."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({}))
    shape = splits["train"].x.shape[1:]
    data = Images(Given(splits), ".", shape, num_classes, levels=levels, batch_size=1, eval_batch_size=64, **options)
    return Trained(folder, OmegaConf.create({"name": "made"}), model and model.eval(), data, progress=False)

"""`labels_alone.py OVERRIDES`: the classifier of model=m2, trained only on the labelled images.

Everything is the same as in `python -m vae_exp OVERRIDES`: network, initial weights, labelled images, their bits and
order, optimizer, number of steps. The last weights are tested on the same bits. The last line printed is
{"test/error": ...}.
"""

import json
import sys

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir

from vae_exp.config import CONF
from vae_exp.models import M2
from vae_exp.resolvers import register_resolvers
from vae_exp.runs.build import build, prepare


def main() -> None:
    register_resolvers()
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides=sys.argv[1:])
    pl.seed_everything(cfg.seed, verbose=False)
    model, data = build(cfg)
    assert isinstance(model, M2)
    prepare(data)
    data.setup("test")
    made = model.configure_optimizers()  # of all parameters; those without a gradient do not change
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    scheduler = made["lr_scheduler"]["scheduler"] if isinstance(made, dict) else None
    batches = data.train_dataloader()
    step = 0
    while step < cfg.trainer.max_steps:
        for x, y in batches:  # a pass is an epoch
            optimizer.zero_grad()
            F.nll_loss(model.classify(x[y >= 0]), y[y >= 0]).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            step += 1
            if step == cfg.trainer.max_steps:
                break
    with torch.no_grad():
        model.eval()
        wrong = sum(int((model.classify(x).argmax(dim=-1) != y).sum()) for x, y in data.test_dataloader())
    print(json.dumps({"test/error": wrong / len(data.splits["test"].y)}))


if __name__ == "__main__":
    main()

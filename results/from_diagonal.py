"""`from_diagonal.py OVERRIDES`: four more epochs for the posterior of OVERRIDES, from a trained diagonal normal.

First trains `python -m vae_exp OVERRIDES` with posterior=diagonal_normal to its end. Then loads those of its best
weights that the two models share, and continues with a new optimizer. The last line printed is {"test/elbo": ...}.
"""

import json
import sys
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae_exp.config import CONF
from vae_exp.resolvers import register_resolvers
from vae_exp.runs.build import build, prepare
from vae_exp.runs.checkpoint import checkpoint, load_checkpoint
from vae_exp.training.job import train
from vae_exp.training.trainer import make_trainer

EPOCHS = 4


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", overrides=[*sys.argv[1:], *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    return OmegaConf.create(resolved)


def main() -> None:
    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "diagonal", Path(folder) / "more"
        train(composed("posterior=diagonal_normal", "test=false"), first)
        weights = load_checkpoint(checkpoint(first, "best"))["state_dict"]
        cfg = composed(f"trainer.max_epochs={EPOCHS}")
        model, data = build(cfg)
        unknown = model.load_state_dict(weights, strict=False).unexpected_keys
        assert not unknown, unknown
        model.is_new = False
        second.mkdir()
        trainer = make_trainer(cfg, second)
        prepare(data)
        trainer.fit(model, datamodule=data)
        (scores,) = trainer.test(model, datamodule=data, verbose=False)
    print(json.dumps({"test/elbo": scores["test/elbo"]}))


if __name__ == "__main__":
    main()

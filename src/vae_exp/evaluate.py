"""`python -m vae_exp.evaluate run=outputs/...`: scores a run from its folder alone."""

import json
import logging
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from vae_exp.config import CONF, ConfigError, check_overrides, load_config, register_resolvers, report

log = logging.getLogger("vae_exp")


@hydra.main(config_path=CONF, config_name="evaluate", version_base="1.3")
def _evaluate(cfg: DictConfig) -> None:
    check_overrides(cfg, "evaluate")
    evaluate(cfg)


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Rebuilds a model from its run folder, scores a split and writes `evaluation.json` there.

    Arguments:
        cfg: As `conf/evaluate.yaml`.

    Returns:
        elbo, recon, kl, loss in nats per image, and active_units.

    Raises:
        ConfigError: If the folder holds no run, the data are missing, or a loss is no number.
    """
    for key, choices in (("split", ("test", "val")), ("checkpoint", ("best", "last"))):
        if cfg[key] not in choices:
            raise ConfigError(f"{key}={cfg[key]}: choose one of {', '.join(choices)}")
    folder = Path(cfg.run)
    run = load_config(folder)
    # Torch is imported when the request is known to be sound.
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    from vae_exp.ledger import NonFiniteError
    from vae_exp.record import write_json
    from vae_exp.runs import bound, build, checkpoint, load_weights, prepare
    from vae_exp.trainer import make_trainer

    path = checkpoint(folder, cfg.checkpoint)
    if cfg.data_root:
        run.data.root = cfg.data_root
    run.trainer.update(accelerator=cfg.accelerator, devices=1, strategy="auto")
    run.trainer.update(limit_val_batches=None, limit_test_batches=None)  # every image, after a debug run too
    run.callbacks = {name: run.callbacks[name] for name in ("latents", "progress") if run.callbacks.get(name)}
    model, data = build(run)
    load_weights(model, path)
    trainer = make_trainer(run, folder)
    prepare(data)
    score = trainer.test if cfg.split == "test" else trainer.validate
    known = json.loads((folder / "run.json").read_text()).get("data", {}).get(cfg.split)
    try:
        (scores,) = score(model, datamodule=data, verbose=False)
    except (NonFiniteError, MisconfigurationException) as error:
        raise ConfigError(str(error)) from error
    scores = {name.split("/")[1]: value for name, value in scores.items()}
    if known and known != data.checksums[cfg.split]:
        log.warning("the %s images are not those of the run (checksum %s)", cfg.split, known)
    num_images = len(data.splits[cfg.split].x)
    write_json(
        folder / "evaluation.json",
        {
            "split": cfg.split,
            "num_images": num_images,
            "checkpoint": path.name,
            "bound": bound(model, data),
            "data": data.checksums,
            **scores,
        },
    )
    for name, value in scores.items():
        log.info("%s/%-12s %10.3f", cfg.split, name, value)
    log.info("nats per image over %d images; written to %s", num_images, folder / "evaluation.json")
    return scores


def main() -> None:
    """Entry point of `python -m vae_exp.evaluate`."""
    register_resolvers()
    sys.exit(report(_evaluate, "evaluate"))


if __name__ == "__main__":
    main()

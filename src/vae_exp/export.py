"""`python -m vae_exp.export run=outputs/...`: a trained model for other programs, as ONNX files and safetensors."""

from importlib.util import find_spec

from omegaconf import DictConfig

from vae_exp.cli import run_command
from vae_exp.config import ConfigError
from vae_exp.overrides import check_overrides
from vae_exp.runs.folder import run_folders


def _export(cfg: DictConfig) -> None:
    check_overrides(cfg, "export")
    run_folders(cfg)
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript", "safetensors") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"export needs {', '.join(missing)}: pip install '.[export]' in the checkout of vae_exp")
    from vae_exp.what.onnx import export_runs  # torch is imported when the request is known to be sound

    export_runs(cfg)


def main() -> None:
    """Entry point of `python -m vae_exp.export`."""
    run_command(_export, "export")


if __name__ == "__main__":
    main()

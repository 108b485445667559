"""docs/service.md: its code is started as it stands there, and asked."""

import io
import json
import re
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from helpers.runs import ROOT
from PIL import Image

from vae_exp.runs.trained import restore
from vae_exp.what.onnx import export

PAGE = (ROOT / "docs" / "service.md").read_text()


@pytest.fixture
def asked(run, tmp_path):
    """A function that asks the service, and the run behind it."""
    trained = restore(run("data.binarize=dynamic", "likelihood=bce")[0], accelerator="cpu", progress=False)
    export(trained)
    (tmp_path / "service.py").write_text(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = (sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning")
    with subprocess.Popen(words, cwd=tmp_path, env={"RUN": str(trained.folder / "export")}) as server:

        def ask(path, content=None):
            body = None if content is None else json.dumps(content).encode()
            request = Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
            while server.poll() is None:
                try:
                    with urlopen(request, timeout=10) as answer:
                        return answer.read()
                except URLError as error:
                    if not isinstance(error.reason, ConnectionRefusedError):
                        raise
                time.sleep(0.1)
            raise RuntimeError(f"the service ended with {server.returncode}")

        yield ask, trained
        server.terminate()


@pytest.mark.slow
def test_it_encodes_and_samples_as_the_run_does(asked):
    ask, trained = asked
    x, _ = trained.images(3)
    codes = json.loads(ask("/encode", x.tolist()))
    with torch.no_grad():
        q = trained.model.cpu().encode(x.cpu())
    torch.testing.assert_close(torch.tensor(codes["z_mean"]), q.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(codes["z_stddev"]), q.stddev, atol=1e-4, rtol=1e-4)
    z = np.random.default_rng(3).standard_normal((1, q.mean.shape[1]), np.float32)
    with torch.no_grad():
        mean = trained.model.decode(torch.from_numpy(z)).mean[0, 0]
    picture = np.asarray(Image.open(io.BytesIO(ask("/sample?seed=3"))))
    assert np.abs(picture - mean.numpy() * 255).max() <= 0.51
    with pytest.raises(URLError, match="422"):
        ask("/encode", [[[[0.0, 1.0]]]])

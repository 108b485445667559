"""`python benchmarks/explore.py`: frames a second of explore.html in Chromium on one core; writes `explore.md`.

A slider is moved at every frame, as a hand would, with the plane and its pictures as the page opens. Chromium has a
single core for all its processes. The networks are those of `conf/decoder/`, untrained: their speed is that of trained
ones.
"""

import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from run import machine

HERE = Path(__file__).parent
ENV = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE.parent / "src")}
SMALL = (
    "data=fake data.source.size=3000 data.val_size=500 likelihood=gaussian_shared trainer.max_epochs=1 logger=none "
    "report=false callbacks.pictures=null callbacks.curves=null trainer.enable_progress_bar=false"
)
CASES = {
    "mlp, 28x28": "data.image_shape=[1,28,28]",
    "conv, 28x28": "data.image_shape=[1,28,28] decoder=conv",
    "conv, 64x64 in colour": "data.image_shape=[3,64,64] decoder=conv",
    "resnet, 28x28": "data.image_shape=[1,28,28] decoder=resnet",
    "resnet, 64x64 in colour": "data.image_shape=[3,64,64] decoder=resnet",
}
FRAMES = """new Promise((done) => {
  let frames = 0;
  const { input } = sliders[0], start = performance.now();
  const step = (now) => {
    if (now - start > SECONDS * 1000) return done(frames / (now - start) * 1000);
    frames += 1;
    input.value = latents[0].low + (latents[0].high - latents[0].low) * (1 + Math.sin(now / 300)) / 2;
    input.dispatchEvent(new Event("input"));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
DECODE = """(() => {
  const start = performance.now();
  let count = 0;
  while (performance.now() - start < 1000) { at(z); count += 1; }
  return (performance.now() - start) / count;
})()"""


class Browser:
    """Chromium on one core, asked through a pipe of the DevTools protocol."""

    def __init__(self, profile: str) -> None:
        (to_read, self.to), (self.back, to_write) = os.pipe(), os.pipe()

        def inherit() -> None:
            os.sched_setaffinity(0, {0})
            for wanted, given in ((3, os.dup(to_read)), (4, os.dup(to_write))):
                os.dup2(given, wanted)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        command = ["chromium", *flags, "--remote-debugging-pipe", "about:blank"]
        self.process = subprocess.Popen(
            command, preexec_fn=inherit, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.number, self.rest, self.session = 0, b"", None
        (page,) = [each for each in self("Target.getTargets")["targetInfos"] if each["type"] == "page"][:1]
        self.session = self("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]

    def __call__(self, method: str, **params: object) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.back, 1 << 16)
            text, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.number:
                return answer["result"]

    def evaluate(self, script: str) -> float | None:
        result = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"]
        return result.get("value")


def command(program: str, words: str) -> None:
    subprocess.run([sys.executable, "-m", program, *shlex.split(words)], env=ENV, check=True, capture_output=True)


def measured(folder: Path, words: str) -> tuple[float, float, float]:
    """Frames a second (the best of three times three seconds), milliseconds of a picture, MB of the page."""
    command("vae_exp", f"{SMALL} {words} hydra.run.dir={folder}")
    command("vae_exp.explore", f"run={folder} progress=false accelerator=cpu")
    page = folder / "explore.html"
    browser = Browser(str(folder / "profile"))
    try:
        browser("Page.navigate", url=page.as_uri())
        browser.evaluate("new Promise((done) => setTimeout(done, 3000))")
        frames = max(browser.evaluate(FRAMES.replace("SECONDS", "3")) for _ in range(3))
        return frames, min(browser.evaluate(DECODE) for _ in range(3)), page.stat().st_size / 1e6
    finally:
        browser.process.terminate()
        browser.process.wait()


def main() -> None:
    lines: list[str] = []
    for name, words in CASES.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Chromium may still write there
            frames, cost, size = measured(Path(folder) / "run", words)
        lines.append(f"| {name} | {frames:.0f} | {cost:.1f} | {size:.1f} | {os.getloadavg()[0]:.1f} |")
        print(lines[-1], flush=True)
        write(lines)  # what is measured stands there, also if the rest is cut off


def write(lines: list[str]) -> None:
    chromium = subprocess.run(["chromium", "--version"], capture_output=True, text=True).stdout.strip()
    about = f"{datetime.date.today()}, {machine()}, {chromium} on one core, niceness {os.nice(0)}"
    text = f"""# How fast the explorer is

Written by `python benchmarks/explore.py`: {about}. A slider is moved at every frame; 60 frames a second is the most
that Chromium draws. The best of three times three seconds, and the best of three seconds of decoding alone; beside them
the load of the machine, whose other work takes its share.

| decoder | frames a second | ms a picture | MB of the page | load |
|---|---|---|---|---|
"""
    (HERE / "explore.md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Writes docs/leet.svg: the screen of `wandb leet outputs` with the runs of a sweep, as tmux holds it.

python docs/leet.py outputs        needs tmux, and runs that were logged offline
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

COLUMNS, LINES = 150, 27
WIDTH, HEIGHT = 8, 17  # of a cell, in pixels
BASE = "000000 cd3131 0dbc79 e5e510 2472c8 bc3fbc 11a8cd e5e5e5 666666 f14c4c 23d18b f5f543 3b8eea d670d6 29b8db ffffff"
# Bits of a braille character: column and row of its dot.
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))


def screen(outputs: str, filter_: str) -> list[str]:
    """The lines of the screen with all runs chosen, with the escape codes of their colours."""
    tmux = ["tmux", "-L", f"leet{os.getpid()}"]

    def send(*keys: str) -> None:
        subprocess.run([*tmux, "send-keys", "-t", "leet", *keys], check=True)
        time.sleep(0.7)

    with tempfile.TemporaryDirectory() as config:
        grid = {"workspace_metrics_grid": {"rows": 1, "cols": 3}}
        (Path(config) / "wandb-leet.json").write_text(json.dumps(grid))
        variables = f"WANDB_CONFIG_DIR={config} WANDB_ERROR_REPORTING=false"
        wandb = Path(sys.executable).with_name("wandb")
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        command = f"{variables} {wandb} leet {outputs}"
        subprocess.run([*tmux, "new-session", "-d", "-s", "leet", *size, command], check=True)
        try:
            time.sleep(6)
            for _ in list(Path(outputs).glob("offline-run-*"))[1:]:
                send("Down")
                send("Space")
            send("/")
            send("-l", filter_)
            send("Enter")
            time.sleep(2)
            shown = subprocess.run([*tmux, "capture-pane", "-e", "-p", "-t", "leet"], capture_output=True, check=True)
        finally:
            subprocess.run([*tmux, "kill-server"], check=True)
    return shown.stdout.decode().splitlines()


def colour(number: int) -> str:
    """One of the 256 colours of a terminal."""
    if number < 16:
        return f"#{BASE.split()[number]}"
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    levels = [0, 95, 135, 175, 215, 255]
    number -= 16
    return f"#{levels[number // 36]:02x}{levels[number // 6 % 6]:02x}{levels[number % 6]:02x}"


def svg(lines: list[str]) -> str:
    """The screen as a picture; braille, of which curves are made, as dots, so that it looks the same in any font."""
    size = f'width="{COLUMNS * WIDTH}" height="{len(lines) * HEIGHT + 8}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="13">']
    parts.append('<rect width="100%" height="100%" fill="#14171c"/>')
    ink, ground = "#d7dae0", ""
    for row, line in enumerate(lines):
        column = 0
        for codes, text in re.findall(r"\x1b\[([\d;]*)m|([^\x1b]+)", line):
            if not text:
                ink, ground = painted(codes, ink, ground)
                continue
            x, y = column * WIDTH, row * HEIGHT
            if ground:
                parts.append(
                    f'<rect x="{x}" y="{y + 3}" width="{len(text) * WIDTH}" height="{HEIGHT}" fill="{ground}"/>'
                )
            for number, sign in enumerate(text):
                bits = ord(sign) - 0x2800 if 0x2800 <= ord(sign) < 0x2900 else 0
                for bit, (right, down) in enumerate(DOTS):
                    if bits >> bit & 1:
                        place = f'cx="{x + number * WIDTH + 2 + 4 * right}" cy="{y + 5 + 4.25 * down}"'
                        parts.append(f'<circle {place} r="1.5" fill="{ink}"/>')
            plain = re.sub("[\u2800-\u28ff]", " ", text)
            if plain.strip():
                place = f'x="{x}" y="{y + 15}" textLength="{len(plain) * WIDTH}" fill="{ink}"'
                parts.append(f'<text {place} xml:space="preserve">{escape(plain)}</text>')
            column += len(text)
    return "\n".join([*parts, "</svg>\n"])


def painted(codes: str, ink: str, ground: str) -> tuple[str, str]:
    """The colours of what follows an escape code."""
    numbers = [int(number or 0) for number in codes.split(";")]
    while numbers:
        number = numbers.pop(0)
        if number in (38, 48):
            kind = numbers.pop(0)
            found = colour(numbers.pop(0)) if kind == 5 else "#" + "".join(f"{numbers.pop(0):02x}" for _ in range(3))
            ink, ground = (found, ground) if number == 38 else (ink, found)
        elif number in (0, 39):
            ink = "#d7dae0"
            ground = "" if number == 0 else ground
        elif number == 49:
            ground = ""
    return ink, ground


if __name__ == "__main__":
    (Path(__file__).parent / "leet.svg").write_text(svg(screen(sys.argv[1], "^val/(elbo|kl|recon)$")))

"""Looks up every pin of constraints.txt among the known vulnerabilities, by pip-audit: `make audit`.

Exit code 0: none is known; 1: some are; 2: the database cannot be reached, so nothing is known.
"""

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parents[1] / "constraints.txt"
AUDIT = ["pip-audit==2.10.1", "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]


def main() -> int:
    """Prints a line for each pin with a known vulnerability, and one on all."""
    command = [sys.executable, "-m", "uv", "tool", "run", "--quiet", *AUDIT, f"--requirement={PINS}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        pins = json.loads(done.stdout)["dependencies"]
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        pins = []
    found = [pin for pin in pins if "skip_reason" not in pin]
    for pin in found:
        for fault in pin["vulns"]:
            mended = ", ".join(fault["fix_versions"]) or "no version"
            print(f"{pin['name']} {pin['version']}: {fault['id']}, mended in {mended}")
    print(f"audit: {len(found)} of {len(PINS.read_text().splitlines())} pins were looked up")
    return 1 if any(pin["vulns"] for pin in found) else 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())

"""The process behind `helpers.lines`: it imports no torch by itself, and runs each line it reads in a fork."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

NEEDS_TORCH = 99  # the exit code of a line that is sound as far as that can be known without torch


def _serve(torch: bool) -> None:
    import vae_exp.__main__
    import vae_exp.overrides

    if torch:
        import vae_exp.metrics.score
        import vae_exp.page.report
        import vae_exp.training.job
        import vae_exp.what.make
    else:

        class Gate:
            def find_spec(self, name: str, *args: Any) -> None:
                if name == "torch":
                    sys.stdout.flush()
                    os._exit(NEEDS_TORCH)

        sys.meta_path.insert(0, Gate())
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
            pid = os.fork()
            if pid == 0:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.chdir(folder)
                sys.argv = ["vae_exp", *json.loads(line)]
                code: Any = 1
                try:
                    vae_exp.__main__.main()
                except SystemExit as end:
                    code = end.code or 0
                except BaseException:
                    import traceback

                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status, usage = os.wait4(pid, 0)
            said.seek(0)
            text = re.sub(r"\x1b\[\d+m", "", said.read())
            left = sorted(path.name for path in Path(folder).iterdir())
            seconds = round(usage.ru_utime + usage.ru_stime, 2)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), text, left, seconds]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve("torch" in sys.argv)

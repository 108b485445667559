"""The processes of a run: DDP starts the others of one run, and leaves nothing for the next run of a sweep."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import distributed

from vae_exp.saved import digest, read_config

__all__ = ["processes_of_one_run"]

# What Lightning tells the processes it starts; it leaves these variables to the process that started them, too.
VARIABLES = ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")


@contextmanager
def processes_of_one_run(folder: Path) -> Iterator[None]:
    """Within it, the other processes of DDP run the job of a folder.

    Lightning starts them with the command line of this process, which can be a sweep (`-m a=1,2`). So they are given
    the folder of the job, with its resolved config, instead. Afterwards this process belongs to no group.
    """
    argv, before = sys.argv, {name: os.environ.get(name) for name in VARIABLES}
    sys.argv = [argv[0], "--job", str(folder.resolve()), digest(read_config(folder / "config.yaml"))]
    try:
        yield
    finally:
        sys.argv = argv
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

"""A launcher without training."""

import json
from concurrent.futures import Future
from contextlib import nullcontext


class Fake:
    """A launcher whose jobs end at once, as `outcomes` says; what it took is in `began`."""

    slots = 2

    def __init__(self, **outcomes):
        self.outcomes, self.began = outcomes, []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def batch(self):
        return nullcontext()

    def submit(self, folder):
        self.began.append(folder.name)
        outcome = self.outcomes.get(folder.name, {"status": "finished", "metrics": {"best/val/elbo": 1.0}})
        if isinstance(outcome, list):
            outcome = outcome.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | outcome))
        done = Future()
        done.set_result(None)
        return done

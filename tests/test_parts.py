"""What a part may have, and plain modules as parts."""

import copy

import pytest
import zuko
from torch import nn

from vae_exp import chains, data, decoders, encoders, likelihoods, objectives, posteriors, priors
from vae_exp.data import Source
from vae_exp.objectives import Objective
from vae_exp.parts import Decoder, Likelihood, Part, Posterior, Prior, as_part
from vae_exp.schedules import check, ends

KINDS = {encoders: Part, decoders: Decoder, posteriors: Posterior, priors: Prior, likelihoods: Likelihood}
OURS = [(getattr(module, name), kind) for module, kind in KINDS.items() for name in module.__all__]


@pytest.mark.parametrize(("part", "kind"), [*OURS, (chains.BottomUp, Posterior), (chains.TopDown, Prior)])
def test_every_part_of_ours_is_one_of_its_kind(part, kind):
    assert issubclass(part, kind)


def test_a_plain_module_gets_what_it_does_not_have():
    plain = nn.Linear(2, 3)
    keys = list(plain.state_dict())
    part = as_part(plain, Likelihood)
    assert part is plain
    assert (part.params_per_pixel, part.allow_grey, part.fit, part.is_fitted) == (1, False, None, True)
    assert part.start_from(iter(lambda: pytest.fail("read"), None)) is None
    assert list(copy.deepcopy(part).state_dict()) == keys


def test_a_plain_module_keeps_what_it_has():
    class Own(nn.Module):
        params_per_pixel = 2

        def __init__(self):
            super().__init__()
            self.fits = []

        def fit(self, pairs, reduce):
            self.fits.append((pairs, reduce))

        @property
        def is_fitted(self):
            return bool(self.fits)

    part = as_part(Own(), Likelihood)
    assert part.params_per_pixel == 2
    assert not part.is_fitted
    part.fit([], abs)
    assert part.is_fitted


def test_a_flow_of_zuko_is_a_prior_and_remains_a_flow():
    flow = as_part(zuko.flows.NSF(2, transforms=1, hidden_features=[4]), Prior)
    assert flow.attach(lambda x, c: None) is None
    assert flow().sample((3,)).shape == (3, 2)


def test_a_plain_function_is_an_objective_and_a_schedule():
    objective = as_part(lambda model, x, y, step: (0, None), Objective)
    assert (objective.monitor, objective.min_images, objective.learns_labels) == ("val/elbo", 1, False)
    assert objective(None, None, None, None) == (0, None)
    assert ends(lambda step: 2.0) == ()
    assert check("weight", lambda step: -1.0)(0) == -1.0  # nothing is known of its values


@pytest.mark.parametrize("module", [objectives, data])
def test_every_objective_and_every_source_is_one_of_its_kind(module):
    kinds = {objectives: Objective, data: Source}
    others = {"AnySplit", "Batches", "Contents", "Images", "InFiles", "Model", "Representation", "Split"}
    classes = [getattr(module, name) for name in set(module.__all__) - others]
    assert classes
    assert all(issubclass(kind, kinds[module]) for kind in classes)


def test_a_part_that_inherits_is_left_as_it_is():
    part = priors.StandardNormal(2)
    before = vars(part).copy()
    assert as_part(part, Prior) is part
    assert vars(part) == before

"""Several processes that do one job: they find each other, and begin with the same."""

import contextlib
from collections.abc import Iterator

from torch import nn

from amsc.data import Data
from amsc.errors import SettingsError
from amsc.jobs.fingerprint import fingerprint, weights_fingerprint
from amsc.jobs.stages.record import versions
from amsc.parallel import all_together, check_agreement, joined
from amsc.settings import Settings, plain_settings

__all__ = ["together"]


@contextlib.contextmanager
def together(model: nn.Module, data: Data, settings: Settings) -> Iterator[None]:
    """The job inside is done by all processes that torchrun or accelerate has started; by this one where it is alone.

    Raises:
        ParallelError: they were given different networks, data or settings, or have other versions of libraries.
        SettingsError: the settings are for a single process.
    """
    with joined(), all_together() as here:
        if here.is_alone:
            yield
            return
        if settings.capture:
            raise SettingsError("capture records the steps of a single process; leave it out, or start one process")
        check_agreement({"their libraries": versions()}, "install the same versions everywhere")
        check_agreement({"the settings": plain_settings(settings)}, "give the same to each")
        check_agreement(
            {"the network's weights": weights_fingerprint(model)},
            "load the same weights in each, or call torch.manual_seed before the network is built",
        )
        check_agreement(
            {"the data": fingerprint(data)},
            "give all data to each process (no DistributedSampler), in the same order: amsc shares the examples itself",
        )
        yield

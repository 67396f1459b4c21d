"""A callback for Lightning; for `lightning` and for `pytorch_lightning`, whichever was imported first."""

import sys
from typing import Any

from torch import nn

from amsc.errors import ModelError, SettingsError, TrainingError
from amsc.limits.target import Target
from amsc.trainers.compression import Compression
from amsc.trainers.course import LoopSettings
from amsc.trainers.networks import averaged_network, bare_network
from amsc.trainers.state import LoopState, cut_as, read_state, write_state
from amsc.trainers.versions import base_class, check_known

__all__ = ["AmscCallback"]

NAMES = ("lightning.pytorch", "pytorch_lightning")
LIBRARIES = tuple(sorted(NAMES, key=lambda name: name not in sys.modules))
Callback = base_class("Callback", *LIBRARIES)


class AmscCallback(Callback):  # type: ignore[misc, valid-type] # mypy does not look into Lightning
    """Brings the network of a LightningModule down to a target while Lightning trains it (see `Compression`).

        trainer = Trainer(max_epochs=20, callbacks=[AmscCallback("macs=50%", inputs)])
        trainer.fit(module, loader)
        amsc.save(module.net, "small")

    The module, its network and optimiser stay the same objects, and `WeightAveraging` follows. A checkpoint after a cut
    holds the small network: to go on from it, give `trainer.fit` the dense module, the same callback and `ckpt_path`.

    Args:
        target: in macs, params, bytes, latency or memory; or as text.
        example_inputs: what `amsc.trace` takes; the module's `example_input_array` if None.
        network: the name of the submodule that is the network; "" means the whole module.
        settings: the choices.

    Attributes:
        compression: what does the work, once training has started.

    Raises:
        SettingsError: Lightning is of a version that is not known.
    """

    def __init__(
        self,
        target: Target | str,
        example_inputs: Any = None,
        *,
        network: str = "",
        settings: LoopSettings = LoopSettings(),  # noqa: B008 - it is frozen
    ) -> None:
        check_known(*LIBRARIES)
        super().__init__()
        self.target, self.example_inputs, self.settings = target, example_inputs, settings
        self._name = network
        self._resumed: LoopState | None = None
        self.compression: Compression | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse what cannot be compressed, and see to it that the network is as small as a checkpoint has it before
        that is loaded."""
        kinds = {kind.__name__ for kind in type(trainer.strategy).__mro__}
        if "SingleDeviceStrategy" not in kinds or trainer.world_size > 1:
            raise TrainingError(
                f"amsc cuts a network that is trained on one device; this trainer's strategy is "
                f"{type(trainer.strategy).__name__} on {trainer.world_size}. Give Trainer(devices=1, strategy='auto')"
            )
        self._network(pl_module)
        loads = pl_module.on_load_checkpoint  # what Lightning calls before it loads the weights

        def cut_then_load(checkpoint: dict[str, Any]) -> None:
            self._cut_as_in(checkpoint, trainer, pl_module)
            loads(checkpoint)

        pl_module.on_load_checkpoint = cut_then_load

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The module is the user's again."""
        vars(pl_module).pop("on_load_checkpoint", None)

    def _cut_as_in(self, checkpoint: dict[str, Any], trainer: Any, pl_module: Any) -> None:
        stored = checkpoint.get("callbacks", {}).get(self.state_key)
        if stored:
            self._resumed = read_state(stored["state"])
            for network in (self._network(pl_module), *self._averages(trainer)):
                cut_as(network, self._resumed)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin."""
        inputs = self.example_inputs if self.example_inputs is not None else pl_module.example_input_array
        if inputs is None:
            raise SettingsError(
                "AmscCallback needs example inputs to find out what can be removed: AmscCallback(target, inputs), or "
                "an example_input_array in the LightningModule"
            )
        network = self._network(pl_module)
        self.compression = Compression(
            network,
            _optimizer_of(trainer, network),
            inputs,
            target=self.target,
            steps=trainer.estimated_stepping_batches,
            averages=self._averages(trainer),
            settings=self.settings,
            resume=self._state_of(network),
        )

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Cut, if it is time, and log."""
        assert self.compression is not None, "training has started"
        was_cut = self.compression.update()
        if trainer.loggers and (was_cut or trainer.global_step % trainer.log_every_n_steps == 0):
            seen = {f"amsc/{name}": value for name, value in self.compression.watch().items()}
            for logger in trainer.loggers:
                logger.log_metrics(seen, step=trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The network is at its target."""
        assert self.compression is not None, "training has started"
        self.compression.end()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        state = self.compression.state if self.compression is not None else self._resumed
        return {} if state is None else {"state": write_state(state)}

    def _state_of(self, network: nn.Module) -> LoopState | None:
        """Where the network stood at the end of an earlier training with this callback, or in a checkpoint."""
        resumed, self._resumed = self._resumed, None
        if resumed is None and self.compression is not None and self.compression.network is network:
            return self.compression.state
        return resumed

    def _network(self, pl_module: Any) -> nn.Module:
        module: nn.Module = bare_network(pl_module)
        try:
            return bare_network(module.get_submodule(self._name))
        except AttributeError as error:
            known = ", ".join(name for name, _ in module.named_children())
            raise ModelError(
                f"{type(module).__name__} has no submodule {self._name!r}; network= names one of {known}"
            ) from error

    def _averages(self, trainer: Any) -> list[nn.Module]:
        """The networks in the averages of Lightning's `WeightAveraging`."""
        found = (getattr(callback, "_average_model", None) for callback in trainer.callbacks)
        return [self._network(averaged_network(average)) for average in found if average is not None]


def _optimizer_of(trainer: Any, network: nn.Module) -> Any:
    """The one optimiser that trains the network.

    Raises:
        TrainingError: there are several, or none.
    """
    own = set(network.parameters())
    found = [one for one in trainer.optimizers if any(p in own for group in one.param_groups for p in group["params"])]
    if len(found) != 1:
        raise TrainingError(
            f"{len(found)} of the {len(trainer.optimizers)} optimisers train the network; amsc needs exactly one that "
            "holds all of its parameters. With several networks in the module say which: AmscCallback(..., "
            "network='net')"
        )
    return found[0]

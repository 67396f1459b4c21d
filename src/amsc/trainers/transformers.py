"""A callback for the Trainer of Hugging Face's transformers."""

from pathlib import Path
from typing import Any

from torch import nn

from amsc.errors import RunFolderError, SettingsError, TrainingError
from amsc.limits.target import Target
from amsc.storage import read_text, write_atomically
from amsc.trainers.compression import Compression
from amsc.trainers.course import LoopSettings
from amsc.trainers.state import LoopState, cut_as, read_state, write_state
from amsc.trainers.versions import base_class, check_known

__all__ = ["AmscCallback"]

STATE_FILE = "amsc.json"
TrainerCallback = base_class("TrainerCallback", "transformers")


class AmscCallback(TrainerCallback):  # type: ignore[misc, valid-type] # mypy does not look into it
    """Brings the network of a Trainer down to a target while it trains (see `Compression`).

        trainer = Trainer(model, args, callbacks=[AmscCallback("macs=50%", inputs)], ...)
        trainer.train()
        amsc.save(model, "small")

    Model and optimiser stay the same objects. A checkpoint after a cut holds the small network and an amsc.json: to go
    on from it, build the dense model, call `resume` with it, then the Trainer.

    Args:
        target: in macs, params, bytes, latency or memory; or as text.
        example_inputs: what `amsc.trace` takes, such as a dict of the forward's arguments, without labels.
        settings: the choices.

    Attributes:
        compression: what does the work, once training has started.

    Raises:
        SettingsError: transformers is of a version that is not known.
    """

    def __init__(
        self,
        target: Target | str,
        example_inputs: Any,
        *,
        settings: LoopSettings = LoopSettings(),  # noqa: B008 - it is frozen
    ) -> None:
        check_known("transformers")
        self.target, self.example_inputs, self.settings = target, example_inputs, settings
        self._resumed: LoopState | None = None
        self.compression: Compression | None = None

    def resume(self, model: nn.Module, checkpoint: str | Path) -> None:
        """Make the dense `model` as small as the network in a checkpoint, before a Trainer is made of it and told to
        train with resume_from_checkpoint=checkpoint.

        Raises:
            RunFolderError: the checkpoint holds no compression.
            ModelError, CutError: it is of another network.
        """
        file = Path(checkpoint) / STATE_FILE
        try:
            text = read_text(file)
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(
                f"{checkpoint} holds no {STATE_FILE} ({error}): it was not saved by a Trainer with an AmscCallback"
            ) from error
        self._resumed = read_state(text)
        cut_as(model, self._resumed)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse what cannot be compressed, and begin."""
        _check_arguments(args)
        if state.global_step and (self._resumed is None or self._resumed.steps != state.global_step):
            raise TrainingError(
                f"training goes on from step {state.global_step} of a checkpoint of which the callback does not know "
                f"{'' if self._resumed is None else 'this '}state: call callback.resume(model, checkpoint) with the "
                "dense model before the Trainer is made"
            )
        resumed, self._resumed = self._resumed, None
        if resumed is None and self.compression is not None and self.compression.network is kwargs["model"]:
            resumed = self.compression.state  # a second training with this callback
        self.compression = Compression(
            kwargs["model"],
            kwargs["optimizer"],
            self.example_inputs,
            target=self.target,
            steps=state.max_steps,
            settings=self.settings,
            resume=resumed,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Cut, if it is time."""
        assert self.compression is not None, "training has begun"
        self.compression.update()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say in the checkpoint where the compression stands."""
        if self.compression is not None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_atomically(folder / STATE_FILE, write_state(self.compression.state).encode())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The network is at its target."""
        assert self.compression is not None, "training has begun"
        self.compression.end()


def _check_arguments(args: Any) -> None:
    said = {name: getattr(args, name, None) for name in ("world_size", "n_gpu", "deepspeed", "fsdp")}
    if (said["world_size"] or 1) > 1 or (said["n_gpu"] or 0) > 1 or said["deepspeed"] or said["fsdp"]:
        words = ", ".join(f"{name}={value!r}" for name, value in said.items())
        raise TrainingError(
            f"amsc cuts a network that is trained in one process on one device; the arguments say {words}. Set "
            "CUDA_VISIBLE_DEVICES to one device, and leave DDP, FSDP and DeepSpeed out"
        )
    if args.load_best_model_at_end:
        raise SettingsError(
            "load_best_model_at_end would load weights of the network before a cut into the small one; leave it out, "
            "and take the network as it is at the end"
        )

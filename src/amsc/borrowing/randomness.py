"""Random generators: started where a network is and nowhere else, and given back as they were.

`torch.manual_seed` starts the generators of all devices, also of those that somebody else computes on and that nobody
gives back."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

__all__ = [
    "devices_of",
    "forked",
    "generator_states",
    "generator_tensors",
    "restore_generators",
    "seed_generators",
]

WITHOUT_GENERATOR = ("cpu", "meta")
"""The CPU's generator is always meant, and meta tensors have no numbers."""


def devices_of(model: nn.Module) -> tuple[torch.device, ...]:
    """The devices, apart from the CPU, that the network's tensors are on and that draw random numbers."""
    found = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return tuple(sorted((device for device in found if device.type not in WITHOUT_GENERATOR), key=str))


@contextlib.contextmanager
def forked(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """A context after which the generators of the CPU and of these devices are as they were."""
    by_type: dict[str, list[torch.device]] = {}
    for device in devices:
        if device.type not in WITHOUT_GENERATOR:
            by_type.setdefault(device.type, []).append(device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind, own in by_type.items():
            stack.enter_context(torch.random.fork_rng(devices=own, device_type=kind))
        yield


def seed_generators(seed: int, devices: Iterable[torch.device] = ()) -> None:
    """Start the generators of the CPU and of these devices."""
    torch.default_generator.manual_seed(seed)
    for device in devices:
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type not in WITHOUT_GENERATOR:
            torch.get_device_module(device).manual_seed(seed)


def generator_states(devices: Iterable[torch.device] = ()) -> tuple[bytes, ...]:
    """Where the generators of the CPU and of these devices are; the same before and after a run that draws nothing."""
    return tuple(state.numpy().tobytes() for state in generator_tensors(devices))


def generator_tensors(devices: Iterable[torch.device] = ()) -> tuple[Tensor, ...]:
    """The same as tensors of bytes, for `restore_generators`."""
    return torch.get_rng_state(), *(torch.get_device_module(one).get_rng_state(one) for one in _drawing(devices))


def restore_generators(states: Iterable[Tensor], devices: Iterable[torch.device] = ()) -> None:
    """Put the generators of the CPU and of these devices where they were; a device without a state is left as it is."""
    first, *rest = states
    torch.set_rng_state(first)
    for device, state in zip(_drawing(devices), rest, strict=False):
        torch.get_device_module(device).set_rng_state(state, device)


def _drawing(devices: Iterable[torch.device]) -> list[torch.device]:
    return [device for device in devices if device.type not in WITHOUT_GENERATOR]

"""A cut of a network that a trainer holds: network, optimisers and averaged weights all stay the same objects."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.optim import Optimizer

from amsc.borrowing import unchanged_on_error
from amsc.surgery import CutPlan, become, cut
from amsc.trainers.following import follower_of
from amsc.trainers.networks import averaged_network, bare_network, bare_optimizer, check_alone, undisturbed
from amsc.training import ProximalStep

__all__ = ["cut_in_place"]


def cut_in_place(
    model: nn.Module,
    plan: CutPlan,
    example_inputs: Any = None,
    *,
    optimizers: Sequence[Optimizer] = (),
    averages: Iterable[nn.Module] = (),
) -> None:
    """`model` itself becomes smaller, as `amsc.cut` would make a copy of it, and all that hangs on it follows.

    `model`, its modules and the parameter groups of the `optimizers` stay the same objects, so that trainers and
    schedulers need not be told. Momenta and second moments are cut with their parameters. `averages` are copies of the
    network that hold averaged weights, or what wraps them (torch's `AveragedModel`, timm's EMA). Gradients are gone. A
    `ProximalStep` goes on as the optimiser that it wraps, without a penalty: the old one is of the network before.

    All is proven on copies before anything is changed; after an error all is as it was.

        cut_in_place(model, zero_plan(penalty), inputs, optimizers=[optimizer], averages=[averaged])

    Raises:
        CutError: the plan does not fit the model or an average, or removes what no proof covers.
        VerificationError: the cut network and the masked one disagree.
        TrainingError: an optimiser remembers something that cannot be cut.
        ModelError: the model is wrapped for training on several devices, or cannot be copied.
    """
    check_alone()
    network = bare_network(model)
    networks = [network, *(averaged_network(average) for average in averages)]
    bare = [bare_optimizer(optimizer) for optimizer in optimizers]
    with ExitStack() as stack:
        for one in networks:
            stack.enter_context(undisturbed(one))
        followers = [follower_of(optimizer, network, plan) for optimizer in bare]
        copies = [cut(one, plan, example_inputs) for one in networks]
        for one in networks:
            stack.enter_context(unchanged_on_error(one))
        for one, small in zip(networks, copies, strict=True):
            become(one, small, plan)
    network.zero_grad()  # what is left of gradients belongs to no step any more
    for follower in followers:
        follower.follow(dict(network.named_parameters()))
    for optimizer in optimizers:
        if isinstance(optimizer, ProximalStep):
            optimizer.depth_strength = optimizer.width_strength = 0.0

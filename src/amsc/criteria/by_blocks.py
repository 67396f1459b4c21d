"""Prices of blocks: how much the network, or what passes through it, is changed by one."""

import math

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from amsc.borrowing import in_double
from amsc.criteria.by_gradients import on_batches
from amsc.criteria.ends import Ends, ends_of
from amsc.criteria.maps import features, maps_of
from amsc.criteria.scene import Scene
from amsc.errors import SettingsError
from amsc.structure.names import is_inside
from amsc.structure.structure import Block, ChannelGroup
from amsc.surgery import apply_plan, plan_cut

__all__ = ["block_taylor", "cka", "dbp", "entropy", "linear_cka", "shortgpt"]


def cka(scene: Scene, block: Block) -> float:
    """1 - CKA of the features of the network with and without the block; features are what its last layer reads.

    Pons, Yamamoto, Reali Costa and Jordao 2024 (Effective layer pruning through similarity metric perspective), with
    the linear CKA of Kornblith, Norouzi, Lee and Hinton 2019. They ask anew after each removal and fine-tuning; here
    the dense network alone is asked."""
    without = apply_plan(scene.model, plan_cut(scene.structure, blocks=[block.name]))
    return 1 - linear_cka(features(scene.model, scene.batches), features(without, scene.batches))


def linear_cka(first: Tensor, second: Tensor) -> float:
    """||X'Y||_F^2 / (||X'X||_F ||Y'Y||_F) of the centred features X and Y; 0 where one of them is constant. Shapes:
    (example, feature) both."""
    grams = [_centred(in_double(one)) for one in (first, second)]
    grams = [one @ one.T for one in grams]
    norms = grams[0].norm() * grams[1].norm()
    return float((grams[0] * grams[1]).sum() / norms) if norms > 0 else 0.0


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)


def shortgpt(scene: Scene, block: Block) -> float:
    """1 - the cosine between what goes into the block and what comes out, mean over examples and positions.

    Men, Xu, Zhang, Wang, Lin, Lu, Han and Chen 2024 (ShortGPT), Block Influence. The vectors of a position lie
    along axis 1 of maps with four axes or more, and along the last axis of anything else.

    Raises:
        SettingsError: the block does not return its input when it is gone."""
    found = [
        torch.cosine_similarity(in_double(ends.before), in_double(ends.after), dim=1 if ends.before.ndim > 3 else -1)
        for ends in ends_of(scene, block, examples=scene.mapped)
    ]
    return 1 - float(torch.cat([one.flatten() for one in found]).mean())


def dbp(scene: Scene, block: Block) -> float:
    """By how much better classes can be told apart behind the block than before it, by linear probes.

    Wang, Zhao, Chen, Hu, Cai and Liu 2019 (DBP): blocks that add little to the discrimination of their input go. The
    probe is a logistic regression on features averaged over positions, fitted to the first half of the examples and
    judged by its accuracy on the others; the paper trains its linear classifiers by gradient descent.

    Raises:
        SettingsError: the block does not return its input when it is gone, or the data have no classes."""
    every = ends_of(scene, block, examples=scene.examples)
    labels = torch.cat([_labels(ends) for ends in every])
    before, after = (torch.cat([_pooled(one) for one in side]) for side in zip(*map(_sides, every), strict=True))
    return _probed(after, labels) - _probed(before, labels)


def _sides(ends: Ends) -> tuple[Tensor, Tensor]:
    return ends.before, ends.after


def _labels(ends: Ends) -> Tensor:
    if not isinstance(ends.target, Tensor) or ends.target.ndim != 1 or ends.target.is_floating_point():
        raise SettingsError("the data have no classes to tell apart")
    return ends.target.cpu()


def _pooled(values: Tensor) -> Tensor:
    """The mean over positions. Shape: (example, feature)."""
    positions = range(2, values.ndim) if values.ndim > 3 else range(1, values.ndim - 1)
    return (values.mean(tuple(positions)) if positions else values).cpu().double()


def _probed(rows: Tensor, labels: Tensor) -> float:
    """The accuracy of a linear probe on the second half of the examples."""
    half = len(rows) // 2
    known = labels[:half]
    if len(known.unique()) < 2:
        raise SettingsError("the first half of the training examples that are looked at has a single class")
    rows = (rows - rows[:half].mean(0)) / rows[:half].std(0).clamp(min=1e-12)
    probe = LogisticRegression(max_iter=1000).fit(rows[:half].numpy(), known.numpy())
    return float(probe.score(rows[half:].numpy(), labels[half:].numpy()))


def entropy(scene: Scene, block: Block) -> float:
    """The entropy of on and off of the units in a block, mean over the units of a layer and over its layers, in bits.

    Quetu, Liao and Tartaglione 2024 (EASIER): p is how often a unit is on, over examples and positions; a layer whose
    units are always on, or always off, is linear. On is above zero as the next layer reads it, behind the activation.
    EASIER replaces the activation of such a layer; here the whole block goes.

    Raises:
        SettingsError: nothing in the block reads what something in it makes."""
    groups = [group for group in scene.structure.channels if _is_made_and_read_in(group, block.name)]
    if not groups:
        raise SettingsError("it has no units between two of its layers")
    return float(torch.stack([_mean_entropy(scene, group) for group in groups]).mean())


def _is_made_and_read_in(group: ChannelGroup, block: str) -> bool:
    made = [is_inside(member.parameter, block) for member in group.members if member.role == "out"]
    return all(made) and bool(made) and any(is_inside(m.parameter, block) for m in group.members if m.role == "in")


def _mean_entropy(scene: Scene, group: ChannelGroup) -> Tensor:
    shares = [(maps.values > 0).float().flatten(2).mean(2) for maps in maps_of(scene, group)]
    on = torch.cat(shares).cpu().double().mean(0)
    nats: Tensor = torch.special.entr(on) + torch.special.entr(1 - on)
    return nats.mean() / math.log(2)


def block_taylor(scene: Scene, block: Block) -> float:
    """The squared derivative of a batch's mean loss by a gate on the block, mean over batches.

    The first-order price of Molchanov et al. 2019 (see `taylor`), for the gate of a block: 1 leaves its output, 0
    what is left when it is gone."""
    return float(on_batches(scene, [block.name])[0])

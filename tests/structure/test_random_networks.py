"""Random networks of awkward constructs: a cut equals masking, or what cannot be cut is pinned with a reason."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amsc.measure import count_macs
from amsc.structure import trace
from amsc.surgery import cut, cuttable, plan_cut
from random_networks import SIZE, genes_of, random_network
from removals import random_removal


def check_random_network(genes: list[int], seed: int) -> int:
    """Removes at random; raises where masking and cutting differ; the number of channels and blocks removed."""
    torch.manual_seed(seed)
    network, inputs = random_network(genes), torch.randn(2, 3, SIZE, SIZE)
    structure = cuttable(network, trace(network, inputs), inputs)
    assert all(pin.reason for pin in structure.pins)
    channels, blocks = random_removal(structure, seed)
    if channels or blocks:
        plan = plan_cut(structure, channels=channels, blocks=blocks)
        small = cut(network, plan, inputs)  # raises above 1e-5 relative
        assert count_macs(small, inputs) == plan.macs
    return sum(map(len, channels.values())) + len(blocks)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 9999), min_size=10, max_size=60), st.integers(0, 1000))
def test_cut_equals_masked_on_random_networks(genes: list[int], seed: int) -> None:
    check_random_network(genes, seed)


def test_most_random_networks_have_something_to_remove() -> None:
    """The property above would hold for a tracer that pins everything."""
    removed = [check_random_network(genes_of(s), s) for s in range(25)]
    assert sum(count > 0 for count in removed) >= 20

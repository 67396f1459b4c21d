"""Other people's criteria: what a channel or a block is worth by the formulas of their papers, to compare with."""

from amsc.criteria.knapsack import KnapsackChoice
from amsc.criteria.maps import Maps, maps_of
from amsc.criteria.pricing import PricedThinning, Pricing
from amsc.criteria.scene import Scene
from amsc.criteria.spread import PricedChoice, by_their_mean, global_ranking, uniform_ranking
from amsc.criteria.table import BLOCKS, CHANNELS, ChannelCriterion, block_prices, channel_prices

__all__ = [
    "BLOCKS",
    "CHANNELS",
    "ChannelCriterion",
    "KnapsackChoice",
    "Maps",
    "PricedChoice",
    "PricedThinning",
    "Pricing",
    "Scene",
    "block_prices",
    "by_their_mean",
    "channel_prices",
    "global_ranking",
    "maps_of",
    "uniform_ranking",
]

"""What a model costs: parameters, MACs, latency, peak memory."""

from rfaconv.profiling.count import Count, count
from rfaconv.profiling.host import machine
from rfaconv.profiling.layers import SHAPES, LayerCost, LayerShape, geometric_means, layer_costs
from rfaconv.profiling.memory import peak_memory
from rfaconv.profiling.models import ModelCost, model_costs
from rfaconv.profiling.timing import Ratio, alternate, ratio

__all__ = [
    "SHAPES",
    "Count",
    "LayerCost",
    "LayerShape",
    "ModelCost",
    "Ratio",
    "alternate",
    "count",
    "geometric_means",
    "layer_costs",
    "machine",
    "model_costs",
    "peak_memory",
    "ratio",
]

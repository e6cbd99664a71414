"""What a model costs: parameters, MACs, latency, peak memory."""

from rfaconv.profiling.busy import Conditions
from rfaconv.profiling.count import Count, count
from rfaconv.profiling.host import machine
from rfaconv.profiling.layers import LayerCost, geometric_means, layer_costs
from rfaconv.profiling.memory import peak_memory
from rfaconv.profiling.models import ModelCost, model_costs
from rfaconv.profiling.shapes import SHAPES, LayerShape, parse_shape
from rfaconv.profiling.timing import Ratio, alternate, ratio

__all__ = [
    "SHAPES",
    "Conditions",
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
    "parse_shape",
    "peak_memory",
    "ratio",
]

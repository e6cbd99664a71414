"""What a model costs: parameters, MACs, latency, peak memory."""

from rfaconv.profiling.count import Count, count

__all__ = ["Count", "count"]

"""The operator under the layers: functional form and backends."""

from rfaconv.ops.dispatch import Backend, backends, register_backend, use_backend
from rfaconv.ops.rfa import rfa_conv2d

__all__ = ["Backend", "backends", "register_backend", "rfa_conv2d", "use_backend"]

"""The operators under the layers: functional form and backends."""

from rfaconv.ops.backend import Backend, Features, Operands
from rfaconv.ops.dispatch import backends, register_backend, use_backend
from rfaconv.ops.functional import fold_norm, patch_moments, pool_features, rf_conv2d

__all__ = [
    "Backend",
    "Features",
    "Operands",
    "backends",
    "fold_norm",
    "patch_moments",
    "pool_features",
    "register_backend",
    "rf_conv2d",
    "use_backend",
]

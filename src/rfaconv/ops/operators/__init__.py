"""The dispatcher's operators `torch.ops.rfaconv.*`, a file each (definition.py says what is in them)."""

from rfaconv.ops.operators import fold_norm, patch_moments, pool_features, rf_conv2d

__all__ = ["fold_norm", "patch_moments", "pool_features", "rf_conv2d"]

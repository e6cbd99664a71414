"""The backend "triton": kernels for NVIDIA GPUs (docs/kernels.md)."""

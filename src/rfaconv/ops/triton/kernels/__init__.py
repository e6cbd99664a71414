"""Triton code, compiled for the GPU when it is first run; imported only then."""

"""Placeholder; the public names follow with the layers."""

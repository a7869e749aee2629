"""The paired difference of two results."""

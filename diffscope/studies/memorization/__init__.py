"""Samples that copy training images."""

"""Nearest neighbours by the invariant part and by the residual."""

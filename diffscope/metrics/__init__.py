"""Numbers read from moments, one file a metric: the contract of this open folder stands in `base.py`."""

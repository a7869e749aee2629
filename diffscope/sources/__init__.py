"""Images and ready-made latents, one file a kind of source: the contract of this open folder stands in `base.py`."""

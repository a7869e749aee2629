"""An open folder: a file a command, each a door of 50–100 lines. The contract stands in `base.py`."""

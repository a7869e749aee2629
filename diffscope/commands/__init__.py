"""A file a command: from it follow the command line, the Python function, its stub and the manual's reference."""

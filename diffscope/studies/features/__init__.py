"""The features themselves, for other tools."""

"""Hydra finds its plugins in this namespace and imports them at each start, so nothing heavy is imported here."""

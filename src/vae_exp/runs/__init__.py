"""A run: built from its config, recorded in its folder, read back from there."""

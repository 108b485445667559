"""Sweeps: cells, which are known by what they compute, the jobs that train them, and the record of each sweep."""

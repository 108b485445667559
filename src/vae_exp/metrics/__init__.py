"""What a trained run is scored by: `(trained, options) -> numbers by name`, nats per image unless said otherwise.

A metric is a function that a file of `conf/metrics/` names. It raises ValueError for an option out of its range, before
it asks the run for anything, and NoMeaningError where it has no meaning for the run.
"""

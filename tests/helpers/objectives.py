"""An objective of a user's own, as a config names it."""


class Own:
    monitor = "val/kl"

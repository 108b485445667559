"""Estimators of log p(x), and the Markov chain that one of them moves by."""

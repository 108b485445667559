"""Estimators of log p(x), and the Markov chain that annealing uses."""

"""One training: the job, its trainer, and the loop that makes several steps at a time."""

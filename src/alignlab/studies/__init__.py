"""Tuning studies: which trials to run, what they say together, and what to do next."""

"""Runs and sweeps, of this project and of others, as data."""

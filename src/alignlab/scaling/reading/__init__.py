"""Ladders as data: items that runs have left, sizes of runs, plain tables."""

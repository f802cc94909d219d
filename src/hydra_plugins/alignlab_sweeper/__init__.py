"""Sweepers; Hydra finds the classes by itself."""

"""Launchers of sweeps; Hydra finds the classes by itself."""

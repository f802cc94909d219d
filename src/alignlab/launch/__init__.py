"""How processes are started, told to stop, watched and kept apart: everything of a run but its training. No torch, no
Hydra.
"""

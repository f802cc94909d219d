"""Callbacks of Lightning: what happens around the steps of training."""

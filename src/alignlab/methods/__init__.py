"""Methods in plain torch: from a batch to losses, and the state that goes with it. No trainer is needed; `systems/`
run them under Lightning.
"""

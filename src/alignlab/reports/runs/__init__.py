"""Reports of training runs: one of each, and one that compares several."""

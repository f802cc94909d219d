"""Near duplicates: shingles, signatures, clusters."""

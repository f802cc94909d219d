"""Short runs that say how large a batch may be and how high a rate."""

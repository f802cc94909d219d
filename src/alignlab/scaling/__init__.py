"""From a ladder of models to a curve over their sizes, and what may be said of it: `alignlab scaling`."""

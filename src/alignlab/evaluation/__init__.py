"""Metrics that take tensors and plain objects: retrieval, zero-shot, linear probe, grounding."""

"""Verified downloads of models and data sets from the hub: planned, resumed across processes, checked byte by byte."""

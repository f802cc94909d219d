"""Rewards that are functions: how they are called, what they may return, and how several become one score."""

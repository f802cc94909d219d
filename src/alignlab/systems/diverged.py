"""The end of a training whose numbers aren't finite any more."""


class Diverged(Exception):
    """Training has come to numbers that aren't finite, or to spikes that don't end; the message says where and when."""

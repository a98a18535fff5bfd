"""Evaluation of runs by all ranks: what is scored, how it is shared out, saved, and written."""

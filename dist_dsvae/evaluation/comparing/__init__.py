"""Evaluated runs side by side: one table like the paper's."""

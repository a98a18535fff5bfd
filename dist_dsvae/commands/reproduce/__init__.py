"""Runs that tables need, trained, evaluated and written down: ``dsvae reproduce``."""

from dist_dsvae.commands.reproduce.reproduce_options import main, make_parser

__all__ = ["main", "make_parser"]

"""One module per command of launch/benchmark.py."""

"""One iteration as device work alone: updates, optimisers, averages, guards, and its capture."""

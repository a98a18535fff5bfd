"""Run directories: what they hold, checkpoints, and everything that is made of a finished run."""

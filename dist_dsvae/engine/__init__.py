"""The engine: steps, checkpoints, telemetry and the training loop. It knows steps, never methods."""

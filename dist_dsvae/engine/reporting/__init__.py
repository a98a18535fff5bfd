"""What a run tells while it trains: losses, curves and pictures."""

"""When a run stops, waits or saves by the clock, agreed by all ranks."""

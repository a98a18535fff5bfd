"""What an iteration costs on a device, measured, counted, or predicted without one."""

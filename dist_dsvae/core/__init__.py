"""What every room stands on: values with names, randomness, files, collectives."""

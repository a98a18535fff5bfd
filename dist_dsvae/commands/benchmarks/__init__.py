"""One module per benchmark: its options, and what it measures."""

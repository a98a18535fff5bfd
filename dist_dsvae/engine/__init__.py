"""What trains: the loop and what it stands on. It knows updates and abilities, never methods."""

"""Faces in photographs: found, brought to a fixed place in a crop, and put back from there."""

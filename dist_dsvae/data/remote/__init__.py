"""Splits from afar: locations, files fetched and checked, and the bounded cache for them."""

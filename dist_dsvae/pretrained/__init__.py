"""Trained models for those who use them: pictures in, pictures out, whole batches of any size."""

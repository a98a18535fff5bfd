"""The networks that judge images: a classifier of the classes, Inception-v3, a face network."""

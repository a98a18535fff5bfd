"""A person's own pictures, wherever they lie: folders, archives, lists, data sets of a library."""

"""Methods: one nn.Module each, with its networks, its routing table and one forward."""

"""From raw data sets, and from tars of other tools, to shards. No batch of a training passes through here."""

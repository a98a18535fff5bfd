"""From raw data sets, and from tars of other tools, to shards. No batch passes through here."""

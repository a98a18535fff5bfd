"""Raw data sets as samples for the writer, one module per source."""

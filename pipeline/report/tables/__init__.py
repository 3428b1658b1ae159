"""The tables of the report, as people and other programs read them."""

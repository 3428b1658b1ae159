"""Which images the report shows, and how."""

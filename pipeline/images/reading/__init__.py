"""Image files of others: what their headers say, which are read, their pixels row by row."""

"""Images as numbers, as files and as packed stores."""

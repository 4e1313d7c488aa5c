"""Sessions in Google Cloud Storage."""

"""One file for each database that can hold sessions."""

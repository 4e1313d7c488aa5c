"""Sessions in PostgreSQL and Redis."""

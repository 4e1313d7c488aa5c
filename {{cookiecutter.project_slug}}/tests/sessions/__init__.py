"""What the session service promises, each promise a test."""

"""What the project promises, shown on a real server."""

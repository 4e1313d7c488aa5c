"""Tests of what the session service promises. They come from the template."""

"""Tests of the generator: what it asks, what it refuses, and what comes out of it."""

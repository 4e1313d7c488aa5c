"""Tests of the generator and of the projects that it bakes."""

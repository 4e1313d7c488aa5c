"""Tests that prove the session service itself: oracle, races, kills, faults and damaged records."""

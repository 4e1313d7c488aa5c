"""Tests that prove the session service: oracle, concurrency, kills, faults and damaged records."""

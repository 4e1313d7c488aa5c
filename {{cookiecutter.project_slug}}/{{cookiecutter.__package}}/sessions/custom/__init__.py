"""Sessions in a store of your own."""

"""An agent for the tests, so that they do not depend on the project's own."""

"""An agent that the tests serve, so that they do not depend on the project's own."""

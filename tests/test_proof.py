"""docs/proof.md says what the tests of the projects have recorded."""

from __future__ import annotations

import json

from .proof import PAGE, RESULTS, Outcome, columns, page


def test_page_is_made_from_the_results_of_every_backend() -> None:
    """It was not edited, and no backend or kind of server is missing."""
    results = json.loads(RESULTS.read_text("utf-8"))
    assert list(results) == list(columns())
    assert PAGE.read_text("utf-8") == page([Outcome(**fields) for fields in results.values()])

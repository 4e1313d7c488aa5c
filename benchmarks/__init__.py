"""What a generated project's sessions cost, beside ADK's own and beside what the database allows.

__main__.py    bakes a project for each backend, runs the probe in it, and writes what comes out
probe.py       what is measured, run by the Python of the baked project
rounds.py      how: rounds that all contestants take part in, medians, slopes
contestants/   for each backend: the floor under it, and ADK's own services on the same server
report.py      the table, with the goals and whether they are met
charts.py      the pictures
scaling.py     what follows from the numbers for one server, and for the next one
"""

"""What a generated project's sessions cost, beside ADK's own.

__main__.py      bakes a project for each backend, measures it, and writes what comes out
turns.py         whole turns through ADK's Runner; compares several projects, too
operations.py    an append, a read, a list, many writers at once
rounds.py        how: rounds that all contestants take part in, medians, percentiles
projects.py      projects: bakes them, runs their test server, and a process for each contestant
worker.py        such a process, run by a project's Python
server.py        the project's test server, run by a project's Python
proxy.py         the way to a server that is 1 ms away, on which requests and bytes are counted
child.py         how those processes are called
conversation.py  what is said in the sessions
contestants/     ADK's own services for each backend
report.py        pages, with the goals and whether they are met
charts.py        the pictures
scaling.py       what follows from the numbers for one server, and for the next one
"""

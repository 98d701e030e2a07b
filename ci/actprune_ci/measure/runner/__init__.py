"""Runs single benchmarks of an asv suite, each in a process of its own that is forked from here.

A copy of this package, not actprune_ci, runs in the measured process, beside whatever that has
installed; so it imports the standard library and the suite alone, and ends the children that it
forks by itself, not with actprune_common.processes. `python -m runner SUITE` imports the folder
SUITE once and says that it is ready; then each line on stdin is a request, and each message on
stdout (a pipe of multiprocessing's) its answer, all JSON objects (actprune_ci.measure.serving
speaks to it). The end of stdin ends it, with what is running.
"""

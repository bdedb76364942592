"""`absurd bench`: what this queue does on this machine, measured in a schema of its own that goes afterwards.

Each measure is a function from an `Arena` to figures.  What is measured is what users run: tasks are spawned through
the clients and executed by `absurd-worker` processes with their default settings, but for the concurrency.

`cutout` alone measures a kernel of the domain, which knows no queue, beside other programs on the same files.
"""

"""The project's own experiments and benchmarks: run from a clone, not part of the installed package.

Each study is a package that runs as ``python -m studies.NAME``, with options as those of the ``foveate`` command.
"""

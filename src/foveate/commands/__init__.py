"""The commands, one file each: a configuration and a function that runs it.

Here, and nowhere below, data, training, explanation and benchmarks meet. No file parses arguments: `foveate.cli` makes
the options of a command from the fields of its configuration, and a program calls ``run(SomeConfig(...))``.
"""

"""The lifecycle of a model: validate, version, train, evaluate, judge, promote, and the `cvdm` command.

It meets the service in the model registry and never imports it (the command line apart).
"""

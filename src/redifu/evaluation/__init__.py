"""Prediction over data sets, metrics, and their pictures.

Import from the modules: nothing is re-exported here, so that prediction does not wait for `evaluate` and
matplotlib to load.
"""

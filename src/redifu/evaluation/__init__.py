"""Evaluation: scores, calibration, robustness and plots.

Import from the modules. Nothing is re-exported here, so that prediction does not load `evaluate` and
matplotlib.
"""

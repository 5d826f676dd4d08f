"""Metrics, calibration, robustness, and their pictures.

Import from the modules: nothing is re-exported here, so that a module loads `evaluate` or matplotlib only
where it uses them.
"""

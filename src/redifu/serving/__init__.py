"""Answers as conversations come: live sessions and streams of lines.

Import from the modules: nothing is re-exported here.
"""

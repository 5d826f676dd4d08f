"""Answers as conversations come: live sessions, streams of lines and the HTTP service.

Import from the modules: nothing is re-exported here.
"""

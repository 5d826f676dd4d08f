"""Conversations: what they are, how they are read, written and batched.

Import from the modules: nothing is re-exported here.
"""

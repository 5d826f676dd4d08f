"""Reading, writing and batching conversations.

Import from the modules; this package re-exports nothing.
"""

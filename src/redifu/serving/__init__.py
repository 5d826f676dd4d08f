"""The HTTP service: requests in batches, live sessions and limits.

Import from the modules: nothing is re-exported here.
"""

"""Training by recipe.

Import from the modules: nothing is re-exported here, so that loading a model does not wait for accelerate.
"""

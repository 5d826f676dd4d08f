"""Training by recipe.

Import from the modules. Nothing is re-exported here, so that loading a model does not import accelerate.
"""

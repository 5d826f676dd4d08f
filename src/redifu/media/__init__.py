"""Convert media files to arrays: audio, faces, quality, noise. Needs neither torch nor other subpackages."""

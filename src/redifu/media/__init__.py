"""Files to arrays: sound, faces of a video, quality and noise. Needs neither torch nor the other rooms."""

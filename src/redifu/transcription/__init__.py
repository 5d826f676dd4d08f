"""From a recording to who said what, and when."""

"""A world of captioned scenes that can be read back: shapes on white, what is said of them, and which part of it holds.

Reading order: `scene` (what there is), `words` (what is said), `draw` (both by chance), `render` (the picture), `read` (a picture as a
scene), `check` (what holds of what was said).
"""

"""Studies of guidance: images that are sampled or stored, looked at once, measured, swept over settings and compared."""

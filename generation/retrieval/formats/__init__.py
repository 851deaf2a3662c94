"""Documents of several formats, read with limits: one clear line where something is wrong."""

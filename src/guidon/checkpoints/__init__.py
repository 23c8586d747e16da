"""Models on disk: safetensors and JSON, never pickled code."""

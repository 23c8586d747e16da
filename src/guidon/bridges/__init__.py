"""Between guidon and the pipelines of diffusers."""

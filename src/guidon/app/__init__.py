"""The command line. Importing it costs no torch: what is heavy is imported where a command needs it."""

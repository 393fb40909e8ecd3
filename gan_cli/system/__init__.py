"""The operating system: errors, files, locks, signals, terminal. Imports nothing of gan_cli and no torch."""

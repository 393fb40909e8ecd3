"""Generators and discriminators: plain modules, no loss, optimizer, device or file handling."""

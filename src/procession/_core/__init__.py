"""Mechanisms shared by two modules or more; nothing here knows what a process is."""

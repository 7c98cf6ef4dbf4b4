"""Drivers: small programs that spawn children in one particular way and print what it cost."""

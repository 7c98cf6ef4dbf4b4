"""What only Linux has: pidfds, ``/proc``, cgroups, and the tools that prepare a child before it starts."""

"""Engines that start children: the spawner thread, what is prepared before and what is watched after."""

"""Settings of every command: frozen dataclasses, presets, sweeps, and their JSON form."""

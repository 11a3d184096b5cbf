"""From a function of pytrees to a compiled program. README.md in this folder is the guide."""

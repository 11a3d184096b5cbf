"""The process that a run happens in: device, threads, interrupts, precision of products."""

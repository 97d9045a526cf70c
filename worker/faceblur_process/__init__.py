"""What our processes have in common: settings, log lines, memory, turns of threads. It knows none of them."""

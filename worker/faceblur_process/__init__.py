"""What our processes have in common: settings, log lines and the memory allocator. It knows none of them."""

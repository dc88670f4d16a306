"""One forward pass for all architectures, the operations it is made of, and how weights reach the device."""

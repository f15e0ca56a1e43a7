"""What a model consists of, and how fast its operators run on a device."""

"""Whether what comes in is still what a champion was made for, and how a challenger would do on it."""

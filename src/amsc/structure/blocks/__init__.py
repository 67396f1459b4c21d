"""The search for removable blocks: what is known of every tensor while a module's parameters are zero."""

"""The `smwm` command line: thin; every command is a function in a module of its own."""

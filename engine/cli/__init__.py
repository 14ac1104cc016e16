"""The `citycard` command. Each module holds one group of commands; nothing here decides anything about cards or keys."""

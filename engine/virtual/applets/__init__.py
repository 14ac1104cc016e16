"""The five applets of the blank: three of the common card-application kind, finance (PBOC debit) and transport (purse)."""

"""What api and worker say to each other, and a client that chooses among workers. No torch."""

"""HTTP interfaces for the machines of others: banks."""
